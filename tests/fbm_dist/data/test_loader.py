"""The running loader: ranges, resume, lock-step of frames and masks, decoders, damage, no process left behind."""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import torch

from data_tools.dataset import read_manifest
from data_tools.sample import Sample
from data_tools.shards import read_sample
from data_tools.videos import decode_clip
from fbm_dist.clip import Clip
from fbm_dist.data.index.index import name_id
from fbm_dist.data.loader import Loader, label_names, read_once
from fbm_dist.data.opened import OpenedData
from fbm_dist.data.order.arrangement import Shuffled
from fbm_dist.data.order.plan import Order
from fbm_dist.schema import Data, Filter, Portion
from tests.datasets import destroy, write_dataset
from tests.processes import below

Make = Callable[..., Data]


def take(data: Data, count: int, **arguments: Any) -> list[Clip]:
    """The first micro-batches of a loader."""
    with Loader(data, **{"seed": 0, "global_batch": 4, "micro_batch": 2, **arguments}) as loader:
        return list(islice(loader, count))


def equal(one: Clip, other: Clip) -> bool:
    """Bit for bit."""
    pairs = [(one.video, other.video), (one.mask, other.mask), (one.truth, other.truth), (one.frames, other.frames)]
    tensors = all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)  # type: ignore[arg-type]
    return tensors and one.key == other.key and all(torch.equal(v, other.labels[k]) for k, v in one.labels.items())


def readers() -> set[int]:
    """Processes that DALI started (not Python's own resource tracker, nor another test's Ray)."""
    return below("spawn_main")


def stored(path: Path) -> dict[str, Sample]:
    return {row["key"]: read_sample(path, row) for row in read_manifest(path).to_pylist()}


def test_clips_are_what_the_contract_says(vp9: Path, data_of: Make) -> None:
    samples = stored(vp9)
    names = label_names(data_of(vp9))
    for clip in take(data_of(vp9, truth=True, stride=2), 6):
        assert clip.video.shape == (2, 3, 6, 32, 32)
        assert clip.video.dtype == torch.float32
        assert -1 <= clip.video.min() < -0.3 < 0.3 < clip.video.max() <= 1
        assert clip.mask is not None
        assert clip.truth is not None
        assert clip.mask.shape == clip.truth.shape == (2, 1, 6, 32, 32)
        assert (clip.mask.min(), clip.mask.max()) == (0, 1)
        assert 0 < ((clip.mask > 0.1) & (clip.mask < 0.9)).float().mean() < 0.5  # soft
        assert set(clip.truth.unique().tolist()) == {0.0, 1.0}  # hard
        for row, key in enumerate(clip.key):
            metadata = samples[key].metadata
            assert clip.film[row] == name_id(metadata.film)
            assert metadata.span[0] <= clip.frames[row].min() <= clip.frames[row].max() < metadata.span[1]
            assert clip.frames[row].diff().tolist() == [2] * 5
            for name, classes in names.items():
                code = int(clip.labels[name][row])
                assert (classes[code] if code >= 0 else None) == metadata.labels.get(name)


def test_the_frames_and_masks_are_those_of_the_indices(vp9: Path, data_of: Make) -> None:
    samples = stored(vp9)
    for clip in take(data_of(vp9, reverse=0.5, size=64), 6):
        assert clip.mask is not None
        for row, key in enumerate(clip.key):
            sample = samples[key]
            assert sample.mask is not None
            wanted = clip.frames[row].numpy() - sample.metadata.span[0]
            theirs = _centre(sample.mask[wanted])
            assert np.abs(theirs - _centre(clip.mask[row, 0].numpy())).max() < 0.01
            assert np.abs(theirs[0] - theirs[-1]) > 0.03  # it moves: another window or direction would show


def _centre(masks: np.ndarray) -> np.ndarray:
    """Centre of mass of each frame along the width, as a share of it: free of the resizing's details."""
    columns = masks.astype(float).mean(1)
    return columns @ (np.arange(columns.shape[1]) + 0.5) / columns.sum(1) / columns.shape[1]


