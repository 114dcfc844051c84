"""The running loader: ranges, resume, lock-step of frames and masks, decoders, damage, no process left behind."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from data_tools.dataset import read_manifest
from data_tools.sample import Sample
from data_tools.shards import read_sample, shard_file
from fbm_dist.clip import Clip
from fbm_dist.data.index.index import name_id
from fbm_dist.data.loader import Loader, label_names, read_once
from fbm_dist.schema import Data, Filter
from tests.datasets import write_dataset

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
    """Processes that DALI started (not Python's own resource tracker)."""
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if "resource_tracker" not in " ".join(child.cmdline())}


def stored(path: Path) -> dict[str, Sample]:
    return {row["key"]: read_sample(path, row) for row in read_manifest(path).to_pylist()}


def destroy(path: Path, key: str, extension: str = "mp4") -> None:
    """Overwrite a member with zeros; the file keeps its size."""
    row = next(row for row in read_manifest(path).to_pylist() if row["key"] == key)
    member = next(member for member in row["members"] if member["extension"] == extension)
    with shard_file(path, row["shard"], "tar").open("r+b") as file:
        file.seek(member["offset"])
        file.write(bytes(member["size"]))


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


def test_both_decoders_give_the_same_clips(vp9: Path, data_of: Make) -> None:
    settings = {"reverse": 0.5, "mirror": 0.5, "truth": True}
    by_dali = take(data_of(vp9, decode="dali", **settings), 6)
    by_pyav = take(data_of(vp9, decode="pyav", **settings), 6)
    assert all(equal(one, other) for one, other in zip(by_dali, by_pyav, strict=True))


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
        assert loader.decoder == "dali-cpu"
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


def test_too_many_undecodable_clips_stop_the_run(
    tmp_path: Path, data_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_dataset(tmp_path / "data", clips=6, seed=5)
    destroy(root, "5-clip-0002")
    monkeypatch.setattr("fbm_dist.data.stream.WINDOW", 100)
    with pytest.raises(ValueError, match=r"clips could not be decoded, more than data.max_undecodable=0.02 .*verify"):
        take(data_of(root, share=0.02), 60)  # 2 of 100 may be replaced; a sixth is


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
