"""Settings of synthetic films, and labels that are balanced and tell nothing of each other."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from data_tools.config import ConfigError, load
from data_tools.synthetic.config import FACTORS, Synthesize
from data_tools.synthetic.factors import plan


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("frames=[40,20]", "40 is above 20"),
        ("frames=[1,20]", "2 frames or more"),
        ("size=[63,80]", "must be even and 64 or more"),
        ("motions=[right,right]", "each class once"),
        ("backgrounds=[]", "at least one"),
        ("objects=[teapot]", "'ball', 'box', 'star', 'figure' or 'blob'"),
        ("crf=60", "from 0 (lossless) to 51"),
        ("noise=[-1,2]", "cannot be negative"),
        ("coverage=[0.3,0.1]", "0.3 is above 0.1"),
        ("coverage=[0,0.1]", "above 0 and at most 0.5"),
        ("coverage=[0.2,0.6]", "above 0 and at most 0.5"),
        ("split={train: 0, val: 0, test: 0}", "all shares are 0"),
        ("film=3", "the nearest valid key is 'films'"),
    ],
)
def test_bad_settings_are_one_clear_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        load(Synthesize, None, ["output=films", override])
    assert "\n" not in str(error.value)


def test_settings_import_no_heavy_library() -> None:
    probe = "import data_tools.synthetic.config, sys; print({'cv2', 'av', 'skimage', 'torch', 'sklearn'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_labels_are_balanced_within_each_split() -> None:
    films = plan(Synthesize(output=Path("unused"), films=61))
    for split in ("train", "val", "test"):
        shots = [shot for film in films if film.split == split for shot in film.shots]
        for factor, classes in Synthesize(output=Path("unused")).factors.items():
            counts = Counter(shot.labels[factor] for shot in shots)
            assert max(counts.values()) - min(counts.values() if len(counts) == len(classes) else [0]) <= 1
            assert set(counts) <= set(classes)


def test_no_factor_tells_of_another() -> None:
    films = plan(Synthesize(output=Path("unused"), films=24))
    shots = [shot.labels for film in films for shot in film.shots]
    for first, second in combinations(FACTORS, 2):
        table = Counter((labels[first], labels[second]) for labels in shots)
        cells = len({labels[first] for labels in shots}) * len({labels[second] for labels in shots})
        assert max(table.values()) <= len(shots) / cells + 2  # three splits, each even to within a shot


def test_splits_keep_their_shares_at_any_number_of_films() -> None:
    for films in (6, 10, 24, 100):
        counts = Counter(film.split for film in plan(Synthesize(output=Path("unused"), films=films)))
        assert all(
            abs(counts[name] - share * films) <= 1 for name, share in (("train", 0.7), ("val", 0.1), ("test", 0.2))
        )
        assert set(counts) == {"train", "val", "test"}
