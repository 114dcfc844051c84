"""A data set opened for reading: its clips chosen, its decoder decided, and what comes out of the graph made into Clips."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from data_tools.places import is_local
from fbm_dist.clip import Clip
from fbm_dist.data.decoding.choice import candidates, decoded_by_readers
from fbm_dist.data.decoding.degradation import degraded
from fbm_dist.data.decoding.measure import CLIPS, Remembered, speeds
from fbm_dist.data.decoding.pixels import MASK, VIDEO, normalized
from fbm_dist.data.index import selection
from fbm_dist.data.index.cache import cache_folder, hashed
from fbm_dist.data.index.index import Index
from fbm_dist.data.machine import Readers, check_shared_memory, readers_of
from fbm_dist.data.order.arrangement import slots_of
from fbm_dist.data.order.plan import VERSION, Order, Pass
from fbm_dist.data.shards.cache import ShardCache
from fbm_dist.data.shards.tars import Tars
from fbm_dist.data.source import Chosen, ClipSource, Part, Parts
from fbm_dist.data.stream import Batch, Stream
from fbm_dist.schema import Data, Portion

log = logging.getLogger("fbm_dist.data")

Gather = Callable[[Any], list[Any]]  # what every rank gave, on every rank


class OpenedData:
    """Data sets with their clips chosen and their decoder decided: what every kind of reading shares.

    Attributes:
        of_the_run: what the ranks of a run agreed on, while it lasts: its validation and probes read with the same decoder.
    """

    of_the_run: ClassVar[str | None] = None

    def __init__(
        self,
        data: Data,
        device: torch.device,
        *,
        batch: int,
        ranks: int = 1,
        mixed: bool = False,
    ) -> None:
        """
        Args:
            batch: clips of a micro-batch.
            ranks: processes of this job on this machine.
            mixed: take `data.mix` in.
        """
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self.data = data
        self.device = device
        self._batch, self._ranks = batch, ranks
        self._portions = data.portions if mixed else (data,)
        try:
            self.slots = slots_of([portion.weight for portion in self._portions])
        except ValueError as error:
            raise ValueError(f"data.weight and data.mix: {error}") from None
        self.parts = Parts(_part(portion, data) for portion in self._portions)
        if data.clip.negative:
            self._check_films()
        self.truth = data.clip.truth and self._has_truth()
        codecs = frozenset(codec for part in self.parts for codec in part.selected.codecs)
        smallest = min(part.selected.smallest for part in self.parts)
        self._can = candidates(data.decode, device.type, codecs, smallest)
        self._kind = (sorted(codecs), smallest)
        self._decoder: str | None = None

    def __len__(self) -> int:
        return sum(len(part.selected) for part in self.parts)

    @cached_property
    def digest(self) -> str:
        """ "data set.filter.clip settings", each hashed; of several data sets their hashes and shares, hashed again."""
        found = [
            selection.digest(part.index, portion.filter, self.data.clip).split(".")
            for part, portion in zip(self.parts, self._portions, strict=True)
        ]
        if len(found) == 1:
            return ".".join(found[0])
        sets, filters, (clip, *_) = zip(*found, strict=True)
        return f"{hashed(sets, self.slots)}.{hashed(filters)}.{clip}"

    @cached_property
    def label_names(self) -> dict[str, tuple[str, ...]]:
        """Class index -> name for every label of any of the data sets, sorted."""
        found: dict[str, set[str]] = {}
        for part in self.parts:
            for name, classes in part.index.label_names.items():
                found.setdefault(name, set()).update(classes)
        return {name: tuple(sorted(found[name])) for name in sorted(found)}

    @property
    def decoder(self) -> str:
        """What decodes; where nobody has agreed on it, that of the run that this process is at, else this process decides alone."""
        return self._decoder or self.agree(lambda value: [value], OpenedData.of_the_run)

    def agree(self, gather: Gather, pinned: str | None = None) -> str:
        """Decide on a decoder that every rank can use: what `data.decode` says, what was chosen before, or the fastest that is measured.

        Every rank has to call it. Nothing is decoded where there is one candidate.

        Args:
            gather: gives every rank what each of them gave.
            pinned: what the checkpoint's run had; where it is among the candidates, no pixel shall change.
        Raises:
            ValueError: on every rank: there is none.
        """
        everywhere = gather(self._can)
        can = tuple(name for name in self._can if all(name in theirs for theirs in everywhere))
        if pinned in can:
            can = (pinned,)
        if not can:
            raise ValueError(
                f"data.decode: the ranks have no decoder in common: {' | '.join(map(', '.join, everywhere))}"
            )
        self._decoder = can[0] if len(can) == 1 else self._fastest(can, gather)
        return self._decoder

    def _fastest(self, can: tuple[str, ...], gather: Gather) -> str:
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        readers = [(one.workers, one.threads) for one in map(self.readers, can)]
        spec = self.data.clip
        shape = (spec.length, spec.size, spec.span, spec.resize, spec.mask, spec.use_truth_as_mask, self.truth)
        remembered = Remembered(cache_folder(), VERSION, gpu, self._kind, shape, can, readers)
        known = gather(remembered.get())
        if known[0] in can and len(set(known)) == 1:
            return str(known[0])
        measured, reason = speeds(
            can,
            lambda decoder: self.source(Pass(len(self), CLIPS), decoder),
            self.readers,
            self.device.index,
        )
        told = gather((measured, reason))
        everywhere = [theirs for theirs, _ in told]
        worst = {decoder: min(theirs[decoder] for theirs in everywhere) for decoder in can}
        best = max(can, key=lambda decoder: worst[decoder])
        if not worst[best]:
            reasons = [why for _, why in told if why]
            raise ValueError(f"{self.data.path}: {' and '.join(can)} fail to read the first clips: {reasons[0]}")
        remembered.set(best, measured)
        rates = ", ".join(f"{decoder} {speed:.0f}" for decoder, speed in worst.items())
        log.info("%s: %s decodes (measured, clips/s: %s)", self.data.path, best, rates)
        return best

    def readers(self, decoder: str) -> Readers:
        """How many processes, threads and batches ahead."""
        return readers_of(self.data, decoder, self._batch, self.device.type, self._ranks)

    def source(self, order: Order | Pass, decoder: str) -> ClipSource:
        """What reader processes run."""
        return ClipSource(self.parts, order, self.data.clip, decoder, self.truth)

    def stream(self, order: Order | Pass) -> Stream:
        """The running pipeline behind a loader or a pass."""
        readers = self.readers(self.decoder)
        if decoded_by_readers(self.decoder):
            check_shared_memory(self.data.clip, self._batch, readers)
        return Stream(
            self.source(order, self.decoder),
            decoder=self.decoder,
            batch=self._batch,
            device=self.device,
            readers=readers,
            max_undecodable=self.data.max_undecodable,
            window=self.data.undecodable_window,
            shards_ahead=2 * self.data.block,
        )

    def clip(self, batch: Batch, slots: Sequence[int]) -> Clip:
        """The Clip of those slots of a batch."""
        chosen = [batch.clips[slot] for slot in slots]
        spec = self.data.clip
        names = ("mask",) * (spec.mask or spec.use_truth_as_mask) + ("truth",) * self.truth
        whole = len(chosen) == len(batch.clips)
        video, *others = batch.tensors if whole else [tensor[list(slots)] for tensor in batch.tensors]
        mirror = [clip.moment.mirror for clip in chosen]
        if decoded_by_readers(self.decoder):
            others = [mask.unsqueeze(2) for mask in others]
        else:
            video, *others = (pixels.permute(0, 1, 4, 2, 3) for pixels in (video, *others))
        masks = {name: normalized(mask, mirror, MASK) for name, mask in zip(names, others, strict=True)}
        if spec.degrade is not None:
            masks["mask"] = degraded(masks["mask"], spec.degrade, [clip.draw.degrade for clip in chosen])
        frames = [[clip.row.start + frame for frame in clip.moment.shown] for clip in chosen]
        for slot, shown in zip(slots, frames, strict=True):
            for other in batch.others[slot : slot + 1]:
                shown += [other.row.start + frame for frame in other.moment.shown]
        return Clip(
            video=normalized(video, mirror, VIDEO),
            mask=masks.get("mask"),
            truth=masks.get("truth"),
            frames=self._integers(frames),
            film=self._integers([clip.row.film for clip in chosen]),
            key=tuple(clip.key for clip in chosen),
            labels={name: self._integers(codes) for name, codes in self._labels(chosen).items()},
        )

    def _labels(self, chosen: list[Chosen]) -> dict[str, np.ndarray]:
        """Class index of each clip by the label's name."""
        found = {name: np.full(len(chosen), -1, np.int64) for name in self.label_names}
        for part, classes in zip(self.parts, self._classes, strict=True):
            own = [i for i, clip in enumerate(chosen) if clip.part is part]
            codes = part.index.labels[[part.row_number(chosen[i].entry) for i in own]]
            for column, (name, table) in enumerate(classes.items()):
                found[name][own] = table[codes[:, column]]
        return found

    @cached_property
    def _classes(self) -> list[dict[str, np.ndarray]]:
        """Of each data set by the label's name: class index there -> here; the last is -1, for clips without the label."""
        number = {name: {known: i for i, known in enumerate(known)} for name, known in self.label_names.items()}
        return [
            {name: np.array([*(number[name][one] for one in own), -1]) for name, own in part.index.label_names.items()}
            for part in self.parts
        ]

    def _integers(self, values: Any) -> Tensor:
        return torch.from_numpy(np.array(values, np.int64)).to(self.device, non_blocking=True)

    def _check_films(self) -> None:
        films = {part.selected.only_film for part in self.parts}
        if len(films) == 1 and films != {None}:
            raise ValueError(
                f"{self.parts[0].index.root}: all clips are of one film, and data.clip.negative takes a frame of another; "
                "prepare more films, or set data.clip.negative=false for an objective that needs none"
            )

    def _has_truth(self) -> bool:
        lacking = sum(part.selected.without_truth for part in self.parts)
        if lacking:
            log.warning(
                "%s: %d of %d clips have no true masks; none are given", self.parts[0].index.root, lacking, len(self)
            )
        return not lacking


def _part(portion: Data | Portion, data: Data) -> Part:
    index = Index.open(portion.path, portion.snapshot)
    main = isinstance(portion, Data)
    selected = selection.select(index, portion.filter, data.clip, both_sides=main)
    limit = None if data.cache_gb is None else max(1, int(data.cache_gb * 1e9))
    cache = None if is_local(index.root) else ShardCache(limit=limit)
    return Part(index, selected, Tars(index.root, index.shards, index.tars["bytes"], index.tars["sha256"], cache))
