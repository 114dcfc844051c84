"""Decoders fit codec, size and device; what does not fit is refused in a line that says what would."""

from __future__ import annotations

import pytest

from fbm_dist.data.decoding.choice import candidates, possible


@pytest.mark.parametrize(
    ("device", "codecs", "smallest", "can"),
    [
        ("cpu", {"vp9"}, 96, ("pyav", "dali-cpu")),
        ("cpu", {"h264"}, 128, ("pyav",)),
        ("cpu", {"vp9", "png"}, 128, ("pyav",)),
        ("cuda", {"vp9"}, 128, ("dali-mixed", "pyav", "dali-cpu")),
        ("cuda", {"vp9"}, 96, ("pyav", "dali-cpu")),
        ("cuda", {"h264"}, 96, ("dali-mixed", "pyav")),
        ("cuda", {"h264", "vp9"}, 96, ("pyav",)),
        ("cuda", {"png"}, 128, ("pyav",)),
    ],
)
def test_what_can_decode(device: str, codecs: set[str], smallest: int, can: tuple[str, ...]) -> None:
    assert possible(device, codecs, smallest) == candidates("auto", device, codecs, smallest) == can


@pytest.mark.parametrize(
    ("wanted", "device", "codecs", "chosen"),
    [
        ("dali", "cuda", {"h264"}, "dali-mixed"),
        ("dali", "cpu", {"vp9"}, "dali-cpu"),
        ("dali-cpu", "cuda", {"vp9"}, "dali-cpu"),
        ("dali-mixed", "cuda", {"vp9"}, "dali-mixed"),
        ("pyav", "cuda", {"vp9"}, "pyav"),
    ],
)
def test_what_is_asked_for_is_taken(wanted: str, device: str, codecs: set[str], chosen: str) -> None:
    assert candidates(wanted, device, codecs, 128) == (chosen,)


@pytest.mark.parametrize(
    ("wanted", "codecs", "device"),
    [
        ("dali", {"h264"}, "cpu"),
        ("dali", {"vp9", "h264"}, "cpu"),
        ("dali", {"png"}, "cuda"),
        ("dali-mixed", {"vp9"}, "cpu"),
        ("dali-cpu", {"h264"}, "cuda"),
    ],
)
def test_what_cannot_decode_is_refused(wanted: str, codecs: set[str], device: str) -> None:
    with pytest.raises(ValueError, match=rf"data.decode={wanted}: .* set data.decode=auto, or one of"):
        candidates(wanted, device, codecs, 128)
