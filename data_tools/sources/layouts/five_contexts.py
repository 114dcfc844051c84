"""5-Contexts (Furnari et al., Recognizing Personal Contexts from Egocentric Images, ACVR 2015): where a wearer of a camera is.

One user in a car, at a coffee vending machine, in an office, before the TV and in a home office, recorded by four wearable cameras:
RJ (Recon Jet glasses), LX2P and LX2W (Looxcie LX2, without and with a wide-angle converter), LX3 (Looxcie LX3). Training: a video of
about 10 seconds for each camera and context; test: activities of 8 to 10 minutes, and videos of none of the contexts (negatives).

The archive (personal_contexts_dataset.zip of iplab.dmi.unict.it/PersonalLocations) holds sampled frames; the videos are sent on request.
Its list of files is nowhere to be found. What is known of its folders is from the code of Redondo-Cabrera and Lopez-Sastre
(github.com/gramuah/unsupervised): `personal_contexts_dataset/<camera>/<Training|Test>/<video>/<number>.jpg`. So this form is read, and
`<camera>/<train|test>/<context>*.<ending>`, with the levels in any order:

    the camera    one of the four names; where no level has one, the folder's own name may, else there is no label `device`
    the part      train or training, test or testing
    the context   the first level that is neither, but for case, `_`, `-` and a number at its end (`Home_office_2`: home office)

Negatives carry no `context`: they are none of the five. A group is a recording: the same rooms are in training and test by design.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from data_tools.places import Place
from data_tools.sources.entries import name_of, spelt, suffix_of
from data_tools.sources.films import IMAGE_SUFFIXES
from data_tools.sources.labels import Annotation
from data_tools.sources.layouts.layout import Options, Said, stem_of, wrong_folder

DEVICES = {"rj": "RJ", "lx2p": "LX2P", "lx2w": "LX2W", "lx3": "LX3"}
PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
NEGATIVE = "neg"  # negative, negatives


def read(root: Place, sources: Sequence[str], options: Options) -> Said:
    """Labels `context` and `device`, group (recording) and split.

    Raises:
        ValueError: no film below a training or test folder, or one of the two parts has none.
    """
    said, odd = Said(), list[str]()
    own_device = DEVICES.get(name_of(root).lower())
    for source in sources:
        *levels, name = source.split("/")
        if suffix_of(name) not in IMAGE_SUFFIXES:  # a single picture is part of the recording that its folder is
            levels.append(stem_of(name))
        device = next((DEVICES[name] for name in map(_numberless, levels) if name in DEVICES), own_device)
        part = next((PARTS[name] for name in map(_numberless, levels) if name in PARTS), None)
        context = next((name for name in map(_numberless, levels) if name and name not in DEVICES | PARTS), None)
        if part is None or context is None:
            odd.append(source)
            continue
        labels = {} if context.startswith(NEGATIVE) else {"context": context}
        labels |= {"device": device} if device else {}
        said.rows[source] = (Annotation(group="/".join(levels), split=part, labels=labels),)
    found = {rows[0].split for rows in said.rows.values()}
    if not found:
        raise wrong_folder(root, "5-Contexts", "<camera>/<Training|Test>/<context>")
    if len(found) < 2:
        raise ValueError(
            f"{spelt(root)}: only films for {found.pop()}; give the folder that holds both Training and Test"
        )
    said.note(odd, "lie below no training or test folder of a context: they carry no labels")
    return said


def _numberless(name: str) -> str:
    """A level's name in lower case, words apart by blanks, without a number at its end; lx3 keeps its own."""
    words = re.sub(r"[\s_-]+", " ", name.lower()).strip()
    if words in DEVICES:
        return words
    return re.sub(r"\s*\d+$", "", words)
