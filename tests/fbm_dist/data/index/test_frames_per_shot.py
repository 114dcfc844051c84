"""Single frames of shots: exactly the ranked ones once an epoch, for any number of ranks, and those frames' pixels and masks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data_tools.dataset import commit_snapshot
from data_tools.sample import Metadata, Sample
from data_tools.shards import SCHEMA, read_rows, shard_file, write_shard
from data_tools.videos import encode
from fbm_dist.clip import Clip
from fbm_dist.data.index.index import Index
from fbm_dist.data.index.selection import digest, select
from fbm_dist.data.loader import Loader, read_once
from fbm_dist.data.opened import OpenedData
from fbm_dist.data.order.arrangement import Shuffled
from fbm_dist.data.order.plan import Order
from fbm_dist.schema import ClipSpec, Data, Filter

FRAMES = 8
# Of one shot of three clips: frames that the rules prune (-1), and the places of the others in its order.
RANKS = [[-1, 0, 8, 4, -1, 2, 9, 6], [10, 11, 12, 13, 14, 15, 16, 17], [1, 7, 5, -1, 3, -1, -1, -1]]
FIRST_SIX = [(0, 1), (0, 3), (0, 5), (2, 0), (2, 2), (2, 4)]  # (clip, frame) of the ranks 0 to 5

Pair = tuple[int, int]


def grey(clip: int, frame: int) -> int:
    """The brightness of a frame and of its mask, which no other has."""
    return 20 + 9 * (clip * FRAMES + frame)


def write_ranked(root: Path, ranks: Sequence[list[int] | None], masks: bool = False, verdict: str = "") -> Path:
    """One shot: as many clips as there are ranks, in two shards, with exactly these ranks in the manifest (None: null).

    Args:
        verdict: of the last clip.

    Each root has tars of its own: the index is cached by their digest.
    """
    samples = []
    for clip in range(len(ranks)):
        level = np.array([grey(clip, frame) for frame in range(FRAMES)], np.uint8)[:, None, None]
        video = np.broadcast_to(level[..., None], (FRAMES, 64, 64, 3)).copy()
        mask = np.broadcast_to(level, (FRAMES, 16, 16)).copy() if masks else None
        metadata = Metadata(
            film="film", source=str(root), shot=0, span=(100 + clip * FRAMES, 100 + (clip + 1) * FRAMES), fps=(25, 1),
            size=(64, 64), num_frames=FRAMES, codec="vp9", group="film", mask_size=(16, 16) if masks else None,
            masks="given" if masks else "none", verdict=(verdict,) if verdict and clip == len(ranks) - 1 else (),
        )  # fmt: skip
        samples.append(Sample(f"clip-{clip}", metadata, encode(video, (25, 1), "vp9"), mask))
    for name, part, own in (("a", samples[:1], ranks[:1]), ("b", samples[1:], ranks[1:])):
        write_shard(root, name, part)
        path = str(shard_file(root, name, "parquet"))
        column = pa.array(own, SCHEMA.field("shot_rank").type)
        table = pq.read_table(path)
        pq.write_table(table.set_column(table.column_names.index("shot_rank"), "shot_rank", column), path)
    commit_snapshot(root, {"made_by": "test"}, ["a", "b"])
    return root


def data_of(root: Path, number: int | None, decode: Any = "auto", **clip: Any) -> Data:
    spec = ClipSpec(**{"frames": 1, "size": 16, "mask": False, "frames_per_shot": number, **clip})
    return Data(path=root, clip=spec, decode=decode, max_undecodable=1.0)


def chosen(root: Path, data: Data) -> list[Pair]:
    selected = select(Index.open(root), data.filter, data.clip)
    assert selected.frames is not None
    return list(zip(selected.kept.tolist(), selected.frames.tolist(), strict=True))


def pairs(clip: Clip) -> list[Pair]:
    """(clip, frame) of every entry of a batch; its pixels and its mask are looked at, and must be that frame's."""
    found = [divmod(int(frame) - 100, FRAMES) for frame in clip.frames[:, 0]]
    assert clip.video.shape[1:] == (3, 1, 16, 16)
    assert clip.key == tuple(f"clip-{number}" for number, _ in found)
    bright = ((clip.video.mean((1, 2, 3, 4)) + 1) * 127.5).tolist()
    assert bright == pytest.approx([grey(*pair) for pair in found], abs=4)  # the next frame is 9 away
    if clip.mask is not None:
        assert (clip.mask.mean((1, 2, 3, 4)) * 255).tolist() == pytest.approx([grey(*pair) for pair in found], abs=1)
    return found


def loaded(data: Data, batches: int) -> list[Pair]:
    """What a loader gives in steps of six."""
    with Loader(data, seed=3, global_batch=6, micro_batch=6) as loader:
        assert loader.num_clips == 6
        return [pair for clip in islice(loader, batches) for pair in pairs(clip)]


