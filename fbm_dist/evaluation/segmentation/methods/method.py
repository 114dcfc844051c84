"""Method: what says of every pixel of an annotated frame how much it is foreground."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32

from fbm_dist.evaluation.segmentation.folders.sequence import Sequence

Score = Float32[np.ndarray, "h w"]


class Method(ABC):
    """One row of the tables, or one repetition of it.

    Attributes:
        row: its name; several methods of one row are repetitions with other random weights.
        uri: where it comes from, as the user wrote it.
        stored: its scores are worth keeping: they cost more than reading a file.
        sha256: of its weights, where it has any.
        model: models:/NAME/VERSION, where these weights are registered.
        VERSION: of what it computes: a change of its code that changes scores raises it, and stored ones are made anew.
    """

    VERSION: ClassVar[int] = 1
    stored: bool = True
    model: str | None = None

    def __init__(self, row: str, uri: str = "", sha256: str | None = None) -> None:
        self.row, self.uri, self.sha256 = row, uri, sha256

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that decides its scores, as JSON values: what is stored under other settings is not taken."""

    @abstractmethod
    def scores(self, sequence: Sequence) -> Iterator[Score]:
        """Soft scores in [0, 1] of the annotated frames, in order. Each covers the whole frame, in a resolution of the method's own.

        Args:
            sequence: of frames of one size (`Sequence.check_size`).
        Raises:
            ValueError: a frame cannot be read, or the method gives what is no score.
        """

    @property
    def identity(self) -> str:
        """A digest of the kind, its version and the settings."""
        text = json.dumps([type(self).__name__, self.VERSION, self.settings()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
