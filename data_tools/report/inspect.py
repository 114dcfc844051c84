"""`inspect`: a data set as a researcher looks at it first: an HTML page, or a PNG sheet of clips."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.dataset import open_dataset
from data_tools.places import Place, is_local, place, read_bytes, size_of, write_atomic
from data_tools.progress import Progress, Silent
from data_tools.report.near_duplicates import NEAR_DUPLICATES, Group, Named
from data_tools.report.pages.cards import Card, card, first_frame
from data_tools.report.pages.choice import Choice
from data_tools.report.pages.contact_sheet import GAP, LINE, MOST, sheet
from data_tools.report.pages.page import Content, page
from data_tools.report.stats import Statistics, watched
from data_tools.schema import Inspect
from data_tools.shards import read_sample

SHOWN = 6  # films of a group whose pictures are shown


@dataclass(frozen=True)
class Drawn:
    """What `inspect` made."""

    path: Place

    def lines(self) -> list[str]:
        """Where it is."""
        return [str(self.path)]


def inspect(settings: Inspect, progress: Progress | None = None) -> Drawn:
    """Draw the page or the sheet.

    Raises:
        ValueError: there is no data set, the output is neither .html nor .png, or the sheet would be too tall.
    """
    root = place(settings.path)
    output = place(settings.output) if settings.output else root / "inspect.html"
    kind = output.suffix.lower()
    if kind not in (".html", ".htm", ".png"):
        raise ValueError(f"{output}: give a file that ends in .html (a page) or .png (a sheet of clips)")
    if kind == ".png" and settings.clips * (settings.height + LINE + GAP) > MOST:
        raise ValueError(
            f"{settings.clips} rows of {settings.height} px are too many for one sheet; ask for fewer clips"
        )
    data = (_sheet if kind == ".png" else _page)(root, settings, progress or Silent())
    if is_local(output):
        Path(output).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, data)
    return Drawn(output)


def read_near_duplicates(root: Place) -> list[Group] | None:
    """The groups in root/near_duplicates.jsonl; None where nobody has looked for them.

    Raises:
        ValueError: the file holds something else.
    """
    path = root / NEAR_DUPLICATES
    if size_of(path) is None:
        return None
    try:
        rows = [json.loads(line) for line in read_bytes(path).decode().split("\n") if line]
        return [Group(tuple(Named(**film) for film in row["films"]), float(row["share"])) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a list of near-duplicates: {error}; run the same `prepare` again") from None


def _sheet(root: Place, settings: Inspect, progress: Progress) -> bytes:
    choice = Choice(settings.clips, 0, (), settings.seed)
    for table in watched(root, open_dataset(root).snapshot(settings.snapshot), progress):
        choice.add(table)
    return sheet([read_sample(root, row) for row in choice.any], settings.frames, settings.height)


def _page(root: Place, settings: Inspect, progress: Progress) -> bytes:
    dataset = open_dataset(root)
    snapshot = dataset.snapshot(settings.snapshot)
    groups = read_near_duplicates(root)
    first = groups[: settings.groups] if groups is not None else None
    films = [film.film for group in first or () for film in group.films[:SHOWN]]
    found, choice = Statistics(root, snapshot), Choice(settings.clips, settings.rejected, films, settings.seed)
    for table in watched(root, snapshot, progress):
        found.add(table)
        choice.add(table)
    progress.stage("drawing", len(choice.kept) + sum(map(len, choice.rejected.values())), "clips")
    content = Content(
        statistics=found,
        settings=dataset.settings,
        kept=_cards(root, choice.kept, settings, progress),
        rejected={reason: _cards(root, rows, settings, progress) for reason, rows in choice.rejected.items()},
        films=settings.films,
        groups=first,
        num_groups=len(groups or ()),
        pictures={film: first_frame(root, row, settings.height) for film, row in choice.films.items()},
    )
    return page(content, settings.max_bytes)


def _cards(root: Place, rows: list[dict[str, Any]], settings: Inspect, progress: Progress) -> list[Card]:
    cards = []
    for row in rows:
        cards.append(card(root, row, settings.frames, settings.height))
        progress.advance(1)
    return cards
