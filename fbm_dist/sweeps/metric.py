"""The number that a trial is judged by, in the lines that its run logs. Imports no torch: every worker reads it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any


def check_metric(name: str, logged: Mapping[str, Any]) -> str:
    """ "" if a run's first line has the metric, else what is wrong with its name."""
    known = sorted(key for key in logged if key not in ("step", "time"))
    if name in known:
        return ""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"metric.name={name}: the run logs no such number; the nearest is {near[0]!r}, all: {', '.join(known)}"


def is_finite(value: Any) -> bool:
    """A number by which trials can be compared."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
