"""uNLC: soft foreground masks from motion alone (Faktor & Irani 2014; Pathak et al. 2017, section 5.1). See README.md here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_tools.unlc.config import UNLC

if TYPE_CHECKING:
    from data_tools.unlc.masks import motion_masks

__all__ = ["UNLC", "motion_masks"]


def __getattr__(name: str) -> Any:
    # configs import this package for UNLC; OpenCV and SciPy are loaded by the first one who wants masks
    if name == "motion_masks":
        from data_tools.unlc.masks import motion_masks

        return motion_masks
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
