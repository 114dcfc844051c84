"""`data.clip.degrade` through the loader: what it changes, what it leaves, and that decoder, ranks and resume change nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fbm_dist.clip import Clip
from fbm_dist.data.decoding.degradation import degraded
from fbm_dist.data.loader import Loader, read_once
from fbm_dist.data.order.draw import Draw
from fbm_dist.schema import Data, Degrade
from tests.datasets import write_dataset

Make = Callable[..., Data]
KINDS = {
    "boundary": Degrade(kind="boundary", kernel=3),
    "truncate": Degrade(kind="truncate", share=0.4),
    "box": Degrade(kind="box"),
    "full": Degrade(kind="full"),
}
AUGMENTED: dict[str, Any] = {"mirror": 0.5, "reverse": 0.5, "truth": True}
SEED, BATCH = 3, 4


@pytest.fixture(scope="module")
def lean(data_of: Make) -> Make:
    """`data_of`, read by a single process."""
    return lambda *of, **settings: data_of(*of, **settings).model_copy(update={"workers": 1, "prefetch": 1})


def take(data: Data, count: int, **arguments: Any) -> list[Clip]:
    """The first micro-batches of a loader."""
    with Loader(data, **{"seed": SEED, "global_batch": BATCH, "micro_batch": BATCH, **arguments}) as loader:
        return list(islice(loader, count))


def masks(clips: list[Clip]) -> Tensor:
    """All of them, one after the other."""
    found = [clip.mask for clip in clips]
    return torch.cat([mask for mask in found if mask is not None])


@pytest.fixture(scope="module")
def read(vp9: Path, lean: Make) -> Callable[[str, str | None], list[Clip]]:
    """read(decoder, kind): 16 clips, a little more than an epoch; each is read once in this module."""

    @cache
    def clips(decode: str, kind: str | None) -> list[Clip]:
        how = None if kind is None else KINDS[kind]
        return take(lean(vp9, decode=decode, degrade=how, **AUGMENTED), 4)

    return clips


@pytest.mark.parametrize(
    ("kind", "decode"), [*((kind, "pyav") for kind in KINDS), ("truncate", "dali"), ("box", "dali")]
)
def test_masks_alone_change_as_seed_epoch_and_position_say(
    read: Callable[[str, str | None], list[Clip]], kind: str, decode: str
) -> None:
    numbers = [Draw.at(SEED, *divmod(position, 12)).degrade for position in range(4 * BATCH)]  # 12 clips an epoch
    assert {int(number * 4) for number in numbers} == {0, 1, 2, 3}
    for batch, (one, other) in enumerate(zip(read(decode, None), read(decode, kind), strict=True)):
        assert one.key == other.key
        assert one.truth is not None
        assert other.truth is not None
        assert torch.equal(one.video, other.video)
        assert torch.equal(one.truth, other.truth)
        assert one.mask is not None
        assert other.mask is not None
        wanted = degraded(one.mask, KINDS[kind], numbers[batch * BATCH : (batch + 1) * BATCH])
        assert torch.equal(other.mask, wanted)  # mirrored and reversed before, like the video
        assert not torch.equal(other.mask, one.mask)


@pytest.mark.parametrize("kind", ["truncate", "box"])
def test_decoders_give_the_same_masks(read: Callable[[str, str | None], list[Clip]], kind: str) -> None:
    by_dali, by_pyav = (masks(read(decode, kind)) for decode in ("dali", "pyav"))
    errors = (by_dali - by_pyav).abs()
    assert errors.mean() < 0.005  # a level of rounding; a score near one half may move the edge of a box
    assert errors.mean() < 0.1 * (by_dali - by_pyav.roll(1, 0)).abs().mean()  # it can fail


def test_neither_ranks_nor_a_resume_change_them(
    vp9: Path, lean: Make, read: Callable[[str, str | None], list[Clip]]
) -> None:
    data = lean(vp9, decode="pyav", degrade=KINDS["truncate"], **AUGMENTED)
    alone = masks(read("pyav", "truncate"))
    ranks = [masks(take(data, 4, micro_batch=2, rank=rank, world_size=2)) for rank in range(2)]
    assert torch.equal(torch.stack(ranks, dim=1).flatten(0, 1), alone)
    assert torch.equal(masks(take(data, 2, consumed=2 * BATCH)), alone[2 * BATCH :])


def test_a_pass_makes_each_clip_worse_in_one_way(vp9: Path, lean: Make) -> None:
    """Validation: no matter how many ranks, how large the batches; but not every clip in the same way."""
    data = lean(vp9, decode="pyav", degrade=KINDS["boundary"], mirror=1.0)
    found = masks(list(read_once(data, batch=5)))
    ranks = [masks(list(read_once(data, batch=2, rank=rank, world_size=2))) for rank in range(2)]
    assert torch.equal(torch.stack(ranks, dim=1).flatten(0, 1), found)
    plain = masks(list(read_once(lean(vp9, decode="pyav"), batch=5)))
    larger = (found - plain).mean((1, 2, 3, 4)) > 0
    assert {bool(one) for one in larger} == {True, False}


def test_true_masks_in_the_place_of_soft_ones_are_made_worse(tmp_path: Path, lean: Make) -> None:
    root = write_dataset(tmp_path / "data", clips=4, masks=False)
    spec = {"decode": "pyav", "use_truth_as_mask": True, "truth": True, "size": 64}
    for how in (KINDS["box"], KINDS["truncate"]):
        (clip,) = read_once(lean(root, degrade=how, **spec), batch=4)
        assert clip.mask is not None
        assert clip.truth is not None
        thing, shown = clip.truth.mean((3, 4)), clip.mask.mean((3, 4))
        lost = 0 if how.share is None else how.share  # the thing is a square: it is its own box
        assert (1 - shown / thing - lost).abs().max() < 0.08
    without = write_dataset(tmp_path / "without", clips=2, truth=False)
    with pytest.raises(ValueError, match="no clip is left of 2"):
        take(lean(without, use_truth_as_mask=True, degrade=KINDS["box"]), 1)


def test_the_frame_of_another_film_is_made_worse_too(vp9: Path, lean: Make) -> None:
    spec = {"decode": "pyav", "frames": 2, "offsets": (0, 3), "negative": True}
    plain, found = (masks(take(lean(vp9, degrade=how, **spec), 2)) for how in (None, KINDS["box"]))
    assert plain.shape == found.shape == (8, 1, 3, 32, 32)
    assert torch.equal(found, degraded(plain, KINDS["box"], [0.0] * 8))
    assert not torch.equal(found[:, :, 2], plain[:, :, 2])
