"""FBMS-59 (Ochs, Malik, Brox 2014) as distributed: every twentieth frame or so is annotated.

    Trainingset/SEQ/SEQ_0001.jpg        likewise Testset; also a folder of SEQ alone. The films of BMS-26 count otherwise: tennis001.jpg
    Trainingset/SEQ/GroundTruth/SEQDef.dat            which frames are annotated and which colours are regions
                                SEQ_0001_gt.ppm       a colour a region, white background (red * 65536 + green * 256 + blue in Def.dat)
                                SEQ_01.pgm            in the films of BMS-26: a grey value a region, black background
                                SEQ_0001_PROB_gt.ppm  what the annotators were unsure of: not used

Def.dat is a text of heads, each with its value in the next line: "Total number of regions:", "Scale of region 0:" ...,
"Confusion penality matrix", "Total number of labeled frames for this shot:", and for each "Frame number:", "File name:",
"Input file name:". Colours that it does not list occur (cats04_0020_gt.ppm) and count as background, as in the official evaluation.
Any region but the background is foreground.

Source: readers of the distributed files in public code: the FbmsGroundtruth class of a motion segmentation evaluation that imitates
the official MoSegEval, a PyTorch data set over Trainingset and Testset, and a converter that names white and black as backgrounds.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from fbm_dist.evaluation.segmentation.folders.sequence import (
    Annotation,
    Sequence,
    frames_in,
    masks_in,
    matched,
    pixels,
)

LOOKED_FOR = "Trainingset/SEQ/GroundTruth or Testset/SEQ/GroundTruth with *Def.dat, *_gt.ppm or *.pgm"
SPLITS = {"train": "Trainingset", "test": "Testset"}
WHITE, BLACK = 0xFFFFFF, 0
SUFFIXES = (".ppm", ".pgm")


def here(folder: Path) -> bool:
    """Is the folder laid out so?"""
    return bool(_films(folder))


def read(folder: Path, split: str | None) -> list[Sequence]:
    """All sequences of the folder, or those of its training or test part.

    Raises:
        ValueError: no such part; a Def.dat that cannot be read, or that names files that are not there.
    """
    films = _films(folder)
    if split is not None:
        part = SPLITS.get(split, split)
        films = [film for film in films if film.parent.name == part and film.parent != folder]
        if not films:
            raise ValueError(f"{folder}: no {part}/SEQ/GroundTruth; split is train, test, or left out")
    return [_sequence(folder, film) for film in sorted(films, key=lambda film: film.name)]


def _films(folder: Path) -> list[Path]:
    """Folders of frames that have ground truth of this kind."""
    truths = [*folder.glob("*/GroundTruth"), *folder.glob("*/*/GroundTruth")]
    return [path.parent for path in truths if any(file.suffix in (".dat", *SUFFIXES) for file in path.iterdir())]


def _sequence(folder: Path, film: Path) -> Sequence:
    frames = frames_in(film)
    root = film / "GroundTruth"
    definitions = sorted(root.glob("*.dat"))
    if definitions:
        regions, labelled = _definition(definitions[0])
    else:
        regions = []
        labelled = [(path, "") for path in masks_in(root) if path.suffix in SUFFIXES and "PROB" not in path.name]
    stems = {frame.stem for frame in frames}
    numbers = {number: frame.stem for frame in frames if (number := _number(frame.stem)) is not None}
    readers: dict[str, Callable[[], Annotation]] = {}
    for path, input_name in labelled:
        # the name of the frame, else its number: BMS-26 pads numbers otherwise in some films, and lists frames as .ppm
        named = [stem for stem in (Path(input_name).stem, _stem(path)) if stem in stems]
        number = _number(_stem(path))
        stem = named[0] if named else numbers.get(number) if number is not None else None
        if stem is not None:
            readers[stem] = functools.partial(_regions, path, tuple(regions))
    if not readers:
        raise ValueError(f"{root}: none of its masks belongs to a frame of {film}; unpack the data set again")
    return Sequence(folder.name, film.name, frames, matched(frames, readers))


def _definition(path: Path) -> tuple[list[int], list[tuple[Path, str]]]:
    """Of a Def.dat: the regions' values in order, and (mask, name of the input) of each labelled frame."""
    lines = [line.strip() for line in path.read_text(encoding="latin-1").splitlines()]
    filled = [line for line in lines if line]
    after = list(pairwise(filled))
    try:
        regions = [int(value) for head, value in after if head.startswith("Scale of region")]
        masks = [value for head, value in after if head.startswith("File name:")]
        inputs = [value for head, value in after if head.startswith("Input file name:")]
        labelled = [(_file(path.parent, mask), given) for mask, given in zip(masks, inputs, strict=True)]
    except ValueError as error:
        raise ValueError(f"{path} is no ground truth definition of FBMS-59: {error}") from None
    if not labelled:
        raise ValueError(f"{path} is no ground truth definition of FBMS-59: it labels no frames")
    return regions, labelled


def _file(folder: Path, name: str) -> Path:
    """Def.dat names a .ppm where a .pgm lies there, now and then."""
    wanted = [folder / name, *(folder / f"{Path(name).stem}{suffix}" for suffix in SUFFIXES)]
    found = next((path for path in wanted if path.is_file()), None)
    if found is None:
        raise ValueError(f"{name} is not there")
    return found


def _regions(path: Path, regions: tuple[int, ...]) -> Annotation:
    """Foreground: the values of regions that are not the background, which is white in colour and black in grey.

    Where Def.dat lists regions and not that value, its first region is the background.
    """
    values, _ = pixels(path)
    if values.ndim == 3:
        values = values.astype(np.int64) @ np.array([65536, 256, 1])
        background = WHITE
    else:
        values, background = values.astype(np.int64), BLACK
    if not regions:
        return Annotation(values != background)
    if background not in regions:
        background = regions[0]
    return Annotation(np.isin(values, [value for value in regions if value != background]))


def _stem(path: Path) -> str:
    """The frame that a mask's name says: bear01_0001_gt.ppm -> bear01_0001."""
    return path.stem.removesuffix("_gt")


def _number(stem: str) -> int | None:
    found = re.search(r"(\d+)$", stem)
    return int(found.group(1)) if found else None
