"""One shard after the other: its files put back as they were, where that can be proved, or rewritten under another name."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from data_tools.care.examine import Examined, Slot, recounted, rows_of, slots_in
from data_tools.care.neighbours import Edges, clips_of, edges_of, ranks_within
from data_tools.care.reckoning import Counts, count
from data_tools.care.rewriting import successor
from data_tools.care.tars import here
from data_tools.dataset import Dataset, digest_of
from data_tools.places import CHUNK, Place, atomic, read_bytes, size_of, write_atomic
from data_tools.shards import (
    ShardStats,
    Stretch,
    finished_shard,
    index_of,
    read_table,
    remove_shard,
    shard_file,
    to_json,
    write_stretches,
)


@dataclass
class Shard:
    """What a repair keeps of an examined shard: of one whose samples are all good, no more than its edges.

    Attributes:
        faults: what is wrong, for people.
        recorded: sha256 of the tar in the statistics; None where they are lost.
        tar_sha256: of the tar that is there.
        manifest_holds: is the manifest the one that the statistics name.
        slots: its samples, where not both of these hold or one is damaged.
        edges, stored: clips of its first and last shot, and their ranks in the manifest (None: not known).
    """

    name: str
    faults: list[str]
    recorded: str | None
    tar_sha256: str | None
    manifest_holds: bool
    slots: list[Slot]
    edges: Edges
    stored: list[list[int]] | None

    @property
    def holds(self) -> bool:
        """All its samples are where the manifest says; the index or the statistics may be wrong."""
        return self.manifest_holds and not self.slots

    @property
    def lost(self) -> list[Slot]:
        """Samples that are damaged and were not made again."""
        return [slot for slot in self.slots if slot.clip is None]

    @property
    def good(self) -> list[Slot]:
        """The others."""
        return [slot for slot in self.slots if slot.clip is not None]

    @property
    def doubtful(self) -> list[Slot]:
        """Good ones of which no more is known than that they can be decoded."""
        return [slot for slot in self.good if not slot.vouched] if self.tar_sha256 != self.recorded else []

    @property
    def loses(self) -> bool:
        """Have samples of it been lost, known ones or all of them."""
        return bool(self.lost) or not (self.holds or self.slots)


def summed(found: Examined, counts: Counts) -> Shard:
    """Keep what is needed of an examined shard; the clips of one that holds are counted."""
    table = found.manifest
    edges, stored = Edges(), None
    if table is not None:
        clips = clips_of(table)
        edges = edges_of(clips)
        ranks = table["shot_rank"].to_pylist()
        stored = [list(own or ()) for own in ranks[: len(edges.first)] + _behind(ranks, edges)]
        for clip in clips if found.holds else ():
            count(counts, clip.film, clip.num_frames)
    manifest_holds = table is not None
    return Shard(found.name, found.faults, found.recorded, found.tar_sha256, manifest_holds, found.slots, edges, stored)


def prove(shards: Sequence[Shard], digest: str) -> None:
    """Take the tars that are there for the recorded ones where the snapshot's digest says so: statistics may be lost, or wrong."""
    for trusted in (True, False):
        shas = [shard.recorded if trusted and shard.recorded else shard.tar_sha256 for shard in shards]
        if _digest(shards, shas) == digest:
            for shard, sha256 in zip(shards, shas, strict=True):
                shard.recorded = sha256
            return


