"""Prove that a data set is what it says: tars, indexes, checksums, the contract of every sample, sampled clips in every decoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from data_tools.building.ledger import LEDGER, read_ledger
from data_tools.building.optouts import OPTOUTS, read_optouts
from data_tools.care.decoders import available
from data_tools.care.rewriting import leftovers
from data_tools.care.shard import ShardCheck
from data_tools.care.tars import shown
from data_tools.dataset import DATASET, Dataset, Snapshot, digest_of, open_dataset
from data_tools.places import Place, line, place
from data_tools.progress import Progress, Silent
from data_tools.schema import Verify
from data_tools.shards import ShardStats, finished_shard


@dataclass
class Report:
    """What `verify` found."""

    path: str
    snapshot: str
    limit: int
    shards: int = 0
    clips: int = 0
    decoded: dict[str, int] = field(default_factory=dict)  # decoder -> clips
    num_problems: int = 0
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def problem(self, where: str, what: str) -> None:
        """Note one; the first `limit` are kept."""
        self.num_problems += 1
        if len(self.problems) < self.limit:
            self.problems.append(f"problem: {where}: {what}")

    def lines(self) -> list[str]:
        """A line for each problem, and the summary last."""
        more = self.num_problems - len(self.problems)
        verdict = "no problems" if not self.num_problems else f"{self.num_problems} problems"
        asked = ", ".join(f"{name}: {count} clips" for name, count in self.decoded.items())
        return [
            *self.problems,
            *([f"... and {more} more"] if more else []),
            *self.remarks,
            f"{self.path}, snapshot {self.snapshot}: {verdict} in {self.shards} shards, {self.clips} clips; "
            f"{f'decoded with {asked}' if asked else 'none decoded'}",
        ]


def verify(settings: Verify, progress: Progress | None = None) -> Report:
    """Check a snapshot of a data set, local or remote; shards are looked at one after the other, their samples likewise.

    Raises:
        ValueError: there is no data set, or no such snapshot.
    """
    progress = progress or Silent()
    root = place(settings.path)
    dataset = open_dataset(root)
    snapshot = dataset.snapshot(settings.snapshot)
    report = Report(settings.path, snapshot.id, settings.max_problems, shards=len(snapshot.shards))
    decoders, missing = available(settings.decoders) if settings.decode else ([], [])
    report.remarks += missing
    stats = _check_snapshots(root, dataset, report)
    every = max(1, -(-snapshot.clips // settings.decode)) if settings.decode else 0
    check = ShardCheck(root, report.problem, decoders, every, progress)
    progress.stage("verifying", len(snapshot.shards), "shards")
    for name in snapshot.shards:
        check.shard(name, stats.get(name))
        progress.advance(1)
    check.finish(snapshot.shards)
    report.clips, report.decoded = check.clips, {d.title: check.decoded[d.title] for d in decoders}
    if report.clips != snapshot.clips:
        report.problem(DATASET, f"says {snapshot.clips} clips, the shards hold {report.clips}")
    number = dataset.snapshots.index(snapshot) + 1
    _check_ledger(root, number, check.films, report)
    return report


def _check_snapshots(root: Place, dataset: Dataset, report: Report) -> dict[str, ShardStats]:
    """All snapshots that can be read, by the statistics of their shards, which are returned; and what belongs to none."""
    known: dict[str, ShardStats] = {}
    live = [snapshot for snapshot in dataset.snapshots if not snapshot.withdrawn]
    for name in dict.fromkeys(name for snapshot in live for name in snapshot.shards):
        where = f"{name}.stats.json"
        try:
            stats = finished_shard(root, name)
        except ValueError as error:
            report.problem(where, line(error))
            continue
        if stats is None:
            report.problem(where, "is missing: the shard is unfinished or lost")
        else:
            known[name] = stats
    for snapshot in live:
        if all(name in known for name in snapshot.shards):
            _check_snapshot(snapshot, [known[name] for name in snapshot.shards], report)
    odd = [s.id for number, s in enumerate(dataset.snapshots, 1) if s.id != str(number)]
    if odd:
        report.problem(DATASET, f"its snapshots are not numbered 1, 2 ... (first: {shown(odd[0])})")
    left = leftovers(root, dataset)
    if left:
        report.remarks.append(
            f"{len(left)} files in shards/ belong to no snapshot that can be read (first: {shown(left[0])}): "
            "left by a killed run; the next one removes them"
        )
    return known


def _check_snapshot(snapshot: Snapshot, stats: Sequence[ShardStats], report: Report) -> None:
    if digest_of(stats) != snapshot.digest:
        report.problem(DATASET, f"the digest of snapshot {snapshot.id} does not fit the shards: a shard was replaced")
    for name in ("clips", "frames", "bytes"):
        said, held = getattr(snapshot, name), sum(getattr(s, name) for s in stats)
        if said != held:
            report.problem(DATASET, f"snapshot {snapshot.id} says {said} {name}, the statistics of its shards {held}")


def _check_ledger(root: Place, snapshot: int, films: Mapping[str, tuple[int, int]], report: Report) -> None:
    """films.jsonl against the manifests: `films` gives the clips and frames of each film in the snapshot."""
    try:
        used = [o for o in read_ledger(root) if o.status == "used"]
    except (ValueError, OSError) as error:
        report.problem(LEDGER, line(error))
        return
    for film, count in Counter(o.film for o in used).items():
        if count > 1:
            report.problem(LEDGER, f"film {shown(film)} stands in it {count} times as used")
    for outcome in used:
        clips, frames = films.get(outcome.film, (0, 0))
        if outcome.snapshot <= snapshot and (outcome.clips, outcome.frames) != (clips, frames):
            said = f"{outcome.clips} clips of {outcome.frames} frames"
            held = f"the shards hold {clips} of {frames}"
            report.problem(LEDGER, f"says {said} of film {outcome.film} ({shown(outcome.source)}), {held}")
    optouts = read_optouts(root)
    for outcome in used:
        if optouts & {outcome.film, outcome.source, outcome.id}:
            report.problem(OPTOUTS, f"film {shown(outcome.source)} was opted out, and is used; run `scrub` again")
    for film in films.keys() - {o.film for o in used}:
        report.problem(LEDGER, f"does not say that film {shown(film)} was used, and the shards hold clips of it")
