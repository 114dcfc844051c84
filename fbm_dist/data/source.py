"""What reader processes do: from a place in the plan to the bytes (or frames) of one clip. Imports no torch and no DALI."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8

from fbm_dist.data.decoding.choice import decoded_by_readers
from fbm_dist.data.decoding.frames import FrameReader, Stored, UndecodableError
from fbm_dist.data.decoding.masks import squares, strip_of
from fbm_dist.data.decoding.region import Region, region
from fbm_dist.data.index.index import CODECS, Index
from fbm_dist.data.index.selection import Selected
from fbm_dist.data.lazy import Lazy
from fbm_dist.data.order.draw import Draw, Moment, moment, negative
from fbm_dist.data.order.plan import Order, Pass, Place
from fbm_dist.data.process import live_and_die_with_the_parent
from fbm_dist.data.shards.tars import ShardReadError, Tars
from fbm_dist.schema import ClipSpec

Value = TypeVar("Value")

ATTEMPTS = 100  # substitutes that are tried for one place before the data set is called unreadable
STEP = 1000  # positions
UNREACHABLE = "reading shards failed"
OTHER = "_other"  # ending of the fields of the frame of another film

# What the source can give for a clip: numpy type, number of dimensions. `PAIRED` are there once more for the frame of another film.
FIELDS = {
    "what": ("int64", 1),  # attempt (0: the clip that the plan names); likewise of the other film's
    # decoded squares (t, 3, size, size) in the order in which they are shown; in place of the next five
    "picture": ("uint8", 4),
    "encoded": ("uint8", 1),  # mp4 bytes
    "frames": ("int32", 1),  # of them, the frames to decode, ascending
    "turn": ("int32", 1),  # order in which the decoded frames are shown
    "corner": ("float32", 1),  # y, x of the region's first corner, as shares of height and width
    "opposite": ("float32", 1),  # y, x of its last corner
    "mask": ("uint8", 1),  # PNG bytes of all stored frames' masks, stacked
    "truth": ("uint8", 1),  # likewise
    "mask_squares": ("uint8", 3),  # decoded, (t, size, size), in place of the PNG bytes and what belongs to them
    "truth_squares": ("uint8", 3),  # likewise
    "strip": ("int32", 1),  # stored frames, mask height, mask width, 1
    "shown": ("int32", 1),  # which of the stored masks are shown, in order
}
PAIRED = ("encoded", "frames", "corner", "opposite", "mask", "truth", "strip", "shown")
FIELDS |= {name + OTHER: FIELDS[name] for name in PAIRED}


class Row(NamedTuple):
    """What the index says of a clip: `fbm_dist.data.index.index.ROW` as Python's numbers."""

    shard: int
    codec: int
    verdict: int
    split: int
    video: int
    video_size: int
    mask: int
    mask_size: int
    truth: int
    truth_size: int
    frames: int
    height: int
    width: int
    mask_height: int
    mask_width: int
    fps_numerator: int
    fps_denominator: int
    start: int
    film: int
    group: int


@dataclass(frozen=True)
class Part(Lazy):
    """A data set that takes part: its index, the clips that were chosen, and where their bytes are."""

    index: Index
    selected: Selected
    tars: Tars

    @cached_property
    def _kept(self) -> np.ndarray:
        return np.asarray(self.selected.kept)  # an array, not a memmap: a tenth of the price for each number

    @cached_property
    def _rows(self) -> np.ndarray:
        return np.asarray(self.index.rows)

    def row_number(self, entry: int) -> int:
        """The row of the index of one of the chosen clips."""
        return int(self._kept[entry])

    def row(self, entry: int) -> Row:
        """What the index says of it."""
        return Row._make(self._rows[self._kept[entry]].item())

    def first(self, entry: int) -> int | None:
        """The frame to start with, where `frames_per_shot` chose it."""
        frames = self.selected.frames
        return None if frames is None else int(frames[entry])

    def key(self, entry: int) -> str:
        """Its key."""
        return self.index.key(self.row_number(entry))


class Parts(tuple[Part, ...]):
    """Data sets whose chosen clips are numbered one after the other."""

    def locate(self, number: int) -> tuple[Part, int]:
        """Which part a clip belongs to, and which of that part's clips it is."""
        if len(self) == 1:
            return self[0], number
        place = bisect_right(self._first, number) - 1
        return self[place], number - self._first[place]

    @cached_property
    def _first(self) -> list[int]:
        return list(accumulate((len(part.selected) for part in self[:-1]), initial=0))


class Chosen(NamedTuple):
    """A clip, and what is cut out of it."""

    number: int  # of all chosen clips
    part: Part
    entry: int  # of the part's chosen clips
    row: Row
    draw: Draw
    moment: Moment

    @property
    def key(self) -> str:
        """The clip's key."""
        return self.part.key(self.entry)

    @property
    def stored(self) -> Stored:
        """What a decoder has to know of it."""
        row = self.row
        return Stored(CODECS[row.codec], row.height, row.width, (row.fps_numerator, row.fps_denominator))


