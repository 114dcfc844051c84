"""The data set as fixed-width arrays on disk, memory-mapped by all ranks and reader processes of a node. Imports no torch."""

from __future__ import annotations

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.places import Place, is_local, line
from fbm_dist.data.index.arrays import mapped
from fbm_dist.data.index.cache import built, cache_folder
from fbm_dist.data.lazy import Lazy

log = logging.getLogger("fbm_dist.data")

VERSION = 3  # of the files below: a change here makes a new cache folder
CODECS = ("vp9", "h264", "png")
LOOKS = 500  # files that a thread looks at in one go
THREADS = 16  # that wait for a disk or a network

# One clip. Offsets and sizes are in bytes within the tar; a size of 0 says that there is no such member.
ROW = np.dtype(
    [
        ("shard", "i4"),
        ("codec", "u1"),  # index into CODECS
        # why the stored pruning rules would leave it out, the first reason: index into about["verdicts"]; -1: kept
        ("verdict", "i1"),
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

# One shard: its clips, the row of the first of them, and what its tar must be.
TAR = np.dtype([("clips", "i8"), ("first", "i8"), ("bytes", "i8"), ("sha256", "S64")])


def name_id(name: str) -> int:
    """63 bits that stand for a film or a group; the same in every snapshot and on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1


@dataclass(frozen=True)
class Index(Lazy):
    """One snapshot of a data set. Small enough to pickle: the arrays are opened where they are used.

    Attributes:
        root: the data set's folder, on a disk or in object storage.
        folder: where the arrays are cached.
        snapshot, digest: which state of the data set this is.
        clips: how many.
        shards: path of each tar, relative to `root`.
        splits: names, in the order in which the manifests have them.
        groups: names, sorted; empty where there are more than 10,000.
        verdicts: names of the stored pruning rules' reasons, in the order in which the manifests have them.
        label_names: class index -> name (sorted), for every label of the whole snapshot.
    """

    root: Place
    folder: Path
    snapshot: str
    digest: str
    clips: int
    shards: tuple[str, ...]
    splits: tuple[str, ...]
    groups: tuple[str, ...]
    verdicts: tuple[str, ...]
    label_names: dict[str, tuple[str, ...]] = field(hash=False)

    @cached_property
    def rows(self) -> np.memmap:
        """`ROW` of every clip, in the manifest's order."""
        return mapped(self.folder / "rows.npy")

    @cached_property
    def keys(self) -> np.memmap:
        """The clips' keys as bytes."""
        return mapped(self.folder / "keys.npy")

    @cached_property
    def labels(self) -> np.memmap:
        """int32 (clips, label names): class index, -1 where a clip has no such label. A column is one stretch of the file."""
        return mapped(self.folder / "labels.npy")

    @cached_property
    def tars(self) -> np.memmap:
        """`TAR` of every shard."""
        return mapped(self.folder / "tars.npy")

    def key(self, row: int) -> str:
        """The key of a clip."""
        return bytes(self.keys[row]).decode()

    @staticmethod
    def open(root: Place, snapshot: str = "latest") -> Index:
        """Map the cached arrays of a snapshot; build them first where this node has none yet.

        What is read of a data set in object storage is dataset.json and, to build, the statistics and manifests of its shards.

        Raises:
            ValueError: no such data set or snapshot, it cannot be reached, or its shards are not those that were recorded.
        """
        # pyarrow comes with these: reader processes, which import this module, need none
        from data_tools.dataset import open_dataset
        from data_tools.shards import FOLDER

        try:
            chosen = open_dataset(root).snapshot(snapshot)
        except OSError as error:
            raise ValueError(f"{root}: the data set cannot be opened: {line(error)}") from None
        folder = cache_folder() / f"v{VERSION}-{chosen.digest[:32]}"

        def build(empty: Path) -> dict[str, Any]:
            from fbm_dist.data.index.manifest import write_arrays

            log.debug("indexing %d clips of %s in %s", chosen.clips, root, folder)
            return write_arrays(root, chosen, empty)

        about = built(folder, build)
        index = Index(
            root=root,
            folder=folder,
            snapshot=chosen.id,
            digest=chosen.digest,
            clips=chosen.clips,
            shards=tuple(f"{FOLDER}/{name}.tar" for name in chosen.shards),
            splits=tuple(about["splits"]),
            groups=tuple(about["groups"]),
            verdicts=tuple(about["verdicts"]),
            label_names={name: tuple(values) for name, values in about["labels"].items()},
        )
        if is_local(root):  # what comes from elsewhere is checked when it comes
            _check_tars(root, index)
        return index


def _check_tars(root: Path, index: Index) -> None:
    """Refuse a data set whose files changed since its snapshot was written: offsets would point anywhere."""
    pairs = list(zip(index.shards, index.tars["bytes"].tolist(), strict=True))
    parts = [pairs[start : start + LOOKS] for start in range(0, len(pairs), LOOKS)]
    with ThreadPoolExecutor(THREADS) as pool:  # on a network file system each look is a wait
        for wrong in pool.map(partial(_wrong_tar, os.fspath(root)), parts):
            if wrong:
                raise ValueError(f"{wrong}; see: python -m data_tools verify {root}")


def _wrong_tar(root: str, expected: list[tuple[str, int]]) -> str:
    """What is wrong with the first tar that is not as large as it should be; empty where none is."""
    for name, size in expected:
        # strings: ten times as fast as Paths, which tells with 100,000 shards
        path = os.path.join(root, name)  # noqa: PTH118
        try:
            found = os.stat(path).st_size  # noqa: PTH116
        except OSError:
            return f"{path}: missing"
        if found != size:
            return f"{path}: {found} bytes, not {size}"
    return ""