def aligned(path: Path) -> Path:
    """A data set whose masks are a function of the picture: the score is the brightness of a grey, smooth video."""
    from data_tools.dataset import commit_snapshot
    from data_tools.sample import Metadata
    from data_tools.shards import write_shard
    from data_tools.videos import encode

    samples = []
    y, x = np.mgrid[:128, :192]
    for number in range(4):
        t = np.arange(12)[:, None, None]
        grey = 128 + 50 * np.sin(x / 30 + t / 3 + number) + 45 * np.cos(y / 25 - t / 5) + 0.1 * x
        grey = grey.clip(0, 255).astype(np.uint8)
        metadata = Metadata(
            film=f"f{number}", source="x", shot=0, span=(0, 12), fps=(25, 1), size=(128, 192), num_frames=12,
            codec="vp9", group="g", masks="given", mask_size=(64, 96),
        )  # fmt: skip
        small = grey.reshape(12, 64, 2, 96, 2).mean((2, 4)).astype(np.uint8)
        video = encode(np.repeat(grey[..., None], 3, axis=3), (25, 1), "vp9")
        samples.append(Sample(f"clip-{number}", metadata, video, small, small))
    write_shard(path, "clips", samples)
    commit_snapshot(path, {}, ["clips"])
    return path


@pytest.mark.parametrize("decode", ["dali", "pyav"])
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_masks_follow_frames_through_window_reversal_and_mirror(
    tmp_path: Path, data_of: Make, decode: str, resize: str
) -> None:
    data = data_of(aligned(tmp_path / "data"), decode=decode, resize=resize, reverse=0.5, mirror=0.5, truth=True)
    directions, turned = set(), set()
    for clip in take(data, 8):
        assert clip.mask is not None
        assert clip.truth is not None
        brightness = (clip.video.mean(1, keepdim=True) + 1) / 2
        assert (brightness - clip.mask).abs().mean() < 0.015
        assert (brightness - clip.truth).abs().mean() < 0.03
        assert (brightness - clip.mask.flip(4)).abs().mean() > 0.05  # the check can fail: mirrored
        assert (brightness - clip.mask.flip(2)).abs().mean() > 0.03  # and reversed
        directions |= {int(step) for step in clip.frames.diff(dim=1)[:, 0]}
        turned |= {bool(side[0] > side[1]) for side in clip.mask.mean((1, 2, 3)).unflatten(1, (2, 16)).mean(2)}
    assert directions == {1, -1}
    assert turned == {True, False}  # 0.1 * x: brighter on the right unless mirrored


def test_crop_keeps_the_middle_and_the_shape_of_things(tmp_path: Path, data_of: Make) -> None:
    data = data_of(aligned(tmp_path / "data"), size=128, resize="crop", window="centre", frames=2)
    for clip in read_once(data, batch=4):
        for row, sample in enumerate(stored(tmp_path / "data").values()):
            assert sample.mask is not None
            middle = sample.mask[5:7, :, 16:80].repeat(2, axis=1).repeat(2, axis=2) / 255
            assert np.abs((clip.video[row].mean(0).numpy() + 1) / 2 - middle).mean() < 0.02


SPECS: dict[str, dict[str, Any]] = {
    "window": {"reverse": 0.5, "mirror": 0.5, "truth": True},
    "random frames": {"frames": 4, "within": 15, "mirror": 0.5},
    "quadruplet": {"frames": 3, "offsets": (0, 1, 12), "negative": True, "mirror": 0.5, "reverse": 0.5, "truth": True},
    "random crop": {"resize": "crop", "crop_share": 0.7, "crop_at": "random", "mirror": 0.5},
    "around the mask": {"resize": "box", "frames": 1, "mirror": 0.5, "truth": True},
    "quadruplet around the mask": {"resize": "box", "frames": 2, "offsets": (0, 9), "negative": True},
}


@pytest.mark.parametrize("kind", SPECS)
def test_decoders_give_the_same_clips(vp9: Path, data_of: Make, kind: str) -> None:
    by_dali, by_pyav = (take(data_of(vp9, decode=name, **SPECS[kind]), 6) for name in ("dali", "pyav"))
    for one, other in zip(by_dali, by_pyav, strict=True):
        frames = SPECS[kind].get("frames", 6) + SPECS[kind].get("negative", False)
        assert one.video.shape == other.video.shape == (2, 3, frames, 32, 32)
        assert equal(
            replace(one, video=other.video, mask=other.mask), other
        )  # true masks and all that is known: bit for bit
        assert one.mask is not None
        assert other.mask is not None
        scores = (one.mask - other.mask).abs() * 255
        assert scores.mean() < 0.2
        assert scores.flatten().quantile(0.99) < 1.5  # a level of rounding; more at the edge of a part
        errors = (one.video - other.video).abs() * 127.5
        assert errors.mean() < 2.0  # the tolerance of test_frames.py
        assert errors.flatten().quantile(0.99) <= 16
        assert errors.mean() < 0.3 * (one.video - other.video.roll(1, 0)).abs().mean() * 127.5  # it can fail


