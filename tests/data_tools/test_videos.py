"""Films are read upright, square and at a constant rate, or refused with a reason; clips are written byte-reproducibly."""

from __future__ import annotations

import io
import os
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from data_tools.videos import Damage, Unusable, decode, decode_clip, decode_image, encode, encode_image, probe


def moving(count: int, height: int = 64, width: int = 96) -> np.ndarray:
    """A bright square that moves to the right by 2 px a frame over a smooth ramp."""
    ramp = np.linspace(40, 120, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None] * np.array(
        [1, 0.5, 0.2]
    )
    frames = np.repeat(ramp[None].astype(np.uint8), count, axis=0)
    for i in range(count):
        frames[i, 20:40, (2 * i) % (width - 20) : (2 * i) % (width - 20) + 20] = (230, 60, 30)
    return frames


def write(
    path: Path, frames: np.ndarray, pts: list[int] | None = None, time_base: Fraction = Fraction(1, 25), **stream: Any
) -> Path:
    """A film as a user may have it."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(stream.pop("codec", "libx264"), rate=25)
        video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], stream.pop("pix_fmt", "yuv420p")
        video.time_base = video.codec_context.time_base = time_base
        for name, value in stream.items():
            setattr(video.codec_context, name, value)
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (pts[i] if pts else i), time_base
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


@pytest.mark.parametrize("codec", ["vp9", "h264"])
def test_a_clip_comes_back(codec: Any) -> None:
    frames = moving(40)
    data = encode(frames, (30000, 1001), codec, gop=16)
    assert data == encode(frames, (30000, 1001), codec, gop=16), "the bytes are a function of the frames"
    back = decode_clip(data)
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() < 6
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        keys = [i for i, packet in enumerate(p for p in container.demux(stream) if p.size) if packet.is_keyframe]
        assert keys == [0, 16, 32]
        assert stream.average_rate == Fraction(30000, 1001)
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert not container.streams.audio
    assert probe(data).fps == (30000, 1001)


def test_dali_decodes_what_we_encode_to_the_same_frames() -> None:
    dali = pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    data = encode(moving(24, 128, 160), (25, 1))
    pipe = dali.Pipeline(batch_size=1, num_threads=1, device_id=None)
    with pipe:
        clip = dali.fn.external_source(source=lambda: [np.frombuffer(data, np.uint8)], batch=True)
        pipe.set_outputs(dali.fn.decoders.video(clip, device="cpu"))
    pipe.build()
    ours, theirs = decode_clip(data), pipe.run()[0].at(0)
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).mean() < 5


def test_an_image_comes_back_exactly() -> None:
    image = moving(1)[0]
    assert np.array_equal(decode_image(encode_image(image)), image)
    assert np.array_equal(decode_clip(encode_image(image)), image[None])


@pytest.mark.parametrize(
    "frames", [moving(3, 63, 96), moving(3, 64, 95), moving(0), moving(3).astype(float), moving(3)[..., 0]]
)
def test_encode_refuses(frames: np.ndarray) -> None:
    # the shape check of the tests is quicker than ours: a TypeError
    with pytest.raises((ValueError, TypeError), match=r"even|expected uint8|UInt8\[ndarray, 't h w 3'\]"):
        encode(frames, (25, 1))


def test_every_frame_of_a_film_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", moving(50))
    found = probe(path)
    assert (found.size, found.fps, found.num_packets, found.variable_rate) == ((64, 96), (25, 1), 50, False)
    frames = list(decode(path, found.fps))
    assert [f.source for f in frames] == list(range(50))
    assert not any(f.cut for f in frames)
    assert np.abs(np.stack([f.image for f in frames]).astype(int) - moving(50)).mean() < 6


def test_a_variable_rate_becomes_constant(tmp_path: Path) -> None:
    pts = [0, 100, 400, 500, 600, 700, 1000, 1100]  # ms
    path = write(tmp_path / "a.mkv", moving(8), pts, Fraction(1, 1000))
    frames = [f.source for f in decode(path, (10, 1))]
    assert frames == [0, 1, 1, 1, 2, 3, 4, 5, 5, 5, 6, 7]
    assert probe(path).variable_rate


def test_a_jump_in_time_is_a_cut_and_no_pause(tmp_path: Path) -> None:
    pts = [i * 40 for i in range(10)] + [90_000_000 + i * 40 for i in range(10)]
    path = write(tmp_path / "a.mkv", moving(20), pts, Fraction(1, 1000))
    damage = Damage()
    frames = list(decode(path, probe(path).fps, damage=damage))
    assert len(frames) == 20
    assert [i for i, f in enumerate(frames) if f.cut] == [10]
    assert damage.gaps == 1
    assert "jumps" in damage.notes()[0]


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [((0, 1, -1, 0), (0, -1)), ((-1, 0, 0, -1), (-1, -1)), ((0, -1, 1, 0), (-1, 0))],
    ids=["90 clockwise", "180", "90 counterclockwise"],
)
def test_turned_films_stand_upright(tmp_path: Path, matrix: tuple[int, ...], corner: tuple[int, int]) -> None:
    """The track header's matrix says how the picture is turned; the bright corner at the top left moves with it."""
    frames = np.full((5, 64, 96, 3), 30, np.uint8)
    frames[:, :16, :16] = 240
    data = write(tmp_path / "a.mp4", frames).read_bytes()
    track = data.index(b"tkhd")
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = data.index(upright, track)
    a, b, c, d = (value << 16 for value in matrix)
    turned = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path = tmp_path / "b.mp4"
    path.write_bytes(data[:at] + turned + data[at + 36 :])
    image = next(decode(path)).image
    assert image.shape[:2] == ((96, 64) if matrix[0] == 0 else (64, 96))
    bright = {(y, x) for y in (0, -1) for x in (0, -1) if image[y, x].mean() > 150}
    assert bright == {corner}


