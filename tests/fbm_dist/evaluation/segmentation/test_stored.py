"""Scores in the output folder are taken again where nothing has changed, and only there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fbm_dist.evaluation.segmentation.folders.find import find_sequences
from fbm_dist.evaluation.segmentation.folders.sequence import Sequence
from fbm_dist.evaluation.segmentation.methods.method import Method, Score
from fbm_dist.evaluation.segmentation.stored import place, scores_of
from tests.fbm_dist.evaluation.segmentation.drawn import save, scene


class Counted(Method):
    """Scores of one value; counts how often it is asked."""

    def __init__(self, value: float, stored: bool = True) -> None:
        super().__init__("a Method, of mine")
        self.value, self.stored, self.asked = value, stored, 0

    def settings(self) -> dict[str, Any]:
        return {"value": self.value}

    def scores(self, sequence: Sequence) -> Iterator[Score]:
        self.asked += 1
        for _ in sequence.annotated:
            yield np.full((3, 4), self.value, np.float32)


@pytest.fixture
def hike(films: Path) -> Sequence:
    return find_sequences([films], names=["hike"])[0]


def test_scores_are_taken_again(hike: Sequence, tmp_path: Path) -> None:
    method = Counted(0.6)
    first, second = (scores_of(method, hike, tmp_path) for _ in range(2))
    assert method.asked == 1
    assert (first == second).all()
    assert first.shape == (6, 3, 4)
    assert (first == 153).all()
    path = place(method, hike, tmp_path)
    assert path == tmp_path / "masks" / f"a-method-of-mine-{method.identity[:8]}" / "tiny" / "hike.npz"
    assert np.load(path)["frames"].tolist() == [0, 1, 2, 3, 4, 5]


def test_other_settings_are_made_anew_and_kept_beside(hike: Sequence, tmp_path: Path) -> None:
    scores_of(Counted(0.6), hike, tmp_path)
    other = Counted(0.2)
    assert (scores_of(other, hike, tmp_path) == 51).all()
    assert other.asked == 1
    again = Counted(0.6)
    assert (scores_of(again, hike, tmp_path) == 153).all()
    assert again.asked == 0


@pytest.mark.parametrize("harm", ["cut short", "other frames", "of an older format"])
def test_what_does_not_fit_is_not_taken(harm: str, hike: Sequence, tmp_path: Path) -> None:
    method = Counted(0.6)
    path = place(method, hike, tmp_path)
    if harm == "other frames":
        scores_of(method, hike.first(3), tmp_path)
    else:
        scores_of(method, hike, tmp_path)
        if harm == "cut short":
            path.write_bytes(path.read_bytes()[:-40])
        else:
            np.savez(path, scores=np.zeros((6, 3, 4), np.uint8))
    assert (scores_of(method, hike, tmp_path) == 153).all()
    assert method.asked == 2
    scores_of(method, hike, tmp_path)
    assert method.asked == 2, "the new file took the place of the old one"


def test_other_pixels_under_the_same_names_and_sizes(tmp_path: Path) -> None:
    for index in range(2):
        save(tmp_path / f"films/hike/frames/{index}.bmp", scene(index)[0])
        save(tmp_path / f"films/hike/masks/{index}.png", scene(index)[1])
    films, method, path = [tmp_path / "films"], Counted(0.6), tmp_path / "films/hike/frames/1.bmp"
    scores_of(method, find_sequences(films)[0], tmp_path)
    times, size = (path.stat().st_atime_ns, path.stat().st_mtime_ns), path.stat().st_size
    save(path, 255 - scene(1)[0])
    os.utime(path, ns=times)
    assert path.stat().st_size == size
    scores_of(method, find_sequences(films)[0], tmp_path)
    assert method.asked == 2


def test_another_version_of_a_method_is_made_anew(
    hike: Sequence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Counted(0.6)
    scores_of(method, hike, tmp_path)
    monkeypatch.setattr(Counted, "VERSION", Counted.VERSION + 1)
    scores_of(method, hike, tmp_path)
    assert method.asked == 2


def test_cheap_methods_are_not_stored(hike: Sequence, tmp_path: Path) -> None:
    method = Counted(0.6, stored=False)
    scores_of(method, hike, tmp_path)
    assert not (tmp_path / "masks").exists()
