"""Which decoder reads which clips on which device. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection

NVDEC_VP9_SIDE = 128  # pixels; NVDEC takes no smaller VP9


def possible(device: str, codecs: Collection[str], smallest: int) -> tuple[str, ...]:
    """The decoders that can read such clips, the one that is most often the fastest first.

    Args:
        device: type of the trainer's device, cpu or cuda.
        codecs: of the clips: vp9, h264, png.
        smallest: the shortest side of any clip, in pixels.
    """
    nvdec = device == "cuda" and "png" not in codecs and ("vp9" not in codecs or smallest >= NVDEC_VP9_SIDE)
    dali = set(codecs) == {"vp9"}
    return ("dali-mixed",) * nvdec + ("pyav",) + ("dali-cpu",) * dali


def candidates(wanted: str, device: str, codecs: Collection[str], smallest: int) -> tuple[str, ...]:
    """Those of `possible` that `data.decode` leaves: one, or with auto all.

    Raises:
        ValueError: none is left.
    """
    can = possible(device, codecs, smallest)
    if wanted == "auto":
        return can
    left = tuple(name for name in can if name == wanted or (wanted == "dali" and name.startswith("dali")))
    if not left:
        there = "/".join(sorted(codecs))
        raise ValueError(
            f"data.decode={wanted}: it does not decode {there} clips of {smallest} pixels and more on device {device}; set "
            f"data.decode=auto, or one of {', '.join(can)} (for dali-cpu: prepare the data set with codec=vp9)"
        )
    return left[:1]


def decoded_by_readers(decoder: str) -> bool:
    """Reader processes decode, and frames and masks come into the graph as squares; else the graph decodes."""
    return decoder == "pyav"
