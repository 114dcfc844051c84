"""Decoders agree on what they decode; one that cannot be loaded is a remark."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from data_tools.care import decoders
from data_tools.care.decoders import SAME_PICTURE, available, within_bounds
from data_tools.videos import Unusable, decode_clip, encode, encode_image
from tests.films import picture

FRAMES = np.stack([picture(1, 4 * i, 64, 96) for i in range(9)])


@pytest.mark.parametrize("codec", ["vp9", "h264", "png"])
def test_all_that_take_a_codec_decode_it_alike(codec: str) -> None:
    data = encode_image(FRAMES[0]) if codec == "png" else encode(FRAMES, (25, 1), codec)  # type: ignore[arg-type]
    found, remarks = available()
    takers = [decoder for decoder in found if codec in decoder.codecs]
    assert {"PyAV", "OpenCV"} <= {decoder.title for decoder in takers}
    assert not remarks
    for decoder in takers:
        for _ in range(2):
            frames = decoder.decode(data)
            assert frames.shape == ((1, 64, 96, 3) if codec == "png" else FRAMES.shape)
            assert np.abs(frames.astype(int) - decode_clip(data)).mean() < SAME_PICTURE


def test_after_a_bad_clip_the_next_is_decoded() -> None:
    good = encode(FRAMES, (25, 1))
    for decoder in available()[0]:
        with pytest.raises(Unusable) as caught:
            decoder.decode(good[: len(good) // 2])
        assert "\n" not in str(caught.value)
        assert decoder.decode(good).shape == FRAMES.shape


def test_what_does_not_work_is_remarked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library may be missing, fail when it is imported, or when it is first used."""

    def broken(*_: bytes) -> np.ndarray:
        raise RuntimeError("libnvcuvid.so:\n cannot open")

    monkeypatch.setitem(decoders.MAKERS, "dali", ("DALI", frozenset({"vp9"}), broken))
    monkeypatch.setitem(decoders.MAKERS, "torchcodec", ("TorchCodec", frozenset({"vp9"}), lambda: broken))
    monkeypatch.setitem(sys.modules, "decord", None)
    found, remarks = available()
    assert [decoder.title for decoder in found] == ["PyAV", "OpenCV"]
    assert remarks == [
        f"{title} does not work here (libnvcuvid.so: cannot open): clips are decoded without it"
        for title in ("DALI", "TorchCodec")
    ]
    _, remarks = available(("decord",))
    assert remarks[0].startswith("Decord does not work here"), "asked for by name, it is missed"


def test_a_clip_that_would_fill_the_memory_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(FRAMES, (25, 1))
    within_bounds(data)
    monkeypatch.setattr(decoders, "MOST_BYTES", 1000)
    with pytest.raises(Unusable, match="9 frames of 64x96 px are too many"):
        within_bounds(data)
