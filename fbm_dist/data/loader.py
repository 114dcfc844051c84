"""Loader: shards in, an endless stream of Clips out, in an order that any number of processes shares and resumes exactly."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import TracebackType

import torch

from data_tools.places import is_local
from fbm_dist.clip import Clip
from fbm_dist.data.index.index import Index
from fbm_dist.data.opened import Gather, OpenedData
from fbm_dist.data.order.arrangement import Arrangement, Blocks, Mixture, Shuffled
from fbm_dist.data.order.plan import Order, Pass
from fbm_dist.data.order.state import LoaderState
from fbm_dist.data.stream import Stream
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
        shuffle: "global", or "blocks of N shards".
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
        ranks_here: int = 1,
        device: torch.device | str = "cpu",
        consumed: int = 0,
    ) -> None:
        """Open the data sets; reader processes start with the first batch.

        Args:
            global_batch: clips of one optimizer step over all ranks; a multiple of micro_batch * world_size.
            ranks_here: processes of this job on this machine, which share its cores.
            consumed: where to go on: global positions that earlier steps used (`LoaderState.consumed`).
        Raises:
            ValueError: no such data set, nothing left after the filters, numbers that do not fit, an impossible decoder.
        """
        opened = OpenedData(data, torch.device(device), batch=micro_batch, ranks=ranks_here, mixed=True)
        self.num_clips = len(opened)
        self.label_names = opened.label_names
        self.digest = opened.digest
        self.shuffle, arrangement = _arranged(opened, seed)
        self._order = Order(arrangement, seed, global_batch, micro_batch, rank, world_size, consumed)
        self._opened = opened
        self._stream: Stream | None = None

    def agree(self, gather: Gather, pinned: str | None = None) -> None:
        """Let all ranks read with the same decoder (`OpenedData.agree`); each of them has to call it before the first batch.

        Args:
            gather: gives every rank what each of them gave.
            pinned: the checkpoint's, so that no pixel changes.
        Raises:
            ValueError: on every rank: there is none.
        """
        OpenedData.of_the_run = self._opened.agree(gather, pinned)

    @property
    def decoder(self) -> str:
        """dali-mixed (NVDEC), dali-cpu or pyav."""
        return self._opened.decoder

    @property
    def undecodable(self) -> int:
        """Clips that this rank had to replace so far."""
        return self._stream.undecodable if self._stream else 0

    def state(self, consumed: int) -> LoaderState:
        """The state after `consumed` global positions: a whole number of global batches."""
        return LoaderState(
            epoch=consumed // self.num_clips,
            consumed=consumed,
            seed=self._order.seed,
            dataset_digest=self.digest,
            global_batch=self._order.global_batch,
            decoder=self.decoder,
            shuffle=self.shuffle,
            snapshot=self._opened.parts[0].index.snapshot,
        )

    def __iter__(self) -> Iterator[Clip]:
        """Micro-batches of this rank, without end.

        Raises:
            ValueError: more clips than data.max_undecodable cannot be decoded.
            RuntimeError: reading failed for another reason.
        """
        stream = self._stream = self._stream or self._opened.stream(self._order)
        while True:
            batch = stream.next()
            yield self._opened.clip(batch, range(len(batch.clips)))

    def close(self) -> None:
        """End the reader processes. The stream may be iterated again: it starts them anew where it stopped."""
        OpenedData.of_the_run = None
        if self._stream:
            self._stream.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _arranged(opened: OpenedData, seed: int) -> tuple[str, Arrangement]:
    """How the clips are shuffled, in words and in fact."""
    data, parts = opened.data, opened.parts
    far = not all(is_local(part.index.root) for part in parts)
    blocks = data.shuffle == "blocks" or (data.shuffle == "auto" and far)
    streams: list[Arrangement] = [
        Blocks(part.selected.starts, data.block, seed, number) if blocks else Shuffled(len(part.selected), seed, number)
        for number, part in enumerate(parts)
    ]
    words = f"blocks of {data.block} shards" if blocks else "global"
    return words, streams[0] if len(streams) == 1 else Mixture(tuple(streams), opened.slots, seed)


def read_once(
    data: Data, *, batch: int, rank: int = 0, world_size: int = 1, device: torch.device | str = "cpu"
) -> Iterator[Clip]:
    """One pass in the order of the data set `data.path`, for evaluation: no augmentation (`ClipSpec.plain`), last batch smaller.

    Clip i goes to rank i % world_size. A clip that cannot be decoded is left out, logged by key and counted.

    Raises:
        ValueError: as `Loader`, at the call; more than data.max_undecodable cannot be decoded, while reading.
    """
    opened = OpenedData(data.model_copy(update={"clip": data.clip.plain}), torch.device(device), batch=batch)
    return read_pass(opened, Pass(len(opened), batch, rank, world_size))


def label_names(data: Data) -> dict[str, tuple[str, ...]]:
    """Class index -> name for every label of the whole snapshot (not only of the filtered part), sorted."""
    return Index.open(data.path, data.snapshot).label_names


def read_pass(opened: OpenedData, order: Pass) -> Iterator[Clip]:
    """One pass in `order`, in the batches that `opened` was opened for.

    A clip that cannot be decoded is left out, logged by key and counted.
    """
    return (clip for _, clip in read_placed(opened, order))


def read_placed(opened: OpenedData, order: Pass) -> Iterator[tuple[list[int], Clip]]:
    """`read_pass`, with the position of each clip."""
    stream = opened.stream(order)
    try:
        for _ in range(order.num_batches):
            read = stream.next()
            pairs = enumerate(zip(read.places, read.attempts, strict=True))
            good = [slot for slot, (place, attempt) in pairs if not place.padding and attempt == 0]
            if good:
                yield [read.places[slot].position for slot in good], opened.clip(read, good)
        if stream.undecodable:
            root = opened.parts[0].index.root
            log.warning("%s: %d clips could not be decoded and were left out", root, stream.undecodable)
    finally:
        stream.close()
