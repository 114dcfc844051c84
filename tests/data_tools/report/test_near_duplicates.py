"""A film that was encoded again, made smaller, brighter or shorter is found; another film of the same kind is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_tools.dataset import commit_snapshot
from data_tools.fingerprint import fingerprint
from data_tools.report.near_duplicates import NEAR_DUPLICATES, near_duplicates, parse, write_near_duplicates
from data_tools.shards import write_shard
from data_tools.videos import decode_clip, encode
from tests.data_tools.report.described import clip
from tests.films import picture

RATE = 8  # frames a second, of which one has a fingerprint


def scene(seed: int, seconds: int = 6) -> np.ndarray:
    """Soft blocks that drift: another picture for each seed."""
    return np.stack([cv2.GaussianBlur(picture(seed, i // 2, 120, 160), (9, 9), 3) for i in range(seconds * RATE)])


def again(frames: np.ndarray, codec: str, height: int, width: int, gain: float) -> np.ndarray:
    """Made smaller and brighter, encoded and decoded."""
    small = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])
    return decode_clip(encode(np.clip(small * gain, 0, 255).astype(np.uint8), (RATE, 1), codec))  # type: ignore[arg-type]


def hashes_of(frames: np.ndarray) -> tuple[str, ...]:
    return tuple(found for frame in frames[::RATE] if (found := fingerprint(frame)) is not None)


def write(root: Path, films: dict[str, Sequence[str]], per_shard: int = 3) -> Path:
    """A data set whose films have these fingerprints, spread over two clips each."""
    samples = []
    for number, (name, prints) in enumerate(films.items()):
        film = {"film": f"id-{name}", "source": f"{name}.mp4", "group": "g"}
        half = len(prints) // 2
        samples.append(clip(2 * number, 0.3, fingerprint=tuple(prints[:half]), **film))
        samples.append(clip(2 * number + 1, 0.3, fingerprint=tuple(prints[half:]), **film))
    names = [f"{start:06d}" for start in range(0, len(samples), per_shard)]
    for name in names:
        write_shard(root, name, samples[int(name) : int(name) + per_shard])
    commit_snapshot(root, {}, names)
    return root


def found(root: Path, **more: float) -> list[tuple[str, ...]]:
    return [tuple(film.source.removesuffix(".mp4") for film in g.films) for g in near_duplicates(root, **more)]  # type: ignore[arg-type]


def test_the_same_film_again_is_found_and_others_are_not(tmp_path: Path) -> None:
    films = {f"other-{seed}": hashes_of(scene(seed)) for seed in range(10, 18)}
    first, second = scene(1), scene(2)
    films |= {
        "a": hashes_of(first),
        "a-smaller": hashes_of(again(first, "h264", 60, 80, 1.15)),
        "a-darker": hashes_of(again(first, "vp9", 128, 170, 0.8)),
        "a-later": hashes_of(again(first[RATE // 2 :], "h264", 90, 120, 1.0)),
        "b": hashes_of(second),
        "b-shorter": hashes_of(again(second[: 3 * RATE], "h264", 90, 120, 1.05)),
    }
    groups = near_duplicates(write(tmp_path, films))
    names = [[film.source for film in group.films] for group in groups]
    assert names == [["a-darker.mp4", "a-later.mp4", "a-smaller.mp4", "a.mp4"], ["b-shorter.mp4", "b.mp4"]]
    assert all(0.5 <= group.share <= 1 for group in groups)


def prints(*values: int) -> list[str]:
    return [f"{value:016x}" for value in values]


RNG = np.random.default_rng(0)
VALUES = [int(v) for v in RNG.integers(0, 2**64, 40, dtype=np.uint64)]


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        (VALUES[:4], VALUES[:2] + VALUES[10:12], True),  # half of them
        (VALUES[:5], VALUES[:2] + VALUES[10:13], False),  # less than half
        (VALUES[:2], VALUES[:1] + VALUES[10:11], False),  # half, but only one
        ([VALUES[0] ^ 0xF], VALUES[:9], True),  # it has no more than one, 4 bits differ
        ([VALUES[0] ^ 0x1F], VALUES[:9], False),  # 5 do
        (VALUES[:3] * 5, VALUES[:3] + VALUES[10:30], True),  # an excerpt that stands still
        (VALUES[:1] * 9 + VALUES[1:4], VALUES[:1] + VALUES[10:13], False),  # a title that stands long counts once
        ([VALUES[0] ^ 0xFF, VALUES[1]], VALUES[:2], True),  # 8 bits differ
        ([VALUES[0] ^ 0x1FF, VALUES[1]], VALUES[:2], False),  # 9 do
        ([], [], False),
    ],
)
def test_how_much_must_match(tmp_path: Path, first: list[int], second: list[int], alike: bool) -> None:
    assert bool(found(write(tmp_path, {"x": prints(*first), "y": prints(*second)}))) == alike


def test_groups_are_chains_with_the_lowest_share(tmp_path: Path) -> None:
    films = {
        "c": prints(*VALUES[4:8]),
        "b": prints(*VALUES[2:6]),
        "a": prints(*VALUES[:4]),
        "d": prints(*VALUES[20:24]),
    }
    films["e"] = films["d"][:3]
    groups = near_duplicates(write(tmp_path, films))
    assert [[film.film for film in group.films] for group in groups] == [["id-a", "id-b", "id-c"], ["id-d", "id-e"]]
    assert [group.share for group in groups] == [0.5, 1.0]
    assert found(tmp_path, share=0.75) == [("d", "e")]


def test_the_file_is_the_same_whatever_the_shards(tmp_path: Path) -> None:
    films = {name: prints(*VALUES[i : i + 4]) for i, name in enumerate(("ü\n", "b", "c"))}
    roots = [write(tmp_path / str(size), films, size) for size in (1, 4)]
    assert [write_near_duplicates(root) for root in roots] == [1, 1]
    texts = [(root / NEAR_DUPLICATES).read_text() for root in roots]
    assert texts[0] == texts[1]
    assert json.loads(texts[0]) == {
        "films": [{"source": f"{n}.mp4", "film": f"id-{n}", "id": None} for n in ("b", "c", "ü\n")],
        "share": 0.5,
    }


def test_no_groups_leave_an_empty_file_not_an_old_one(tmp_path: Path) -> None:
    root = write(tmp_path, {"a": prints(1, 2), "b": prints(2**63 - 1, 2**40 - 1)})
    (root / NEAR_DUPLICATES).write_text("old\n")
    assert write_near_duplicates(root) == 0
    assert (root / NEAR_DUPLICATES).read_text() == ""


def test_a_cut_search_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_tools.report.hamming.MATCHES", 0)
    root = write(tmp_path, {f"{i:02d}": prints(VALUES[0]) for i in range(12)}, per_shard=24)
    notes: list[str] = []
    assert [len(group.films) for group in near_duplicates(root, note=notes.append)] == [12]
    assert len(notes) == 1
    assert "cut short" in notes[0]


@pytest.mark.parametrize("text", ["12", "g" * 16, "0" * 17])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not 16 hex digits"):
        parse(["0" * 16, text])
