"""Boxes around the actors of 24 classes of UCF-101, as distributed: THUMOS'13's XML, or the corrected ones as a MATLAB file.

thumos     UCF101_24Action_Detection_Annotations/UCF101_24_Annotations/<Class>/v_<Class>_gXX_cYY.xgtf: ViPER's XML, what the FBM paper
           is trained on. Read as its authors' parse_annotations.py does: of the first `sourcefile` that holds objects, every object's
           `bbox framespan="1:8" x y width height` (frames counted from 1, both ends included), a later box of an object in place of an
           earlier one of the same frame. A few files are no XML (v_TennisSwing_g09_c01 and others), one is spelt v_RopeClimbing_g02_C01.
corrected  finalAnnots.mat of github.com/gurkirt/corrected-UCF101-Annots (3,195 films): `annot` with name
           ("Basketball/v_Basketball_g01_c01") and tubes of sf, ef (first and last frame, counted from 1) and boxes (a row a frame:
           x, y, width, height; pixels counted from 1, as the check in its s9_final_crossCheck.m says).

The same boxes also come as pickles (pyannot.pkl, UCF101v2-GT.pkl), which can run any program and are not read.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from xml.etree import ElementTree

import numpy as np

from data_tools.places import Place, line, listed
from data_tools.sources.boxes import Box
from data_tools.sources.entries import spelt
from data_tools.sources.layouts.layout import Said, bytes_of, file_at, missing, places, stem_of

_ACTIONS = (  # as in classInd.txt
    "Basketball BasketballDunk Biking CliffDiving CricketBowling Diving Fencing FloorGymnastics GolfSwing HorseRiding IceDancing "
    "LongJump PoleVault RopeClimbing SalsaSpin SkateBoarding Skiing Skijet SoccerJuggling Surfing TennisSwing TrampolineJumping "
    "VolleyballSpiking WalkingWithDog"
)
ACTIONS = frozenset(_ACTIONS.split())
XML_FOLDERS = ("UCF101_24Action_Detection_Annotations/UCF101_24_Annotations", "UCF101_24_Annotations")
MAT_FILES = ("finalAnnots.mat", "splitfiles/finalAnnots.mat", "corrected-UCF101-Annots/finalAnnots.mat")
READERS = 16  # files asked for at a time
MAX_FRAMES = 100_000  # no film of UCF-101 comes near it: a longer span is a slip


def read(root: Place, sources: Sequence[str], kind: str, said: Said) -> None:
    """Add the boxes of films to what is said.

    Args:
        root: the folder of films.
        sources: films of the 24 classes, which `said.rows` has.
        kind: "thumos" or "corrected".
        said: gets `boxes`, and notes about films without.
    Raises:
        ValueError: no such annotations in or beside the folder, or a MATLAB file that is none.
    """
    by_stem = _thumos(root, sources, said) if kind == "thumos" else _corrected(root)
    for source in sources:
        boxes = by_stem.get(stem_of(source).lower(), ())
        if boxes:
            said.boxes[source] = boxes
    said.note([source for source in sources if source not in said.boxes], "have no boxes in the annotations")


def xgtf_boxes(data: bytes) -> tuple[Box, ...]:
    """The boxes of one file of THUMOS'13, in order; boxes without an area are left out.

    Raises:
        ValueError: it is no such XML.
    """
    try:
        tree = ElementTree.fromstring(data)  # no entities are fetched
    except ElementTree.ParseError as error:
        raise ValueError(f"is no XML: {line(error)}") from None
    found: set[Box] = set()
    for film in _below(tree, "sourcefile"):
        for thing in _below(film, "object"):
            of_frame: dict[int, Box] = {}
            for box in _below(thing, "bbox"):
                of_frame |= _spanned(box)
            found |= set(of_frame.values())
        if found:
            break
    return tuple(sorted(found))


def mat_boxes(data: bytes) -> dict[str, tuple[Box, ...]]:
    """Film ("<Class>/v_<Class>_gXX_cYY") -> its boxes in order, of finalAnnots.mat.

    Raises:
        ValueError: it is no such MATLAB file.
    """
    from scipy.io import loadmat

    try:
        file: Any = io.BytesIO(data)  # which loadmat takes, though its stubs do not say so
        films = loadmat(file, variable_names=["annot"], simplify_cells=True)["annot"]
        return {str(film["name"]): _of_tubes(film["tubes"]) for film in np.atleast_1d(films)}
    except Exception as error:  # scipy's own are many: of its formats, of what is cut off, of what is not there
        raise ValueError(f"is no MATLAB file with `annot` (name, tubes of sf, ef, boxes): {line(error)}") from None


def _thumos(root: Place, sources: Sequence[str], said: Said) -> dict[str, tuple[Box, ...]]:
    """Boxes by names of films in lower case; where a file cannot be read, none, and a note says so."""
    wanted = {stem_of(source).lower() for source in sources}
    there: dict[str, Place] = {}
    for folder in places(root, XML_FOLDERS):
        for action in sorted(ACTIONS):
            files = [name for name in listed(folder / action) if name.endswith(".xgtf")]
            there |= {name.removesuffix(".xgtf").lower(): folder / action / name for name in files}
        if there:
            break
    else:
        raise missing(
            root,
            f"{XML_FOLDERS[1]}/<Class>/*.xgtf",
            "unpack THUMOS'13's UCF101_24Action_Detection_Annotations.zip there, or give layout_boxes=corrected",
        )

    def parsed(stem: str) -> tuple[Box, ...] | None:
        data = bytes_of(there[stem])
        try:
            return xgtf_boxes(data)
        except ValueError:
            return None

    stems = sorted(wanted & there.keys())
    with ThreadPoolExecutor(READERS) as pool:
        found = dict(zip(stems, pool.map(parsed, stems), strict=True))
    said.note(
        [spelt(there[stem].name) for stem, boxes in found.items() if boxes is None],
        "have annotations that cannot be read",
    )
    return {stem: boxes for stem, boxes in found.items() if boxes is not None}


def _corrected(root: Place) -> dict[str, tuple[Box, ...]]:
    there = file_at(root, MAT_FILES)
    if there is None:
        raise missing(
            root, MAT_FILES[0], "get it from github.com/gurkirt/corrected-UCF101-Annots, or give layout_boxes=thumos"
        )
    try:
        return {stem_of(name).lower(): boxes for name, boxes in mat_boxes(bytes_of(there)).items()}
    except ValueError as error:
        raise ValueError(f"{spelt(there)}: {error}") from None


def _below(element: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    """Elements of a name below one, in whatever namespace: files have viper#, and viperdata# for boxes."""
    return [below for below in element.iter() if below.tag.rpartition("}")[2] == tag]


def _spanned(box: ElementTree.Element) -> dict[int, Box]:
    """One `bbox` by frame, counted from 0: it holds for a span of frames, or several."""
    try:
        x, y, width, height = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
        spans = [tuple(map(int, span.split(":"))) for span in box.attrib["framespan"].split()]
        frames = [frame - 1 for first, last in spans for frame in range(max(first, 1), min(last, MAX_FRAMES) + 1)]
    except (KeyError, ValueError):
        raise ValueError("has a bbox without x, y, width, height or framespan") from None
    if width <= 0 or height <= 0:
        return {}
    return {frame: Box(frame, x, y, x + width, y + height) for frame in frames}


def _of_tubes(tubes: Any) -> tuple[Box, ...]:
    found = set()
    for tube in np.atleast_1d(tubes):
        rows = np.asarray(tube["boxes"], float).reshape(-1, 4)
        for frame, (x, y, width, height) in enumerate(rows.tolist(), int(tube["sf"]) - 1):
            if frame < int(tube["ef"]) and width > 0 and height > 0:
                found.add(Box(frame, x - 1, y - 1, x - 1 + width, y - 1 + height))
    return tuple(sorted(found))
