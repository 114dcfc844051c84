"""Quality, speed and memory of the motion masks, on a folder in the layout of DAVIS.

    python benchmarks/masks.py --data FOLDER [--sequences a,b] [--frames 40] [--settings default|paper|both]

Protocol (that of the measured original): the first N frames of a sequence at 240 pixels height; foreground is a soft score above 0.5;
J (IoU), precision and recall of each frame, averaged over a sequence's frames, then over sequences; pooled is one confusion matrix of
all frames. The last line is one JSON object; what was not run in it is null. Seconds are CPU seconds of one core.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from data_tools.flow import OpticalFlow, grey_frames
from data_tools.frames import resized
from data_tools.unlc import UNLC, motion_masks
from fbm_dist.evaluation.segmentation import metrics
from fbm_dist.evaluation.segmentation.folders import find
from fbm_dist.evaluation.segmentation.folders.sequence import Sequence
from fbm_dist.evaluation.segmentation.methods.trivial import centre_box, residual

SETTINGS = {"default": UNLC(), "paper": UNLC.paper()}
SPEED_SIZES = ((240, 320), (128, 172))  # height, width
SPEED_FRAMES = 110  # the longest shot that is processed at once
ALL_FOREGROUND = 0.99  # a frame with a larger predicted share counts as flooded


@dataclass(frozen=True)
class Result:
    """Of one method on one sequence: per frame J, precision, recall; true and false positives and misses; CPU seconds."""

    scores: np.ndarray  # (T, 3)
    counts: np.ndarray  # (3,): hits, false alarms, misses, in pixels
    seconds: float
    num_flooded: int


def main() -> None:
    arguments = _parse()
    cv2.setNumThreads(1)  # the unit of all figures is one core
    with threadpool_limits(1):
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Measure what the command line asks for, and print it."""
    sequences = find_sequences(arguments.data, arguments.sequences)
    chosen = [name for name in SETTINGS if arguments.settings in (name, "both")]
    speed, peak_mb = measure_speed(sequences[0], SETTINGS[chosen[0]])  # first: the peak is the process's own
    methods: dict[str, Callable[[np.ndarray], np.ndarray]] = {name: foreground(SETTINGS[name]) for name in chosen}
    methods |= {"flow": residual_flow, "centre": centre, "all": lambda frames: np.ones(frames.shape[:3], bool)}
    results: dict[str, dict[str, Result]] = {method: {} for method in methods}
    for sequence in sequences:
        frames, truth = read_sequence(sequence, arguments.frames, arguments.height)
        for method, predict in methods.items():
            results[method][sequence.name] = evaluate(predict, frames, truth)
    report(results, speed, SETTINGS[chosen[0]] == SETTINGS["default"], peak_mb)


def find_sequences(data: Path, names: str | None) -> list[Sequence]:
    """The chosen sequences, by name."""
    wanted = [name.strip() for name in names.split(",")] if names else []
    try:
        found = {sequence.name: sequence for sequence in find.find_sequences([data], "davis", names=wanted)}
    except ValueError as error:
        sys.exit(str(error))
    return [found[name] for name in wanted or found]


