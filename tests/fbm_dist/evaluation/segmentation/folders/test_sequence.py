"""Masks as people save them: with alpha, and as JPEG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fbm_dist.evaluation.segmentation.folders.sequence import any_object
from tests.fbm_dist.evaluation.segmentation.drawn import scene


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_no_foreground(mode: str, tmp_path: Path) -> None:
    mask = scene(0)[1]
    Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(tmp_path / "0.png")
    with Image.open(tmp_path / "0.png") as picture:
        assert picture.mode == mode, "what the test rests on"
    found = any_object([tmp_path / "0.png"])
    assert (found.mask == mask).all()


@pytest.mark.parametrize("name", ["0.jpg", "0.JPEG"])
def test_traces_of_compression_are_no_foreground(name: str, tmp_path: Path) -> None:
    mask = scene(0)[1]
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / name, quality=60)
    with Image.open(tmp_path / name) as picture:
        assert (np.asarray(picture)[~mask] > 0).any(), "what the test rests on"
    assert (any_object([tmp_path / name]).mask == mask).all()
