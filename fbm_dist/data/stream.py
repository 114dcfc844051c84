"""Batches of one rank in the plan's order, whatever single clips do: one that cannot be decoded is found, replaced and counted."""

from __future__ import annotations

import gc
import logging
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fbm_dist.data.decoding import graph
from fbm_dist.data.decoding.frames import UndecodableError
from fbm_dist.data.order.plan import Place
from fbm_dist.data.source import ClipSource

log = logging.getLogger("fbm_dist.data")

WINDOW = 1000  # clips over which the share of undecodable ones is taken


@dataclass(frozen=True)
class Batch:
    """What came out of the graph: `tensors` are video, then mask and truth where asked for."""

    places: list[Place]
    rows: list[int]
    attempts: list[int]  # 0: the clip that the plan names; else how many were undecodable before this one
    shown: list[tuple[int, ...]]  # of each stored clip, the frames in the order in which they come out
    tensors: list[Tensor]


class Stream:
    """The running pipeline of one rank, rebuilt where a clip broke it."""

    def __init__(
        self,
        source: ClipSource,
        *,
        decoder: str,
        batch: int,
        device: torch.device,
        threads: int,
        workers: int,
        prefetch: int,
        max_undecodable: float,
    ) -> None:
        self.undecodable = 0  # places whose clip was replaced
        self._source = source
        self._size = batch
        self._device = device
        self._options: dict[str, Any] = {"decoder": decoder, "device_id": device.index, "threads": threads}
        self._readers: dict[str, Any] = {"workers": workers, "prefetch": prefetch}
        self._allowed = max_undecodable
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._reported: set[int] = set()
        self._number = 0  # of the next batch
        self._pipe: graph.Running | None = None

    def next(self) -> Batch:
        """The next batch.

        Raises:
            ValueError: too many clips cannot be decoded.
            RuntimeError: reading or decoding failed, and no single clip is at fault.
        """
        while True:
            try:
                self._pipe = self._pipe or self._start()
                what, *tensors = [_tensor(output, self._device) for output in self._pipe.run()]
                break
            except graph.ReaderLostError:
                self.close()
                raise
            except RuntimeError as error:
                self.close()  # DALI: "current pipeline object is no longer valid"
                self._find_undecodable(error)
        places = [self._source.order.place(self._number, slot) for slot in range(self._size)]
        self._number += 1
        rows, attempts = what.T.tolist()
        self._count(places, attempts)
        shown = [self._source.moment(place, attempt).shown for place, attempt in zip(places, attempts, strict=True)]
        return Batch(places, rows, attempts, shown, tensors)

    def close(self) -> None:
        """End the pipeline and its reader processes."""
        if self._pipe is not None:
            self._pipe = None
            gc.collect()  # DALI ends its reader processes when the pipeline object goes
        self._source.close()

    def _start(self) -> graph.Running:
        self._source.first = self._number
        return graph.pipeline(self._source, batch=self._size, **self._options, **self._readers)

    def _count(self, places: list[Place], attempts: list[int]) -> None:
        for place, attempt in zip(places, attempts, strict=True):
            if place.padding:
                continue
            self._recent.append(attempt > 0)
            self.undecodable += attempt > 0
            for earlier in range(attempt):
                self._report(place, earlier)
        if sum(self._recent) > self._allowed * WINDOW:
            raise ValueError(
                f"{sum(self._recent)} of the last {len(self._recent)} clips could not be decoded, more than "
                f"data.max_undecodable={self._allowed} allows in {WINDOW}; "
                f"see: python -m data_tools verify {self._source.index.root}"
            )

    def _report(self, place: Place, attempt: int, reason: str = "") -> None:
        """Log a clip once, by its key."""
        row = self._source.row(place, attempt)
        if row in self._reported:
            return
        self._reported.add(row)
        if not reason:  # found in a reader process: look here what is wrong with it
            try:
                self._source.load(row, self._source.moment(place, attempt))
            except UndecodableError as error:
                reason = str(error)
        log.warning("clip %s cannot be decoded and is replaced: %s", self._source.index.key(row), reason)

    def _find_undecodable(self, error: RuntimeError) -> None:
        """Run each clip that was under way through the same graph alone; remember those that break it.

        Raises:
            RuntimeError: every one of them passes, so the fault is elsewhere.
        """
        before = len(self._source.bad)
        ahead = self._readers["prefetch"] + 1  # the failure may stem from a batch that was read ahead
        for number in range(self._number, self._number + ahead):
            for slot in range(self._size):
                self._try(number, slot)
        if len(self._source.bad) == before:
            raise RuntimeError(f"reading batches failed, and no single clip is at fault: {_line(error)}") from error

    def _try(self, number: int, slot: int) -> None:
        """Mark the clips of a place as bad until one passes."""
        while True:
            values = self._source.read(number, slot)
            sample = tuple(values[name] for name in self._source.fields)
            try:
                graph.pipeline(self._source, batch=1, sample=sample, **self._options).run()
                return
            except RuntimeError as error:
                place, attempt = self._source.order.place(number, slot), int(values["what"][1])
                self._source.bad.add(self._source.number(place, attempt))
                self._report(place, attempt, _line(error))


def _tensor(output: Any, device: torch.device) -> Tensor:
    """A DALI output as a torch tensor of the same memory; DALI lets go of it when torch does."""
    dense = output.as_tensor()
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.from_dlpack(dense)
    return torch.from_dlpack(dense)


def _line(error: BaseException) -> str:
    """One line; of DALI's errors, which repeat the graph and the C++ stack, the cause alone."""
    text = " ".join(str(error).split())
    cause = text.partition(" encountered: ")[2] or text
    return cause.partition(" C++ context:")[0].partition(" Current pipeline object is no longer valid")[0]
