"""torchcodec called directly, with each of its ways to seek and to resize; and FFmpeg's libraries for it."""

from __future__ import annotations

import atexit
import importlib.util
import itertools
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.readers.measuring import Decode
from data_tools.videos import encode

MARK = "FBM_BENCHMARK_LIBRARIES"  # the folder of links, in the environment of the program that was started again
FFMPEG = ("avcodec", "avdevice", "avfilter", "avformat", "avutil", "swresample", "swscale")


def variants() -> dict[str, Decode]:
    """Each way to seek with each way to resize.

    Raises:
        ImportError: it is not installed, or does not find FFmpeg.
    """
    _try()
    return {
        f"torchcodec, {mode}, {how}": _decoder(mode, how)
        for mode, how in itertools.product(("exact", "approximate"), ("its Resize", "cv2", "torch"))
    }


def find_ffmpeg() -> None:
    """Where torchcodec finds no FFmpeg: start this program again, once, with links to PyAV's own where it looks.

    The loader takes its libraries by the names `libavcodec.so.N`; PyAV's wheel has them under other names, and the search
    path is read when a program starts.
    """
    if folder := os.environ.get(MARK):
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return
    bundled = Path(av.__file__).parents[1] / "av.libs"
    if importlib.util.find_spec("torchcodec") is None or not bundled.is_dir():
        return
    try:
        _try()
    except ImportError:
        links = Path(tempfile.mkdtemp(prefix="ffmpeg-"))
        for path in sorted(bundled.iterdir()):
            if found := re.fullmatch(r"lib([a-z]+)-[0-9a-f]+\.so\.(\d+)\..*", path.name):
                if found[1] in FFMPEG:
                    (links / f"lib{found[1]}.so.{found[2]}").symlink_to(path)
        search = [str(links), str(bundled), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        environment = os.environ | {MARK: str(links), "LD_LIBRARY_PATH": os.pathsep.join(search)}
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _try() -> None:
    """Open a clip: newer versions load FFmpeg only then."""
    from torchcodec.decoders import VideoDecoder

    try:
        VideoDecoder(encode(np.zeros((2, 64, 64, 3), np.uint8), (25, 1), "h264"))
    except (RuntimeError, OSError) as error:
        raise ImportError(f"it finds no FFmpeg that it can use: {str(error).splitlines()[0]}") from None


def _decoder(mode: str, how: str) -> Decode:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    def decode(data: bytes, first: int, frames: int, side: int) -> np.ndarray:
        if how == "its Resize":
            video = VideoDecoder(data, num_ffmpeg_threads=1, seek_mode=mode, transforms=[Resize((side, side))])
            return video.get_frames_in_range(first, first + frames).data.permute(0, 2, 3, 1).numpy()
        video = VideoDecoder(data, num_ffmpeg_threads=1, seek_mode=mode, dimension_order="NHWC")
        found: torch.Tensor = video.get_frames_in_range(first, first + frames).data
        if how == "cv2":
            return np.stack([cv2.resize(frame, (side, side)) for frame in found.numpy()])
        resized = F.interpolate(found.permute(0, 3, 1, 2), (side, side), mode="bilinear")
        return resized.permute(0, 2, 3, 1).numpy()

    return decode
