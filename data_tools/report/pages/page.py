"""The page of a data set: one HTML file without scripts or other files, the same bytes for the same data set and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from data_tools.building.ledger import Outcome
from data_tools.report.names import amount, percent, shown, size
from data_tools.report.near_duplicates import Group
from data_tools.report.pages.cards import Card, picture
from data_tools.report.pages.charts import bars, histogram
from data_tools.report.pages.document import document
from data_tools.report.stats import TOP, Statistics
from data_tools.report.summary import MISSING, shares_of

WHY = {
    "small": "Too little foreground in too many frames.",
    "large": "Too much foreground in too many frames.",
    "border": "Too much foreground in the band along the edges in too many frames: most often the camera moves, not a thing.",
    "flat": "The scores hardly differ within a frame: the mask says nothing.",
    "unsteady": "The foreground jumps from frame to frame.",
}


@dataclass
class Content:
    """All that a page shows.

    Attributes:
        settings: of `prepare`, as dataset.json has them.
        kept, rejected: clips; of the rejected, by reason.
        groups: near-duplicates, with a picture of some of their films ({film: WebP}); None: nobody has looked for them.
    """

    statistics: Statistics
    settings: Mapping[str, Any]
    kept: Sequence[Card]
    rejected: Mapping[str, Sequence[Card]]
    films: int
    groups: Sequence[Group] | None
    num_groups: int = 0
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def page(content: Content, max_bytes: int) -> bytes:
    """The HTML. Clips move as long as the whole stays below `max_bytes`, the kept ones first."""
    cards = [*content.kept, *(card for cards in content.rejected.values() for card in cards)]
    still = sum(card.size(False) for card in cards) + 4 * sum(map(len, content.pictures.values())) // 3
    left = max_bytes - still - 100_000  # for all that is text
    moving: set[int] = set()
    for number, card in enumerate(cards):
        left -= card.size(True) - card.size(False)
        if left < 0:
            break
        moving.add(number)
    drawn = iter([card.html(number in moving) for number, card in enumerate(cards)])
    figures = content.statistics.json
    sections = {
        "what-is-kept": ("What the rules keep", _rules(figures)),
        "figures": ("Figures", _charts(content)),
        "clips": ("Clips", _clips([next(drawn) for _ in content.kept])),
        "rejected": (
            "Clips the rules would leave out",
            _rejected({reason: [next(drawn) for _ in cards] for reason, cards in content.rejected.items()}, figures),
        ),
        "films": ("Films that were not used", _films(content)),
        "near-duplicates": ("Films that look alike", _groups(content)),
        "labels": ("Labels and groups", _labels(figures)),
        "format": ("Sizes, licences, what is missing", _format(figures)),
        "settings": ("Settings", f"<pre><code>{escape(json.dumps(content.settings, indent=1))}</code></pre>"),
    }
    about = f"Snapshot {escape(figures['snapshot'])} · <code>{escape(figures['digest'])}</code>"
    return document(figures["name"], about, _tiles(figures), sections)


def _tiles(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    films, keep, stored = found["films"], found["keep"], found["bytes"]
    unused = "" if films["used"] is None else f"of {amount(films['used'] + films['skipped'] + films['failed'])} given"
    judged = keep["judged_clips"]
    return [
        (amount(films["with_clips"]), "films", unused),
        (amount(found["clips"]), "clips", f"{amount(found['frames'])} frames"),
        (f"{found['hours']:.2f} h" if found["hours"] >= 0.1 else f"{60 * found['hours']:.1f} min", "of video", ""),
        (size(stored["total"]), "stored", f"{size(stored['per_frame'])} a frame, {amount(stored['shards'])} shards"),
        (percent(keep["stored"]["kept_clips"], judged), "of clips kept", "" if judged else "no masks, no verdicts"),
    ]


def _rules(found: Mapping[str, Any]) -> str:
    keep = found["keep"]
    judged = keep["judged_clips"]
    frames = "".join(
        f"<p>A single-frame objective that takes {number} frames a shot has <b>{amount(count)}</b> frames.</p>"
        for number, count in found["single_frames"].items()
    )
    if not judged:
        return f'<p class="none">There are no soft masks, so that no rule has judged: every clip is kept.</p>{frames}'
    parts = []
    for key, name in (("stored", "The rules it was prepared with"), ("paper", "The paper's rules")):
        counts = {"kept": keep[key]["kept_clips"], **keep[key]["reasons"]}
        classes = dict.fromkeys(counts, "bad") | {"kept": "good"}
        parts.append(f"<div><h3>{name}</h3>{bars(counts, judged, classes)}</div>")
    told = (
        f"<p>Verdicts on {amount(judged)} clips; one may have several reasons. Nothing is thrown away: "
        f"they are stored, and applied when clips are read. {amount(keep['kept_frames'])} of "
        f"{amount(found['foreground']['count'] if found['foreground'] else 0)} frames are kept.</p>"
    )
    return f'{told}<div class="grid wide">{"".join(parts)}</div>{frames}'


def _charts(content: Content) -> str:
    found, rules = content.statistics, content.settings.get("prune") or {}

    def limits(**names: str) -> dict[str, float]:
        return {shown_as: float(rules[key]) for key, shown_as in names.items() if rules.get(key)}

    masks = found.masks
    charts = [
        histogram("Length of clips", "frames", "clips", found.clip_frames),
        histogram("Shots per film", "shots", "films", found.films.shots),
        histogram(
            "Foreground", "share of a frame's pixels", "frames", masks["foreground"],
            limits(min_foreground="small", max_foreground="large"), 1.0,
        ),
        histogram(
            "Foreground along the edges", "share of the border band", "frames", masks["border"],
            limits(max_border="border"), 1.0,
        ),
        histogram(
            "Flatness", "standard deviation of a frame's scores", "clips", masks["flatness"], limits(min_flatness="flat"), 1.0
        ),
        histogram(
            "Consistency", "overlap of neighbouring frames' foreground (IoU)", "clips", masks["consistency"],
            limits(min_consistency="unsteady"), 1.0,
        ),
    ]  # fmt: skip
    rates = found.tallies["fps"].top(12)
    charts.append(_counted("Frames per second", rates, found.clips))
    charts.append(_counted("Width × height in pixels", found.tallies["sizes"].top(12), found.clips))
    return f'<div class="grid">{"".join(charts)}</div>'


def _clips(figures: Sequence[str]) -> str:
    key = (
        '<p class="key"><i style="background:#ff2828"></i>foreground, by its soft score'
        '<i style="background:#3cff3c"></i>edge of the true mask, where there is one'
        '<i style="background:var(--bar)"></i>foreground of each frame <i style="background:var(--bad)"></i>'
        "of a frame that the rules leave out</p>"
    )
    return f"<p>Chosen at random among those that the rules keep.</p>{key}{''.join(figures) or _none('none is kept')}"


def _rejected(figures: Mapping[str, Sequence[str]], found: Mapping[str, Any]) -> str:
    parts = []
    counts = found["keep"]["stored"]["reasons"]
    for reason in sorted(figures, key=lambda reason: (-counts.get(reason, 0), reason)):
        many = f"{amount(counts.get(reason, 0))} clips, {percent(counts.get(reason, 0), found['clips'])}"
        title = f'<h3>{escape(shown(reason))} <span class="soft">· {many}</span></h3>'
        drawn = "".join(figures[reason]) or _none("those looked at stand under another of their reasons")
        parts.append(f"{title}<p>{escape(WHY.get(reason, ''))}</p>{drawn}")
    return "".join(parts) or _none("every clip is kept" if found["keep"]["judged_clips"] else "nothing was judged")


def _films(content: Content) -> str:
    films = content.statistics.films
    if not films.outcomes:
        return _none("the ledger (films.jsonl) is missing")
    unused = [outcome for outcome in films.outcomes if outcome.status != "used"]
    if not unused:
        return _none("every film was used")
    rows = "".join(_film(outcome) for outcome in unused[: content.films])
    more = len(unused) - content.films
    head = "<tr><th>film</th><th>status</th><th>reason</th><th class=number>frames read</th></tr>"
    told = f"<p>{amount(more)} more are in films.jsonl.</p>" if more > 0 else ""
    table = f'<details open><summary>each film</summary><table class="rows">{head}{rows}</table>{told}</details>'
    return bars(films.reasons, len(unused), dict.fromkeys(films.reasons, "bad")) + (table if content.films else "")


def _film(outcome: Outcome) -> str:
    cells = (outcome.source, outcome.status, "; ".join([outcome.reason, *outcome.notes]))
    text = "".join(f"<td><bdi>{escape(shown(cell))}</bdi></td>" for cell in cells)
    return f'<tr>{text}<td class="number">{amount(outcome.film_frames)}</td></tr>'


def _groups(content: Content) -> str:
    if content.groups is None:
        return _none("nobody has looked for them: near_duplicates.jsonl is missing")
    if not content.num_groups:
        return _none("none were found")
    parts = [
        f"<p>{amount(content.num_groups)} groups, by perceptual hashes of a frame a second. Nothing was removed.</p>"
    ]
    for group in content.groups:
        films = "".join(
            f"<figure>{picture(content.pictures[film.film]) if content.pictures.get(film.film) else ''}"
            f"<figcaption><bdi>{escape(shown(film.source))}</bdi></figcaption></figure>"
            for film in group.films[:6]
        )
        more = len(group.films) - 6
        told = f"<p>and {amount(more)} more</p>" if more > 0 else ""
        match = f"{percent(group.share)} of the shorter film's fingerprints match, or more"
        title = f'<h3>{amount(len(group.films))} films <span class="soft">· {match}</span></h3>'
        parts.append(f'{title}<div class="pair">{films}</div>{told}')
    return "".join(parts)


def _labels(found: Mapping[str, Any]) -> str:
    charts = []
    for name, label in found["labels"].items():
        more = f", the {TOP} most frequent" if label["classes"] > len(label["top"]) else ""
        charts.append(_counted(f"{name}: {amount(label['classes'])} classes{more}", label["top"], label["clips"]))
    charts += [_counted("Splits", found["splits"], found["clips"])] if found["splits"] else []
    if found["num_groups"]:
        more = f", the {TOP} largest" if found["num_groups"] > TOP else ""
        charts.append(_counted(f"Groups: {amount(found['num_groups'])} named{more}", found["groups"], found["clips"]))
    return f'<div class="grid wide">{"".join(charts)}</div>' if charts else _none("no clip has a label, split or group")


def _format(found: Mapping[str, Any]) -> str:
    parts = shares_of(found["bytes"]["members"])
    stored = {f"{name} ({size(part)})": part for name, part in parts.items()}
    charts = [
        _counted("Bytes by what they are for", stored, sum(parts.values())),
        _counted("Codecs", found["codecs"], found["clips"]),
        _counted("Soft masks", found["kinds"], found["clips"]),
        _counted("Licences", found["licences"], found["clips"]),
    ]
    missing = {name: found["missing"].get(key, 0) for key, name in MISSING.items() if found["missing"].get(key)}
    charts.append(_counted("Clips without", missing, found["clips"]))
    return f'<div class="grid wide">{"".join(charts)}</div>'


def _counted(title: str, counts: Mapping[str, int], whole: int) -> str:
    table = bars(counts, whole) if counts else _none("none given")
    return f"<div><h3>{escape(shown(title))}</h3>{table}</div>"


def _none(text: str) -> str:
    return f'<p class="none">{escape(text[0].upper() + text[1:])}.</p>'
