"""One film -> its samples: decode, cut into shots, cut shots into clips, masks, verdicts, encode. Streams: no film is held whole."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from data_tools.films import Film, pictures_in
from data_tools.labels import Annotation, annotation_of
from data_tools.prune import boxes, clip_verdict, keep, statistics
from data_tools.sample import Metadata, Sample
from data_tools.schema import Prepare
from data_tools.shots import detector
from data_tools.videos import Damage, Frame, Unusable, decode, encode, encode_image, probe

NVDEC_SIDE = 128  # pixels; NVDEC takes no VP9 below
MASK_WINDOW = 110  # frames whose masks are computed together at most: the original's limit for a shot

Piece = tuple[int, int, list[Frame]]  # shot, index of the first frame in the film, frames


@dataclass
class Tally:
    """What became of a film's frames."""

    frames: int = 0  # read, at the constant rate
    shots: int = 0
    short_frames: int = 0  # left out: rests of shots below `min_frames`
    notes: list[str] = field(default_factory=list)


def sample_key(film: str, start: int, stop: int, settings: str) -> str:
    """The key of a clip: hash of the film's bytes (its id), the span and the settings."""
    return hashlib.sha256(f"{film} {start} {stop} {settings}".encode()).hexdigest()[:40]


def settings_hash(settings: Prepare) -> str:
    """A short hash of everything that shapes samples."""
    return hashlib.sha256(json.dumps(settings.shaping(), sort_keys=True).encode()).hexdigest()[:16]


def scaled(height: int, width: int, short_side: int, smallest: int = 1, even: bool = False) -> tuple[int, int]:
    """(height, width) with the shorter side at most `short_side` and at least `smallest`, aspect kept, even if asked."""
    short = min(height, width)
    target = min(max(short, min(smallest, short_side)), short_side)

    def side(length: int) -> int:
        wanted = length * target / short
        return max(2, 2 * round(wanted / 2)) if even else max(1, round(wanted))

    return side(height), side(width)


def stored_size(height: int, width: int, settings: Prepare) -> tuple[int, int]:
    """Size of the clip made of frames of that size: even sides; small films grow to what NVDEC can decode."""
    smallest = NVDEC_SIDE if settings.codec == "vp9" else 2
    return scaled(height, width, settings.short_side, smallest, even=True)


def film_samples(
    film: Film,
    film_id: str,
    rows: tuple[Annotation, ...],
    settings: Prepare,
    beat: Callable[[int], None],
    tally: Tally,
) -> Iterator[Sample]:
    """The samples of a film, in order; `tally` is filled on the way.

    Raises:
        Unusable: the film cannot be used; the text says why.
    """
    damage = Damage()
    fps, frames = _frames(film, settings, damage)
    truth = true_masks(film)
    if settings.masks.kind == "given" and not truth:
        raise Unusable("no true masks beside it, and masks.kind is given")
    without_truth = 0
    least = 1 if film.kind == "picture" else settings.min_frames
    for shot, start, piece in pieces(_counted(frames, settings, beat, tally), settings):
        tally.shots = shot + 1
        if len(piece) < least:
            tally.short_frames += len(piece)
            continue
        lost = film.kind == "video" and damage.packets > 0  # whose frame the next mask is, nobody knows any more
        strip = _truth_strip(piece, truth, settings) if truth and not lost else None
        without_truth += strip is None
        if strip is None and settings.masks.kind == "given":
            continue
        annotation = annotation_of(rows, start, start + len(piece))
        yield _sample(film, film_id, annotation, shot, start, fps, piece, strip, settings, beat)
    tally.notes += damage.notes()
    if truth and without_truth:
        there = sum(path is not None for path in truth)
        tally.notes.append(f"{without_truth} clips have no true masks: {there} masks for {tally.frames} frames")
    if film.masks is not None and not truth:
        tally.notes.append("its folder of true masks holds no pictures")
    if damage.packets > tally.frames:
        raise Unusable(f"{damage.packets} damaged packets, only {tally.frames} frames could be decoded")


