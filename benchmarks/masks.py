"""Quality, speed and memory of the motion masks, on a folder in the layout of DAVIS.

    python benchmarks/masks.py --data FOLDER [--sequences a,b] [--frames 40] [--settings fast|paper|both] [--page FILE.html]
    python benchmarks/masks.py --data FOLDER --sequences a,b --ladder          what each step from `paper` to `fast` gives
    python benchmarks/masks.py --data FOLDER --segmenter NAME.pt2              a second round: a trained network, alone and combined

Protocol (that of the measured original): the first N frames of a sequence at 240 pixels height; foreground is a soft score above 0.5;
J (IoU), precision and recall of each frame, averaged over a sequence's frames, then over sequences; pooled is one confusion matrix of
all frames. `fast` is `UNLC()`, `paper` is `UNLC.paper()`. The last line is one JSON object; what was not run in it is null. Seconds are
CPU seconds of one core. The page has the worst and the best frames: frame, flow, soft mask, and the mask against the truth.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.masks_page import Shown, page
from data_tools.config import load
from data_tools.flow import OpticalFlow, grey_frames
from data_tools.frames import resized
from data_tools.masks import settled
from data_tools.schema import Prepare
from data_tools.unlc import UNLC, motion_masks
from data_tools.unlc.pieces import Opinion
from fbm_dist.evaluation.segmentation import metrics
from fbm_dist.evaluation.segmentation.folders import find
from fbm_dist.evaluation.segmentation.folders.sequence import Sequence
from fbm_dist.evaluation.segmentation.methods.trivial import centre_box, residual

SETTINGS = {"fast": UNLC(), "paper": UNLC.paper()}
SPEED_SIZES = ((240, 320), (128, 172))  # height, width
SPEED_FRAMES = 110  # the longest shot that is processed at once
ALL_FOREGROUND = 0.99  # a frame with a larger predicted share counts as flooded
# From `paper` to `fast`: each rung keeps what those above it have changed.
LADDER: dict[str, dict[str, Any]] = {
    "motion of a plane, native aspect": {"motion": {"dominant": "plane", "aspect": "native", "power": 2}},
    "320 pixels": {"working_side": 320},
    "superpixels less blurred, 4 rounds": {"superpixels": {"blur": 1.0, "iterations": 4}},
    "every third frame, 40 neighbours": {"graph": {"stride": 3, "neighbours": 40}},
    "20 % of the first votes kept": {"voting": {"restart": 0.2}},
    "residual not squared": {"motion": {"power": 1.0}},
    "guided filter": {"guided_radius": 4},
    "flow to the next frames alone": {"motion": {"baselines": (1,)}},
    "DIS: fast": {"motion": {"preset": "fast"}},
    "weak motion not stretched": {"motion": {"floor": 0.25}},
    "superpixels need not be connected": {"superpixels": {"connected": False}},
    "superpixels at half the size": {"superpixels": {"shrink": 2}},
}
# The profile's lines: functions of data_tools/unlc, and OpenCV's flow.
STEPS = (
    "motion_saliency",
    "superpixels",
    "region_means",
    "region_descriptors",
    "consensus_graph",
    "consensus",
    "demote_small_blobs",
    "guided_filter",
)
Predict = Callable[[np.ndarray], np.ndarray]  # uint8 (T, H, W, 3) -> scores in [0, 1] (T, H, W)


@dataclass(frozen=True)
class Result:
    """Of one method on one sequence: per frame J, precision, recall; true and false positives and misses; CPU seconds."""

    scores: np.ndarray  # (T, 3)
    counts: np.ndarray  # (3,): hits, false alarms, misses, in pixels
    seconds: float
    num_flooded: int


Results = dict[str, dict[str, Result]]  # method -> sequence -> result


def main() -> None:
    """Measure what the command line asks for, and print it."""
    arguments = _parse()
    cv2.setNumThreads(1)  # the unit of all figures is one core
    with threadpool_limits(1):
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """The speed first, for the peak of memory is the process's own; then all methods on all sequences."""
    sequences = find_sequences(arguments.data, arguments.sequences)
    chosen = [name for name in SETTINGS if arguments.settings in (name, "both")]
    speed, peak_mb = measure_speed(sequences[0], SETTINGS[chosen[0]])
    if arguments.ladder:
        methods = {name: unlc(settings) for name, settings in ladder().items()}
    else:
        methods = {name: unlc(SETTINGS[name]) for name in chosen}
    if arguments.segmenter:
        methods |= second_round(arguments.segmenter)
    methods |= {"flow": residual_flow, "centre": centre, "all": lambda frames: np.ones(frames.shape[:3], np.float32)}
    results: Results = {method: {} for method in methods}
    shown: list[Shown] = []
    for sequence in sequences:
        frames, truth = read_sequence(sequence, arguments.frames, arguments.height)
        for method, predict in methods.items():
            result, scores = evaluate(predict, frames, truth)
            results[method][sequence.name] = result
            if arguments.page and method == chosen[0]:
                shown.append(Shown(sequence.name, frames, truth, np.rint(scores * 255).astype(np.uint8), result.scores))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(rungs(results) if arguments.ladder else table(results))
    for (height, width), fps in speed.items():
        print(f"{chosen[0]}: {SPEED_FRAMES} frames of {width}x{height}: {fps:.1f} frames/s on one core")
    console.print(profile(sequences[0], SETTINGS[chosen[0]]))
    if arguments.page:
        arguments.page.parent.mkdir(parents=True, exist_ok=True)
        arguments.page.write_bytes(page(chosen[0], shown))
    fps_fast = speed[SPEED_SIZES[0]] if chosen[0] == "fast" else None
    print(json.dumps(figures(results, fps_fast, peak_mb, arguments.ladder)))


