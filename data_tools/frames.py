"""The frames of a film, whatever it is (video, folder of pictures, one picture), and the sizes they are worked on and stored at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from data_tools.schema import Prepare
from data_tools.sources.films import Film, pictures_in
from data_tools.videos import Damage, Frame, Unusable, decode, probe

NVDEC_SIDE = 128  # pixels; NVDEC takes no VP9 below


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


def film_frames(film: Film, settings: Prepare, damage: Damage) -> tuple[tuple[int, int], Iterable[Frame]]:
    """(frame rate, frames at the size on which masks are computed) of a film on this machine.

    Raises:
        Unusable: now or while they are read: the film cannot be used; the text says why.
    """

    def size_of(height: int, width: int) -> tuple[int, int]:
        if min(height, width) < settings.min_source_side:
            raise Unusable(f"{width}x{height} px is below min_source_side = {settings.min_source_side}")
        if max(height, width) > settings.max_aspect * min(height, width):
            raise Unusable(f"{width}x{height} px is beyond max_aspect = {settings.max_aspect:g}")
        if (
            settings.masks.kind not in ("unlc", "network", "combined")
            or settings.masks.working_side <= settings.short_side
        ):
            return stored_size(height, width, settings)
        return scaled(height, width, settings.masks.working_side)

    path = film.path
    assert isinstance(path, Path), "what is elsewhere is fetched first"
    if film.kind == "video":
        found = probe(path)
        rate_to_make = None if found.steady else found.fps
        return found.fps, decode(path, rate_to_make, size_of, damage, settings.max_pixels)
    paths = [Path(str(picture)) for picture in pictures_in(path)] if film.kind == "frames" else [path]
    rate = Fraction(settings.frames_fps).limit_denominator(1001)
    return (rate.numerator, rate.denominator), _pictures(paths, size_of, damage, settings.max_pixels)


def _pictures(
    paths: list[Path], size_of: Callable[[int, int], tuple[int, int]], damage: Damage, max_pixels: int
) -> Iterator[Frame]:
    """Frames from picture files; one that cannot be read is left out, and the film is cut there."""
    cut, size = False, None
    for number, path in enumerate(paths):
        try:
            with Image.open(path) as picture:
                if picture.width * picture.height > max_pixels:
                    raise Unusable(f"a picture of {picture.width}x{picture.height} px; max_pixels is {max_pixels}")
                image = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        except Unusable:
            raise
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
        shown = (image.shape[0], image.shape[1])
        yield Frame(resized(image, size_of(*shown)), number, shown, cut)
        cut = False


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture at (height, width): averaged over areas when made smaller, cubic when made larger."""
    if image.shape[:2] == size:
        return image
    smaller = size[0] <= image.shape[0] and size[1] <= image.shape[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
