"""The data contract: members in order, a pure function of the sample, and back again."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_tools.sample import Metadata, Sample, png_to_strip, read_shape, strip_to_png


def sample(masks: np.ndarray | None = None, truth: np.ndarray | None = None, frames: int = 3) -> Sample:
    meta = Metadata(
        film="film", source="a/film.mp4", shot=0, span=(4, 4 + frames), fps=(25, 1), size=(128, 160), num_frames=frames,
        codec="vp9", group="film", labels={"motion": "left"},
    )  # fmt: skip
    return Sample("ab12-0", meta, b"video", masks, truth)


def test_members_stand_in_the_contracts_order() -> None:
    masks = np.zeros((3, 8, 10), np.uint8)
    assert [e for e, _ in sample(masks, masks).members()] == ["json", "mask.png", "truth.png", "mp4", "shape.npy"]
    assert [e for e, _ in sample().members()] == ["json", "mp4", "shape.npy"]


def test_the_bytes_are_a_function_of_the_sample() -> None:
    masks = np.arange(240, dtype=np.uint8).reshape(3, 8, 10)
    assert sample(masks).members() == sample(masks.copy()).members()


def test_shape_member() -> None:
    members = dict(sample(np.zeros((3, 8, 10), np.uint8)).members())
    assert read_shape(members["shape.npy"]).tolist() == [3, 8, 10, 128, 160, 25, 1]
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="expected int32"):
        read_shape(buffer.getvalue())


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9)))
def test_strips_are_exact(frames: np.ndarray) -> None:
    assert np.array_equal(png_to_strip(strip_to_png(frames), len(frames)), frames)


@given(st.booleans(), st.booleans())
def test_round_trip(with_mask: bool, with_truth: bool) -> None:
    masks = np.arange(240, dtype=np.uint8).reshape(3, 8, 10)
    before = sample(masks if with_mask else None, masks[::-1].copy() if with_truth else None)
    after = Sample.from_members(before.key, dict(before.members()))
    assert after.metadata == before.metadata
    assert after.video == before.video
    for name in ("mask", "truth"):
        a, b = getattr(before, name), getattr(after, name)
        assert (a is None and b is None) or np.array_equal(a, b)


def test_masks_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 mask frames for 3 video frames"):
        sample(np.zeros((2, 8, 8), np.uint8)).members()


@pytest.mark.parametrize("key", ["A", "with space", "dot.ted", "", "x" * 91, "../up"])
def test_keys_that_readers_would_misread_are_refused(key: str) -> None:
    good = sample()
    with pytest.raises(ValueError, match="sample key"):
        Sample(key, good.metadata, good.video).members()


@pytest.mark.parametrize("gone", ["json", "mp4", "shape.npy"])
def test_a_missing_member_is_named(gone: str) -> None:
    members = dict(sample().members())
    del members[gone]
    with pytest.raises(ValueError, match=gone):
        Sample.from_members("k", members)


def test_disagreeing_shape_is_refused() -> None:
    members = dict(sample().members())
    members["shape.npy"] = dict(sample(frames=5).members())["shape.npy"]
    with pytest.raises(ValueError, match=r"shape\.npy says"):
        Sample.from_members("k", members)