def ladder() -> dict[str, UNLC]:
    """Every rung's settings, `paper` first; the last is `fast`."""
    rungs = {"paper": UNLC.paper()}
    for name, changes in LADDER.items():
        before = next(reversed(rungs.values())).model_dump()
        changed = {
            key: {**before[key], **value} if isinstance(value, dict) else value for key, value in changes.items()
        }
        rungs[name] = UNLC.model_validate({**before, **changed})
    rungs["fast: windows in long shots"] = UNLC.model_validate(
        {**next(reversed(rungs.values())).model_dump(), "long_shots": "windows"}
    )
    assert next(reversed(rungs.values())) == UNLC(), "the ladder no longer ends at the defaults"
    return rungs


def second_round(segmenter: str) -> dict[str, Predict]:
    """The network alone, and as a voter beside motion, as `prepare` has them."""
    from data_tools.segmenter import network_masks  # torch's memory is not uNLC's

    asked = ("input=unused", "output=unused", "masks.kind=combined", f"masks.network={segmenter}")
    try:
        masks = settled(load(Prepare, None, asked)).masks
    except ValueError as error:
        sys.exit(str(error))

    def opinion(frames: np.ndarray) -> np.ndarray:
        return np.stack(network_masks(list(frames), masks))

    def network(frames: np.ndarray) -> np.ndarray:
        return np.stack([resized(score, frames.shape[1:3]) for score in opinion(frames)])

    def combined(frames: np.ndarray) -> np.ndarray:
        return motion_masks(frames, masks.unlc, Opinion(opinion(frames), masks.network_share))

    return {"network": network, "combined": combined}


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


def evaluate(predict: Predict, frames: np.ndarray, truth: np.ndarray) -> tuple[Result, np.ndarray]:
    """Run one method on one sequence: how good it is, and its scores."""
    start = time.process_time()
    found = predict(frames)
    return judged(found, truth, time.process_time() - start), found


def judged(found: np.ndarray, truth: np.ndarray, seconds: float) -> Result:
    """How good scores (T, H, W) are that took so many CPU seconds."""
    measured = metrics.frames([metrics.measure(ours > 0.5, true) for ours, true in zip(found, truth, strict=True)])
    scores = np.stack([measured.iou, measured.precision, measured.recall], 1)
    return Result(scores, measured.pooled(), seconds, int((measured.share > ALL_FOREGROUND).sum()))


def unlc(settings: UNLC) -> Predict:
    """uNLC's soft scores."""
    return lambda frames: motion_masks(frames, settings)


def residual_flow(frames: np.ndarray) -> np.ndarray:
    """How far the flow to the next frame deviates from its median, as a share of the largest deviation."""
    grey = grey_frames(frames, frames.shape[1:3])
    flow = OpticalFlow("medium")
    others = [i + 1 if i + 1 < len(grey) else i - 1 for i in range(len(grey))]
    if others[0] < 0:
        return np.zeros(frames.shape[:3], dtype=np.float32)
    return np.stack([residual(grey[[i, other]], flow) for i, other in enumerate(others)])


def centre(frames: np.ndarray) -> np.ndarray:
    """Foreground is the middle half of each side."""
    return np.repeat(centre_box(*frames.shape[1:3])[None], len(frames), axis=0)


