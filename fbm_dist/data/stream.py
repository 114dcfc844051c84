"""Batches of one rank in the plan's order, whatever single clips do: one that cannot be decoded is found, replaced and counted."""

from __future__ import annotations

import gc
import logging
import pickle
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_tools.places import is_local
from fbm_dist.data.decoding import graph
from fbm_dist.data.decoding.frames import UndecodableError
from fbm_dist.data.machine import Readers
from fbm_dist.data.order.plan import Place
from fbm_dist.data.shards.ahead import Ahead
from fbm_dist.data.source import UNREACHABLE, Chosen, ClipSource

log = logging.getLogger("fbm_dist.data")


@dataclass(frozen=True)
class Batch:
    """What came out of the graph: `tensors` are video, then mask and truth where asked for."""

    places: list[Place]
    clips: list[Chosen]
    others: list[Chosen]  # clips of other films shown beside them; empty unless `spec.negative`
    attempts: list[int]  # 0: the clip that the plan names; else how many were undecodable before this one
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
        readers: Readers,
        max_undecodable: float,
        window: int,
        shards_ahead: int,
    ) -> None:
        """
        Args:
            readers: how many processes, threads and batches ahead.
            max_undecodable: share of clips of `window` that may be undecodable.
            shards_ahead: of those in object storage, how many are fetched before they are needed.
        """
        self.undecodable = 0  # clips that were replaced
        self._source = source
        self._size = batch
        self._device = device
        self._options: dict[str, Any] = {"decoder": decoder, "device_id": device.index, "threads": readers.threads}
        self._readers = readers
        self._allowed = max_undecodable
        self._shards_ahead = shards_ahead
        self._recent: deque[bool] = deque(maxlen=window)
        self._reported: set[int] = set()
        self._number = 0  # of the next batch
        self._pipe: graph.Running | None = None
        self._ahead: list[Ahead] = []

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
                if UNREACHABLE in str(error):
                    raise RuntimeError(UNREACHABLE + str(error).partition(UNREACHABLE)[2]) from None
                self._find_undecodable(error)
        source = self._source
        places = [source.order.place(self._number, slot) for slot in range(self._size)]
        for ahead in self._ahead:
            ahead.at(places[0].position)
        self._number += 1
        attempts, *beside = what.T.tolist()
        clips = [source.clip(place, attempt) for place, attempt in zip(places, attempts, strict=True)]
        others: list[Chosen] = []
        for found in beside:
            told = [source.other(*known) for known in zip(places, found, clips, strict=True)]
            others = [other for other in told if other is not None]
        self._count(places, clips, attempts, beside[0] if beside else [0] * self._size)
        return Batch(places, clips, others, attempts, tensors)

    def close(self) -> None:
        """End the pipeline and its reader processes."""
        if self._pipe is not None:
            self._pipe = None
            gc.collect()  # DALI ends its reader processes when the pipeline object goes
        for ahead in self._ahead:
            ahead.close()
        self._ahead = []
        self._source.close()

    def _start(self) -> graph.Running:
        self._source.first = self._number
        far = [(number, part) for number, part in enumerate(self._source.parts) if not is_local(part.index.root)]
        for number, part in far:
            # the thread's own: what an order keeps is not shared
            copy: ClipSource = pickle.loads(pickle.dumps(self._source))
            size = int(part.index.tars["bytes"].max())
            at_hand = max(1, part.tars.cache.limit // (2 * size)) if part.tars.cache else 1
            self._ahead.append(Ahead(part.tars, copy.needed(number, at_hand), self._shards_ahead))
        workers, prefetch = self._readers.workers, self._readers.prefetch
        return graph.pipeline(self._source, batch=self._size, workers=workers, prefetch=prefetch, **self._options)

    def _count(self, places: list[Place], clips: list[Chosen], attempts: list[int], beside: list[int]) -> None:
        for place, clip, attempt, other in zip(places, clips, attempts, beside, strict=True):
            if place.padding:
                continue
            passed_over = [self._source.clip(place, earlier) for earlier in range(attempt)]
            passed_over += [c for e in range(other) if (c := self._source.other(place, e, clip)) is not None]
            self._recent.append(bool(passed_over))
            self.undecodable += bool(passed_over)
            for chosen in passed_over:
                self._report(chosen)
        window = self._recent.maxlen or 0
        if sum(self._recent) > self._allowed * window:
            raise ValueError(
                f"{sum(self._recent)} of the last {len(self._recent)} clips could not be decoded, more than "
                f"data.max_undecodable={self._allowed} allows in {window} (data.undecodable_window); "
                f"see: python -m data_tools verify {clips[0].part.index.root}"
            )

    def _report(self, chosen: Chosen, reason: str = "") -> None:
        """Log a clip once, by its key."""
        if chosen.number in self._reported:
            return
        self._reported.add(chosen.number)
        if not reason:  # found in a reader process: look here what is wrong with it
            try:
                self._source.load(chosen, self._source.room(len(chosen.moment.turn)))
            except UndecodableError as error:
                reason = str(error)
        log.warning("clip %s cannot be decoded and is replaced: %s", chosen.key, reason)

    def _find_undecodable(self, error: RuntimeError) -> None:
        """Run each clip that was under way through the same graph alone; remember those that break it.

        Raises:
            RuntimeError: every one of them passes, so the fault is elsewhere.
        """
        before = len(self._source.bad)
        ahead = self._readers.prefetch + 1  # the failure may stem from a batch that was read ahead
        alone = self._source.alone()
        for number in range(self._number, self._number + ahead):
            for slot in range(self._size):
                place = self._source.order.place(number, slot)
                _, good, _ = self._source.first_good(self._source.clips(place), partial(self._try, alone))
                if self._source.spec.negative:
                    self._source.first_good(self._source.others(place, good), partial(self._try, alone))
        if len(self._source.bad) == before:
            raise RuntimeError(f"reading batches failed, and no single clip is at fault: {_line(error)}") from error

    def _try(self, alone: ClipSource, chosen: Chosen) -> None:
        """Run one clip through the graph.

        Raises:
            UndecodableError: it breaks it.
        """
        try:
            values = alone.load(chosen, alone.room(len(chosen.moment.turn))) | {"what": np.zeros(1, np.int64)}
            sample = tuple(values[name] for name in alone.fields)
            graph.pipeline(alone, batch=1, samples=[sample], **self._options).run()
        except (RuntimeError, UndecodableError) as error:
            self._report(chosen, _line(error))
            raise UndecodableError(_line(error)) from None


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
