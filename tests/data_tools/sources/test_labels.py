"""A row of labels says what it knows; between the edges of spans all frames belong to one row, or to none."""

from __future__ import annotations

import pickle
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.sources.labels import Annotation, annotation, annotation_of, span_edges


def test_a_row() -> None:
    known = {"path": "a.mp4", "start": "3", "stop": "9", "group": "g", "licence": "CC0", "id": "7", "truth": "m"}
    row = annotation(known, {"action": "run"})
    assert row == Annotation((3, 9), "g", None, "m", "CC0", None, {"action": "run"}, "7")
    assert pickle.loads(pickle.dumps(row)) == row


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"start": "5", "stop": "5"}, "start '5' and stop '5' are no frame span"),
        ({"start": "-1", "stop": "5"}, "start '-1'"),
        ({"start": "3"}, "give both start and stop"),
    ],
)
def test_a_span_that_is_none(known: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        annotation(known, {})


def test_frames_take_the_row_that_covers_all_of_them() -> None:
    spans = [(0, 10), (10, 30), (40, 50)]
    rows = tuple(Annotation(span, f"g{i}", "test", labels={"n": str(i)}, id="7") for i, span in enumerate(spans))
    assert annotation_of(rows, 0, 10).labels == {"n": "0"}
    assert annotation_of(rows, 12, 17) is rows[1]
    crossing = annotation_of(rows, 4, 17)
    assert (crossing.labels, crossing.span, crossing.group) == ({}, None, "g1"), "most of it, but not all"
    assert annotation_of(rows, 9, 11).group == "g0", "the first of equals"
    outside = annotation_of(rows, 30, 40)
    assert (outside.labels, outside.span) == ({}, None)
    assert (outside.group, outside.split, outside.id) == ("g0", "test", "7")
    assert annotation_of((), 0, 5) == Annotation()
    assert annotation_of((Annotation(labels={"n": "all"}),), 7, 9).labels == {"n": "all"}


@pytest.mark.parametrize(
    ("spans", "edges"),
    [
        ([], set()),
        ([None, None], set()),
        ([(0, 10)], {10}),
        ([(5, 10), (20, 30)], {5, 10, 20, 30}),
        ([(20, 30), (5, 20)], {5, 20, 30}),  # they touch, in any order
        ([(0, 20), (15, 40)], {20, 40}),  # shared frames are the first row's
        ([(15, 40), (0, 20)], {15, 40}),
        ([(0, 50), (10, 20)], {50}),  # hidden
        ([(10, 20), (0, 50)], {10, 20, 50}),
        ([(5, 10), (5, 10)], {5, 10}),
        ([(5, 10), None], {5, 10}),
        ([None, (5, 10)], set()),
    ],
)
def test_edges(spans: list[tuple[int, int] | None], edges: set[int]) -> None:
    assert span_edges(tuple(Annotation(span) for span in spans)) == edges


SPAN = st.tuples(st.integers(0, 30), st.integers(1, 12)).map(lambda drawn: (drawn[0], sum(drawn)))


@given(st.lists(st.none() | SPAN, max_size=7))
def test_between_edges_one_row_has_all_frames(spans: list[tuple[int, int] | None]) -> None:
    rows = tuple(Annotation(span, labels={"row": str(number)}) for number, span in enumerate(spans))
    owners = [next((row for row in rows if row.overlap(frame, frame + 1)), None) for frame in range(50)]
    assert span_edges(rows) == {frame for frame in range(1, 50) if owners[frame] is not owners[frame - 1]}
    for start, stop in pairwise([0, *sorted(span_edges(rows)), 50]):
        assert annotation_of(rows, start, stop).labels == (owners[start].labels if owners[start] else {})