def test_pixels_become_square(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", moving(5), sample_aspect_ratio=Fraction(2))
    assert probe(path).size == (64, 192)


def test_a_broken_pixel_shape_is_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", moving(5), sample_aspect_ratio=Fraction(1, 200))
    assert probe(path).size == (64, 96)


def test_a_change_of_size_midway_is_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.h264"
    parts = [write(tmp_path / "1.h264", moving(10)), write(tmp_path / "2.h264", moving(10, 48, 80))]
    path.write_bytes(b"".join(p.read_bytes() for p in parts))
    frames = list(decode(path, probe(path).fps))
    assert [f.image.shape[:2] for f in frames] == [(64, 96)] * 10 + [(48, 80)] * 10
    assert [i for i, f in enumerate(frames) if f.cut] == [10]


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv444p12le"])
def test_deep_pixels_are_read(tmp_path: Path, pix_fmt: str) -> None:
    path = write(tmp_path / "a.mkv", moving(5), codec="ffv1", pix_fmt=pix_fmt)
    frames = np.stack([f.image for f in decode(path)])
    assert frames.dtype == np.uint8
    assert np.abs(frames.astype(int) - moving(5)).mean() < 6


def test_the_wanted_size_is_delivered(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", moving(5))
    assert {f.image.shape for f in decode(path, size_of=lambda h, w: (h // 2, w // 2))} == {(32, 48, 3)}


def test_a_truncated_film_gives_what_is_there(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.ts", moving(60)).read_bytes()
    path = tmp_path / "b.ts"
    path.write_bytes(whole[: len(whole) // 2])
    assert 0 < len(list(decode(path, (25, 1)))) < 60


def test_rotten_bytes_are_counted_and_kill_nothing(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mkv", moving(100), gop_size=5)
    with av.open(str(whole)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data = bytearray(whole.read_bytes())
    places = [(data.index(packet), len(packet)) for packet in packets[40:80:10]]
    rng = np.random.default_rng(0)
    for at in rng.integers(2000, len(data), 60):
        data[at] ^= 0xFF
    for at, size in places:  # what single bytes do depends on the encoder, this does not
        data[at : at + size] = b"\xff" * size
    path = tmp_path / "b.mkv"
    path.write_bytes(bytes(data))
    damage = Damage()
    frames = list(decode(path, (25, 1), damage=damage))
    assert frames
    assert damage.packets >= 1
    assert damage.notes(), "what was lost is said"


def test_names_with_odd_characters(tmp_path: Path) -> None:
    good = write(tmp_path / "a.mp4", moving(4)).read_bytes()
    for name in (b"concat:b.mp4", b"http:c.mp4", "a b ü 影.mp4".encode(), b"odd \xff\xfe.mp4", b"-x %d.mp4"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.write_bytes(good)
        assert len(list(decode(path))) == 4, name


def _audio(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: p.write_bytes(b"not a film at all" * 100), "cannot be opened"),
        (_audio, "no video stream"),
        (lambda p: p.mkdir(), "cannot be opened"),
        (lambda p: None, "No such file"),
        (lambda p: p.write_bytes(encode(moving(20), (25, 1))[:600]), "cannot be opened|no frame"),
    ],
)
def test_what_is_no_film_is_refused_with_a_reason(tmp_path: Path, make: Any, reason: str) -> None:
    path = tmp_path / "a.mp4"
    make(path)
    with pytest.raises(Unusable, match=reason) as caught:
        probe(path)
    assert "\n" not in str(caught.value)
