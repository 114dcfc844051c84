"""A segmenter from a file, as `data_tools/segmenter.py` describes it: a program of torch.export that is shown one whole frame."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export.passes import move_to_device_pass

from data_tools.frames import resized
from data_tools.segmenter import content_of, opened, score_of, side_of
from fbm_dist.evaluation.segmentation.folders.sequence import Sequence
from fbm_dist.evaluation.segmentation.methods.method import Method, Score


class ExportedNetwork(Method):
    """A program of torch.export, on one device."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Open the file.

        Raises:
            ValueError: it is not there, is no such program, or takes something else than one square frame.
        """
        super().__init__(f"network {path.stem}", str(path))
        content = content_of(path)
        program = opened(content, str(path))
        self.side = side_of(program, str(path))
        self.sha256 = hashlib.sha256(content).hexdigest()
        if device.type != "cpu":  # constants in the program stay where it was exported
            program = move_to_device_pass(program, str(device))
        self._call, self._device = program.module(), device

    def settings(self) -> dict[str, Any]:
        """The file's digest."""
        return {"sha256": self.sha256}

    def scores(self, sequence: Sequence) -> Iterator[Score]:
        """Of each annotated frame by itself.

        Raises:
            ValueError: a frame cannot be read, or what comes out is no score.
        """
        for index in sequence.annotated:
            frame = resized(sequence.frame(index), (self.side, self.side))
            yield score_of(self._call, frame, self.uri, self._device)