@pytest.mark.parametrize("decode", ["dali", "pyav"])
def test_the_last_frame_is_of_another_film(vp9: Path, data_of: Make, decode: str) -> None:
    samples = stored(vp9)
    films = {name_id(sample.metadata.film): sample.metadata.film for sample in samples.values()}
    spec = {"frames": 2, "offsets": (0, 3), "negative": True, "size": 64}
    whole = {
        (sample.metadata.film, sample.metadata.span[0] + t): picture
        for sample in samples.values()
        for t, picture in enumerate(_small(sample))
    }
    others = set()
    for clip in take(data_of(vp9, decode=decode, **spec), 12):
        assert clip.mask is not None
        for row in range(2):
            told = films[int(clip.film[row])]
            assert clip.frames[row, 1] - clip.frames[row, 0] == 3
            found = (clip.video[row].permute(1, 2, 3, 0).numpy() + 1) * 127.5
            for t in range(2):
                assert np.abs(whole[told, int(clip.frames[row, t])] - found[t]).mean() < 8
            nearest = min(whole, key=lambda name: np.abs(whole[name] - found[2]).mean())
            assert nearest[0] != told
            assert abs(nearest[1] - int(clip.frames[row, 2])) <= 1  # neighbours are nearly alike
            others.add(nearest)
    assert len(others) > 10


def _small(sample: Sample) -> np.ndarray:
    frames = decode_clip(sample.video)
    return np.stack([cv2.resize(frame, (64, 64)) for frame in frames]).astype(np.float32)


