"""What reader processes do: from a place in the plan to the bytes (or frames) of one clip. Imports no torch and no DALI."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fbm_dist.data.decoding.frames import UndecodableError, frames_of
from fbm_dist.data.index.index import CODECS, Index
from fbm_dist.data.index.selection import frames_file
from fbm_dist.data.order.plan import Moment, Order, Pass, Place, moment
from fbm_dist.schema import ClipSpec

ATTEMPTS = 100  # substitutes that are tried for one place before the data set is called unreadable
STOPS = (signal.SIGTERM, signal.SIGUSR1)  # what asks a trainer to stop
OPEN_SHARDS = 256  # files a process holds open; the usual limit of a process is 1,024

# What the source can give for a clip: numpy type, number of dimensions.
FIELDS = {
    "what": ("int64", 1),  # row of the index, attempt (0: the clip that the plan names)
    "encoded": ("uint8", 1),  # mp4 bytes
    "frames": ("int32", 1),  # of them, the frames to decode, ascending
    "picture": ("uint8", 4),  # decoded frames (t, h, w, 3) in place of `encoded` and `frames`
    "turn": ("int32", 1),  # order in which the decoded frames are shown
    "mirror": ("int32", 0),  # 1: flip left and right
    "corner": ("float32", 1),  # y, x of the region's first corner, as shares of height and width
    "opposite": ("float32", 1),  # y, x of its last corner
    "mask": ("uint8", 1),  # PNG bytes of all stored frames' masks, stacked
    "truth": ("uint8", 1),  # likewise
    "strip": ("int32", 1),  # stored frames, mask height, mask width, 1
    "shown": ("int32", 1),  # which of the stored masks are shown, in order
}


class ClipSource:
    """Callable for DALI's `external_source(batch=False, parallel=True)`: stateless but for what was found undecodable."""

    def __init__(
        self, index: Index, kept: Path, order: Order | Pass, spec: ClipSpec, decoder: str, truth: bool
    ) -> None:
        self.index = index
        self.order = order
        self.spec = spec
        self.bad: set[int] = set()  # which of the kept clips cannot be decoded
        self.first = 0  # number of the batch that DALI calls its first
        self.fields = _fields(spec, decoder, truth)
        self._kept = kept
        self._shards: OrderedDict[int, int] = OrderedDict()  # shard -> file descriptor, the last used at the end

    def __getstate__(self) -> dict[str, Any]:
        opened_again = ("kept", "frames")  # by the reader
        state = {name: value for name, value in self.__dict__.items() if name not in opened_again}
        return state | {"_shards": OrderedDict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _live_and_die_with_the_parent()

    @cached_property
    def kept(self) -> np.ndarray:
        """Row numbers of the clips that take part."""
        return np.load(self._kept, mmap_mode="r")

    @cached_property
    def frames(self) -> np.ndarray | None:
        """The frame of each of them, where `spec.frames_per_shot` makes every single frame a clip of its own."""
        return np.load(frames_file(self._kept), mmap_mode="r") if self.spec.frames_per_shot else None

    def __call__(self, sample: Any) -> tuple[np.ndarray, ...]:
        """DALI's door: `sample` is a SampleInfo."""
        values = self.read(self.first + sample.iteration, sample.idx_in_batch)
        return tuple(values[name] for name in self.fields)

    def read(self, batch: int, slot: int) -> dict[str, np.ndarray]:
        """The clip of a place, or the first of its substitutes that can be read.

        Raises:
            ValueError: none of them could.
        """
        place = self.order.place(batch, slot)
        reason = ""
        for attempt in range(ATTEMPTS):
            number = self.number(place, attempt)
            if number in self.bad:
                continue
            row = self.row(place, attempt)
            try:
                return self.load(row, self.moment(place, attempt)) | {"what": np.array([row, attempt], np.int64)}
            except UndecodableError as error:
                self.bad.add(number)
                reason = f"; the last one ({self.index.key(row)}): {error}"
        raise ValueError(f"{self.index.root}: none of {ATTEMPTS} clips could be decoded{reason}")

    def number(self, place: Place, attempt: int) -> int:
        """Which of the kept clips comes at a place (attempt 0), or in its stead."""
        return place.clip if attempt == 0 else self.order.substitute(place.position, attempt)

    def row(self, place: Place, attempt: int) -> int:
        """The row of that clip."""
        return int(self.kept[self.number(place, attempt)])

    def moment(self, place: Place, attempt: int) -> Moment:
        """Which frames of that clip are taken, and what is done to them."""
        first = None if self.frames is None else int(self.frames[self.number(place, attempt)])
        stored = int(self.index.rows[self.row(place, attempt)]["frames"])
        return moment(self.spec, stored, self.order.draw(place.position), first)

    def load(self, row: int, taken: Moment) -> dict[str, np.ndarray]:
        """`FIELDS` of one clip.

        Raises:
            UndecodableError: the bytes are not there, or (where frames are decoded here) cannot be decoded.
        """
        clip = self.index.rows[row]
        backwards = -1 if taken.reverse else 1
        count = len(taken.frames)
        values: dict[str, np.ndarray] = {
            "frames": np.array(taken.frames, np.int32),
            "turn": np.arange(count, dtype=np.int32)[::backwards].copy(),
            "shown": np.array(taken.shown, np.int32),
            "mirror": np.array(taken.mirror, np.int32),
            "strip": np.array([clip["frames"], clip["mask_height"], clip["mask_width"], 1], np.int32),
        }
        values["corner"], values["opposite"] = _region(self.spec, int(clip["height"]), int(clip["width"]))
        if "mask" in self.fields:
            values["mask"] = self._member(clip, "truth" if self.spec.use_truth_as_mask else "mask")
        if "truth" in self.fields:
            values["truth"] = self._member(clip, "truth")
        encoded = self._member(clip, "video")
        if "encoded" in self.fields:
            return values | {"encoded": encoded}
        size = (int(clip["height"]), int(clip["width"]))
        rate = (int(clip["fps_numerator"]), int(clip["fps_denominator"]))
        picture = frames_of(encoded.tobytes(), taken.frames, size, rate, CODECS[clip["codec"]])
        return values | {"picture": np.ascontiguousarray(picture[::backwards])}

    def _member(self, clip: np.void, name: str) -> np.ndarray:
        """The bytes of a member, straight from its place in the tar."""
        size, offset, shard = int(clip[f"{name}_size"]), int(clip[name]), int(clip["shard"])
        try:
            data = os.pread(self._open(shard), size, offset)
        except OSError as error:
            raise UndecodableError(f"{self.index.shards[shard]}: {error.strerror}") from None
        if len(data) != size or not size:
            raise UndecodableError(f"{self.index.shards[shard]}: {len(data)} of {size} bytes of {name} at {offset}")
        return np.frombuffer(data, np.uint8)

    def _open(self, shard: int) -> int:
        if shard not in self._shards:
            if len(self._shards) >= OPEN_SHARDS:
                os.close(self._shards.popitem(last=False)[1])
            self._shards[shard] = os.open(self.index.root / self.index.shards[shard], os.O_RDONLY | os.O_CLOEXEC)
        self._shards.move_to_end(shard)
        return self._shards[shard]

    def close(self) -> None:
        """Close the shards that this process opened."""
        while self._shards:
            os.close(self._shards.popitem()[1])


def _live_and_die_with_the_parent() -> None:
    """In a reader process: signals are the trainer's affair, and a trainer that was killed leaves no reader behind.

    Slurm and DeepSpeed's `launch` signal every process of a job; a reader that obeyed would take away the trainer's last step.
    Its own SIGTERM, by which DALI ends readers, is told apart by its sender. `STOPS` came blocked from the parent (decoding/graph.py).
    """
    parent = multiprocessing.parent_process()
    if parent is None or threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        parent.join()
        os._exit(1)  # the main thread may wait for work that nobody sends any more

    def obey() -> None:
        while True:
            told = signal.sigwaitinfo(STOPS)
            if told.si_signo == signal.SIGTERM and told.si_pid == parent.pid:
                os._exit(1)

    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    for work in (wait, obey):
        threading.Thread(target=work, daemon=True).start()


def _fields(spec: ClipSpec, decoder: str, truth: bool) -> tuple[str, ...]:
    """What the graph of decoding/graph.py asks for with these settings, and nothing that it would not use."""
    asked = {"what"} | ({"picture"} if decoder == "pyav" else {"encoded", "frames"})
    if decoder != "pyav" and spec.reverse:
        asked |= {"turn"}
    if spec.mirror:
        asked |= {"mirror"}
    if spec.resize == "crop":
        asked |= {"corner", "opposite"}
    masks = {name for name, wanted in (("mask", spec.mask or spec.use_truth_as_mask), ("truth", truth)) if wanted}
    if masks:
        asked |= masks | {"strip", "shown"}
    return tuple(name for name in FIELDS if name in asked)


def _region(spec: ClipSpec, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of a frame that fills the square, as shares of its height and width: two corners (y, x)."""
    share = np.array([1.0, 1.0], np.float32)
    if spec.resize == "crop":
        share[:] = min(height, width) / height, min(height, width) / width
    return (1 - share) / 2, (1 + share) / 2
