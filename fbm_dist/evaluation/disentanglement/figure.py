"""Heat maps of the matrices, one an encoder, side by side: what each group of features tells of each factor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle

from fbm_dist.evaluation.report.figure import canvas, save

Matrix = Mapping[str, Mapping[str, float]]  # [group][factor], accuracy in [0, 1]


def draw(matrices: Mapping[str, Matrix], chance: Mapping[str, float], expected: Mapping[str, str], path: Path) -> Path:
    """Write the PNG. Numbers are accuracies in per cent; colours say where they lie between chance and 100 %.

    Args:
        matrices: by encoder.
        chance: by factor: the columns.
        expected: factor -> group: the cells that are framed.
    """
    factors = list(chance)
    groups = list(dict.fromkeys(group for matrix in matrices.values() for group in matrix))
    figure = canvas(1.6 + len(matrices) * (0.8 + 0.95 * len(factors)), 1.7 + 0.6 * len(groups))
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    image = None
    for axis, (name, matrix) in zip(axes, matrices.items(), strict=True):
        values = np.array([[matrix.get(group, {}).get(factor, np.nan) for factor in factors] for group in groups])
        guess = np.array([chance[factor] for factor in factors])
        above = (values - guess) / np.maximum(1 - guess, 1e-9)
        image = axis.imshow(np.clip(above, 0, 1), vmin=0, vmax=1, cmap="Blues", aspect="auto")
        for i, j in np.argwhere(np.isfinite(values)):
            colour = "white" if above[i, j] > 0.6 else "black"
            axis.text(j, i, f"{100 * values[i, j]:.0f}", ha="center", va="center", color=colour)
            if expected.get(factors[j]) == groups[i]:
                axis.add_patch(Rectangle((j - 0.47, i - 0.45), 0.94, 0.9, fill=False, edgecolor="C1", linewidth=2))
        told = [f"{factor}\n(chance {100 * chance[factor]:.0f})" for factor in factors]
        axis.set_xticks(range(len(factors)), told, fontsize="small")
        axis.set_yticks(range(len(groups)), groups if axis is axes[0] else [""] * len(groups))
        axis.set_title(name, fontsize="medium")
    assert image is not None, "no encoder, no picture"
    figure.colorbar(image, ax=list(axes), label="accuracy between chance (0) and 100 % (1)")
    return save(figure, path)
