"""Which data set a folder holds, and its sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from fbm_dist.evaluation.segmentation.folders import davis, fbms, segtrack, vsb
from fbm_dist.evaluation.segmentation.folders.sequence import Sequence


class Kind(NamedTuple):
    """How a data set is laid out: is it here, its sequences, and what was looked for."""

    here: Callable[[Path], bool]
    read: Callable[[Path, str | None], list[Sequence]]
    looked_for: str


KINDS = {
    name: Kind(room.here, room.read, room.LOOKED_FOR)
    for name, room in (("davis", davis), ("fbms", fbms), ("vsb", vsb), ("segtrack", segtrack))
}


def find_sequences(
    folders: Iterable[Path],
    kind: str = "auto",
    split: str | None = None,
    names: Iterable[str] = (),
    max_frames: int | None = None,
) -> list[Sequence]:
    """The annotated sequences of data sets, in the order of `folders`, each by name.

    Args:
        kind: one of KINDS; auto: the first whose layout a folder has.
        split: a list of the data set's own, e.g. val (DAVIS), or train and test (FBMS-59).
        names: these alone; none: all.
        max_frames: of each sequence, its first ones.
    Raises:
        ValueError: nothing of that kind is there, a sequence is not there, or none has a mask.
    """
    folders, found = list(folders), list[Sequence]()
    for folder, data in titled(folders):
        for sequence in _kind_of(folder, kind).read(folder, split):
            found.append(Sequence(data, sequence.name, sequence.frames, sequence.truth).first(max_frames))
    wanted = list(dict.fromkeys(names))
    there = {sequence.name for sequence in found}
    missing = [name for name in wanted if name not in there]
    if missing:
        raise ValueError(f"no sequence {', '.join(missing)}; there are {', '.join(sorted(there))}")
    chosen = [sequence for sequence in found if not wanted or sequence.name in wanted]
    annotated = [sequence for sequence in chosen if sequence.truth]
    if not annotated:
        looked = ", ".join(map(str, folders))
        first = "" if max_frames is None else f" among the first {max_frames} frames"
        raise ValueError(f"{looked}: no frame has a mask{first}; the names of masks must be those of frames")
    return annotated


def titled(folders: Iterable[Path]) -> list[tuple[Path, str]]:
    """Folders with names that tell them apart: their own, numbered where two are alike."""
    out: list[tuple[Path, str]] = []
    for folder in folders:
        base = folder.resolve().name
        taken = {name for _, name in out}
        name = next(name for name in (base, *(f"{base}-{i}" for i in range(2, len(out) + 3))) if name not in taken)
        out.append((folder, name))
    return out


def _kind_of(folder: Path, kind: str) -> Kind:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    kinds = list(KINDS.values()) if kind == "auto" else [KINDS[kind]]
    found = next((one for one in kinds if one.here(folder)), None)
    if found is None:
        deeper = next((path.name for path in sorted(folder.iterdir()) if path.is_dir() and _any(path, kinds)), None)
        looked = "; ".join(one.looked_for for one in kinds)
        hint = f" (give {folder / deeper}?)" if deeper else ""
        raise ValueError(f"{folder}: no annotated sequences{hint}; looked for: {looked}")
    return found


def _any(folder: Path, kinds: list[Kind]) -> bool:
    return any(kind.here(folder) for kind in kinds)
