"""uNLC on a GPU beside the CPU: speed by who makes the flow, agreement of the masks, and with --data their quality on DAVIS.

    python -m benchmarks.gpu_masks [--data FOLDER] [--sequences a,b] [--frames 40] [--device cpu]

Without a GPU, or with `--device cpu`, the same lines run on CPU tensors. Quality follows the protocol of `benchmarks/masks.py`: first N
frames at 240 pixels height, foreground is a score above 0.5, J of each frame averaged over a sequence, then over sequences. Speed is
wall time in one process, on a shot of 110 frames at 320x240 in which a textured disc moves. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.masks import find_sequences, judged, read_sequence
from data_tools.unlc import UNLC, motion_masks
from data_tools.unlc.tensors.masks import motion_masks as on_tensors
from tests.moving_disc import overlap, scene

Method = Callable[[np.ndarray], np.ndarray]
SIZE = (240, 320)  # height, width
FRAMES = 110  # the longest shot that is processed at once


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder in the layout of DAVIS; without it: no quality")
    parser.add_argument("--sequences", help="comma-separated names; without it: all")
    parser.add_argument("--frames", type=int, default=40, help="of each sequence, from its first (default 40)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="a shot of 20 frames")
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)  # the CPU's figures are of one core
    with threadpool_limits(1):
        device = torch.device(chosen.device)
        figures: dict[str, Any] = {"device": chosen.device, **speed(device, 20 if chosen.quick else FRAMES)}
        if chosen.data:
            figures["quality"] = quality(device, chosen.data, chosen.sequences, chosen.frames)
    print(json.dumps(figures))


def speed(device: torch.device, frames: int) -> dict[str, Any]:
    """Frames a second of each way on one shot, the overlap of its masks with the CPU method's, and J."""
    shot, truth = scene(frames, (1, 0), *SIZE)
    table = Table(
        "method", "frames/s", "IoU with the CPU's masks", "J", title=f"{frames} frames of {SIZE[1]}x{SIZE[0]}"
    )
    found: dict[str, Any] = {"frames": frames}
    theirs = np.zeros(0)
    for name, method in ways(device).items():
        if isinstance(method, str):
            found[name] = {"error": method}
            table.add_row(name, method, "", "")
            continue
        method(shot[:4])  # kernels are loaded, the engine is open
        _wait(device)
        began = time.perf_counter()
        scores = method(shot)
        _wait(device)
        rate = frames / (time.perf_counter() - began)
        theirs = theirs if len(theirs) else scores  # the CPU method comes first
        row = {"frames_per_second": rate, "iou_with_cpu": overlap(scores, theirs > 0.5), "j": overlap(scores, truth)}
        found[name] = {key: round(value, 4) for key, value in row.items()}
        table.add_row(name, *(f"{value:.3g}" for value in row.values()))
    if device.type == "cuda":
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    Console().print(table)
    return found


def ways(device: torch.device) -> dict[str, Method | str]:
    """The methods by name; in place of one that cannot be had here, why."""
    settings = UNLC()
    found: dict[str, Method | str] = {
        "cpu": lambda frames: motion_masks(frames, settings),
        f"{device.type} tensors, DIS": lambda frames: on_tensors(frames, settings, device, "dis"),
    }
    name = f"{device.type} tensors, engine"
    try:
        on_tensors(scene(2, (1, 0), *SIZE)[0], settings, device, "engine")
        found[name] = lambda frames: on_tensors(frames, settings, device, "engine")
    except RuntimeError as error:
        found[name] = " ".join(str(error).split())[:200]
    return found


def quality(device: torch.device, data: Path, names: str | None, frames: int) -> dict[str, Any]:
    """Mean J in percent of each way, by sequence and over all."""
    methods = {name: method for name, method in ways(device).items() if not isinstance(method, str)}
    table = Table("sequence", *methods, title="J in percent", title_justify="left")
    scores: dict[str, list[float]] = {name: [] for name in methods}
    agreement: dict[str, list[float]] = {name: [] for name in methods}
    for sequence in find_sequences(data, names):
        shot, truth = read_sequence(sequence, frames, SIZE[0])
        cells, theirs = [], np.zeros(0, bool)
        for name, method in methods.items():
            masks = method(shot) > 0.5
            result = judged(masks, truth, 0.0)
            theirs = theirs if len(theirs) else masks
            scores[name].append(100 * float(result.scores[:, 0].mean()))
            agreement[name].append(overlap(masks.astype(np.float32), theirs))
            cells.append(f"{scores[name][-1]:.1f}")
        table.add_row(sequence.name, *cells)
    table.add_section()
    table.add_row("mean", *(f"{np.mean(values):.1f}" for values in scores.values()))
    Console().print(table)
    return {
        name: {
            "mean_j": round(float(np.mean(scores[name])), 2),
            "iou_with_cpu": round(float(np.mean(agreement[name])), 3),
        }
        for name in methods
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