def pieces(frames: Iterable[Frame], settings: Prepare) -> Iterator[Piece]:
    """Cut frames into shots, and shots into runs of at most `max_frames` contiguous frames of about equal length."""
    current: list[Frame] = []
    shot, start = -1, 0
    for begins, frame in _with_cuts(frames, settings):
        if begins:
            for part in _rest(current, settings.max_frames):
                yield shot, start, part
                start += len(part)
            current, shot = [], shot + 1
        current.append(frame)
        if len(current) >= 2 * settings.max_frames:  # what follows is still enough for a clip
            yield shot, start, current[: settings.max_frames]
            current = current[settings.max_frames :]
            start += settings.max_frames
    for part in _rest(current, settings.max_frames):
        yield shot, start, part
        start += len(part)


def _rest(frames: list[Frame], most: int) -> list[list[Frame]]:
    """The end of a shot (fewer than two full clips), as one clip or two halves."""
    if len(frames) <= most:
        return [frames] if frames else []
    middle = (len(frames) + 1) // 2
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


def _frames(film: Film, settings: Prepare, damage: Damage) -> tuple[tuple[int, int], Iterable[Frame]]:
    """(frame rate, frames at the size on which masks are computed)."""

    def size_of(height: int, width: int) -> tuple[int, int]:
        if min(height, width) < settings.min_source_side:
            raise Unusable(f"{width}x{height} px is below min_source_side = {settings.min_source_side}")
        if max(height, width) > settings.max_aspect * min(height, width):
            raise Unusable(f"{width}x{height} px is beyond max_aspect = {settings.max_aspect:g}")
        if settings.masks.kind != "unlc" or settings.masks.working_side <= settings.short_side:
            return stored_size(height, width, settings)
        return scaled(height, width, settings.masks.working_side)

    if film.kind == "video":
        found = probe(film.path)
        return found.fps, decode(film.path, None if found.steady else found.fps, size_of, damage)
    paths = pictures_in(film.path) if film.kind == "frames" else [film.path]
    rate = Fraction(settings.frames_fps).limit_denominator(1001)
    return (rate.numerator, rate.denominator), _pictures(paths, size_of, damage)


