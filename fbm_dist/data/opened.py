"""A data set opened for reading: its clips chosen, its decoder decided, and what comes out of the graph made into Clips."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fbm_dist.clip import Clip
from fbm_dist.data.decoding import graph
from fbm_dist.data.decoding.frames import choose
from fbm_dist.data.index import selection
from fbm_dist.data.index.index import CODECS, Index
from fbm_dist.data.order.plan import Order, Pass
from fbm_dist.data.source import ClipSource
from fbm_dist.data.stream import Batch, Stream
from fbm_dist.schema import ClipSpec, Data

log = logging.getLogger("fbm_dist.data")


class OpenedData:
    """A data set with its clips chosen and its decoder decided: what every kind of reading shares."""

    def __init__(self, data: Data, device: torch.device) -> None:
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self.data = data
        self.device = device
        self.index = Index.open(data.path, data.snapshot)
        self._selection = selection.select(self.index, data)
        self.kept = np.load(self._selection, mmap_mode="r")
        self.truth = data.clip.truth and self._has_truth()
        self.decoder = self._decoder()

    def source(self, order: Order | Pass, decoder: str) -> ClipSource:
        """What reader processes run."""
        return ClipSource(self.index, self._selection, order, self.data.clip, decoder, self.truth)

    def stream(self, order: Order | Pass, batch: int) -> Stream:
        """The running pipeline behind a loader or a pass."""
        return Stream(
            self.source(order, self.decoder),
            decoder=self.decoder,
            batch=batch,
            device=self.device,
            threads=self.data.threads,
            workers=self.data.workers,
            prefetch=self.data.prefetch,
            max_undecodable=self.data.max_undecodable,
        )

    def clip(self, batch: Batch, slots: range | list[int]) -> Clip:
        """The Clip of those slots of a batch."""
        rows = [batch.rows[slot] for slot in slots]
        told = self.index.rows[rows]
        spec: ClipSpec = self.data.clip
        names = ("mask",) * (spec.mask or spec.use_truth_as_mask) + ("truth",) * self.truth
        whole = len(rows) == len(batch.rows)
        video, *others = batch.tensors if whole else [tensor[list(slots)] for tensor in batch.tensors]
        masks: dict[str, Tensor] = dict(zip(names, others, strict=True))
        labels = self.index.labels[rows].astype(np.int64)
        return Clip(
            video=video,
            mask=masks.get("mask"),
            truth=masks.get("truth"),
            frames=self._integers(told["start"][:, None] + np.array([batch.shown[slot] for slot in slots], np.int64)),
            film=self._integers(told["film"]),
            key=tuple(self.index.key(row) for row in rows),
            labels={name: self._integers(labels[:, column]) for column, name in enumerate(self.index.label_names)},
        )

    def _integers(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(values, np.int64)).to(self.device, non_blocking=True)

    def _has_truth(self) -> bool:
        lacking = sum(int((self.index.rows["truth_size"][part] == 0).sum()) for part in self._kept_parts())
        if lacking:
            log.warning(
                "%s: %d of %d clips have no true masks; none are given", self.index.root, lacking, len(self.kept)
            )
        return not lacking

    def _kept_parts(self) -> Iterator[np.ndarray]:
        return (self.kept[start : start + selection.CHUNK] for start in range(0, len(self.kept), selection.CHUNK))

    def _decoder(self) -> str:
        codecs: set[str] = set()
        smallest = 1 << 30
        for part in self._kept_parts():
            rows = self.index.rows[part]
            codecs |= {CODECS[code] for code in np.unique(rows["codec"])}
            smallest = min(smallest, int(rows["height"].min()), int(rows["width"].min()))
        chosen = choose(self.data.decode, self.device.type, codecs, smallest)
        if chosen == "dali-mixed" and self.data.decode == "auto":
            return self._nvdec_or_cpu(codecs, smallest)
        return chosen

    def _nvdec_or_cpu(self, codecs: set[str], smallest: int) -> str:
        """A GPU may have no decoder, or a container may hide it: try one clip before a whole run relies on it."""
        source = self.source(Pass(len(self.kept), 1), "dali-mixed")
        try:
            values = source.read(0, 0)
            sample = tuple(values[name] for name in source.fields)
            graph.pipeline(source, decoder="dali-mixed", batch=1, device_id=self.device.index, sample=sample).run()
            return "dali-mixed"
        except RuntimeError as error:
            fallback = choose("auto", "cpu", codecs, smallest)
            log.warning("NVDEC does not decode here, %s does: %s", fallback, " ".join(str(error).split()))
            return fallback
        finally:
            source.close()
