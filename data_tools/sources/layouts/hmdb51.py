"""HMDB51 (Kuehne et al., ICCV 2011): 6,766 clips of 51 actions, cut from films and web videos, with three splits.

As hmdb51_org.rar and test_train_splits.rar unpack (the latter's split_readme.txt):

    <class>/<source>_<class>_<body>_<camera>_np<people>_<view>_<quality>_<number>.avi
        e.g. clap/Kurt_Kr_mer_-_Klatschen_im_Flugzeug_clap_u_cm_np1_ri_bad_4.avi
    testTrainMulti_7030_splits/<class>_test_split<1|2|3>.txt     "<name of the file> <id>", id 1: training, 2: testing, 0: neither

Visible body h, u, l, f (head, upper, lower, full); camera nm, cm (no motion, motion); view fr, ba, le, ri; quality goo, med, bad.

Groups. What stands before the class is the source video, and clips of one source video must not be both learnt from and tested.
The authors kept to this within a class only: split 1 learns `Faith_Rewarded_clap_...` and `Juno_walk_...` and tests
`Faith_Rewarded_swing_baseball_...` and `Juno_run_...`. The official split is what published figures are on, so it wins: the group is the
source video where the split leaves it whole, over all classes, and where the split cuts it, what lies in one part of the split
(`Juno/train`, `Juno/test`, `Juno/unused`). So no group is in two parts, and no part holds two groups of one source video, which intervals
over groups would take for independent. A note says how many are cut.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from data_tools.places import Place
from data_tools.sources.entries import spelt
from data_tools.sources.labels import Annotation
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

FOLDERS = ("testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits", "splits", "annotations", "")
PARTS = {"0": None, "1": "train", "2": "test"}

_TAGS = r"[hulf]_(?:nm|cm)_np\d+_(?:fr|ba|le|ri)_(?:goo|med|bad)_\d+"
_NAME = re.compile(rf".+_{_TAGS}")


def read(root: Place, sources: Sequence[str], options: Options) -> Said:
    """Label `action`, group (source video), split.

    Raises:
        ValueError: no film is named so, no lists, a class folder without a list, a list that is none.
    """
    if not any(_NAME.fullmatch(stem_of(source)) for source in sources):
        raise wrong_folder(root, "HMDB51", "<source>_<class>_u_nm_np1_fr_goo_0.avi")
    ending = f"_test_split{options.split}.txt"
    found = folder_with(root, FOLDERS, lambda name: name.endswith(ending))
    if found is None:
        raise missing(root, f"{FOLDERS[0]}/<class>{ending}", "unpack test_train_splits.rar there")
    lists = {name.removesuffix(ending): found[0] / name for name in found[1]}
    parts = {(action, stem): part for action, there in lists.items() for stem, part in _parts(there).items()}
    known: dict[str, tuple[str, str, str | None]] = {}  # source -> action, source video, part
    odd, unlisted = list[str](), list[str]()
    for source in sources:
        stem, action = stem_of(source), source.rpartition("/")[0].rpartition("/")[2]
        if not _NAME.fullmatch(stem):
            odd.append(source)
            continue
        if action not in lists:
            raise ValueError(
                f"{source}: no list {action}{ending} in {spelt(found[0])} for its folder; each class folder needs one: "
                "add it, or take the folder out"
            )
        if (action, stem) not in parts:
            unlisted.append(source)
        known[source] = (action, _video(stem, action), parts.get((action, stem)))
    said = Said()
    groups = _groups(known, said)
    for source, (action, _, part) in known.items():
        said.rows[source] = (Annotation(group=groups[source], split=part, labels={"action": action}),)
    said.note(unlisted, f"are in no <class>{ending}: they belong to no split")
    said.note(odd, "are not named as in HMDB51: they carry no labels")
    return said


def _parts(there: Place) -> dict[str, str | None]:
    """Name of a film without its ending -> its part of the split, None where it is unused."""
    parts = {}
    for number, text in lines_of(there):
        name, _, part = text.rpartition(" ")
        if part not in PARTS or not name:
            raise bad_line(there, number, "the name of a film and 0, 1 or 2")
        parts[stem_of(name.strip())] = PARTS[part]
    return parts


def _video(stem: str, action: str) -> str:
    """The source video that a clip was cut from."""
    match = re.fullmatch(rf"(.+)_{re.escape(action)}_{_TAGS}", stem)
    return match[1] if match else re.sub(rf"_{_TAGS}$", "", stem)


def _groups(known: Mapping[str, tuple[str, str, str | None]], said: Said) -> dict[str, str]:
    """The group of each film: its source video, or the part of it that the split leaves together."""
    parts: dict[str, set[str]] = {}
    for _, video, part in known.values():
        parts.setdefault(video, set()).update([part] if part else [])
    cut = sorted(video for video, found in parts.items() if len(found) > 1)
    if cut:
        said.notes.append(
            f"{len(cut)} of {len(parts)} source videos are in both train and test of the official split (the first: {cut[0]}): "
            "each part of one is a group of its own"
        )
    cut_apart = set(cut)
    return {
        source: f"{video}/{part or 'unused'}" if video in cut_apart else video
        for source, (_, video, part) in known.items()
    }
