"""uNLC as a method: the masks that `prepare` makes, of a whole sequence as one shot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from data_tools.unlc import UNLC, motion_masks
from fbm_dist.evaluation.segmentation.folders.sequence import Sequence
from fbm_dist.evaluation.segmentation.methods.method import Method, Score
from fbm_dist.evaluation.segmentation.methods.trivial import small_frame


class MotionMasks(Method):
    """Unsupervised non-local consensus voting (Pathak et al. 2017, section 5.1), frames worked on at the size that `prepare` has."""

    def __init__(self, unlc: UNLC, working_side: int) -> None:
        super().__init__("uNLC")
        self.unlc, self.working_side = unlc, working_side

    def settings(self) -> dict[str, Any]:
        """uNLC's own, and the size of the frames."""
        return {"unlc": self.unlc.model_dump(mode="json"), "working_side": self.working_side}

    def scores(self, sequence: Sequence) -> Iterator[Score]:
        """Votes of the annotated frames; all frames take part, annotated or not. Annotated sequences are single shots.

        Args:
            sequence: of frames of one size (`Sequence.check_size`).
        Raises:
            ValueError: a frame cannot be read.
        """
        small = [small_frame(sequence, index, self.working_side) for index in range(len(sequence.frames))]
        masks = motion_masks(np.stack(small), self.unlc)
        for index in sequence.annotated:
            yield masks[index]
