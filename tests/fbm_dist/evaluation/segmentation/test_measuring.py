"""A sequence is measured on masks that are cut at the threshold, and refused where its frames are no film."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fbm_dist.evaluation.segmentation.folders.find import find_sequences
from fbm_dist.evaluation.segmentation.measuring import at_size, measure_sequence
from fbm_dist.evaluation.segmentation.methods.trivial import ResidualFlow
from tests.fbm_dist.evaluation.segmentation.drawn import save, scene, write_film


@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.7])
def test_a_score_of_exactly_the_threshold_is_not_above_it(threshold: float) -> None:
    stored = np.rint(np.array([[threshold - 0.01, threshold, threshold + 0.01]]) * 255).astype(np.uint8)
    assert at_size(stored, (1, 3), threshold).tolist() == [[False, False, True]]


def test_frames_of_several_sizes_are_no_film(tmp_path: Path) -> None:
    """Also where the odd one has no mask, and is only its neighbour's partner."""
    write_film(tmp_path / "hike", 3)
    save(tmp_path / "hike/frames/00001.png", scene(1, (40, 64))[0])
    (tmp_path / "hike/masks/00001.png").unlink()
    (hike,) = find_sequences([tmp_path])
    with pytest.raises(
        ValueError, match=r"frames/00001.png is 64x40 pixels and 00000.png 64x48; give frames of one size"
    ) as told:
        measure_sequence(hike, [ResidualFlow(240)], 0.5, tmp_path / "out")
    assert "\n" not in str(told.value)