def measure_speed(sequence: Sequence, settings: UNLC) -> tuple[dict[tuple[int, int], float], float]:
    """Frames per CPU second by size (height, width), and the process's peak memory in MB, on a shot of 110 frames."""
    speed = {}
    for size in SPEED_SIZES:
        shot = long_shot(sequence, size)
        start = time.process_time()
        motion_masks(shot, settings)
        speed[size] = len(shot) / (time.process_time() - start)
    return speed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def long_shot(sequence: Sequence, size: tuple[int, int]) -> np.ndarray:
    """110 frames of `size` (height, width): the sequence, there and back as often as needed."""
    frames, _ = read_sequence(sequence, SPEED_FRAMES, 240)
    back = np.concatenate([frames, frames[::-1]])
    return np.stack([resized(back[i % len(back)], size) for i in range(SPEED_FRAMES)])


def profile(sequence: Sequence, settings: UNLC) -> Table:
    """Milliseconds a frame of every step, and its share, of a shot of 110 frames of 320x240."""
    shot = long_shot(sequence, SPEED_SIZES[0])
    profiler = cProfile.Profile(time.process_time)
    profiler.runcall(motion_masks, shot, settings)
    stats = pstats.Stats(profiler).get_stats_profile()
    spent = {step: stats.func_profiles[step].cumtime for step in STEPS if step in stats.func_profiles}
    spent["the rest"] = stats.total_tt - sum(spent.values())
    out = Table("step", "ms a frame", "%", title="where the time goes, 320x240", title_justify="left")
    for step, seconds in spent.items():
        out.add_row(step, f"{1000 * seconds / len(shot):.1f}", f"{100 * seconds / stats.total_tt:.0f}")
    return out


def table(results: Results) -> Table:
    """Sequences by methods."""
    out = Table("sequence", title="J / precision / recall in percent; CPU s a frame", title_justify="left")
    for method in results:
        out.add_column(method, justify="right")
    for name in next(iter(results.values())):
        out.add_row(name, *(_cell(by_name[name]) for by_name in results.values()))
    out.add_section()
    out.add_row("mean", *(_percent(_mean(by_name)) for by_name in results.values()))
    out.add_row("pooled", *(_percent(_pooled(by_name)) for by_name in results.values()))
    return out


def rungs(results: Results) -> Table:
    """Methods by what they reach over all sequences."""
    out = Table("", "mean J / P / R", "pooled J / P / R", "CPU s a frame", title="each rung keeps those above it")
    for method, by_name in results.items():
        seconds = sum(one.seconds for one in by_name.values()) / sum(len(one.scores) for one in by_name.values())
        out.add_row(method, _percent(_mean(by_name)), _percent(_pooled(by_name)), f"{seconds:.3f}")
    return out


def figures(results: Results, fps_fast: float | None, peak_mb: float, climbed: bool) -> dict[str, Any]:
    """The line of JSON."""
    fast = results.get("fast: windows in long shots" if climbed else "fast")

    def percent(by_name: dict[str, Result] | None, kind: Callable[[dict[str, Result]], np.ndarray], i: int = 0) -> Any:
        return None if by_name is None else round(100 * float(kind(by_name)[i]), 2)

    found = {
        "iou_paper": percent(results.get("paper"), _mean),
        "pooled_paper": percent(results.get("paper"), _pooled),
        "iou_fast": percent(fast, _mean),
        "pooled_fast": percent(fast, _pooled),
        "precision_fast": percent(fast, _mean, 1),
        "recall_fast": percent(fast, _mean, 2),
        "iou_flow": percent(results["flow"], _mean),
        "fps_fast_one_core": None if fps_fast is None else round(fps_fast, 2),
        "peak_mb": round(peak_mb, 1),
        "all_foreground_frames": None if fast is None else sum(one.num_flooded for one in fast.values()),
    }
    for name in ("network", "combined"):
        if name in results:
            found |= {f"iou_{name}": percent(results[name], _mean), f"pooled_{name}": percent(results[name], _pooled)}
    if climbed:
        found["ladder"] = {name: [percent(one, _mean), percent(one, _pooled)] for name, one in results.items()}
    return found


def _cell(result: Result) -> str:
    iou, precision, recall = 100 * result.scores.mean(0)
    return f"{iou:.1f} / {precision:.0f} / {recall:.0f}  {result.seconds / len(result.scores):.3f}"


def _percent(values: np.ndarray) -> str:
    return " / ".join(f"{100 * v:.1f}" for v in values)


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
    parser.add_argument("--ladder", action="store_true", help="all settings from paper to fast")
    parser.add_argument("--segmenter", help="NAME.pt2 or package.module:function, as masks.network of prepare")
    parser.add_argument("--page", type=Path, help="HTML file to write: worst and best frames of the first settings")
    arguments = parser.parse_args()
    if arguments.frames < 1 or arguments.height < 16:
        parser.error("--frames must be at least 1 and --height at least 16")
    return arguments


if __name__ == "__main__":
    main()