class Mending:
    """Writes what a repair decided. Nothing that a snapshot holds is touched but to become what the snapshot says."""

    def __init__(
        self,
        root: Place,
        dataset: Dataset,
        shards: Sequence[Shard],
        rebuilt: Mapping[str, Path],
        scratch: Path,
        fresh: bool,
    ) -> None:
        """`rebuilt`: key -> the bytes of a sample that was made again; `fresh`: may shards be rewritten under other names."""
        self.replaced: dict[str, str | None] = {}
        self.told: dict[str, str] = {}
        self._root, self._dataset, self._shards, self._rebuilt = root, dataset, shards, rebuilt
        self._scratch, self._fresh = scratch, fresh
        self._dropping = any(shard.loses for shard in shards)
        for shard in shards:
            if not shard.holds:
                shard.edges = edges_of([slot.clip for slot in shard.good if slot.clip is not None])
        self._edges = [shard.edges for shard in shards]
        self._waiting: dict[int, ShardStats] = {}  # whole again, but nothing has recorded what they were

    def mend(self, number: int) -> None:
        """Mend a shard, or leave it to `settle`.

        Raises:
            ValueError: it must be rewritten, and that may not be.
        """
        shard = self._shards[number]
        moved = self._moved(shard, number)
        if shard.holds and not moved:
            if shard.faults:
                self._small(shard)
            return
        if shard.loses or moved or (self._dropping and not shard.manifest_holds):
            self._rewrite(number)
            return
        built = self._build(self._scratch, shard.name, number)
        if built.sha256 == shard.recorded:
            self._put(shard, built)
        else:
            self._waiting[number] = built

    def settle(self) -> None:
        """Shards without statistics, or with wrong ones, are put back where the snapshot's digest proves them; else rewritten."""
        snapshot = self._dataset.snapshots[-1]
        shas = [shard.recorded for shard in self._shards]
        for number, built in self._waiting.items():
            shas[number] = built.sha256
        proved = _digest(self._shards, shas) == snapshot.digest
        for number, built in self._waiting.items():
            if proved:
                self._put(self._shards[number], built)
            else:
                self._rewrite(number)

    def names(self) -> list[str]:
        """The shards of the data set as it is now, in reading order."""
        names = [self.replaced.get(shard.name, shard.name) for shard in self._shards]
        return [name for name in names if name is not None]

    def _moved(self, shard: Shard, number: int) -> bool:
        """Have the ranks of its frames changed, because clips of its shots were dropped beside it."""
        if shard.stored is None or shard.loses:
            return False
        clips = [*shard.edges.first, *(() if shard.edges.whole else shard.edges.last)]
        ranks = ranks_within(self._edges, number, clips)
        return any(own and own != new for own, new in zip(shard.stored, ranks, strict=True))

    def _small(self, shard: Shard) -> None:
        """Make index and statistics of a shard whose tar and manifest are good."""
        table = read_table(self._root, shard.name)
        index = index_of(rows_of(table)).encode()
        size = size_of(shard_file(self._root, shard.name, "tar"))
        stats = recounted(finished_shard(self._root, shard.name), table, size)
        assert stats is not None, "what else would vouch for the manifest"
        stats = stats.model_copy(update={"idx_sha256": hashlib.sha256(index).hexdigest()})
        self._tell(shard, f"{self._write(shard, {'idx': index, 'stats.json': to_json(stats)})} made from the manifest")

    def _put(self, shard: Shard, built: ShardStats) -> None:
        """Put files of the scratch folder in the place of those that are not as they were; the statistics last."""
        if shard.manifest_holds:
            stats = finished_shard(self._root, shard.name)
            assert stats is not None, "what else would vouch for the manifest"
            built = built.model_copy(update={"parquet_sha256": stats.parquet_sha256})
        done = []
        if shard.tar_sha256 != built.sha256:
            with (
                shard_file(self._scratch, shard.name, "tar").open("rb") as source,
                atomic(shard_file(self._root, shard.name, "tar")) as target,
            ):
                shutil.copyfileobj(source, target, CHUNK)
            done.append("tar")
        contents = {"idx": read_bytes(shard_file(self._scratch, shard.name, "idx"))}
        if not shard.manifest_holds:
            contents["parquet"] = read_bytes(shard_file(self._scratch, shard.name, "parquet"))
        done.append(self._write(shard, contents | {"stats.json": to_json(built)}))
        remove_shard(self._scratch, shard.name)
        self._tell(shard, f"{', '.join(filter(None, done))} put back as it was")

    def _write(self, shard: Shard, contents: Mapping[str, bytes]) -> str:
        """Write those small files of a shard that hold something else; says which."""
        done = []
        for kind, content in contents.items():
            if self._present(shard, kind) != content:
                write_atomic(shard_file(self._root, shard.name, kind), content)
                done.append(kind)
        return ", ".join(done)

    def _present(self, shard: Shard, kind: str) -> bytes | None:
        try:
            return read_bytes(shard_file(self._root, shard.name, kind))
        except FileNotFoundError:
            return None

    def _rewrite(self, number: int) -> None:
        shard = self._shards[number]
        if not self._fresh:
            raise ValueError(
                f"shard {shard.name} must be rewritten, and there is an unfinished `prepare` in the folder: run it to its end first "
                "(or remove staging/)"
            )
        if not (shard.holds or shard.good):
            self.replaced[shard.name] = None
            self._tell(shard, "nothing is left of it: dropped")
            return
        name = successor(self._dataset, shard.name)
        self._build(self._root, name, number)
        self.replaced[shard.name] = name
        why = f"{len(shard.lost)} samples dropped, " if shard.lost else ""
        self._tell(shard, f"{why}rewritten as {name}")

    def _build(self, root: Place, name: str, number: int) -> ShardStats:
        """Write the shard that should be there."""
        shard = self._shards[number]
        with ExitStack() as stack:
            file = None
            if shard.holds or any(slot.key not in self._rebuilt for slot in shard.good):
                file = stack.enter_context(
                    stack.enter_context(here(shard_file(self._root, shard.name, "tar"))).open("rb")
                )
            slots = list(slots_in(file)) if shard.holds and file is not None else shard.good
            ranks = ranks_within(self._edges, number, [slot.clip for slot in slots if slot.clip is not None])
            return write_stretches(root, name, self._stretches(file, slots, ranks))

    def _stretches(self, file: IO[bytes] | None, slots: Sequence[Slot], ranks: list[list[int]]) -> Iterator[Stretch]:
        for slot, own in zip(slots, ranks, strict=True):
            if slot.key in self._rebuilt:
                yield Stretch(self._rebuilt[slot.key].read_bytes(), own)
            else:
                assert file is not None, "it was opened for this"
                yield Stretch(os.pread(file.fileno(), slot.size, slot.start), own)

    def _tell(self, shard: Shard, done: str) -> None:
        again = sum(slot.key in self._rebuilt for slot in shard.slots)
        made = f"{again} samples made again from their films, " if again else ""
        if shard.doubtful:
            made += f"nothing vouches for {len(shard.doubtful)} samples, which can be decoded and are kept, "
        wrong = ", ".join(shard.faults) or "a shot goes on in a shard that lost clips"
        self.told[shard.name] = f"{shard.name}: {wrong}: {made}{done}"


def _digest(shards: Sequence[Shard], shas: Sequence[str | None]) -> str:
    """What a snapshot's digest would be of tars with those checksums."""
    blank = {"clips": 0, "frames": 0, "films": 0, "bytes": 0, "kept_clips": 0, "idx_sha256": "", "parquet_sha256": ""}
    named = zip(shards, shas, strict=True)
    return digest_of(ShardStats(name=shard.name, sha256=sha256 or "", **blank) for shard, sha256 in named)


def _behind(ranks: list[list[int] | None], edges: Edges) -> list[list[int] | None]:
    """Those of the last shot, where it is not the first too."""
    return [] if edges.whole else ranks[-len(edges.last) :]
