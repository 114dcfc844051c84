"""The sample table of an mp4: the demuxer's own offsets; what it does not know is left to the demuxer; damage is told."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.videos import encode
from fbm_dist.data.decoding.mp4 import ForeignLayoutError, sample_table
from tests.datasets import scene

VIDEO = scene(1, 70, (96, 112))[0]
WHOLE = {codec: encode(VIDEO, (25, 1), codec) for codec in ("vp9", "h264")}  # type: ignore[arg-type]


@pytest.mark.parametrize("codec", ["vp9", "h264"])
def test_frames_stand_where_the_demuxer_finds_them(codec: str) -> None:
    data = WHOLE[codec]
    table = sample_table(data)
    with av.open(io.BytesIO(data)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        setup = container.streams.video[0].codec_context.extradata
    assert [data[o : o + s] for o, s in zip(table.offset, table.size, strict=True)] == [bytes(p) for p in packets]
    assert table.keys == tuple(i for i, packet in enumerate(packets) if packet.is_keyframe) == (0, 32, 64)
    if codec == "h264":
        assert table.setup == setup


def muxed(options: dict[str, str], codec: str = "libx264", tracks: int = 1, **settings: Any) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4", options=options) as container:
        streams = [container.add_stream(codec, rate=Fraction(25)) for _ in range(tracks)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 112, 96, "yuv420p"
            stream.options = {"threads": "1", **settings}
        for picture in VIDEO[:20]:
            for stream in streams:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    return out.getvalue()


def test_a_table_before_the_frames_is_read_alike(tmp_path: Path) -> None:
    with av.open(tmp_path / "late.mp4", "w") as late, av.open(io.BytesIO(WHOLE["vp9"])) as whole:
        _copy(whole, late)
    with (
        av.open(tmp_path / "early.mp4", "w", options={"movflags": "faststart"}) as early,
        av.open(io.BytesIO(WHOLE["vp9"])) as whole,
    ):
        _copy(whole, early)
    frames = []
    for data in ((tmp_path / name).read_bytes() for name in ("late.mp4", "early.mp4")):
        table = sample_table(data)
        frames.append([data[o : o + s] for o, s in zip(table.offset, table.size, strict=True)])
    assert (
        (tmp_path / "early.mp4").read_bytes().index(b"moov") < 100 < (tmp_path / "late.mp4").read_bytes().index(b"moov")
    )
    assert frames[0] == frames[1]
    assert len(frames[0]) == 70


def _copy(whole: Any, copy: Any) -> None:
    stream = copy.add_stream_from_template(whole.streams.video[0])
    for packet in whole.demux(video=0):
        if packet.size:
            packet.stream = stream
            copy.mux(packet)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (muxed({}, bf="2"), "reordered"),
        (muxed({"movflags": "frag_keyframe+empty_moov"}, bf="0"), "fragments"),
        (muxed({}, tracks=2, bf="0"), "several tracks"),
        (b"", "moov"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), r"ends beyond|moov"),
        (WHOLE["h264"][:-100], r"ends beyond"),
        (WHOLE["h264"][:2000], r"ends beyond"),
    ],
)
def test_what_it_does_not_know_it_leaves(data: bytes, says: str) -> None:
    with pytest.raises(ForeignLayoutError, match=says):
        sample_table(data)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damage_never_points_outside_the_clip(data: st.DataObject) -> None:
    whole = WHOLE["h264"]
    movie = whole.index(b"moov") - 4
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(movie, len(whole) - 5))
        damaged[place : place + 4] = struct.pack(
            ">I", data.draw(st.sampled_from([0, 1, 7, 255, 2**16, 2**31, 2**32 - 1]))
        )
    try:
        table = sample_table(bytes(damaged))
    except ForeignLayoutError:
        return
    assert all(o >= 0 and s > 0 and o + s <= len(whole) for o, s in zip(table.offset, table.size, strict=True))
    assert np.all(np.array(table.keys) >= 0)
