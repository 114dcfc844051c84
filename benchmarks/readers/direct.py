"""Decoders called directly, with the loader's kind of access: any clip after any other, frames from a random start."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from benchmarks.readers import with_decord, with_pyav, with_torchcodec
from benchmarks.readers.measuring import Decode, Run
from benchmarks.readers.stored import FRAMES, Stored
from data_tools.videos import decode_clip

LIBRARIES = {"PyAV": with_pyav, "torchcodec": with_torchcodec, "decord": with_decord}
WRONG = "wrong frames"
INSTALL = "not installed: pip install -e '.[benchmarks]'"


def libraries() -> tuple[dict[str, dict[str, Decode]], dict[str, str]]:
    """The ways to call each library that is here, and why the others are not."""
    found, missing = {}, {}
    for name, library in LIBRARIES.items():
        try:
            found[name] = library.variants()
        except ModuleNotFoundError:
            missing[name] = INSTALL
        except ImportError as error:
            missing[name] = str(error)
    return found, missing


def clips(stored: Stored, decode: Decode, frames: int, side: int) -> Run:
    """Decoded clips, uint8, one at a time; the same clips and starts for every decoder."""

    def run(amount: float) -> Iterator[float]:
        rng = np.random.default_rng(0)
        decode(stored.video(0), 0, frames, side)
        yield 0.0
        done = 0
        while True:
            number, first = int(rng.integers(len(stored))), int(rng.integers(FRAMES - frames + 1))
            assert decode(stored.video(number), first, frames, side).shape == (frames, side, side, 3)
            done += 1
            yield float(done)

    return run


def check(stored: Stored, decode: Decode, frames: int, side: int) -> str:
    """Whether the frames from some random starts are the right ones: the nearest of all of the clip's. In words."""
    rng = np.random.default_rng(1)
    for number in rng.integers(len(stored), size=4).tolist():
        video = stored.video(number)
        first = int(rng.integers(FRAMES - frames + 1))
        whole = np.stack([cv2.resize(frame, (side, side)) for frame in decode_clip(video)]).astype(np.float32)
        for place, frame in enumerate(decode(video, first, frames, side)):
            nearest = int(np.abs(whole - frame).mean((1, 2, 3)).argmin())
            if nearest != first + place:
                return f"{WRONG}: {nearest} in place of {first + place}"
    return "frames checked"
