"""Synthetic films whose truth is known: things that move over photographs, with labels of every factor; digits that bounce about."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_tools.synthetic.config import Films
    from data_tools.synthetic.write import Summary


def synthesize(settings: Films, progress: Callable[[int, int], None] | None = None) -> Summary:
    """Make what `settings` asks for and is not there yet; see `data_tools.synthetic.write.synthesize`."""
    from data_tools.synthetic import write  # OpenCV and PyAV load here, so that the settings alone are quick to import

    return write.synthesize(settings, progress)
