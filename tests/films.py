"""Tiny films and the settings to prepare them with: what the tests of the data tools start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_tools.building.ledger import Outcome, read_ledger
from data_tools.config import load
from data_tools.schema import Prepare
from data_tools.videos import encode


def picture(seed: int, shift: int, height: int = 72, width: int = 96) -> np.ndarray:
    """Blocks in a scene's own colours, moved by `shift` px."""
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.integers(0, 60, (9, 40, 3)), np.ones((8, 8, 1))) + rng.uniform(0, 180, 3)
    return np.roll(blocks, -shift, axis=1)[:height, :width].astype(np.uint8)


def film(path: Path, *shots: tuple[int, int], size: tuple[int, int] = (72, 96)) -> Path:
    """A film of (scene, frames) shots."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.stack([picture(scene, 2 * i, *size) for scene, count in shots for i in range(count)])
    path.write_bytes(encode(frames, (25, 1), "h264"))
    return path


def settings(films: Path, output: Path, *more: str) -> Prepare:
    given = [f"input={films}", f"output={output}", "masks.kind=none", "short_side=64", "workers=2", *more]
    return load(Prepare, None, given)


def ledger(output: Path) -> dict[str, Outcome]:
    return {o.source: o for o in read_ledger(output)}


def files(root: Path) -> dict[str, bytes]:
    """Every file below a folder, for comparing two of them byte for byte."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
