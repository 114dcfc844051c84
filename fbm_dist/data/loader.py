"""Loader: shards in, an endless stream of Clips out, in an order that any number of processes shares and resumes exactly."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import TracebackType

import torch

from fbm_dist.clip import Clip
from fbm_dist.data.index import selection
from fbm_dist.data.index.index import Index
from fbm_dist.data.opened import OpenedData
from fbm_dist.data.order.plan import Order, Pass
from fbm_dist.data.order.state import LoaderState
from fbm_dist.schema import Data

__all__ = ["Loader", "LoaderState", "label_names", "read_once"]

log = logging.getLogger("fbm_dist.data")


class Loader:
    """The clips of one rank for training: an endless stream of micro-batches in the plan's order.

    The stream has one place, wherever it is iterated: a second `iter` goes on where the first stopped.

    Attributes:
        num_clips: clips that take part, after the filters.
        label_names: class index -> name for every label of the whole snapshot, sorted.
        digest: "data set.filter.clip settings"; equal digests mean the same clips.
        decoder: what was chosen: dali-mixed (NVDEC), dali-cpu or pyav.
    """

    def __init__(
        self,
        data: Data,
        *,
        seed: int,
        global_batch: int,
        micro_batch: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        consumed: int = 0,
    ) -> None:
        """Open the data set; reader processes start with the first batch.

        Args:
            global_batch: clips of one optimizer step over all ranks; a multiple of micro_batch * world_size.
            consumed: where to go on: global positions that earlier steps used (`LoaderState.consumed`).
        Raises:
            ValueError: no such data set, nothing left after the filters, numbers that do not fit, an impossible decoder.
        """
        opened = OpenedData(data, torch.device(device))
        self.num_clips = len(opened.kept)
        self.label_names = opened.index.label_names
        self.digest = selection.digest(opened.index, data)
        self.decoder = opened.decoder
        self._order = Order(self.num_clips, seed, global_batch, micro_batch, rank, world_size, consumed)
        self._opened = opened
        self._stream = opened.stream(self._order, micro_batch)

    @property
    def undecodable(self) -> int:
        """Clips that this rank had to replace so far."""
        return self._stream.undecodable

    def state(self, consumed: int) -> LoaderState:
        """The state after `consumed` global positions: a whole number of global batches."""
        return LoaderState(
            epoch=consumed // self.num_clips,
            consumed=consumed,
            seed=self._order.seed,
            dataset_digest=self.digest,
            global_batch=self._order.global_batch,
            decoder=self.decoder,
            snapshot=self._opened.index.snapshot,
        )

    def __iter__(self) -> Iterator[Clip]:
        """Micro-batches of this rank, without end.

        Raises:
            ValueError: more clips than data.max_undecodable cannot be decoded.
            RuntimeError: reading failed for another reason.
        """
        while True:
            batch = self._stream.next()
            yield self._opened.clip(batch, range(len(batch.rows)))

    def close(self) -> None:
        """End the reader processes. The stream may be iterated again: it starts them anew where it stopped."""
        self._stream.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_once(
    data: Data, *, batch: int, rank: int = 0, world_size: int = 1, device: torch.device | str = "cpu"
) -> Iterator[Clip]:
    """One pass in the order of the data set, for evaluation: centre window, no augmentation, last batch smaller.

    Clip i goes to rank i % world_size. A clip that cannot be decoded is left out, logged by key and counted.

    Raises:
        ValueError: as `Loader`, at the call; more than data.max_undecodable cannot be decoded, while reading.
    """
    plain = data.clip.model_copy(update={"window": "centre", "reverse": 0.0, "mirror": 0.0})
    opened = OpenedData(data.model_copy(update={"clip": plain}), torch.device(device))
    order = Pass(len(opened.kept), batch, rank, world_size)
    return read_pass(opened, order)


def label_names(data: Data) -> dict[str, tuple[str, ...]]:
    """Class index -> name for every label of the whole snapshot (not only of the filtered part), sorted."""
    return Index.open(data.path, data.snapshot).label_names


def read_pass(opened: OpenedData, order: Pass) -> Iterator[Clip]:
    """One pass in `order`: a clip that cannot be decoded is left out, logged by key and counted."""
    stream = opened.stream(order, order.batch)
    try:
        for _ in range(order.num_batches):
            read = stream.next()
            pairs = enumerate(zip(read.places, read.attempts, strict=True))
            good = [slot for slot, (place, attempt) in pairs if not place.padding and attempt == 0]
            if good:
                yield opened.clip(read, good)
        if stream.undecodable:
            log.warning("%s: %d clips could not be decoded and were left out", opened.index.root, stream.undecodable)
    finally:
        stream.close()