def read(data: Data, steps: int, rank: int = 0, world_size: int = 1, consumed: int = 0) -> list[Pair]:
    """What a reader of one rank reads in as many steps of six, without the graph and its processes."""
    opened = OpenedData(data, torch.device("cpu"), batch=6 // world_size)
    order = Order(Shuffled(len(opened), 3), 3, 6, 6 // world_size, rank, world_size, consumed)
    source = opened.source(order, "pyav")
    found = []
    for batch, slot in product(range(steps), range(6 // world_size)):
        values = source.read(batch, slot)
        clip = source.clip(order.place(batch, slot), int(values["what"][0]))
        found.append((clip.part.row_number(clip.entry), clip.moment.frames[0]))
        assert values["picture"].mean() == pytest.approx(grey(*found[-1]), abs=4)
    source.close()
    return found


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ranked(tmp_path_factory.mktemp("ranked") / "data", RANKS)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ranked(tmp_path_factory.mktemp("masked") / "data", RANKS, masks=True)


def test_the_frames_of_the_lowest_ranks_take_part_and_no_pruned_one(ranked: Path) -> None:
    assert chosen(ranked, data_of(ranked, 3)) == [(0, 1), (0, 5), (2, 0)]
    assert chosen(ranked, data_of(ranked, 6)) == FIRST_SIX
    every = [(c, f) for c, ranks in enumerate(RANKS) for f, rank in enumerate(ranks) if rank >= 0]
    assert chosen(ranked, data_of(ranked, 1000)) == every


def test_an_epoch_is_these_frames_once_for_any_number_of_ranks(ranked: Path) -> None:
    data = data_of(ranked, 6)
    alone = read(data, 3)
    epochs = [alone[start : start + 6] for start in (0, 6, 12)]
    assert [sorted(epoch) for epoch in epochs] == [FIRST_SIX] * 3
    assert len(set(map(tuple, epochs))) == 3  # in another order each time
    for world_size in (2, 3):
        shares = [read(data, 3, rank, world_size) for rank in range(world_size)]
        assert [shares[place % world_size][place // world_size] for place in range(18)] == alone
    assert read(data, 2, consumed=6) == alone[6:]


@pytest.mark.parametrize("decode", ["dali", "pyav"])
def test_the_loader_gives_their_pixels_and_masks(masked: Path, decode: str) -> None:
    data = data_of(masked, 6, decode, mask=True, mirror=0.5, reverse=0.5)
    assert loaded(data, 2) == read(data, 2)


def test_a_pass_gives_each_of_them_once_in_order(ranked: Path) -> None:
    assert [pair for clip in read_once(data_of(ranked, 6), batch=4) for pair in pairs(clip)] == FIRST_SIX


def test_frames_that_cannot_be_decoded_are_replaced_and_by_the_same_ones_after_a_resume(tmp_path: Path) -> None:
    root = write_ranked(tmp_path / "data", RANKS)
    row = read_rows(root, "a")[0]
    member = next(member for member in row["members"] if member["extension"] == "mp4")
    with shard_file(root, "a", "tar").open("r+b") as file:
        file.seek(member["offset"])
        file.write(bytes(member["size"]))
    whole = read(data_of(root, 6), 3)
    assert {clip for clip, _ in whole} == {2}
    assert loaded(data_of(root, 6, "dali"), 3) == whole
    assert read(data_of(root, 6), 2, consumed=6) == whole[6:]


def test_filters_hold_for_the_clips_of_the_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_ranked(tmp_path / "data", RANKS, verdict="small")
    data = data_of(root, 6).model_copy(update={"filter": Filter(pruned=True)})
    with caplog.at_level(logging.INFO, "fbm_dist.data"):
        assert chosen(root, data) == FIRST_SIX[:3]
    assert [(record.levelname, record.getMessage().partition(": ")[2]) for record in caplog.records[-1:]] == [
        (
            "INFO",
            "1 of 3 clips taken: 1 small, 1 with none of the frames of their shot that are taken; "
            "3 frames of them, up to 6 a shot",
        )
    ]


@pytest.mark.parametrize("ranks", [[RANKS[0], None, None], [RANKS[0], RANKS[1][:-1], []]])
def test_frames_without_ranks_are_refused(tmp_path: Path, ranks: list[list[int] | None]) -> None:
    root = write_ranked(tmp_path / "data", ranks)
    with pytest.raises(
        ValueError, match=r"b.parquet: the frames of 2 clips have no shot_rank.* prepare the data set anew"
    ):
        chosen(root, data_of(root, 3))
    # one random frame a clip needs none
    assert len(select(Index.open(root), Filter(), data_of(root, None).clip)) == 3


def test_a_manifest_of_before_has_no_ranks(tmp_path: Path) -> None:
    root = write_ranked(tmp_path / "data", RANKS)
    path = str(shard_file(root, "a", "parquet"))
    pq.write_table(pq.read_table(path).drop_columns(["shot_rank"]), path)
    with pytest.raises(ValueError, match=r"a.parquet: the frames of 1 clips have no shot_rank"):
        chosen(root, data_of(root, 3))


def test_the_number_of_frames_is_part_of_the_clip_digest(ranked: Path) -> None:
    index = Index.open(ranked)
    parts = [digest(index, Filter(), data_of(ranked, number).clip).split(".") for number in (None, 3, 4)]
    assert len({part[2] for part in parts}) == 3
    assert len({tuple(part[:2]) for part in parts}) == 1


@pytest.mark.parametrize(("number", "frames"), [(3, 16), (0, 1), (1001, 1)])
def test_only_single_frames_and_a_sound_number_of_them(number: int, frames: int) -> None:
    with pytest.raises(ValueError, match="frames_per_shot"):
        ClipSpec(frames=frames, frames_per_shot=number)
