"""A data set of 100 times as many clips as another, made of the other's cached arrays: its index without its manifests."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.dataset import DATASET, open_dataset
from data_tools.places import write_atomic
from data_tools.shards import FOLDER, to_json
from fbm_dist.data.index.arrays import ArrayFile, read_part, write_head
from fbm_dist.data.index.cache import ABOUT, cache_folder
from fbm_dist.data.index.index import ROW, VERSION, Index
from fbm_dist.data.index.selection import KEPT, STARTS, Selected, select
from fbm_dist.schema import Data

LINKS = 10_000  # names of one file: file systems allow some 60,000


def repeated(data: Data, root: Path, times: int) -> Data:
    """The same settings for a data set of `times` the clips at `root`, whose index and list of clips are cached already.

    Every shard stands there so many times, under other names; what a start reads of it is real: dataset.json, the size of each
    tar, rows.npy, kept.npy and starts.npy. Keys and labels are holes in their files, which read as zeros: 40 bytes a clip less
    disk. There are no manifests, so the index cannot be built.
    """
    index = Index.open(data.path, data.snapshot)
    selected = select(index, data.filter, data.clip)
    shards = _link(Path(str(data.path)), root, index, times)
    dataset = open_dataset(data.path)
    newest = dataset.snapshots[-1]
    digest = f"{times:x}".zfill(8) + newest.digest[8:]
    larger = {name: getattr(newest, name) * times for name in ("clips", "frames", "bytes")}
    snapshot = newest.model_copy(update={"digest": digest, "shards": shards, **larger})
    write_atomic(root / DATASET, to_json(dataset.model_copy(update={"snapshots": (snapshot,)})))
    folder = cache_folder() / f"v{VERSION}-{digest[:32]}"
    _write_index(index, folder, times)
    _write_selected(index, selected, folder / selected.folder.name, times)
    return data.model_copy(update={"path": root})


def _link(origin: Path, root: Path, index: Index, times: int) -> tuple[str, ...]:
    """Names for the tars; the names of the shards."""
    (root / FOLDER).mkdir(parents=True)
    names = [Path(name).stem for name in index.shards]
    shards = tuple(f"{turn:03d}{name}" for turn in range(times) for name in names)
    for number, shard in enumerate(shards):
        tar = root / FOLDER / f"{shard}.tar"
        first = number - number % LINKS
        if number == first:
            shutil.copyfile(origin / index.shards[number % len(names)], tar)
        else:  # as large as the first, which is all that a start looks at, and the same clips where all shards hold the same
            os.link(root / FOLDER / f"{shards[first]}.tar", tar)
    return shards


def _write_index(index: Index, folder: Path, times: int) -> None:
    folder.mkdir(parents=True)
    np.save(folder / "tars.npy", np.tile(index.tars, times))
    with ArrayFile(folder / "rows.npy", ROW) as rows:
        every = read_part(index.rows, 0, index.clips)
        for _ in range(times):
            rows.append(every)
            every["shard"] += len(index.shards)
    _hole(folder / "keys.npy", index.keys, times)
    _hole(folder / "labels.npy", index.labels, times)
    _say(folder, json.loads((index.folder / ABOUT).read_text()))


def _write_selected(index: Index, selected: Selected, folder: Path, times: int) -> None:
    folder.mkdir()
    entries = read_part(selected.kept, 0, len(selected))
    starts = np.asarray(selected.starts)
    with ArrayFile(folder / KEPT, np.int64) as kept, ArrayFile(folder / STARTS, np.int64) as firsts:
        for turn in range(times):
            kept.append(entries + turn * index.clips)
            firsts.append(starts[:-1] + turn * len(selected))
        firsts.append(starts[-1:] + (times - 1) * len(selected))
    about = json.loads((selected.folder / ABOUT).read_text())
    larger = {name: about[name] * times for name in ("entries", "without_truth")}
    _say(folder, about | larger)


def _hole(path: Path, array: np.memmap, times: int) -> None:
    """A file that is as long as `array` would be, so many times."""
    shape = (array.shape[0] * times, *array.shape[1:])
    with path.open("wb") as file:
        write_head(file, array.dtype, shape, fortran_order=array.ndim > 1)
        file.truncate(file.tell() + array.nbytes * times)


def _say(folder: Path, about: dict[str, Any]) -> None:
    about["sizes"] = {path.name: path.stat().st_size for path in sorted(folder.glob("*.npy"))}
    (folder / ABOUT).write_text(json.dumps(about))
