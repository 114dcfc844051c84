"""KTH actions (Schuldt et al., ICPR 2004): 25 persons, 6 actions, 4 scenes; a film holds up to four runs of its action.

As the six archives of the authors' page unpack, in a folder a class or all in one, and their 00sequences.txt:

    boxing/person01_boxing_d1_uncomp.avi
    00sequences.txt      "person01_boxing_d1  frames  1-95, 96-185, 186-245, 246-360"

Frames are counted from 1 and both ends are included: the last spans end with the film (360 frames here). Between the spans of walking,
jogging and running the person is out of sight. The list has slips of its authors (spans that overlap or are out of order,
`person13_handclapping_d3 *missing*`, films of three spans); they are read as they stand:
frames that two runs share belong to the earlier one (`labels.span_edges`).

Splits: 1 is persons 1 to 16 and 17 to 25, as the DrNet paper and the video prediction papers after it have it; `authors` is what
00sequences.txt says: 8 persons for training, 8 for validation, 9 for test.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from data_tools.places import Place
from data_tools.sources.labels import Annotation
from data_tools.sources.layouts.layout import (
    Options,
    Said,
    bad_line,
    file_at,
    lines_of,
    missing,
    stem_of,
    wrong_folder,
)

LIST = "00sequences.txt"
LAST_TRAINED = 16  # person, of split 1
PARTS = {"training:": "train", "validation:": "validation", "test:": "test"}

_NAME = re.compile(
    r"(?P<sequence>person(?P<person>\d\d)_(?P<action>boxing|handclapping|handwaving|jogging|running|walking)_d(?P<scene>\d))(?:_uncomp)?"
)
_SEQUENCE = re.compile(r"(person\d\d_[a-z]+_d\d)\s+(?:frames\s+(.+)|\*missing\*)")
_SPAN = re.compile(r"\s*(\d+)\s*-\s*(\d+)\s*")


def read(root: Place, sources: Sequence[str], options: Options) -> Said:
    """Labels `action` and `scene` (d1 outdoors, d2 with scale, d3 other clothes, d4 indoors), a row a run; group: the person; split.

    Raises:
        ValueError: no film is named so, 00sequences.txt is missing or is none.
    """
    names = {source: match for source in sources if (match := _NAME.fullmatch(stem_of(source)))}
    if not names:
        raise wrong_folder(root, "KTH", "person<NN>_<action>_d<N>_uncomp.avi")
    there = file_at(root, [LIST])
    if there is None:
        raise missing(root, LIST, "get it from the page of the data set (www.csc.kth.se/cvap/actions)")
    spans, persons = _sequences(there)
    if options.split == "authors" and set(persons.values()) != set(PARTS.values()):
        raise ValueError(
            f"{there}: does not say who is for Training:, Validation: and Test:; get the whole file, or give layout_split=1"
        )
    said = Said()
    for source, match in names.items():
        person = match["person"]
        part = persons.get(person) if options.split == "authors" else "train" if int(person) <= LAST_TRAINED else "test"
        labels = {"action": match["action"], "scene": f"d{match['scene']}"}
        group = f"person{person}"
        runs: list[tuple[int, int] | None] = [*spans.get(match["sequence"], [])] or [None]
        said.rows[source] = tuple(Annotation(span, group, part, labels=labels) for span in runs)
    said.note(
        [s for s, m in names.items() if m["sequence"] not in spans],
        f"have no frames in {LIST}: all of theirs are labelled",
    )
    said.note([s for s in sources if s not in names], "are not named as in KTH: they carry no labels")
    return said


def _sequences(there: Place) -> tuple[dict[str, list[tuple[int, int]]], dict[str, str]]:
    """Film -> spans [start, stop) of frames from 0, in order; person ("01") -> part of the authors' split."""
    spans: dict[str, list[tuple[int, int]]] = {}
    persons: dict[str, str] = {}
    for number, text in lines_of(there):
        if (part := PARTS.get(text.split()[0].lower())) is not None:
            persons |= dict.fromkeys(re.findall(r"\d\d", text), part)
        elif text.startswith("person"):
            match = _SEQUENCE.fullmatch(text)
            found = [_SPAN.fullmatch(span) for span in match[2].split(",")] if match and match[2] else []
            runs = [(int(span[1]) - 1, int(span[2])) for span in found if span is not None]
            if match is None or len(runs) < len(found) or any(not 0 <= start < stop for start, stop in runs):
                raise bad_line(there, number, "e.g. person01_boxing_d1 frames 1-95, 96-185, 186-245, 246-360")
            if runs:
                spans[match[1]] = sorted(runs)
    if not spans:
        raise ValueError(f"{there}: names no film's frames; get {LIST} from the page of the data set")
    return spans, persons