def _pictures(paths: list[Path], size_of: Callable[[int, int], tuple[int, int]], damage: Damage) -> Iterator[Frame]:
    """Frames from picture files; one that cannot be read is left out, and the film is cut there."""
    cut, size = False, None
    for number, path in enumerate(paths):
        try:
            with Image.open(path) as picture:
                image = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        except (
            OSError,
            ValueError,
            SyntaxError,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,
        ) as error:
            if len(paths) == 1:
                raise Unusable(f"the picture cannot be decoded: {' '.join(str(error).split())}") from None
            damage.packets += 1
            cut = True
            continue
        cut = cut or (size is not None and size != image.shape)
        size = image.shape
        yield Frame(resized(image, size_of(*image.shape[:2])), number, cut)
        cut = False


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture at (height, width): averaged over areas when made smaller, cubic when made larger."""
    if image.shape[:2] == size:
        return image
    smaller = size[0] <= image.shape[0] and size[1] <= image.shape[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def _sample(
    film: Film,
    film_id: str,
    annotation: Annotation,
    shot: int,
    start: int,
    fps: tuple[int, int],
    piece: list[Frame],
    truth: UInt8[np.ndarray, "t h w"] | None,
    settings: Prepare,
    beat: Callable[[int], None],
) -> Sample:
    working = [frame.image for frame in piece]
    height, width = working[0].shape[:2]
    stored = stored_size(height, width, settings)
    clip = np.stack([resized(image, stored) for image in working])
    codec = settings.codec if len(clip) > 1 else "png"
    video = encode(clip, fps, settings.codec, settings.gop) if len(clip) > 1 else encode_image(clip[0])
    mask, kind = _soft_masks(working, mask_size(stored, settings), truth, settings)
    beat(0)
    verdicts: dict[str, Any] = {}
    if mask is not None:
        measured = statistics(mask)
        verdicts = {
            "mask_size": mask.shape[1:],
            "boxes": tuple(boxes(mask)),
            "keep": tuple(keep(measured, settings.prune)),
            "verdict": tuple(clip_verdict(measured, settings.prune)),
            "statistics": measured,
        }
    elif truth is not None:
        verdicts = {"mask_size": truth.shape[1:]}
    metadata = Metadata(
        film=film_id,
        source=film.source,
        shot=shot,
        span=(start, start + len(piece)),
        fps=fps,
        size=stored,
        num_frames=len(piece),
        codec=codec,
        group=annotation.group or film_id,
        split=annotation.split,
        labels=annotation.labels,
        masks=kind,
        licence=annotation.licence,
        attribution=annotation.attribution,
        versions=_versions(kind),
        **verdicts,
    )
    key = sample_key(film_id, start, start + len(piece), settings_hash(settings))
    return Sample(key, metadata, video, mask, truth)


def mask_size(stored: tuple[int, int], settings: Prepare) -> tuple[int, int]:
    """(height, width) of the masks stored beside a clip of that size."""
    return scaled(*stored, min(settings.masks.side, min(stored)))


def _soft_masks(
    working: list[np.ndarray], size: tuple[int, int], truth: np.ndarray | None, settings: Prepare
) -> tuple[UInt8[np.ndarray, "t h w"] | None, Any]:
    """Soft scores * 255 of a clip, and where they come from. One frame shows no motion: it gets none."""
    if settings.masks.kind == "given":
        return truth, "given"
    if settings.masks.kind == "none" or len(working) < 2:
        return None, "none"
    from data_tools.unlc import motion_masks

    windows = -(-len(working) // MASK_WINDOW)
    scores = [motion_masks(np.stack(part), settings.masks.unlc) for part in _even(working, windows)]
    soft = [resized(np.ascontiguousarray(score), size) for part in scores for score in part]
    return np.rint(np.clip(np.stack(soft), 0, 1) * 255).astype(np.uint8), "unlc"


def _even(items: list[np.ndarray], parts: int) -> list[list[np.ndarray]]:
    bounds = [len(items) * i // parts for i in range(parts + 1)]
    return [items[a:b] for a, b in pairwise(bounds)]


def true_masks(film: Film) -> list[Path | None]:
    """The true mask of each of the film's own frames, None where a frame has none; empty where the film has no masks.

    Masks of frames have the frames' names; where they have not, as for a video, the order counts, and of frames there must
    be as many as masks.
    """
    masks: list[Path | None] = list(pictures_in(film.masks)) if film.masks is not None else []
    if film.kind == "video" or not masks:
        return masks
    frames = pictures_in(film.path) if film.kind == "frames" else [film.path]
    named = {mask.stem: mask for mask in masks if mask is not None}
    matched = [named.get(frame.stem) for frame in frames]
    unnamed = named.keys() - {frame.stem for frame in frames}
    return masks if unnamed and len(masks) == len(frames) else matched


def _truth_strip(piece: list[Frame], paths: list[Path | None], settings: Prepare) -> UInt8[np.ndarray, "t h w"] | None:
    """True masks * 255 of a clip at the stored mask size; None where one of its frames has none."""
    own = [paths[frame.source] if frame.source < len(paths) else None for frame in piece]
    height, width = piece[0].image.shape[:2]
    size = mask_size(stored_size(height, width, settings), settings)
    strip = []
    for path in own:
        if path is None:
            return None
        try:
            with Image.open(path) as picture:
                mask = np.asarray(picture)
        except (OSError, ValueError, SyntaxError) as error:
            raise Unusable(f"the true mask {path.name} cannot be read: {' '.join(str(error).split())}") from None
        inside = (mask[..., :3].max(axis=2) if mask.ndim == 3 else mask) > 0  # any object's colour or number
        if abs(inside.shape[1] * height - inside.shape[0] * width) > 0.1 * inside.shape[0] * width:
            raise Unusable(f"the true mask {path.name} has another shape than the frames")
        strip.append(cv2.resize(inside.astype(np.uint8) * 255, size[::-1], interpolation=cv2.INTER_NEAREST))
    return np.stack(strip)


@cache
def _versions(masks: str) -> dict[str, str]:
    """Versions of what made a sample."""
    tools = {
        "data_tools": _version("fbm-dist"),
        "av": av.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
    }
    tools["libavcodec"] = ".".join(map(str, av.library_versions["libavcodec"]))
    if masks == "unlc":
        tools |= {"scikit-image": _version("scikit-image"), "scipy": _version("scipy")}
    return dict(sorted(tools.items()))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "source tree"
