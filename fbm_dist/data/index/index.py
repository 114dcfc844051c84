"""The data set as fixed-width arrays on disk, memory-mapped by all ranks and reader processes of a node. Imports no torch."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.dataset import Dataset, Snapshot, digest_of, open_dataset
from data_tools.shards import FOLDER, finished_shard, shard_file

log = logging.getLogger("fbm_dist.data")

VERSION = 2  # of the files below: a change here makes a new cache folder
CODECS = ("vp9", "h264", "png")
NAMES_KEPT = 10_000  # group names stored for error messages; the ids work without them

# One clip. Offsets and sizes are in bytes within the tar; a size of 0 says that there is no such member.
ROW = np.dtype(
    [
        ("shard", "i4"),
        ("codec", "u1"),  # index into CODECS
        (
            "verdict",
            "i1",
        ),  # why the stored pruning rules would leave it out, the first reason: index into about["verdicts"]; -1: kept
        ("split", "i2"),  # index into about["splits"]; -1: none
        ("video", "i8"),
        ("video_size", "i8"),
        ("mask", "i8"),
        ("mask_size", "i8"),
        ("truth", "i8"),
        ("truth_size", "i8"),
        ("frames", "i4"),
        ("height", "i4"),
        ("width", "i4"),
        ("mask_height", "i4"),
        ("mask_width", "i4"),
        ("fps_numerator", "i4"),
        ("fps_denominator", "i4"),
        ("start", "i8"),  # first frame within the film
        ("film", "i8"),  # id: hash of the film's name
        ("group", "i8"),  # likewise
    ]
)
MEMBERS = {"mp4": "video", "png": "video", "mask.png": "mask", "truth.png": "truth"}


def name_id(name: str) -> int:
    """63 bits that stand for a film or a group; the same in every snapshot and on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1


@dataclass(frozen=True)
class Index:
    """One snapshot of a data set. Small enough to pickle: the arrays are opened where they are used.

    Attributes:
        root: the data set's folder.
        folder: where the arrays are cached.
        snapshot, digest: which state of the data set this is.
        shards: path of each tar, relative to `root`.
        splits, groups: names, sorted; groups is empty where there are more than 10,000.
        verdicts: names of the stored pruning rules' reasons, sorted.
        label_names: class index -> name, for every label of the whole snapshot.
    """

    root: Path
    folder: Path
    snapshot: str
    digest: str
    shards: tuple[str, ...]
    splits: tuple[str, ...]
    groups: tuple[str, ...]
    verdicts: tuple[str, ...]
    label_names: dict[str, tuple[str, ...]] = field(hash=False)

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}  # not the open arrays

    @cached_property
    def rows(self) -> np.ndarray:
        """`ROW` of every clip, in the manifest's order."""
        return np.load(self.folder / "rows.npy", mmap_mode="r")

    @cached_property
    def keys(self) -> np.ndarray:
        """The clips' keys as bytes."""
        return np.load(self.folder / "keys.npy", mmap_mode="r")

    @cached_property
    def labels(self) -> np.ndarray:
        """int32 (clips, label names): class index, -1 where a clip has no such label."""
        return np.load(self.folder / "labels.npy", mmap_mode="r")

    def key(self, row: int) -> str:
        """The key of a clip."""
        return self.keys[row].decode()

    @staticmethod
    def open(root: Path, snapshot: str = "latest") -> Index:
        """Map the cached arrays of a snapshot; build them first where this node has none yet.

        Raises:
            ValueError: no such data set or snapshot, or its shards are not those that were recorded.
        """
        dataset: Dataset = open_dataset(root)
        chosen = dataset.snapshot(snapshot)
        _check_shards(root, chosen)
        folder = cache_folder() / f"v{VERSION}-{chosen.digest[:32]}"
        about = _about(folder)
        if about is None:
            with _lock(folder):  # one process of a node builds, the others wait and map what it made
                about = _about(folder) or _build(root, chosen, folder)
        return Index(
            root=root,
            folder=folder,
            snapshot=chosen.id,
            digest=chosen.digest,
            shards=tuple(f"{FOLDER}/{name}.tar" for name in chosen.shards),
            splits=tuple(about["splits"]),
            groups=tuple(about["groups"]),
            verdicts=tuple(about["verdicts"]),
            label_names={name: tuple(values) for name, values in about["labels"].items()},
        )


def cache_folder() -> Path:
    """A writable folder of this node: FBM_CACHE, else XDG_CACHE_HOME or ~/.cache, else the system's temporary folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    chosen = os.environ.get("FBM_CACHE")
    candidates = (
        [Path(chosen)] if chosen else [Path(home) / "fbm_dist", Path(tempfile.gettempdir()) / f"fbm_dist-{os.getuid()}"]
    )
    for folder in candidates:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
                return folder
        except OSError:
            continue
    raise ValueError(
        f"no writable cache folder ({', '.join(map(str, candidates))}); set FBM_CACHE to one of this machine"
    )


def _check_shards(root: Path, snapshot: Snapshot) -> None:
    """Refuse a data set whose files changed since its snapshot was written: offsets would point anywhere."""
    stats = []
    for name in snapshot.shards:
        found = finished_shard(root, name)
        path = shard_file(root, name, "tar")
        size = path.stat().st_size if path.is_file() else None
        if found is None or size != found.bytes:
            state = "missing" if size is None else "unfinished" if found is None else f"{size} bytes, not {found.bytes}"
            raise ValueError(f"{path}: {state}; see: python -m data_tools verify {root}")
        stats.append(found)
    if digest_of(stats) != snapshot.digest:
        raise ValueError(
            f"{root}: the shards differ from snapshot {snapshot.id}; see: python -m data_tools verify {root}"
        )


def _about(folder: Path) -> dict[str, Any] | None:
    """The cached description, or None where there is no usable cache."""
    try:
        about = json.loads((folder / "about.json").read_text())
        complete = all((folder / name).stat().st_size == size for name, size in about["sizes"].items())
        return about if complete else None
    except (OSError, ValueError, KeyError):
        return None


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the kernel lets go when this process ends, however it ends
        yield


def _build(root: Path, snapshot: Snapshot, folder: Path) -> dict[str, Any]:
    """Write the arrays beside their final place, then rename: a reader sees all of them or none."""
    from fbm_dist.data.index.manifest import write_arrays  # pyarrow is needed only here, not in reader processes

    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        about = write_arrays(root, snapshot, temporary)
        about["sizes"] = {path.name: path.stat().st_size for path in sorted(temporary.glob("*.npy"))}
        (temporary / "about.json").write_text(json.dumps(about))
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    log.debug("indexed %d clips of %s in %s", snapshot.clips, root, folder)
    return about
