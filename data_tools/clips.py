"""One film -> its clips: decode, cut into shots, cut shots into clips, masks, verdicts, encode. Streams: no film is held whole."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from data_tools.fingerprint import fingerprint
from data_tools.frames import film_frames, resized, scaled, stored_size
from data_tools.masks import soft_masks
from data_tools.prune import boxes, clip_verdict, keep, statistics
from data_tools.sample import Metadata, Sample
from data_tools.schema import Prepare
from data_tools.shots import detector
from data_tools.sources.films import Film
from data_tools.sources.labels import Annotation, annotation_of, span_edges
from data_tools.truth import Truth, true_masks
from data_tools.videos import Damage, Frame, Unusable, encode, encode_image

Piece = tuple[int, int, list[Frame]]  # shot, index of the first frame in the film, frames


@dataclass
class Tally:
    """What became of a film's frames."""

    frames: int = 0  # read, at the constant rate
    shots: int = 0
    short_frames: int = 0  # left out: rests of shots (between edges of spans) below `min_frames`
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Clip:
    """Frames of a film from `start` on, from which a sample can be made: that is the work, and it may have been done before."""

    start: int
    make: Callable[[], Sample]


def sample_key(film: str, start: int, stop: int, settings: str) -> str:
    """The key of a clip: hash of the film's bytes (its id), the span and the settings."""
    return hashlib.sha256(f"{film} {start} {stop} {settings}".encode()).hexdigest()[:40]


def settings_hash(settings: Prepare) -> str:
    """A short hash of everything that shapes samples."""
    return hashlib.sha256(json.dumps(settings.shaping(), sort_keys=True).encode()).hexdigest()[:16]


def film_clips(
    film: Film,
    film_id: str,
    rows: tuple[Annotation, ...],
    settings: Prepare,
    beat: Callable[[int], None],
    tally: Tally,
) -> Iterator[Clip]:
    """The clips of a film on this machine, in order; `tally` is filled on the way. A clip must be made before the next is asked for.

    Raises:
        Unusable: the film cannot be used; the text says why.
    """
    damage = Damage()
    fps, frames = film_frames(film, settings, damage)
    truth = true_masks(film)
    if settings.masks.kind == "given" and not truth:
        raise Unusable("no true masks beside it, and masks.kind is given")
    without_truth = 0
    least = 1 if film.kind == "picture" else settings.min_frames
    for shot, start, piece in pieces(_counted(frames, settings, beat, tally), settings, span_edges(rows)):
        tally.shots = shot + 1
        if len(piece) < least:
            tally.short_frames += len(piece)
            continue
        lost = film.kind == "video" and damage.packets > 0  # whose frame the next mask is, nobody knows any more
        strip = _truth_strip(piece, truth, settings) if truth and not lost else None
        without_truth += strip is None
        if strip is None and settings.masks.kind == "given":
            continue
        known = annotation_of(rows, start, start + len(piece))
        work = _Work(film, film_id, known, shot, start, fps, piece, strip, settings, beat)
        yield Clip(start, work.sample)
    tally.notes += damage.notes()
    if truth and without_truth:
        tally.notes.append(f"{without_truth} clips have no true masks: {truth.count} masks for {tally.frames} frames")
    if film.masks is not None and not truth:
        tally.notes.append("its folder of true masks holds no pictures")
    if damage.packets > tally.frames:
        raise Unusable(f"{damage.packets} damaged packets, only {tally.frames} frames could be decoded")


def pieces(frames: Iterable[Frame], settings: Prepare, edges: frozenset[int] = frozenset()) -> Iterator[Piece]:
    """Cut frames into shots, and shots into runs of at most `max_frames` contiguous frames of about equal length.

    Args:
        edges: frames before which a shot is cut as well, and goes on (`span_edges`).
    """
    current: list[Frame] = []
    shot, start = -1, 0
    for begins, frame in _with_cuts(frames, settings):
        if begins or start + len(current) in edges:
            for part in _rest(current, settings):
                yield shot, start, part
                start += len(part)
            current = []
            shot += begins
        current.append(frame)
        if len(current) >= 2 * settings.max_frames:  # what follows is still enough for a clip
            yield shot, start, current[: settings.max_frames]
            current = current[settings.max_frames :]
            start += settings.max_frames
    for part in _rest(current, settings):
        yield shot, start, part
        start += len(part)


def _rest(frames: list[Frame], settings: Prepare) -> list[list[Frame]]:
    """The end of a shot, or what is left before an edge (fewer than two full clips), as one clip or two halves.

    Where halves would be too short (FBM's chunks of exactly 32 frames), a full clip and what is left.
    """
    if len(frames) <= settings.max_frames:
        return [frames] if frames else []
    middle = (len(frames) + 1) // 2
    if len(frames) - middle < settings.min_frames:
        middle = settings.max_frames
    return [frames[:middle], frames[middle:]]


