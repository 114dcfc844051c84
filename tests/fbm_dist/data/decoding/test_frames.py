"""Chosen frames by PyAV: the right ones, bit for bit those of DALI's CPU decoder; damage is told, not returned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def, types

from data_tools.videos import decode_clip, encode, encode_image
from fbm_dist.data.decoding.frames import UndecodableError, choose, frames_of
from tests.datasets import scene

SIZE = (96, 112)
# A texture that rolls by: no two frames are alike.
PICTURE = scene(1, 1, (96, 256))[0][0]
VIDEO = np.stack([PICTURE[:, 2 * t : 2 * t + SIZE[1]] for t in range(70)])


@pytest.mark.parametrize(("codec", "fps"), [("vp9", (25, 1)), ("h264", (30000, 1001)), ("h264", (12, 1))])
@pytest.mark.parametrize("frames", [range(16), range(31, 47), range(33, 70, 3), [69], [0, 5, 40, 64]])
def test_the_frames_are_those_that_were_asked_for(codec: Any, fps: tuple[int, int], frames: list[int]) -> None:
    data = encode(VIDEO, fps, codec)
    everything = decode_clip(data).astype(int)  # from the start, without any seeking
    for number, frame in zip(frames, frames_of(data, frames, SIZE, fps, codec), strict=True):
        errors = np.abs(everything - frame).mean((1, 2, 3))
        assert errors.argmin() == number
        assert errors[number] < 0.7 * np.delete(errors, number).min()


def test_pixels_equal_those_of_dalis_cpu_decoder() -> None:
    data = encode(VIDEO, (25, 1), "vp9")
    frames = [3, 4, 20, 41]

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def decoder():  # type: ignore[no-untyped-def]
        encoded = fn.external_source(source=lambda: np.frombuffer(data, np.uint8), batch=False, dtype=types.UINT8)
        return fn.decoders.video(encoded, frames=frames)

    theirs = np.array(decoder().run()[0][0])
    assert np.array_equal(frames_of(data, frames, SIZE, (25, 1), "vp9"), theirs)


def test_an_image_is_a_clip_of_one_frame() -> None:
    assert np.array_equal(frames_of(encode_image(VIDEO[0]), [0], SIZE, (25, 1), "png"), VIDEO[:1])


def damaged() -> list[tuple[bytes, str]]:
    whole = encode(VIDEO, (25, 1), "h264")
    png = encode_image(VIDEO[0])
    return [
        (b"", "h264"),
        (b"\0" * 500, "h264"),
        (whole[: len(whole) // 2], "h264"),
        (png[:200], "png"),
        (b"text", "png"),
    ]


@pytest.mark.parametrize(("data", "codec"), damaged())
def test_damage_is_an_error_with_a_reason(data: bytes, codec: str) -> None:
    with pytest.raises(UndecodableError, match=r"\w"):
        frames_of(data, [0] if codec == "png" else range(40, 70), SIZE, (25, 1), codec)


def test_a_clip_that_is_shorter_or_of_another_size_than_the_index_says_is_refused() -> None:
    data = encode(VIDEO[:20], (25, 1), "h264")
    with pytest.raises(UndecodableError, match="10 of the frames 10 to 25"):
        frames_of(data, range(10, 26), SIZE, (25, 1), "h264")
    with pytest.raises(UndecodableError, match="the index says"):
        frames_of(data, range(5), (64, 64), (25, 1), "h264")


@pytest.mark.parametrize(
    ("wanted", "device", "codecs", "smallest", "chosen"),
    [
        ("auto", "cpu", {"vp9"}, 96, "dali-cpu"),
        ("auto", "cpu", {"h264"}, 128, "pyav"),
        ("auto", "cpu", {"vp9", "png"}, 128, "pyav"),
        ("auto", "cuda", {"vp9"}, 128, "dali-mixed"),
        ("auto", "cuda", {"vp9"}, 96, "dali-cpu"),
        ("auto", "cuda", {"h264"}, 96, "dali-mixed"),
        ("auto", "cuda", {"h264", "vp9"}, 96, "pyav"),
        ("auto", "cuda", {"png"}, 128, "pyav"),
        ("dali", "cuda", {"h264"}, 128, "dali-mixed"),
        ("dali", "cpu", {"vp9"}, 128, "dali-cpu"),
        ("pyav", "cuda", {"vp9"}, 128, "pyav"),
    ],
)
def test_the_decoder_fits_codec_and_device(
    wanted: str, device: str, codecs: set[str], smallest: int, chosen: str
) -> None:
    assert choose(wanted, device, codecs, smallest) == chosen


@pytest.mark.parametrize(("codecs", "device"), [({"h264"}, "cpu"), ({"vp9", "h264"}, "cpu"), ({"png"}, "cuda")])
def test_dali_where_it_cannot_decode_is_refused(codecs: set[str], device: str) -> None:
    with pytest.raises(ValueError, match=r"data.decode=dali: .* set data.decode=auto"):
        choose("dali", device, codecs, 128)
