"""What the paper reports (Redondo-Cabrera and Lopez-Sastre, 2018): conditional entropy in bits, mean and deviation of 10 clusterings."""

from __future__ import annotations

from collections.abc import Mapping

from fbm_dist.evaluation.discovery.config import Algorithm
from fbm_dist.evaluation.report.results import Cell, Row

Figures = dict[str, tuple[float, float]]  # by layer: mean and standard deviation

# Test frames of UCF101, split 1: Tables 1 and 2; the last row is section 4.1.2's.
UCF101: dict[Algorithm, dict[str, Figures]] = {
    "k-means": {
        "random assignment": {"fc6": (6.31, 0.00)},
        "SFA, AlexNet": {"fc6": (3.75, 0.03)},
        "Siamese, AlexNet": {"fc6": (3.91, 0.02), "fc7": (3.95, 0.02)},
        "Quadruplet, AlexNet": {"fc6": (3.56, 0.01), "fc7": (3.61, 0.01)},
        "Siamese, one long video": {"fc6": (3.93, 0.01), "fc7": (3.95, 0.02)},
        "Quadruplet, one long video": {"fc6": (3.51, 0.01), "fc7": (3.53, 0.01)},
        "VGG of Wang et al.": {"fc6": (3.38, 0.03)},
        "AlexNet, supervised on ImageNet": {"fc6": (2.68, 0.42)},
    },
    "spectral": {
        "random assignment": {"fc6": (6.31, 0.00)},
        "SFA, AlexNet": {"fc6": (3.55, 0.03)},
        "Siamese, AlexNet": {"fc6": (3.75, 0.02), "fc7": (3.78, 0.01)},
        "Quadruplet, AlexNet": {"fc6": (3.39, 0.01), "fc7": (3.41, 0.02)},
        "Siamese, one long video": {"fc6": (3.78, 0.01), "fc7": (3.79, 0.01)},
        "Quadruplet, one long video": {"fc6": (3.35, 0.01), "fc7": (3.38, 0.01)},
        "VGG of Wang et al.": {"fc6": (3.12, 0.02)},
        "AlexNet, supervised on ImageNet": {"fc6": (2.50, 0.04)},
    },
}
# Test frames of 5-Contexts: Table 3; the last two rows are sections 4.1.4's and 4.1.3's.
FIVE_CONTEXTS: dict[Algorithm, dict[str, Figures]] = {
    "k-means": {
        "random assignment": {"fc6": (2.31, 0.00)},
        "SFA, AlexNet": {"fc6": (2.03, 0.01)},
        "Siamese, AlexNet": {"fc6": (2.03, 0.00)},
        "Quadruplet, AlexNet": {"fc6": (1.94, 0.01)},
        "Quadruplet, learnt on UCF101": {"fc6": (1.80, 0.09)},
        "AlexNet, supervised on ImageNet": {"fc6": (0.71, 0.18)},
    },
    "spectral": {
        "random assignment": {"fc6": (2.31, 0.00)},
        "SFA, AlexNet": {"fc6": (1.98, 0.03)},
        "Siamese, AlexNet": {"fc6": (1.98, 0.00)},
        "Quadruplet, AlexNet": {"fc6": (1.97, 0.00)},
    },
}
REPORTED: Mapping[str, dict[Algorithm, dict[str, Figures]]] = {"ucf101": UCF101, "five_contexts": FIVE_CONTEXTS}
WHAT = {
    "ucf101": "frames of UCF101's test split 1, 101 classes",
    "five_contexts": "frames of the test videos of 5-Contexts, 5 classes",
}


def paper_rows(paper: str, algorithm: Algorithm) -> list[Row]:
    """The paper's rows of one table; none where `paper` is "none"."""
    return [
        Row(f"paper: {name}", {layer: Cell.of(mean, spread) for layer, (mean, spread) in figures.items()}, "paper")
        for name, figures in REPORTED.get(paper, {}).get(algorithm, {}).items()
    ]