def read_sequence(sequence: Sequence, number: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (T, H, W, 3) RGB and bool (T, H, W) of the first `number` frames at `height` pixels (never enlarged)."""
    frames, masks = [], []
    for index, path in enumerate(sequence.frames[:number]):
        if index not in sequence.truth:
            sys.exit(f"{path}: no mask of the same name")
        try:
            picture, mask = sequence.frame(index), sequence.annotation(index).mask
        except ValueError as error:
            sys.exit(str(error))
        scale = min(1.0, height / picture.shape[0])
        rows, columns = round(picture.shape[0] * scale), round(picture.shape[1] * scale)
        frames.append(resized(picture, (rows, columns)))
        masks.append(cv2.resize(mask.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST) > 0)
    return np.stack(frames), np.stack(masks)


def evaluate(predict: Callable[[np.ndarray], np.ndarray], frames: np.ndarray, truth: np.ndarray) -> Result:
    """Run one method on one sequence."""
    start = time.process_time()
    found = predict(frames)
    seconds = time.process_time() - start
    measured = metrics.frames([metrics.measure(ours, true) for ours, true in zip(found, truth, strict=True)])
    scores = np.stack([measured.iou, measured.precision, measured.recall], 1)
    return Result(scores, measured.pooled(), seconds, int((measured.share > ALL_FOREGROUND).sum()))


def foreground(settings: UNLC) -> Callable[[np.ndarray], np.ndarray]:
    """uNLC with a soft score above one half as the answer."""
    return lambda frames: motion_masks(frames, settings) > 0.5


def residual_flow(frames: np.ndarray) -> np.ndarray:
    """Foreground where the flow to the next frame deviates from its median by more than half of the largest deviation."""
    grey = grey_frames(frames, frames.shape[1:3])
    flow = OpticalFlow("medium")
    others = [i + 1 if i + 1 < len(grey) else i - 1 for i in range(len(grey))]
    if others[0] < 0:
        return np.zeros(frames.shape[:3], dtype=bool)
    return np.stack([residual(grey[[i, other]], flow) > 0.5 for i, other in enumerate(others)])


def centre(frames: np.ndarray) -> np.ndarray:
    """Foreground is the middle half of each side."""
    return np.repeat(centre_box(*frames.shape[1:3])[None] > 0, len(frames), axis=0)


def measure_speed(sequence: Sequence, settings: UNLC) -> tuple[dict[tuple[int, int], float], float]:
    """Frames per CPU second by size (height, width), and the process's peak memory in MB, on a shot of 110 frames."""
    frames, _ = read_sequence(sequence, SPEED_FRAMES, 240)
    there_and_back = np.concatenate([frames, frames[::-1]])
    speed = {}
    for height, width in SPEED_SIZES:
        shot = np.stack(
            [
                cv2.resize(there_and_back[i % len(there_and_back)], (width, height), interpolation=cv2.INTER_AREA)
                for i in range(SPEED_FRAMES)
            ]
        )
        start = time.process_time()
        motion_masks(shot, settings)
        speed[height, width] = len(shot) / (time.process_time() - start)
    return speed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(
    results: dict[str, dict[str, Result]], speed: dict[tuple[int, int], float], is_default: bool, peak_mb: float
) -> None:
    """Print the table, the speed, and the line of JSON."""
    table = Table(title="J / precision / recall in percent; CPU s a frame", title_justify="left")
    table.add_column("sequence")
    for method in results:
        table.add_column(method, justify="right")
    for name in next(iter(results.values())):
        table.add_row(name, *(_cell(by_name[name]) for by_name in results.values()))
    table.add_section()
    table.add_row("mean", *(" / ".join(f"{100 * v:.1f}" for v in _mean(by_name)) for by_name in results.values()))
    table.add_row("pooled", *(" / ".join(f"{100 * v:.1f}" for v in _pooled(by_name)) for by_name in results.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    for (height, width), fps in speed.items():
        print(f"{SPEED_FRAMES} frames of {width}x{height}: {fps:.1f} frames/s on one core")
    figures: dict[str, float | int | None] = {}
    for name in ("default", "paper"):
        by_name = results.get(name)
        figures[f"iou_{name}"] = round(100 * float(_mean(by_name)[0]), 2) if by_name else None
        figures[f"pooled_{name}"] = round(100 * float(_pooled(by_name)[0]), 2) if by_name else None
    default = results.get("default")
    figures["precision_default"] = round(100 * float(_mean(default)[1]), 2) if default else None
    figures["recall_default"] = round(100 * float(_mean(default)[2]), 2) if default else None
    figures["iou_flow"] = round(100 * float(_mean(results["flow"])[0]), 2)
    figures["fps_default_one_core"] = round(speed[SPEED_SIZES[0]], 2) if is_default else None
    figures["peak_mb"] = round(peak_mb, 1)
    figures["all_foreground_frames"] = sum(one.num_flooded for one in default.values()) if default else None
    print(json.dumps(figures))


def _cell(result: Result) -> str:
    iou, precision, recall = 100 * result.scores.mean(0)
    return f"{iou:.1f} / {precision:.0f} / {recall:.0f}  {result.seconds / len(result.scores):.3f}"


def _mean(by_name: dict[str, Result]) -> np.ndarray:
    return np.mean([result.scores.mean(0) for result in by_name.values()], axis=0)


def _pooled(by_name: dict[str, Result]) -> np.ndarray:
    hits, alarms, misses = np.sum([result.counts for result in by_name.values()], axis=0)
    return hits / np.maximum([hits + alarms + misses, hits + alarms, hits + misses], 1)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with SEQ/frames + SEQ/masks, or DAVIS's own layout"
    )
    parser.add_argument("--sequences", help="comma-separated names; without it: all")
    parser.add_argument("--frames", type=int, default=40, help="of each sequence, from its first (default 40)")
    parser.add_argument("--height", type=int, default=240, help="larger frames are made this high (default 240)")
    parser.add_argument("--settings", choices=(*SETTINGS, "both"), default="both")
    arguments = parser.parse_args()
    if arguments.frames < 1 or arguments.height < 16:
        parser.error("--frames must be at least 1 and --height at least 16")
    return arguments


if __name__ == "__main__":
    main()
