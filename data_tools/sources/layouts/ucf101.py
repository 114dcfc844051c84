"""UCF-101 (Soomro et al. 2012): 13,320 films of 101 actions, in 25 groups each; boxes of 24 of them from THUMOS'13.

As UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip unpack (and as torchvision, mmaction2 and the repositories with copies
of the lists have them):

    UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi
    ucfTrainTestlist/classInd.txt             "1 ApplyEyeMakeup"
    ucfTrainTestlist/trainlist01.txt          "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1"
    ucfTrainTestlist/testlist01.txt           "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"

and the same for splits 02 and 03. A group is a source video, which shows one person in one place: clips of `g08` of one class have
nothing to do with `g08` of another, so the group is the class and the number. The official splits never cut one. One class is spelt
in two ways: HandstandPushups in the lists and folders, v_HandStandPushups_g01_c01.avi in the names of files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from data_tools.places import Place
from data_tools.sources.entries import spelt
from data_tools.sources.labels import Annotation
from data_tools.sources.layouts import ucf101_boxes
from data_tools.sources.layouts.layout import (
    Options,
    Said,
    bad_line,
    folder_with,
    lines_of,
    missing,
    stem_of,
    wrong_folder,
)

CLASSES = "classInd.txt"
FOLDERS = ("ucfTrainTestlist", "", "annotations")
ARCHIVE = "unpack UCF101TrainTestSplits-RecognitionTask.zip there"

_NAME = re.compile(r"v_(?P<action>[A-Za-z]+)_g(?P<group>\d\d)_c\d\d")


def read(root: Place, sources: Sequence[str], options: Options) -> Said:
    """Label `action`, group, split; with `options.boxes`, the 24 classes that have boxes, and these.

    Raises:
        ValueError: no film is named so, a list is missing or is none, a class that classInd.txt does not have.
    """
    names = {source: match for source in sources if (match := _NAME.fullmatch(stem_of(source)))}
    if not names:
        raise wrong_folder(root, "UCF-101", "v_<Class>_g<NN>_c<NN>.avi")
    found = folder_with(root, FOLDERS, lambda name: name == CLASSES)
    if found is None:
        raise missing(root, f"{FOLDERS[0]}/{CLASSES}", ARCHIVE)
    lists, classes = found[0], _classes(found[0] / CLASSES)
    parts = {part: f"{part}list0{options.split}.txt" for part in ("train", "test")}
    split = {stem: part for part, name in parts.items() for stem in _stems(lists / name)}
    said, unlisted = Said(), list[str]()
    for source, match in names.items():
        action = classes.get(match["action"].lower())
        if action is None:
            raise ValueError(
                f"{source}: no class {match['action']!r} in {spelt(lists / CLASSES)}; put it right, or take the film out"
            )
        if options.boxes is not None and action not in ucf101_boxes.ACTIONS:
            said.left_out[source] = "not one of the 24 classes of UCF-101 with boxes"
            continue
        part = split.get(stem_of(source).lower())
        said.rows[source] = (Annotation(group=f"{action}_g{match['group']}", split=part, labels={"action": action}),)
        if part is None:
            unlisted.append(source)
    said.note(unlisted, f"are in neither {parts['train']} nor {parts['test']}: they belong to no split")
    said.note([s for s in sources if s not in names], "are not named as in UCF-101: they carry no labels")
    if options.boxes is not None:
        ucf101_boxes.read(root, list(said.rows), options.boxes, said)
    return said


def _classes(there: Place) -> dict[str, str]:
    """Class in lower case -> as it is spelt."""
    classes = {}
    for number, text in lines_of(there):
        index, _, name = text.partition(" ")
        if not index.isdecimal() or not name.strip():
            raise bad_line(there, number, "a number and the name of a class, e.g. 1 ApplyEyeMakeup")
        classes[name.strip().lower()] = name.strip()
    return classes


def _stems(there: Place) -> set[str]:
    """The films that a list names, in lower case without folder and ending."""
    stems = set()
    for number, text in lines_of(there):
        stem = stem_of(text.split()[0])
        if not _NAME.fullmatch(stem):
            raise bad_line(there, number, "e.g. ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1")
        stems.add(stem.lower())
    return stems
