"""What pruning rules would say of the clips of a manifest, for all of them at once: `prune.clip_verdict` on columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_tools.prune import Pruning

REASONS = ("small", "large", "border", "flat", "unsteady")


def judged(table: pa.Table) -> pa.StructArray:
    """The mask statistics of those clips that have any."""
    column = table["statistics"].combine_chunks()
    return column.filter(column.is_valid())


def shares(statistics: pa.StructArray, name: str) -> np.ndarray:
    """float64 (sum of T,): a share of every frame, as the rules saw it: files hold it in single precision."""
    return np.round(statistics.field(name).flatten().to_numpy(zero_copy_only=False).astype(np.float64), 6)


def scores(statistics: pa.StructArray, name: str) -> np.ndarray:
    """float64 (n,): a score of every clip, likewise."""
    return np.round(statistics.field(name).to_numpy(zero_copy_only=False).astype(np.float64), 6)


def verdicts(statistics: pa.StructArray, rules: Pruning) -> dict[str, np.ndarray]:
    """Reason -> bool (n,): which clips would be pruned for it; all False where a clip would be kept."""
    lengths = pc.list_value_length(statistics.field("foreground")).to_numpy(zero_copy_only=False).astype(np.int64)
    clip = np.repeat(np.arange(len(lengths)), lengths)
    foreground, border = shares(statistics, "foreground"), shares(statistics, "border")
    failed = {
        "small": foreground < rules.min_foreground,
        "large": foreground > rules.max_foreground,
        "border": border > rules.max_border,
    }
    kept = np.bincount(clip, ~np.any(list(failed.values()), axis=0), minlength=len(lengths))
    pruned = (kept == 0) | (kept < rules.min_kept * lengths)
    found = {
        reason: pruned & (np.bincount(clip, frames, minlength=len(lengths)) > 0) for reason, frames in failed.items()
    }
    found["flat"] = scores(statistics, "flatness") < rules.min_flatness
    found["unsteady"] = (lengths > 1) & (scores(statistics, "consistency") < rules.min_consistency)
    return found
