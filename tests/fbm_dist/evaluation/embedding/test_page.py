"""The page needs nothing beside it, names do nothing, it stays below its size, and in a browser its clips play."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools.dataset import commit_snapshot
from data_tools.sample import Sample
from data_tools.shards import read_rows, shard_file, write_shard
from fbm_dist.evaluation.embedding.clips import read_media
from fbm_dist.evaluation.embedding.clusters import Cluster, Found, Query
from fbm_dist.evaluation.embedding.config import Embedding
from fbm_dist.evaluation.embedding.map import colours
from fbm_dist.evaluation.embedding.page import Content, _cut, _page, page, shown_rows
from fbm_dist.evaluation.report.results import Results
from tests.data_tools.report.test_inspect import Page
from tests.datasets import destroy, make_sample
from tests.fbm_dist.evaluation.embedding.chromium import PROGRAM, Chromium

HOSTILE = "<script>alert(1)</script>\"'&\n\u202egnp.mp4"
KEY = "\"><img src=x onerror='alert(3)'>&amp;"  # in a stranger's manifest there may be anything
browser = pytest.mark.skipif(PROGRAM is None, reason="no chromium on this machine")


def sample(number: int, codec: str = "vp9") -> Sample:
    made = make_sample(number, 8, (128, 160), ("motion",), codec, False, False, 0, 2)
    changed = (
        {"licence": "CC <BY>", "attribution": "<b>Ann & Bob</b>", "source": f"films/{HOSTILE}"} if number == 0 else {}
    )
    labels = {"motion": "<img src=x onerror=alert(2)>"} if number == 0 else made.metadata.labels
    return replace(made, metadata=made.metadata.model_copy(update=changed | {"labels": labels}))


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """Two clusters and a query; a hostile clip, a hostile key, a picture, a damaged clip."""
    root = tmp_path_factory.mktemp("page") / "shards"
    samples = [sample(0), sample(1), sample(2, "png"), sample(3), sample(4)]
    write_shard(root, "one", samples)
    commit_snapshot(root, {}, ["one"])
    destroy(root, samples[3].key)
    stored = read_rows(root, "one")
    stored[1]["key"] = KEY
    manifest = shard_file(root, "one", "parquet")
    pq.write_table(pa.Table.from_pylist(stored, pq.read_schema(manifest)), manifest)
    rows = [{name: row[name] for name in ("key", "film", "shard")} for row in stored]
    clusters = [
        Cluster(0, 40, 1, 2.5, rows[:2], rows[2:3]),
        Cluster(1, 60, 12, 1.5, rows[3:5], []),
        Cluster(2, 3, 1, 1.5),
    ]
    queries = [Query(rows[0], [(0.934, rows[4]), (-0.2, rows[1])]), Query(rows[2], [])]
    found = Found(clusters, queries, 103, 13, 0.42)
    media = read_media(root, [row for line in shown_rows(found) for row in line], 48)
    return Content(
        HOSTILE, "an <encoder>", found, media, colours(3), b"\x89PNG", "told <b>", "similar", {"key": "</code><i>"}
    )


def test_names_are_shown_and_do_nothing(content: Content) -> None:
    text = page(content, 10_000_000).decode()
    assert "\u202e" not in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "</code><i>" not in text
    read = Page(re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))  # its own script is code, not text
    for told in (
        "<script>alert(1)</script>\"'&\\n\\u202egnp.mp4",
        "motion: <img src=x onerror=alert(2)>",
        "<b>Ann & Bob</b>, CC <BY>",
        "similarity 0.93",
        "similarity -0.20",
        "60 clips, 58 %, of 12 films",
        "cannot be read",
        "1 smaller clusters, not shown",
        "There is no other film.",
        "an <encoder>",
    ):
        assert told in read.text, told
    assert read.text.index("Cluster 1 ·") < read.text.index("Cluster 0 ·"), "the largest comes first"


def test_the_page_needs_nothing_from_outside(content: Content) -> None:
    text = page(content, 10_000_000).decode()
    body = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    read = Page(body)
    assert not {tag for tag, _ in read.tags} & {"link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in read.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in text
    assert not re.search("https?:", text)
    assert sum(tag == "video" for tag, _ in read.tags) == 6, "one that is damaged and one that is a picture do not play"
    kept = [dict(a)["id"] for tag, a in read.tags if tag == "script"]
    assert len(kept) == len(set(kept)) == 3, "each film lies there once, however often it is shown"
    assert {f"film-{dict(a)['data-clip']}" for tag, a in read.tags if tag == "video"} == set(kept), (
        "and is found by its key"
    )
    assert f"film-{KEY}" in kept


def test_it_stays_below_its_size(content: Content) -> None:
    whole = page(content, 10_000_000)
    bare = _page(content, set(), set())
    for most in np.linspace(len(bare), len(whole), 12, dtype=int).tolist():
        text = page(content, most)
        assert len(text) <= most
        assert text.count(b"data:image/webp") == whole.count(b"data:image/webp") or b"<video" not in text
    some = page(content, len(whole) - 1)
    assert b"2 of 3 clips play" in some


def test_where_bare_cards_are_too_many_there_are_fewer(content: Content) -> None:
    """The last clips of every line go first; the page says how many."""
    bare, least = (len(_page(made, set(), set())) for made in (content, _cut(content, 0)))
    cards = []
    for most in np.linspace(least, bare, 8, dtype=int).tolist():
        text = page(content, most).decode()
        assert len(text.encode()) <= most
        cards.append(text.count("<figure"))
        told = re.search(r"(\d+) cards are left out", text)
        assert cards[-1] + (int(told[1]) if told else 0) == 9
    assert cards == sorted(cards)
    assert cards[0] == 0
    assert cards[-1] == 9
    assert 0 < cards[-2] < 9
    assert "There is no other film." in page(content, bare - 1).decode()
    assert page(content, 0) == page(content, least), "what always stands"


@browser
@pytest.mark.slow  # a browser starts
def test_clips_play_in_a_browser(embedded: tuple[Embedding, Results], content: Content, tmp_path: Path) -> None:
    """From a file, under the pointer, at a touch and by key; nothing is fetched and nothing complains."""
    real, made = embedded[0].output / "page.html", tmp_path / "made.html"
    made.write_bytes(page(replace(content, picture=None), 10_000_000))
    video = "document.querySelectorAll('video')[0]"
    with Chromium(tmp_path / "profile") as chromium:
        for path in (real, made):
            chromium.errors.clear()
            chromium.requests.clear()
            chromium.open(path)
            assert chromium.ask("document.querySelectorAll('video').length") > 4
            assert chromium.ask("[...document.querySelectorAll('video')].every(v => v.readyState === 0)"), "until asked"
            chromium.point("video")
            chromium.wait(f"{video}.readyState === 4 && {video}.currentTime > 0.1")
            width, height = (128, 144) if path == real else (128, 160)
            assert chromium.ask(f"[{video}.videoHeight, {video}.videoWidth]") == [width, height]
            chromium.leave()
            chromium.wait(f"{video}.paused")
            chromium.tap("video", 1)
            chromium.wait("document.querySelectorAll('video')[1].played.length > 0")
            chromium.ask(f"{video}.focus()")
            for kind in ("keyDown", "keyUp"):
                chromium.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter")
            chromium.wait(f"!{video}.paused")
            chromium.resize(390, 800)
            assert chromium.ask("document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling"
            chromium.resize(1280, 900)
            assert chromium.errors == []
            assert chromium.requests == [path.as_uri()]
        everyone = "[...document.querySelectorAll('video')].map(v => (v.dispatchEvent(new Event('click')), v))"
        chromium.ask(f"{everyone}.length")
        chromium.wait("[...document.querySelectorAll('video')].every(v => v.played.length > 0 && v.error === null)")
        assert chromium.errors == []
