"""One shard against its statistics, index and manifest: what is wrong with it is told, and nothing in it stops the telling."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from data_tools.care.contract import Ranks, check_decoding, check_sample, stretch_of
from data_tools.care.decoders import Decoder
from data_tools.care.examine import manifest_of, rows_of
from data_tools.care.tars import Member, here, shown, walk
from data_tools.places import Place, line, read_bytes, sha256_of
from data_tools.progress import Progress
from data_tools.shards import ShardStats, index_of, shard_file

CHANGED = "its sha256 is not the one in the statistics: the file was changed or damaged"
Place3 = tuple[str, int, int]  # name, offset and size of a member


class ShardCheck:
    """What `verify` carries from shard to shard, in reading order.

    Attributes:
        clips: that the manifests name.
        decoded: decoder -> clips that it was given.
        films: film -> its clips and frames.
    """

    def __init__(
        self,
        root: Place,
        problem: Callable[[str, str], None],
        decoders: Sequence[Decoder],
        every: int,
        progress: Progress,
    ) -> None:
        """`problem` takes where and what; one of `every` clips is decoded (0: none)."""
        self.clips = 0
        self.decoded: Counter[str] = Counter()
        self.films: dict[str, tuple[int, int]] = {}
        self._root, self._problem, self._progress = root, problem, progress
        self._decoders, self._every = decoders, every
        self._ranks = Ranks(problem)
        self._keys: list[np.ndarray] = []  # hashes: those of a hundred million clips fit into memory

    def shard(self, name: str, stats: ShardStats | None) -> None:
        """Check one shard; `stats`: what its statistics say, where they can be read."""
        table = self._manifest(name, stats)
        if table is not None:
            self._keys.append(np.array([hash(key) for key in table["key"].to_pylist()], dtype=np.int64))
            self._index(name, stats, table)
        tar = shard_file(self._root, name, "tar")
        try:
            with here(tar) as path, path.open("rb") as file:
                if stats is not None and sha256_of(path) != stats.sha256:
                    self._problem(tar.name, CHANGED)
                self._tar(tar.name, path, file, table)
                for row in rows_of(table) if table is not None else ():
                    self._row(name, file, row)
        except FileNotFoundError:
            self._problem(tar.name, "is missing")
        except OSError as error:
            self._problem(tar.name, f"cannot be read: {line(error)}")

    def finish(self, shards: Iterable[str]) -> None:
        """What only all shards together tell: the last shot's ranks, keys that stand twice."""
        self._ranks.close()
        hashes, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *self._keys]), return_counts=True)
        twice = frozenset(hashes[counts > 1].tolist())
        keys: Counter[str] = Counter()
        for name in shards if twice else ():
            try:
                keys.update(key for key in manifest_of(self._root, name)["key"].to_pylist() if hash(key) in twice)
            except (ValueError, OSError):
                continue  # that was a problem already
        for key, count in keys.items():
            if count > 1:
                self._problem(
                    shown(key), f"the key stands in the data set {'twice' if count == 2 else f'{count} times'}"
                )

    def _manifest(self, name: str, stats: ShardStats | None) -> pa.Table | None:
        path = shard_file(self._root, name, "parquet")
        try:
            if stats is not None and sha256_of(path) != stats.parquet_sha256:
                self._problem(path.name, CHANGED)
            return manifest_of(self._root, name)
        except FileNotFoundError:
            self._problem(path.name, "is missing")
        except (ValueError, OSError) as error:
            self._problem(path.name, line(error))
        return None

    def _index(self, name: str, stats: ShardStats | None, table: pa.Table) -> None:
        path = shard_file(self._root, name, "idx")
        try:
            if stats is not None and sha256_of(path) != stats.idx_sha256:
                self._problem(path.name, CHANGED)
            if read_bytes(path) != index_of(rows_of(table)).encode("utf-8", "replace"):
                self._problem(path.name, "does not give the offsets that the manifest gives")
        except FileNotFoundError:
            self._problem(path.name, "is missing")
        except (OSError, TypeError, KeyError) as error:
            self._problem(path.name, f"cannot be compared with the manifest: {line(error)}")

    def _tar(self, name: str, path: Path, file: IO[bytes], table: pa.Table | None) -> None:
        """What `tar` and the webdataset library see, against the manifest."""
        odd, same = False, table is not None
        try:
            for member, wanted in zip_longest(walk(file), _members(table)):
                if member is not None and member.odd:
                    odd = True
                    self._problem(name, f"member {shown(member.name)} {member.odd}")
                if same and wanted != (member and (member.name, member.offset, member.size)):
                    self._problem(name, f"its members are not those of the manifest: {_difference(member, wanted)}")
                    same = False
        except ValueError as error:
            self._problem(name, line(error))
            return
        if odd:
            return  # readers differ in what they make of it
        try:
            groups = sum(1 for _ in _webdataset(path))
        except Exception as error:  # it raises what its authors did not think of
            self._problem(name, f"the webdataset library cannot read it: {line(error)}")
            return
        if table is not None and groups != table.num_rows:
            self._problem(name, f"the webdataset library reads {groups} samples, the manifest has {table.num_rows}")

    def _row(self, name: str, file: IO[bytes], row: Mapping[str, Any]) -> None:
        """One row of the manifest and its sample."""
        where = f"{name}/{row['key'] if isinstance(row['key'], str) else shown(row['key'])}"
        problem = partial(self._problem, where)
        try:
            clips, frames = self.films.get(row["film"], (0, 0))
            self.films[row["film"]] = clips + 1, frames + (row["num_frames"] or 0)
            self._ranks.see(where, row)
            start, size = stretch_of(row, os.fstat(file.fileno()).st_size)
            sample = check_sample(os.pread(file.fileno(), size, start), row, problem)
        except (TypeError, ValueError) as error:
            problem(line(error))
            sample = None
        if sample is not None and self._every and self.clips % self._every == 0:
            self.decoded.update(check_decoding(sample, self._decoders, problem))
        self.clips += 1
        self._progress.advance(frames=row["num_frames"] or 0)


def _members(table: pa.Table | None) -> Iterator[Place3]:
    for row in rows_of(table) if table is not None else ():
        for member in row["members"] or ():
            yield f"{row['key']}.{member['extension']}", member["offset"], member["size"]


def _difference(member: Member | None, wanted: Place3 | None) -> str:
    if member is None:
        return f"{shown(wanted and wanted[0])} is missing"
    if wanted is None:
        return f"{shown(member.name)} is not in it"
    return f"{shown(member.name)} stands at byte {member.offset}, where {shown(wanted[0])} should stand at {wanted[1]}"


def _webdataset(path: Path) -> Iterator[dict[str, Any]]:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with path.open("rb") as stream:
        yield from group_by_keys(tar_file_expander([{"url": path.name, "stream": stream}]))
