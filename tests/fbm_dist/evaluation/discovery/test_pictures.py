"""Which clips the pictures show, where, and that what is written is a picture of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.io import imread

from data_tools.places import Place
from data_tools.sample import Sample
from data_tools.shards import read_sample
from fbm_dist.data.loader import read_once
from fbm_dist.evaluation.discovery import pictures
from fbm_dist.evaluation.discovery.pictures import (
    CELLS,
    MEMBERS,
    SIDE,
    map_of_pictures,
    map_of_points,
    middle_frames,
    placed,
    purest,
    seats,
    sheet,
)
from fbm_dist.evaluation.labelled.clips import LabelledClips, labelled_clips
from fbm_dist.schema import ClipSpec, Data


@pytest.fixture(scope="module")
def clips(shards: Path) -> LabelledClips:
    return labelled_clips([Data(path=shards, clip=ClipSpec(mask=False))], "motion")


def test_purest_clusters_first_and_tiny_ones_last() -> None:
    target = np.repeat([0, 1, 0, 1, 1], [8, 10, 4, 4, 2])
    cluster = np.repeat([5, 3, 9, 9, 1], [8, 10, 4, 4, 2])
    found = purest(target, cluster, 4)
    assert [(pure.number, pure.size) for pure in found] == [(3, 10), (5, 8), (9, 8), (1, 2)]
    assert [pure.entropy for pure in found] == pytest.approx([0, 0, 1, 0])
    for pure in found:
        assert len(set(pure.members.tolist())) == len(pure.members) == min(MEMBERS, pure.size)
        assert set(cluster[pure.members]) == {pure.number}
    assert len(purest(target, cluster, 2)) == 2


def test_a_clip_that_cannot_be_decoded_has_no_picture(
    shards: Path, clips: LabelledClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = clips.key[[3, 17]].tolist()

    def damaged(root: Place, row: Mapping[str, Any]) -> Sample:
        sample = read_sample(root, row)
        return sample if row["key"] == good else replace(sample, video=sample.video[:100])

    monkeypatch.setattr(pictures, "read_sample", damaged)
    assert set(middle_frames(Data(path=shards, clip=ClipSpec(mask=False)), [good, bad])) == {good}


def test_the_middle_frame_of_the_clips_that_are_asked_for(
    shards: Path, clips: LabelledClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Data(path=shards, clip=ClipSpec(frames=16, size=32, mask=False))
    keys = clips.key[[3, 17]].tolist()
    read: list[str] = []

    def counted(root: Place, row: Mapping[str, Any]) -> Sample:
        read.append(row["key"])
        return read_sample(root, row)

    monkeypatch.setattr(pictures, "read_sample", counted)
    found = middle_frames(data, keys)
    assert set(found) == set(keys) == set(read)
    assert len(read) == 2, "no other clip is read"
    spec = ClipSpec(frames=18, size=SIDE, mask=False, window="centre")
    whole = data.model_copy(update={"clip": spec, "decode": "pyav"})  # DALI's pixels differ by a level
    for clip in read_once(whole, batch=8):
        for key, video in zip(clip.key, clip.video, strict=True):
            if key in found:
                assert found[key].dtype == np.uint8
                frames = ((video.permute(1, 2, 3, 0).numpy() + 1) * 127.5).round()
                off = np.abs(frames - found[key]).mean(axis=(1, 2, 3))
                assert off.argmin() in (8, 9)
                assert off.min() < 0.01, "as the loader reads it"


def test_t_sne_keeps_groups_together_and_is_fixed() -> None:
    random = np.random.default_rng(0)
    which = np.repeat([0, 1, 2], 20)
    features = (20 * np.eye(3)[which] + random.normal(size=(60, 3))).astype(np.float32)
    place = placed(features)
    assert place.shape == (60, 2)
    assert place.min() == 0
    assert place.max() == 1
    np.testing.assert_array_equal(place, placed(features))
    off = np.linalg.norm(place[:, None] - place[None], axis=2)
    np.fill_diagonal(off, np.inf)
    assert (which[off.argmin(axis=1)] == which).all()
    assert np.isfinite(placed(features[:4, :1])).all()  # as few as there may be


def test_a_seat_is_taken_by_the_nearest() -> None:
    place = np.array([[0.0, 0.0], [0.5 / CELLS, 0.5 / CELLS], [1.0, 1.0], [0.99, 0.5]])
    assert seats(place) == {(0, 0): 1, (CELLS - 1, CELLS - 1): 2, (CELLS - 1, CELLS // 2): 3}


def test_pictures_are_written(clips: LabelledClips, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frames = {key: np.full((SIDE, SIDE, 3), 90, np.uint8) for key in clips.key[1:].tolist()}  # one could not be decoded
    place = random.random((len(clips), 2))
    chosen = purest(clips.target, random.integers(3, size=len(clips)), 3)
    for path in (
        sheet(clips, chosen, frames, "sheet", tmp_path / "sheet.png"),
        map_of_points(place, clips, "points", tmp_path / "points.png"),
        map_of_pictures(place, clips, frames, "pictures", tmp_path / "pictures.png"),
    ):
        image = imread(path)
        assert image.shape[0] > 300
        assert image[..., :3].std() > 5
    grey = (np.abs(imread(tmp_path / "pictures.png")[..., :3].astype(int) - 90) < 3).all(axis=2).mean()
    share = (len(seats(place)) - 1) / CELLS**2
    assert 0.5 * share < grey < 1.2 * share
