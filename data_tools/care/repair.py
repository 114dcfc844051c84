"""Put a data set right again: from its tars what they still hold, damaged clips from their films, or they are dropped."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_tools.building.ledger import LEDGER, Outcome, read_ledger, write_ledger
from data_tools.building.lock import exclusive
from data_tools.care.examine import Slot, examine, sound
from data_tools.care.mending import Mending, Shard, prove, summed
from data_tools.care.neighbours import clip_of
from data_tools.care.rebuilding import Rebuild, Wanted, rebuilder
from data_tools.care.reckoning import Counts, count, reckoned
from data_tools.care.recovery import lost, recovered, write_recovered
from data_tools.care.rewriting import sweep, unfinished
from data_tools.dataset import DATASET, Dataset, Snapshot, open_dataset, replace_shards
from data_tools.places import Place, line, place
from data_tools.progress import Progress, Silent
from data_tools.sample import Metadata
from data_tools.schema import Repair
from data_tools.shards import members_of, remove_shard


@dataclass
class Report:
    """What `repair` found and did (or would do)."""

    path: str
    shards: int
    snapshot: Snapshot
    dry_run: bool = False
    rebuilt: int = 0  # samples, from their films
    dropped: int = 0
    mended: int = 0  # shards
    details: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """A line for each shard that was not as it should be, and the summary last."""
        if self.dry_run:
            verdict = f"{self.mended} of {self.shards} shards would be repaired; nothing was changed"
        elif not self.details:
            verdict = f"nothing to repair in {self.shards} shards"
        else:
            verdict = (
                f"{self.mended} of {self.shards} shards repaired, {self.rebuilt} samples made again, "
                f"{self.dropped} dropped"
            )
        return [
            *self.details,
            f"{self.path}: {verdict}; snapshot {self.snapshot.id}, digest {self.snapshot.digest[:16]}",
        ]


def repair(settings: Repair, progress: Progress | None = None, rebuild: Rebuild | None = None) -> Report:
    """Repair the newest snapshot of a data set, local or remote.

    Where every sample is good, or can be made again with the same bytes, the data set is what it was: same snapshot, same digest.
    Otherwise the shards concerned are rewritten under other names, without the samples that are lost, in a new snapshot; those
    that held the old shards are withdrawn. The same command again after an interruption, even kill -9, ends well.

    Args:
        rebuild: makes damaged samples again; None: from `settings.input`, if there is one.
    Raises:
        ValueError: there is no data set; more samples than `settings.max_dropped` would be dropped; an unfinished `prepare`.
        OSError: a file is there and cannot be read: whether it is damaged is not known, and nothing is dropped.
    """
    progress = progress or Silent()
    root = place(settings.path)
    again = lost(root)
    if not again:
        open_dataset(root)  # or say why not
    with exclusive(root, "repair"), tempfile.TemporaryDirectory(dir=settings.scratch) as scratch:
        dataset = recovered(root) if again else open_dataset(root)
        if again and not settings.dry_run:
            write_recovered(root, dataset)
        if rebuild is None and settings.input is not None and not settings.dry_run:
            rebuild = rebuilder(settings, dataset.settings, progress)
        report = _Repair(root, dataset, settings, progress, rebuild, Path(scratch)).run()
    if again:
        without = "" if dataset.settings else "; the settings are lost, so that `prepare` can add nothing to it"
        report.details.insert(
            0, f"{DATASET}: lost or damaged: made from the shards' statistics and the ledger{without}"
        )
    return report


class _Repair:
    """One run, under the lock."""

    def __init__(
        self,
        root: Place,
        dataset: Dataset,
        settings: Repair,
        progress: Progress,
        rebuild: Rebuild | None,
        scratch: Path,
    ) -> None:
        self._root, self._dataset, self._settings, self._progress = root, dataset, settings, progress
        self._rebuild, self._scratch = rebuild, scratch
        self._snapshot = dataset.snapshots[-1]
        self._films: Counts = {}  # of the shards that hold
        self._rebuilt: dict[str, Path] = {}  # key -> its bytes

    def run(self) -> Report:
        """Examine all, make again what can be, then write."""
        names = self._snapshot.shards
        report = Report(self._settings.path, len(names), self._snapshot, self._settings.dry_run)
        if not self._settings.dry_run:
            sweep(self._root, self._dataset)
        self._progress.stage("examining", len(names), "shards")
        shards = [self._examined(name) for name in names]
        if self._settings.dry_run:
            report.details = [f"{shard.name}: {', '.join(shard.faults)}" for shard in shards if shard.faults]
            report.mended = len(report.details)
            return report
        outcomes, remark = self._ledger()
        prove(shards, self._snapshot.digest)
        if self._rebuild is not None:
            self._make_again(shards, outcomes or [])
        present = sum(clips for clips, _ in self._there(shards).values())
        report.rebuilt = len(self._rebuilt)
        report.dropped = max(self._snapshot.clips - present, sum(len(shard.lost) for shard in shards))
        self._refuse(report.dropped)
        fresh = not unfinished(self._root)
        mending = Mending(self._root, self._dataset, shards, self._rebuilt, self._scratch, fresh)
        self._progress.stage("repairing", len(names), "shards")
        for number in range(len(names)):
            mending.mend(number)
            self._progress.advance(1)
        mending.settle()
        report.mended, report.details = (
            len(mending.told),
            [mending.told[name] for name in names if name in mending.told],
        )
        report.details += remark
        if outcomes is not None:
            self._reckon(outcomes, mending.names(), shards, report)
        if mending.replaced:
            reason = f"repair dropped {report.dropped} clips" if report.dropped else "repair rewrote damaged shards"
            report.snapshot = replace_shards(self._root, mending.replaced, reason)
            for name in mending.replaced:
                remove_shard(self._root, name)
        return report

    def _examined(self, name: str) -> Shard:
        shard = summed(examine(self._root, name, self._settings.decode), self._films)
        self._progress.advance(1)
        return shard

    def _refuse(self, dropped: int) -> None:
        """Raise where so much is lost that a person should look."""
        clips = self._snapshot.clips
        if dropped and (dropped > self._settings.max_dropped * clips or dropped >= clips):
            raise ValueError(
                f"{self._settings.path}: {dropped} of {clips} clips would be dropped; nothing was changed. Is a disk missing? "
                "See dry_run=true, give input=FILMS to make them again, or max_dropped=1 to let them go"
            )

    def _make_again(self, shards: list[Shard], outcomes: list[Outcome]) -> None:
        """Ask for every damaged sample, film by film; for those whose film nobody knows, in every film that misses some."""
        lost: dict[str, tuple[Shard, int]] = {}
        for shard in shards:
            keys = {slot.key for slot in [*shard.lost, *shard.doubtful]}
            lost |= {slot.key: (shard, i) for i, slot in enumerate(shard.slots) if slot.key in keys}
        if not lost:
            return
        films: dict[str, tuple[str, list[str]]] = {}
        for key, (shard, i) in lost.items():
            if shard.slots[i].film:
                films.setdefault(shard.slots[i].film, (shard.slots[i].source, []))[1].append(key)
        orphans = [key for key, (shard, i) in lost.items() if not shard.slots[i].film]
        there = self._there(shards) if orphans else {}
        for outcome in outcomes if orphans else ():
            if outcome.status == "used" and there.get(outcome.film, (0, 0))[0] < outcome.clips:
                films.setdefault(outcome.film, (outcome.source, []))[1].extend(orphans)
        self._progress.stage("making again", len(films), "films")
        wanted = [Wanted(film, source, frozenset(keys)) for film, (source, keys) in sorted(films.items())]
        for one, key, data, metadata in self._given(wanted):
            shard, i = lost[key]
            self._rebuilt[key] = self._scratch / f"{key}.sample"
            self._rebuilt[key].write_bytes(data)
            shard.slots[i] = Slot(key, one.film, one.source, clip_of(metadata))

    def _given(self, wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, str, bytes, Metadata]]:
        """What making films again gives, if it is what was asked for."""
        assert self._rebuild is not None, "asked for only where there is one"
        for one, made in self._rebuild(wanted):
            for key, data in made.items():
                metadata = sound(data)
                if key in one.keys and metadata and metadata.film == one.film and members_of(data)[0] == key:
                    yield one, key, data, metadata
            self._progress.advance(1)

    def _there(self, shards: list[Shard]) -> Counts:
        """Clips and frames of each film in the good samples."""
        counts = dict(self._films)
        for shard in shards:
            for slot in shard.good:
                if slot.clip is not None:
                    count(counts, slot.clip.film, slot.clip.num_frames)
        return counts

    def _ledger(self) -> tuple[list[Outcome] | None, list[str]]:
        """The ledger; None, and a remark, where it cannot be read: shards are repaired without it."""
        try:
            return read_ledger(self._root), []
        except ValueError as error:
            return None, [f"{LEDGER}: cannot be compared with the shards: {line(error)}"]

    def _reckon(self, before: list[Outcome], names: Sequence[str], shards: list[Shard], report: Report) -> None:
        """Set the ledger right: before the snapshot is committed, so that a run that is killed in between does it again."""
        after = reckoned(self._root, names, self._there(shards), before)
        changed = sum(old != new for old, new in zip(before, after, strict=True))
        if changed:
            write_ledger(self._root, after)
            report.details.append(f"{LEDGER}: the counts of {changed} films set right")