def _with_cuts(frames: Iterable[Frame], settings: Prepare) -> Iterator[tuple[bool, Frame]]:
    """Each frame with whether a shot begins there."""
    cutter = detector(settings.shots)
    pending: deque[Frame] = deque()
    for frame in frames:
        pending.append(frame)
        for begins in cutter.push(frame.image):
            decided = pending.popleft()
            yield begins or decided.cut, decided
    for begins in cutter.finish():
        decided = pending.popleft()
        yield begins or decided.cut, decided
    assert not pending, "the detector decides every frame"


def _counted(frames: Iterable[Frame], settings: Prepare, beat: Callable[[int], None], tally: Tally) -> Iterator[Frame]:
    stream = iter(frames)
    for frame in islice(stream, settings.max_film_frames):
        tally.frames += 1
        beat(1)
        yield frame
    if tally.frames == settings.max_film_frames and next(stream, None) is not None:
        tally.notes.append(f"read up to max_film_frames = {settings.max_film_frames}")


@dataclass(frozen=True)
class _Work:
    """All that a sample is made of."""

    film: Film
    film_id: str
    known: Annotation
    shot: int
    start: int
    fps: tuple[int, int]
    piece: list[Frame]
    truth: UInt8[np.ndarray, "t h w"] | None
    settings: Prepare
    beat: Callable[[int], None]

    def sample(self) -> Sample:
        """Masks, verdicts, encoded frames."""
        settings, stop = self.settings, self.start + len(self.piece)
        working = [frame.image for frame in self.piece]
        height, width = working[0].shape[:2]
        stored = stored_size(height, width, settings)
        clip = np.stack([resized(image, stored) for image in working])
        video = encode(clip, self.fps, settings.codec, settings.gop) if len(clip) > 1 else encode_image(clip[0])
        self.beat(0)
        mask, kind = soft_masks(working, mask_size(stored, settings), self.truth, settings, self.beat)
        self.beat(0)
        metadata = Metadata(
            film=self.film_id,
            source=self.film.source,
            id=self.known.id,
            shot=self.shot,
            span=(self.start, stop),
            fps=self.fps,
            size=stored,
            num_frames=len(clip),
            codec=settings.codec if len(clip) > 1 else "png",
            group=self.known.group or self.film_id,
            split=self.known.split,
            labels=self.known.labels,
            masks=kind,
            fingerprint=tuple(self._fingerprints()),
            licence=self.known.licence,
            attribution=self.known.attribution,
            versions=versions(kind, settings.masks.network_sha256, settings.masks.flow),
            **_verdicts(mask, self.truth, settings),
        )
        return Sample(
            sample_key(self.film_id, self.start, stop, settings_hash(settings)), metadata, video, mask, self.truth
        )

    def _fingerprints(self) -> Iterator[str]:
        """Of one frame a second of the film; a single picture has one too."""
        second = max(1, round(self.fps[0] / self.fps[1]))
        for place, frame in enumerate(self.piece, self.start):
            if place % second == 0 and (found := fingerprint(frame.image)) is not None:
                yield found


def _verdicts(mask: np.ndarray | None, truth: np.ndarray | None, settings: Prepare) -> dict[str, Any]:
    """What the metadata say about the masks."""
    if mask is None:
        return {"mask_size": truth.shape[1:]} if truth is not None else {}
    measured = statistics(mask)
    return {
        "mask_size": mask.shape[1:],
        "boxes": tuple(boxes(mask)),
        "keep": tuple(keep(measured, settings.prune)),
        "verdict": tuple(clip_verdict(measured, settings.prune)),
        "statistics": measured,
    }


def _truth_strip(piece: list[Frame], truth: Truth, settings: Prepare) -> UInt8[np.ndarray, "t h w"] | None:
    """True masks * 255 of a clip at the stored mask size; None where one of its frames has none."""
    height, width = piece[0].image.shape[:2]
    size = mask_size(stored_size(height, width, settings), settings)
    return truth.strip([frame.source for frame in piece], piece[0].shown, size)


def mask_size(stored: tuple[int, int], settings: Prepare) -> tuple[int, int]:
    """(height, width) of the masks stored beside a clip of that size."""
    return scaled(*stored, min(settings.masks.side, min(stored)))


@cache
def versions(masks: str, network_sha256: str | None = None, flow: str | None = None) -> dict[str, str]:
    """Versions of what makes a sample with masks of that kind, a network's being its file's sha256; `flow`: who makes it on a GPU."""
    tools = {
        "data_tools": _version("fbm-dist"),
        "av": av.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
    }
    tools["libavcodec"] = ".".join(map(str, av.library_versions["libavcodec"]))
    if masks in ("unlc", "combined"):
        tools |= {"scikit-image": _version("scikit-image"), "scipy": _version("scipy")}
    if masks in ("unlc", "combined") and flow is not None:
        tools |= {"torch": _version("torch")}
    if masks in ("unlc", "combined") and flow == "engine":
        tools |= {"dali": _version("nvidia-dali-cuda130")}
    if masks in ("network", "combined") and network_sha256 is not None:
        tools |= {"network": network_sha256, "torch": _version("torch")}
    return dict(sorted(tools.items()))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "source tree"