class ClipSource:
    """Callable for DALI's `external_source(batch=False, parallel=True)`: stateless but for what was found undecodable."""

    def __init__(self, parts: Parts, order: Order | Pass, spec: ClipSpec, decoder: str, truth: bool) -> None:
        self.parts = parts
        self.order = order
        self.spec = spec
        self.bad: set[int] = set()  # numbers of clips that cannot be decoded
        self.first = 0  # number of the batch that DALI calls its first
        self.fields = _fields(spec, decoder, truth)
        self._decoder, self._truth = decoder, truth

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_reader"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        live_and_die_with_the_parent()

    @cached_property
    def _reader(self) -> FrameReader:
        return FrameReader()

    def __call__(self, sample: Any) -> tuple[np.ndarray, ...]:
        """DALI's door: `sample` is a SampleInfo."""
        try:
            values = self.read(self.first + sample.iteration, sample.idx_in_batch)
        except OSError as error:  # object storage does not answer: no clip is at fault. DALI hands on the text alone
            raise RuntimeError(f"{UNREACHABLE}: {error}") from None
        return tuple(values[name] for name in self.fields)

    def read(self, batch: int, slot: int) -> dict[str, np.ndarray]:
        """The clip of a place, or the first of its substitutes that can be read; with `spec.negative` also one of another film.

        Raises:
            ValueError: none of them could.
        """
        place = self.order.place(batch, slot)
        room, frames = self.room(self.spec.length), self.spec.frames
        own = {name: whole[:frames] for name, whole in room.items()}
        attempt, chosen, values = self.first_good(self.clips(place), partial(self.load, room=own))
        what = [attempt]
        if self.spec.negative:
            last = {name: whole[frames:] for name, whole in room.items()}
            attempt, _, others = self.first_good(self.others(place, chosen), partial(self.load, room=last))
            values |= {name + OTHER: others[name] for name in PAIRED if name in others}
            what.append(attempt)
        return values | room | {"what": np.array(what, np.int64)}

    def room(self, frames: int) -> dict[str, UInt8[np.ndarray, "t *square"]]:
        """For so many frames and masks that are decoded here; nothing where the graph decodes."""
        side = self.spec.size
        shapes = {
            "picture": (frames, 3, side, side),
            "mask_squares": (frames, side, side),
            "truth_squares": (frames, side, side),
        }
        return {name: np.empty(shape, np.uint8) for name, shape in shapes.items() if name in self.fields}

    def alone(self) -> ClipSource:
        """Reads single clips for the same graph: without others beside them."""
        spec = self.spec.model_copy(update={"negative": False})
        return ClipSource(self.parts, self.order, spec, self._decoder, self._truth)

    def clips(self, place: Place) -> Iterator[Chosen]:
        """The clip that the plan names, then its substitutes."""
        return (self.clip(place, attempt) for attempt in range(ATTEMPTS))

    def others(self, place: Place, beside: Chosen) -> Iterator[Chosen | None]:
        """Clips to show beside one; None for those of the same film."""
        return (self.other(place, attempt, beside) for attempt in range(ATTEMPTS))

    def clip(self, place: Place, attempt: int) -> Chosen:
        """The clip of a place (attempt 0), or the one that takes its stead."""
        number = place.clip if attempt == 0 else self.order.substitute(place.position, attempt)
        part, entry = self.parts.locate(number)
        row, draw = part.row(entry), self.order.draw(place.position)
        return Chosen(number, part, entry, row, draw, moment(self.spec, row.frames, draw, part.first(entry)))

    def other(self, place: Place, attempt: int, beside: Chosen) -> Chosen | None:
        """The clip of an attempt to find one of another film; None if it is not."""
        number = self.order.other(place.position, attempt)
        part, entry = self.parts.locate(number)
        row = part.row(entry)
        if row.film == beside.row.film:
            return None
        taken = negative(row.frames, beside.draw, beside.moment.mirror, centre=self.spec.window == "centre")
        return Chosen(number, part, entry, row, beside.draw, taken)

    def first_good(
        self, candidates: Iterator[Chosen | None], use: Callable[[Chosen], Value]
    ) -> tuple[int, Chosen, Value]:
        """Attempt, clip and what was made of it, of the first candidate that can be used; those that cannot are remembered as bad.

        Args:
            use: raises UndecodableError for a clip that is at fault.
        Raises:
            ValueError: none of them can.
        """
        of_other_films, reason = 0, ""
        for attempt, chosen in enumerate(candidates):
            if chosen is None:
                continue
            of_other_films += 1
            if chosen.number in self.bad:
                continue
            try:
                return attempt, chosen, use(chosen)
            except UndecodableError as error:
                self.bad.add(chosen.number)
                reason = f"; the last one ({chosen.key}): {error}"
        root = self.parts[0].index.root
        if not of_other_films:
            raise ValueError(
                f"{root}: {ATTEMPTS} clips were of the same film, and data.clip.negative needs others; prepare more films"
            )
        raise ValueError(f"{root}: none of {of_other_films} clips could be decoded{reason}")

    def load(self, chosen: Chosen, room: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`FIELDS` of one clip.

        Args:
            room: for the frames shown, to fill (`room`).
        Raises:
            UndecodableError: the bytes are not there, or (where frames are decoded here) cannot be decoded.
        """
        row, taken, fields = chosen.row, chosen.moment, self.fields
        values: dict[str, np.ndarray] = {}
        mask: np.ndarray | None = None
        if self.spec.mask or self.spec.use_truth_as_mask:
            mask = self._member(chosen, "truth" if self.spec.use_truth_as_mask else "mask")
        if mask is not None and "mask" in fields:
            values["mask"] = mask
        if "truth" in fields:
            values["truth"] = self._member(chosen, "truth")
        if "strip" in fields:
            values["strip"] = np.array([row.frames, row.mask_height, row.mask_width, 1], np.int32)
            values["shown"] = np.array(taken.shown, np.int32)
        shown: np.ndarray | None = None
        if mask is not None and ("mask_squares" in fields or self.spec.resize == "box"):
            shown = _shown(chosen, mask)
        part = region(self.spec, row.height, row.width, chosen.draw, shown)
        if "corner" in fields:
            whole = Region(0, 0, row.height, row.width)
            values["corner"], values["opposite"] = (part or whole).shares(row.height, row.width)
        encoded = self._member(chosen, "video")
        if not room:
            values["encoded"], values["frames"] = encoded, np.array(taken.frames, np.int32)
            values["turn"] = np.array(taken.turn, np.int32)
            return values
        size = (row.height, row.width)
        if shown is not None and "mask_squares" in room:
            squares(shown, list(room["mask_squares"]), part, size, soft=True)
        if "truth_squares" in room:
            squares(_shown(chosen, self._member(chosen, "truth")), list(room["truth_squares"]), part, size, soft=False)
        into = [room["picture"][taken.turn.index(i)] for i in range(len(taken.frames))]
        self._reader.read(encoded.tobytes(), taken.frames, chosen.stored, into, part)
        return values | room

    def _member(self, chosen: Chosen, name: str) -> np.ndarray:
        """The bytes of a member, straight from its place in the tar."""
        row = chosen.row
        offset, size = _PLACES[name](row)
        if not size:
            raise UndecodableError(f"{chosen.part.index.shards[row.shard]}: it has no {name}")
        try:
            return np.frombuffer(chosen.part.tars.read(row.shard, offset, size), np.uint8)
        except ShardReadError as error:
            raise UndecodableError(f"{name}: {error}") from None

    def needed(self, number: int, at_hand: int) -> Iterator[tuple[int, int]]:
        """(position, shard): where in the stream from `first` on each shard of a part is needed, whenever it was not needed lately.

        And one of them every `STEP` positions in any case: whoever follows this shall not run on for ever where all shards are at hand.

        Args:
            number: of the part.
            at_hand: shards that are kept, the last used ones.
        """
        lately: OrderedDict[int, None] = OrderedDict()
        told = 0
        for position in self.order.positions(self.order.place(self.first, 0).position):
            owner, entry = self.parts.locate(self.order.clip(position))
            if owner is not self.parts[number]:
                continue
            shard = owner.row(entry).shard
            if shard not in lately or position - told >= STEP:
                told = position
                yield position, shard
            lately[shard] = None
            lately.move_to_end(shard)
            if len(lately) > at_hand:
                lately.popitem(last=False)

    def close(self) -> None:
        """Close the shards that this process opened."""
        for part in self.parts:
            part.tars.close()


_PLACES = {name: attrgetter(name, f"{name}_size") for name in ("video", "mask", "truth")}


def _shown(chosen: Chosen, strip: np.ndarray) -> UInt8[np.ndarray, "t h w"]:
    """Of masks as they are stored (PNG bytes), those of the frames that are shown."""
    row = chosen.row
    return strip_of(strip.tobytes(), row.frames, row.mask_height, row.mask_width)[list(chosen.moment.shown)]


def _fields(spec: ClipSpec, decoder: str, truth: bool) -> tuple[str, ...]:
    """What the graph of decoding/graph.py asks for with these settings, and nothing that it would not use."""
    masks = {name for name, wanted in (("mask", spec.mask or spec.use_truth_as_mask), ("truth", truth)) if wanted}
    if decoded_by_readers(decoder):
        return tuple(name for name in FIELDS if name in {"what", "picture", *(f"{mask}_squares" for mask in masks)})
    asked = {"what", "encoded", "frames"} | ({"turn"} if spec.reverse or spec.within is not None else set())
    if masks:
        asked |= masks | {"strip", "shown"}
    if spec.resize != "squash":
        asked |= {"corner", "opposite"}
    if spec.negative:
        asked |= {name + OTHER for name in PAIRED if name in asked}
    return tuple(name for name in FIELDS if name in asked)
