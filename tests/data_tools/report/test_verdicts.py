"""Verdicts on columns are those that `prune.clip_verdict` gives clip by clip, also after a file has rounded the shares."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.prune import Pruning, clip_verdict
from data_tools.report.verdicts import REASONS, judged, verdicts
from data_tools.sample import MaskStatistics
from data_tools.shards import SCHEMA

EDGES = (0.0, 0.005, 0.005001, 0.1, 0.100001, 0.099999, 0.5, 0.8, 0.800001, 1.0)
PAPER = Pruning.paper()
SHARE = st.sampled_from(EDGES)


@st.composite
def measured(draw: st.DrawFn) -> MaskStatistics:
    frames = draw(st.integers(1, 5))
    shares = [tuple(draw(SHARE) for _ in range(frames)) for _ in range(2)]
    return MaskStatistics(
        foreground=shares[0], border=shares[1], uncertain=(0.0,) * frames, flatness=draw(SHARE), consistency=draw(SHARE)
    )


@settings(deadline=None)
@given(
    st.lists(st.none() | measured(), min_size=1, max_size=6),
    st.sampled_from(
        [PAPER, Pruning(), Pruning(min_consistency=0.5, min_kept=0.0), Pruning(min_flatness=0.1, min_kept=1.0)]
    ),
)
def test_equal_to_the_rules_for_one_clip(clips: list[MaskStatistics | None], rules: Pruning) -> None:
    column = pa.array([None if clip is None else clip.model_dump() for clip in clips], SCHEMA.field("statistics").type)
    found = verdicts(judged(pa.table({"statistics": column})), rules)
    expected = [set(clip_verdict(clip, rules)) for clip in clips if clip is not None]
    assert set(found) == set(REASONS)
    assert [{reason for reason in found if found[reason][i]} for i in range(len(expected))] == expected


def test_no_clips_have_no_verdicts() -> None:
    column = pa.array([None], SCHEMA.field("statistics").type)
    found = verdicts(judged(pa.table({"statistics": column})), PAPER)
    assert all(len(values) == 0 and values.dtype == np.bool_ for values in found.values())
