"""A row of labels says what it knows; a clip takes the row that covers most of it."""

from __future__ import annotations

import pickle

import pytest

from data_tools.sources.labels import Annotation, annotation, annotation_of


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


def test_a_clip_takes_the_row_that_covers_most_of_it() -> None:
    spans = [(0, 10), (10, 30), (40, 50)]
    rows = tuple(Annotation(span, "g", "test", labels={"n": str(i)}, id="7") for i, span in enumerate(spans))
    assert annotation_of(rows, 0, 10).labels == {"n": "0"}
    assert annotation_of(rows, 4, 15).labels == {"n": "0"}
    assert annotation_of(rows, 4, 17).labels == {"n": "1"}
    assert annotation_of(rows, 5, 15).labels == {"n": "0"}, "the first of equals"
    outside = annotation_of(rows, 30, 40)
    assert (outside.labels, outside.span) == ({}, None)
    assert (outside.group, outside.split, outside.id) == ("g", "test", "7")
    assert annotation_of((), 0, 5) == Annotation()
    assert annotation_of((Annotation(labels={"n": "all"}),), 7, 9).labels == {"n": "all"}
