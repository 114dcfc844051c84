"""Synthetic films: photographic things that move over photographic backgrounds, with true masks and labels of every factor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_tools.synthetic.config import Synthesize
    from data_tools.synthetic.write import Summary


def synthesize(settings: Synthesize, progress: Callable[[int, int], None] | None = None) -> Summary:
    """Make what `settings` asks for and is not there yet; see `data_tools.synthetic.write.synthesize`."""
    from data_tools.synthetic import write  # OpenCV and PyAV load here, so that the settings alone are quick to import

    return write.synthesize(settings, progress)
