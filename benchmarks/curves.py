"""families.py's curves over the numbers of the coherency losses: which values, and their picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

# The paper's ranges, and a margin that it does not try: no two embeddings here are further apart than sqrt 2.
CURVES: dict[str, dict[str, tuple[float, ...]]] = {
    "siamese": {"margin": (0.5, 1.0, 10.0, 20.0), "w": (1, 2, 5, 10)},
    "quadruplet": {"margin": (0.25, 0.5, 1.0, 10.0, 20.0), "w": (1, 2, 5, 10), "n": (10, 15, 20, 25, 30)},
}
Curves = dict[str, dict[str, dict[str, float]]]  # loss -> number -> its value, as text -> bits


def draw(means: Curves, spreads: Curves, random: float, path: Path) -> None:
    """The curves beside each other, bars over training seeds; `random`: what networks that were not trained leave open."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    titles = {"margin": "margin", "w": "w: the neighbour's distance", "n": "n: the far frame's distance"}
    for panel, (number, title) in zip(panels, titles.items(), strict=True):
        for colour, loss in enumerate(means):
            if number in means[loss]:
                values, bits = zip(*means[loss][number].items(), strict=True)
                places = [float(value) for value in values]
                bars = list(spreads[loss][number].values())
                panel.errorbar(places, bits, bars, marker="o", capsize=3, label=loss, color=f"C{colour}")
        panel.axhline(random, color="grey", linestyle=":", label="random initialisation")
        panel.set_xlabel(title)
        if number == "margin":
            panel.set_xscale("log")
    panels[0].set_ylabel("bits of the scene left open")
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=120)