def test_a_data_set_of_one_film_has_no_other(tmp_path: Path, data_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_dataset(tmp_path / "data", clips=3, clips_per_film=3)
    data = data_of(root, frames=2, negative=True)
    with pytest.raises(
        ValueError, match=r"all clips are of one film, and data\.clip\.negative takes a frame of another"
    ):
        Loader(data, seed=0, global_batch=1, micro_batch=1)
    other = write_dataset(tmp_path / "other", clips=1, seed=5)
    mixed = data.model_copy(update={"mix": (Portion(path=other),)})
    assert len(take(mixed, 1)[0].frames[0]) == 3, "of several data sets one film each will do"
    monkeypatch.setattr(OpenedData, "_check_films", lambda opened: None)  # as where others are too few to be met
    with pytest.raises(ValueError, match=r"100 clips were of the same film, and data\.clip\.negative needs others"):
        take(data, 1)


def test_the_square_stands_around_the_mask(vp9: Path, data_of: Make) -> None:
    fixed = {"resize": "box", "box_share": 0.5, "box_scale": 0.0, "box_shift": 0.0, "frames": 1, "size": 64}
    jittered = fixed | {"box_scale": 0.25, "box_shift": 0.2}
    spread = []
    for settings in (fixed, jittered):
        places = []
        for clip in take(data_of(vp9, **settings), 8):
            assert clip.mask is not None
            inside = (clip.mask[:, 0, 0] > 0.5).float()
            side = inside.sum((1, 2)).sqrt()  # the thing is a square
            grid = torch.arange(64.0)
            centre = (inside.sum(1) @ grid) / inside.sum((1, 2))
            places += list(zip(side.tolist(), centre.tolist(), strict=True))
        sides, centres = np.array(places).T
        if settings is fixed:
            assert np.abs(sides - 32).max() < 6
            # things at the edge of the frame are off the middle: the square stays inside
            assert np.median(np.abs(centres - 31.5)) < 3
        spread.append((sides.std(), centres.std()))
    assert spread[1][0] > 1.5 * spread[0][0]


def test_images_and_masks_of_one_frame(tmp_path: Path, data_of: Make) -> None:
    root = write_dataset(tmp_path / "data", codec="png", clips=8)
    for settings in ({}, {"resize": "crop", "crop_share": 0.8, "crop_at": "random"}, {"resize": "box"}):
        with Loader(
            data_of(root, frames=1, truth=True, mirror=0.5, **settings), seed=0, global_batch=4, micro_batch=4
        ) as loader:
            assert loader.decoder == "pyav"
            clip = next(iter(loader))
            assert clip.video.shape == (4, 3, 1, 32, 32)
            assert clip.mask is not None
            assert clip.truth is not None
            assert ((clip.mask > 0.5) == (clip.truth > 0.5)).float().mean() > 0.95
    with pytest.raises(ValueError, match="no clip is left of 8"):
        take(data_of(root, frames=2), 1)


def test_clips_without_masks_are_read_where_none_are_asked_for(tmp_path: Path, data_of: Make) -> None:
    root = write_dataset(tmp_path / "data", masks=False, truth=False, clips=4)
    (clip,) = take(data_of(root, mask=False), 1)
    assert clip.mask is None
    with pytest.raises(ValueError, match="no clip is left of 4"):
        take(data_of(root), 1)


def test_data_sets_are_mixed_by_weight(vp9: Path, tmp_path: Path, data_of: Make) -> None:
    other = write_dataset(tmp_path / "other", clips=6, seed=5, labels=("object", "motion"), codec="h264")
    few = Filter(groups=("person-0", "person-1"))
    data = data_of(vp9, filter=few).model_copy(update={"weight": 3.0, "mix": (Portion(path=other, weight=1.0),)})
    keys: list[str] = []
    with Loader(data, seed=0, global_batch=20, micro_batch=20) as loader:
        assert loader.num_clips == 8 + 6
        assert loader.decoder == "pyav"  # of all codecs
        samples = stored(vp9) | stored(other)
        for clip in islice(loader, 50):  # a cycle
            keys += clip.key
            for row, key in enumerate(clip.key):
                assert clip.film[row] == name_id(samples[key].metadata.film)
                for name, classes in loader.label_names.items():
                    code = int(clip.labels[name][row])
                    assert (classes[code] if code >= 0 else None) == samples[key].metadata.labels.get(name)
        state = loader.state(40)
    counts = Counter(key[0] for key in keys)
    assert counts == {"0": 750, "5": 250}
    assert {sample.metadata.group for key, sample in stored(vp9).items() if key in keys} == {"person-0", "person-1"}
    again = take(data, 10, global_batch=20, micro_batch=20, consumed=40)
    assert [key for clip in again for key in clip.key] == keys[40:240]
    heavier = data.model_copy(update={"weight": 4.0})
    with (
        Loader(heavier, seed=0, global_batch=20, micro_batch=20) as loader,
        pytest.raises(ValueError, match="the data set changed"),
    ):
        state.check(loader.state(40))
    (first, *_) = read_once(data, batch=4)
    assert first.key[0].startswith("0-")  # a pass is of data.path alone


def test_blocks_of_shards_are_a_setting_of_the_order(vp9: Path, data_of: Make) -> None:
    data = data_of(vp9).model_copy(update={"shuffle": "blocks", "block": 1})
    shards = {row["key"]: row["shard"] for row in read_manifest(vp9).to_pylist()}
    epoch = [key for clip in take(data, 6) for key in clip.key]
    assert sorted(epoch) == sorted(shards)
    assert len([shard for shard, _ in groupby(epoch, shards.__getitem__)]) == len(set(shards.values()))
    with Loader(data, seed=0, global_batch=4, micro_batch=2) as loader:
        one = loader.state(0)
    with Loader(data_of(vp9), seed=0, global_batch=4, micro_batch=2) as loader:
        assert (one.shuffle, loader.state(0).shuffle) == ("blocks of 1 shards", "global")
        with pytest.raises(ValueError, match=r"data\.shuffle was blocks of 1 shards, now global"):
            one.check(loader.state(0))


def test_a_resumed_loader_gives_the_same_clips_bit_for_bit(vp9: Path, data_of: Make) -> None:
    data = data_of(vp9, reverse=0.5, mirror=0.5)
    whole = take(data, 10)
    for step in (1, 3):
        again = take(data, 4, consumed=step * 4)
        assert all(equal(one, other) for one, other in zip(whole[step * 2 :], again, strict=False))
    with Loader(data, seed=0, global_batch=4, micro_batch=2) as loader:
        first = next(iter(loader))
        loader.close()
        assert equal(first, whole[0])
        assert equal(next(iter(loader)), whole[1])  # goes on where it stopped
    assert not equal(whole[0], take(data, 1, seed=1)[0])


def test_two_ranks_see_together_what_one_sees_alone(vp9: Path, data_of: Make) -> None:
    data = data_of(vp9, reverse=0.5, mirror=0.5)
    alone = take(data, 3, micro_batch=4)
    ranks = [take(data, 3, rank=rank, world_size=2) for rank in range(2)]
    for clip, *parts in zip(alone, *ranks, strict=True):
        for slot in range(4):
            part, row = parts[slot % 2], slot // 2
            assert part.key[row] == clip.key[slot]
            assert torch.equal(part.video[row], clip.video[slot])


def test_loader_says_what_it_reads(vp9: Path, data_of: Make) -> None:
    with Loader(data_of(vp9, Filter(split="train")), seed=2, global_batch=4, micro_batch=2) as loader:
        assert loader.num_clips == 8  # of the films 0, 1, 2 and 5
        assert loader.decoder in {"pyav", "dali-cpu"}
        assert loader.label_names["object"] == ("plain", "rough", "striped")
        state = loader.state(16)
        assert (state.epoch, state.consumed, state.seed, state.global_batch, state.snapshot) == (2, 16, 2, 4, "1")
        assert (state.dataset_digest, state.decoder) == (loader.digest, loader.decoder)
        with pytest.raises(ValueError, match=r"training.global_batch=5 is not a multiple"):
            Loader(data_of(vp9), seed=0, global_batch=5, micro_batch=2)


@pytest.mark.parametrize("codec", ["h264", "png"])
def test_other_codecs_are_read_by_pyav(tmp_path: Path, data_of: Make, codec: Any) -> None:
    root = write_dataset(tmp_path / "data", clips=4, codec=codec)
    data = data_of(root, frames=1 if codec == "png" else 6, mirror=0.5)
    with Loader(data, seed=0, global_batch=4, micro_batch=2) as loader:
        assert loader.decoder == "pyav"
        clip = next(iter(loader))
    assert clip.video.shape == (2, 3, 1 if codec == "png" else 6, 32, 32)
    assert clip.mask is not None
    assert clip.video.std() > 0.1
    with pytest.raises(ValueError, match=r"data.decode=dali"):
        Loader(data_of(root, decode="dali", frames=1), seed=0, global_batch=4, micro_batch=2)


def test_truth_may_take_the_place_of_masks(tmp_path: Path, data_of: Make) -> None:
    root = write_dataset(tmp_path / "data", clips=2, masks=False)
    supervised = next(iter(read_once(data_of(root, use_truth_as_mask=True, size=64), batch=2)))
    plain = next(iter(read_once(data_of(root, mask=False, truth=True, size=64), batch=2)))
    assert supervised.truth is None
    assert plain.mask is None
    assert supervised.mask is not None
    assert plain.truth is not None
    assert (supervised.mask - plain.truth).abs().mean() < 0.02


def test_truth_that_some_clips_lack_is_left_out_and_said(
    tmp_path: Path, data_of: Make, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_dataset(tmp_path / "data", clips=2, truth=False)
    write_dataset(root, clips=2, seed=1)
    with caplog.at_level(logging.WARNING, "fbm_dist.data"):
        assert take(data_of(root, truth=True), 1)[0].truth is None
    assert "2 of 4 clips have no true masks" in caplog.text


@pytest.mark.parametrize(("decode", "extension"), [("dali", "mp4"), ("pyav", "mp4"), ("pyav", "mask.png")])
def test_a_clip_that_cannot_be_decoded_costs_one_clip(
    tmp_path: Path, data_of: Make, caplog: pytest.LogCaptureFixture, decode: str, extension: str
) -> None:
    root = write_dataset(tmp_path / "data", clips=8, seed=3)
    data = data_of(root, decode=decode, reverse=0.5, share=1.0)
    sound = take(data, 12)
    destroy(root, "3-clip-0005", extension)
    with (
        caplog.at_level(logging.WARNING, "fbm_dist.data"),
        Loader(data, seed=0, global_batch=4, micro_batch=2) as loader,
    ):
        damaged = list(islice(loader, 12))
        replaced = loader.undecodable
    pairs = [(one, other, row) for one, other in zip(sound, damaged, strict=True) for row in range(2)]
    assert replaced == sum(one.key[row] == "3-clip-0005" for one, _, row in pairs) == 3  # once an epoch of 8 clips
    for one, other, row in pairs:
        same = one.key[row] == other.key[row] and torch.equal(one.video[row], other.video[row])
        assert same == (one.key[row] != "3-clip-0005")  # no later position moved
        assert other.key[row] != "3-clip-0005"
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == [
        "clip 3-clip-0005 cannot be decoded and is replaced"
    ]
    resumed = take(data, 4, consumed=16)
    assert all(equal(one, other) for one, other in zip(damaged[8:], resumed, strict=True))


def test_both_decoders_replace_a_clip_by_the_same_one(tmp_path: Path, data_of: Make) -> None:
    root = write_dataset(tmp_path / "data", clips=6, seed=4)
    destroy(root, "4-clip-0002")
    destroy(root, "4-clip-0004")
    keys = [[clip.key for clip in take(data_of(root, decode=decode, share=1.0), 9)] for decode in ("dali", "pyav")]
    assert keys[0] == keys[1]


def test_too_many_undecodable_clips_stop_the_run(tmp_path: Path, data_of: Make) -> None:
    root = write_dataset(tmp_path / "data", clips=6, seed=5)
    destroy(root, "5-clip-0002")
    data = data_of(root, share=0.02).model_copy(update={"undecodable_window": 100})
    with pytest.raises(ValueError, match=r"clips could not be decoded, more than data.max_undecodable=0.02 .*verify"):
        take(data, 60)  # 2 of 100 may be replaced; a sixth is


def test_a_data_set_without_one_decodable_clip_is_refused(tmp_path: Path, data_of: Make) -> None:
    root = write_dataset(tmp_path / "data", clips=2, seed=6)
    destroy(root, "6-clip-0000")
    destroy(root, "6-clip-0001")
    for decode in ("dali", "pyav"):
        with pytest.raises(ValueError, match=r"none of 100 clips could be decoded"):
            take(data_of(root, decode=decode), 1)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_pass_gives_each_clip_once_in_order(vp9: Path, data_of: Make, world_size: int) -> None:
    data = data_of(vp9, reverse=1.0, mirror=1.0)
    seen: list[str] = []
    for rank in range(world_size):
        clips = list(read_once(data, batch=5, rank=rank, world_size=world_size))
        keys = [key for clip in clips for key in clip.key]
        assert keys == sorted(keys)
        assert [len(clip) for clip in clips] == ([5, 5, 2] if world_size == 1 else [5, 1])
        assert all(clip.frames[row].diff().tolist() == [1] * 5 for clip in clips for row in range(len(clip)))
        assert {int(first) % 100 for clip in clips for first in clip.frames[:, 0]} == {7}  # the middle of 20 frames
        seen += keys
    assert sorted(seen) == sorted(stored(vp9))
    assert not readers()


def test_a_pass_leaves_out_what_cannot_be_decoded(
    tmp_path: Path, data_of: Make, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_dataset(tmp_path / "data", clips=5, seed=7)
    destroy(root, "7-clip-0001")
    with caplog.at_level(logging.WARNING, "fbm_dist.data"):
        keys = [clip.key for clip in read_once(data_of(root, share=1.0), batch=2)]
    assert keys == [("7-clip-0000",), ("7-clip-0002", "7-clip-0003"), ("7-clip-0004",)]
    assert "1 clips could not be decoded and were left out" in caplog.text


def test_no_reader_process_is_left_behind(vp9: Path, data_of: Make) -> None:
    data = data_of(vp9).model_copy(update={"workers": 2})
    loader = Loader(data, seed=0, global_batch=4, micro_batch=2)
    assert not readers()  # they start with the first batch
    next(iter(loader))
    assert len(readers()) == 2
    loader.close()
    assert not readers()
    loader.close()  # twice does no harm
    once = read_once(data, batch=2)
    next(once)
    assert len(readers()) == 2
    once.close()  # type: ignore[attr-defined]
    assert not readers()


def test_a_killed_reader_is_an_error_and_no_hang(vp9: Path, data_of: Make) -> None:
    with Loader(data_of(vp9), seed=0, global_batch=4, micro_batch=2) as loader:
        stream = iter(loader)
        next(stream)
        for process in readers():
            psutil.Process(process).kill()
        with pytest.raises(RuntimeError, match="a reader process of the loader ended"):
            list(islice(stream, 50))  # what was read ahead may still come


def test_what_is_pickled_to_readers_does_not_grow_with_what_was_read(vp9: Path, data_of: Make) -> None:
    opened = OpenedData(data_of(vp9), torch.device("cpu"), batch=2)
    source = opened.source(Order(Shuffled(len(opened), 0), 0, 2, 2), "pyav")
    before = len(pickle.dumps(source))
    source.read(0, 0)
    assert abs(len(pickle.dumps(source)) - before) < 100


def test_a_small_block_of_one_film_finds_others_elsewhere(vp9: Path, data_of: Make) -> None:
    data = data_of(vp9, frames=2, negative=True).model_copy(update={"shuffle": "blocks", "block": 1})
    root = data.path
    films = {name_id(sample.metadata.film): sample.metadata.film for sample in stored(root).values()}
    assert len({films[int(film)] for clip in take(data, 12) for film in clip.film}) == 6
