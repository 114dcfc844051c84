"""Chosen frames by PyAV: the right ones, those of DALI's decoder within a tolerance; damage is told, not returned."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import av
import cv2
import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def, types

from data_tools.videos import decode_clip, encode, encode_image
from fbm_dist.data.decoding.frames import FrameReader, Stored, UndecodableError, _by_demuxer
from fbm_dist.data.decoding.region import Region
from tests.datasets import scene

SIZE = (96, 112)
# A texture that rolls by: no two frames are alike.
PICTURE = scene(1, 1, (96, 256))[0][0]
VIDEO = np.stack([PICTURE[:, 2 * t : 2 * t + SIZE[1]] for t in range(70)])


def read(
    data: bytes,
    frames: Sequence[int],
    codec: str,
    fps: tuple[int, int] = (25, 1),
    side: int = 64,
    region: Region | None = None,
    size: tuple[int, int] = SIZE,
    reader: FrameReader | None = None,
) -> np.ndarray:
    into = np.zeros((len(frames), 3, side, side), np.uint8)
    (reader or FrameReader()).read(data, frames, Stored(codec, *size, fps), list(into), region)
    return into.transpose(0, 2, 3, 1)


@pytest.mark.parametrize(("codec", "fps"), [("vp9", (25, 1)), ("h264", (30000, 1001)), ("h264", (12, 1))])
def test_the_frames_are_those_that_were_asked_for(codec: Any, fps: tuple[int, int]) -> None:
    data = encode(VIDEO, fps, codec)
    # from the start, without any seeking
    everything = np.stack([cv2.resize(frame, (64, 64)) for frame in decode_clip(data)]).astype(int)
    reader = FrameReader()  # keeps its decoder from clip to clip
    for frames in (range(16), range(31, 47), range(33, 70, 3), [69], [0, 5, 40, 64], [69], range(16)):
        for number, frame in zip(frames, read(data, list(frames), codec, fps, reader=reader), strict=True):
            errors = np.abs(everything - frame).mean((1, 2, 3))
            assert errors.argmin() == number
            assert errors[number] < 0.7 * np.delete(errors, number).min()


@pytest.mark.parametrize("codec", ["vp9", "h264"])
def test_the_table_and_the_demuxer_lead_to_the_same_pixels(codec: Any) -> None:
    data = encode(VIDEO, (25, 1), codec)
    for frames in ([0], [5, 6, 7], [31, 32, 33], [0, 40, 69]):
        reader = FrameReader()
        theirs = np.zeros((len(frames), 3, 64, 64), np.uint8)
        for frame, into in zip(_by_demuxer(data, frames, (25, 1)), theirs, strict=True):
            reader._convert(frame, None, into)
        assert np.array_equal(read(data, frames, codec), theirs.transpose(0, 2, 3, 1))


def test_a_clip_of_another_muxer_is_read_by_the_demuxer() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25, options={"threads": "1", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for picture in VIDEO[:40]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    found = read(out.getvalue(), [3, 20, 21], "h264")
    wanted = np.stack([cv2.resize(VIDEO[frame], (64, 64)) for frame in (3, 20, 21)])
    assert np.abs(found.astype(int) - wanted).mean() < 6


def by_dali(data: bytes, frames: list[int], side: int, region: Region | None) -> np.ndarray:
    roi: dict[str, Any] = {}
    if region is not None:
        first, last = region.shares(*SIZE)
        roi = {"roi_start": first.tolist(), "roi_end": last.tolist(), "roi_relative": True}

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def decoder():  # type: ignore[no-untyped-def]
        encoded = fn.external_source(source=lambda: np.frombuffer(data, np.uint8), batch=False, dtype=types.UINT8)
        video = fn.decoders.video(encoded, frames=frames)
        return fn.resize(video, size=[side, side], interp_type=types.DALIInterpType.INTERP_LINEAR, **roi)

    return np.array(decoder().run()[0][0])


@pytest.mark.parametrize("side", [32, 64, 96, 128])
@pytest.mark.parametrize("region", [None, Region(16, 20, 80, 84), Region(2, 6, 34, 38)])
def test_pixels_are_those_of_dali_within_a_tolerance(side: int, region: Region | None) -> None:
    """The stated tolerance, of 255 levels, in textures of colour noise: 2 on average and 12 for 99 % of the values; half at most sizes.

    DALI brings the colours to full size before it resizes, FFmpeg resizes them by themselves: they differ most where the square has
    just their size.
    """
    same = side == 32 and region is not None  # as large as the stored colours
    data = encode(VIDEO, (25, 1), "vp9")
    frames = [3, 4, 20, 41]
    theirs = by_dali(data, frames, side, region).astype(int)
    errors = np.abs(read(data, frames, "vp9", side=side, region=region) - theirs)
    assert errors.mean() < (2.0 if same else 1.0)
    assert np.quantile(errors, 0.99) <= (12 if same else 6)
    shifted = np.abs(np.roll(theirs, 1, axis=2) - theirs)
    assert errors.mean() < 0.5 * shifted.mean()  # the check can fail: by a pixel


def test_nothing_is_lost_where_nothing_is_resized() -> None:
    square = np.ascontiguousarray(VIDEO[:, :, :96])
    data = encode(square, (25, 1), "vp9")
    found = read(data, [3, 40], "vp9", side=96, size=(96, 96))
    assert np.array_equal(found, by_dali(data, [3, 40], 96, None))


def test_an_image_is_a_clip_of_one_frame() -> None:
    picture = np.ascontiguousarray(VIDEO[0][:, :96])
    assert np.array_equal(read(encode_image(picture), [0], "png", side=96, size=(96, 96))[0], picture)
    cut = read(encode_image(VIDEO[0]), [0], "png", region=Region(8, 8, 72, 72))
    assert np.abs(cut[0].astype(int) - VIDEO[0][8:72, 8:72]).max() <= 1


def damaged() -> list[tuple[bytes, str]]:
    whole = encode(VIDEO, (25, 1), "h264")
    png = encode_image(VIDEO[0])
    moov = whole.index(b"moov")
    return [
        (b"", "h264"),
        (b"\0" * 500, "h264"),
        (whole[: len(whole) // 2], "h264"),
        (whole[:48] + bytes(moov - 52) + whole[moov - 4 :], "h264"),  # the frames are zeros, the table is whole
        (png[:200], "png"),
        (b"text", "png"),
    ]


@pytest.mark.parametrize(("data", "codec"), damaged())
def test_damage_is_an_error_with_a_reason(data: bytes, codec: str) -> None:
    reader = FrameReader()
    good = encode(VIDEO, (25, 1), "h264")
    before = read(good, range(40, 70), "h264", reader=reader)
    with pytest.raises(UndecodableError, match=r"\w"):
        read(data, [0] if codec == "png" else range(40, 70), codec, reader=reader)
    assert np.array_equal(read(good, range(40, 70), "h264", reader=reader), before)  # it takes no harm


def test_a_clip_that_is_shorter_or_of_another_size_than_the_index_says_is_refused() -> None:
    data = encode(VIDEO[:20], (25, 1), "h264")
    with pytest.raises(UndecodableError, match="10 of the frames 10 to 25"):
        read(data, range(10, 26), "h264")
    with pytest.raises(UndecodableError, match="the index says"):
        read(data, range(5), "h264", size=(64, 64))
