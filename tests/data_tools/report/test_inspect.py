"""The page shows clips, verdicts and films, needs nothing from outside, and is not fooled by names; the sheet is a picture."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.config import load
from data_tools.places import place, read_bytes
from data_tools.report.inspect import inspect
from data_tools.report.near_duplicates import NEAR_DUPLICATES, Group, Named
from data_tools.report.stats import stats
from data_tools.schema import Inspect, Stats
from tests.data_tools.report.described import clip, write, write_all
from tests.object_store import new_bucket, s3_server

FEW = ("clips=2", "rejected=1", "frames=2")


class Page(HTMLParser):
    """The tags of a page, its text, and whether all that was opened is closed."""

    VOID = ("meta", "img", "rect", "path", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def draw(root: Path, *more: str) -> str:
    return inspect(load(Inspect, None, [f"path={root}", *more])).path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    text = draw(write_all(tmp_path), *FEW)
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "srcset", "data", "poster"):
            assert (attributes.get(name) or "data:image/webp;base64,").startswith("data:image/webp;base64,")
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in text
    assert "@import" not in text


def test_names_are_shown_and_do_nothing(tmp_path: Path) -> None:
    text = draw(write_all(tmp_path), *FEW)
    assert "\u202e" not in text
    assert "<script" not in text
    assert "<i>died" not in text
    page = Page(text)
    assert "<script>alert(1)</script>\"'&\\n\\u202egnp.mp4" in page.text
    assert "gave up: <i>died</i>" in page.text
    assert "CC <BY>" in page.text


def test_the_page_tells_counts_verdicts_and_films(tmp_path: Path) -> None:
    page = Page(draw(write_all(tmp_path), *FEW))
    for told in (
        "10clips",
        "5films",
        "of 8 given",
        "small · 2 clips, 20 %",
        "large · 2 clips",
        "# frames: shorter",
        "Nobody has",
    ):
        assert told in page.text, told
    charts = [attributes["aria-label"] or "" for tag, attributes in page.tags if attributes.get("role") == "img"]
    for title in ("Length of clips", "Shots per film", "Foreground", "Flatness", "Consistency"):
        assert any(label.startswith(f"{title}: median") for label in charts), title


def test_kept_and_rejected_clips_stand_apart(tmp_path: Path) -> None:
    text = draw(write_all(tmp_path), "clips=3", "rejected=2")
    kept, rejected = text.partition('<section id="clips">')[2].split('<section id="rejected">')
    assert kept.count('<figure class="clip">') == 3
    assert "not kept" not in kept
    rejected = rejected.partition('<section id="films">')[0]
    assert rejected.count('<figure class="clip">') == 4
    assert rejected.count("not kept: small") == rejected.count("not kept: large") == 2


def test_the_same_data_set_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    root = write_all(tmp_path / "set")
    pages = [draw(root, *FEW, f"seed={seed}", f"output={tmp_path / str(i)}.html") for i, seed in enumerate((3, 3, 4))]
    assert pages[0] == pages[1] != pages[2]


def test_clips_move_while_there_is_room(tmp_path: Path) -> None:
    root = write_all(tmp_path)
    assert draw(root, *FEW).count('class="moving"') == 2 + 2
    assert draw(root, *FEW, "max_bytes=0").count('class="moving"') == 0


def test_films_that_look_alike_stand_side_by_side(tmp_path: Path) -> None:
    root = write_all(tmp_path)
    group = Group((Named("<x>.mp4", "film-0001"), Named("gone.mp4", "film-of-another-snapshot")), 0.75)
    (root / NEAR_DUPLICATES).write_text(group.line() + "\n")
    section = draw(root, *FEW).partition('<section id="near-duplicates">')[2].partition("</section>")[0]
    assert section.count("<img") == 1, "a film that is not in the snapshot has no picture"
    assert "&lt;x&gt;.mp4" in section
    assert "75 %" in section
    (root / NEAR_DUPLICATES).write_text("{}\n")
    with pytest.raises(ValueError, match="not a list of near-duplicates"):
        draw(root)


def test_without_masks_and_ledger_there_is_a_page(tmp_path: Path) -> None:
    bare = {
        "masks": "none",
        "statistics": None,
        "verdict": (),
        "keep": (),
        "boxes": (),
        "mask_size": None,
        "labels": {},
    }
    page = Page(draw(write(tmp_path, [clip(i, 0.3, **bare) for i in range(3)])))
    for told in ("There are no soft masks", "Nothing was judged", "films.jsonl) is missing", "No clip has a label"):
        assert told in page.text


def test_a_clip_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    root = write_all(tmp_path)
    path = root / "shards/000000.tar"
    data = path.read_bytes()
    path.write_bytes(data[:512] + b"\0" * (len(data) - 512))
    page = Page(draw(root, "clips=20"))
    assert page.text.count("clip-0000: ") == 1
    assert page.text.count("foreground 9.8 %") >= 2, "the others are there"


def test_an_output_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.html"):
        inspect(Inspect(path=str(tmp_path), output="a.pdf"))


def test_a_data_set_in_object_storage_has_its_page_there() -> None:
    with s3_server():
        root = f"s3://{new_bucket()}/sets/small"
        write(place(root), [clip(0, 0.3), clip(1, 0.3)])
        drawn = inspect(Inspect(path=root, frames=2))
        found = stats(Stats(path=root)).json
        assert drawn.lines() == [f"{root}/inspect.html"]
        assert b"clip-0001" in read_bytes(drawn.path)
    assert (found["clips"], found["name"]) == (2, "small")


def test_the_sheet_is_a_picture_of_the_asked_size(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [clip(i, 0.3) for i in range(5)])
    drawn = inspect(Inspect(path=str(root), clips=3, frames=4, height=64, output=str(tmp_path / "new" / "sheet.png")))
    sheet = np.asarray(Image.open(drawn.path))
    assert sheet.shape[0] == 3 * (64 + 16 + 2)
    assert sheet.shape[1] >= 4 * 64
    assert re.fullmatch(r".*/new/sheet\.png", drawn.lines()[0])


def test_the_same_seed_shows_the_same_clips_on_the_sheet(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [clip(i, 0.3) for i in range(6)])
    sheets = [
        inspect(Inspect(path=str(root), clips=2, seed=s, output=str(tmp_path / f"{i}.png"))).path.read_bytes()
        for i, s in enumerate((3, 3, 4))
    ]
    assert sheets[0] == sheets[1] != sheets[2]


def test_too_many_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ask for fewer clips"):
        inspect(Inspect(path=str(tmp_path), clips=10_000, output="x.png"))
