"""`stats`: what a data set holds (films, clips, bytes, masks, labels), from its manifests shard by shard and its ledger of films."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_tools.building.ledger import LEDGER, counted, read_ledger
from data_tools.dataset import Snapshot, open_dataset
from data_tools.places import Place, place, size_of
from data_tools.progress import Progress, Silent
from data_tools.prune import Pruning
from data_tools.report.distributions import Distribution, Tally
from data_tools.report.manifests import manifests
from data_tools.report.summary import lines
from data_tools.report.verdicts import REASONS, judged, scores, shares, verdicts
from data_tools.schema import Stats

SHARE = 0.001  # to within which shares and scores are told apart
PER_SHOT = (5, 10)  # frames a shot for the single-frame objective (Pathak et al. 2017, section 5.1)
TOP = 20  # classes, licences, sizes that are listed
OPTIONAL = ("id", "split", "licence", "attribution")  # fields of a clip that may be null


def stats(settings: Stats, progress: Progress | None = None) -> Statistics:
    """Count everything in a snapshot; `lines()` of what is returned are text or JSON, as `settings.format` says.

    Raises:
        ValueError: no such data set or snapshot, or its shards are not those that it names.
    """
    root = place(settings.path)
    snapshot = open_dataset(root).snapshot(settings.snapshot)
    found = Statistics(root, snapshot, settings.format)
    for table in watched(root, snapshot, progress or Silent()):
        found.add(table)
    return found


def watched(root: Place, snapshot: Snapshot, progress: Progress) -> Iterator[pa.Table]:
    """`manifests`, with the progress told."""
    progress.stage("counting", len(snapshot.shards), "shards")
    for table in manifests(root, snapshot):
        yield table
        progress.advance(1, int(pc.sum(table["num_frames"]).as_py() or 0))


class Statistics:
    """Counts over the clips of a snapshot, as its manifests pass; `lines()` for people, `json` for scripts."""

    def __init__(self, root: Place, snapshot: Snapshot, form: Literal["text", "json"] = "text") -> None:
        self.name, self.snapshot, self.form = root.name or root.resolve().name, snapshot, form
        self.films = Films(root, snapshot)
        self.clips = self.frames = self.films_with_clips = 0
        self.seconds = 0.0
        self.tallies = {name: Tally() for name in ("sizes", "fps", "codecs", "splits", "groups", "licences", "kinds")}
        self.labels: dict[str, Tally] = {}
        self.members, self.missing = Tally(), Tally()
        self.clip_frames = Distribution()
        self.masks = {name: Distribution(SHARE) for name in ("foreground", "border", "flatness", "consistency")}
        self.judged = self.kept = self.kept_frames = self.paper_kept = 0
        self.reasons, self.paper_reasons = Tally(), Tally()
        self.single_frames = dict.fromkeys(PER_SHOT, 0)
        self._films_before: set[str] = set()

    def add(self, table: pa.Table) -> None:
        """Count the clips of one shard."""
        self.clips += table.num_rows
        self._films(table)
        self._video(table)
        self._known(table)
        self._masks(table)
        ranks = table["shot_rank"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        for number in PER_SHOT:
            self.single_frames[number] += int(((ranks >= 0) & (ranks < number)).sum())

    @property
    def json(self) -> dict[str, Any]:
        """Everything as plain values; the keys do not depend on what the data set holds, the absent is null or empty."""
        snapshot = self.snapshot
        return {
            "name": self.name,
            "snapshot": snapshot.id,
            "digest": snapshot.digest,
            "films": {"with_clips": self.films_with_clips, **self.films.json},
            "clips": self.clips,
            "frames": self.frames,
            "hours": round(self.seconds / 3600, 6),
            "bytes": self._bytes(),
            "shots_per_film": self.films.shots.summary(),
            "clip_frames": self.clip_frames.summary(),
            **{name: tally.top(TOP) for name, tally in self.tallies.items()},
            "num_groups": len(self.tallies["groups"].counts),
            "labels": {
                name: {"clips": tally.total, "classes": len(tally.counts), "top": tally.top(TOP)}
                for name, tally in sorted(self.labels.items())
            },
            **{name: distribution.summary() for name, distribution in self.masks.items()},
            "keep": {
                "judged_clips": self.judged,
                "kept_frames": self.kept_frames,
                "stored": {"kept_clips": self.kept, "reasons": self.reasons.top()},
                "paper": {"kept_clips": self.paper_kept, "reasons": self.paper_reasons.top()},
            },
            "single_frames": {str(number): count for number, count in self.single_frames.items()},
            "missing": self.missing.top(),
        }

    def lines(self) -> list[str]:
        """The same for people, a line for each thing; or all of it as one line of JSON."""
        return [json.dumps(self.json)] if self.form == "json" else lines(self.json)

    def _films(self, table: pa.Table) -> None:
        """Clips of a film follow each other, so that a film can only go on from one shard to the next."""
        films = set(pc.unique(table["film"]).to_pylist())
        self.films_with_clips += len(films - self._films_before)
        self._films_before = films

    def _video(self, table: pa.Table) -> None:
        frames = table["num_frames"].to_numpy()
        fps, size = _pairs(table["fps"]), _pairs(table["size"])
        self.frames += int(frames.sum())
        self.seconds += float((frames * fps[:, 1] / fps[:, 0]).sum())
        self.clip_frames.add(frames)
        self.tallies["sizes"].add(_rows(size[:, ::-1], "x"))
        self.tallies["fps"].add({_rate(rate): count for rate, count in _rows(fps, "/").items()})
        parts = table["members"].combine_chunks().flatten()
        sizes = pa.table([parts.field("extension"), parts.field("size")], ["extension", "size"])
        grouped = sizes.group_by("extension").aggregate([("size", "sum"), ("size", "count")]).to_pylist()
        self.members.add({row["extension"]: row["size_sum"] for row in grouped})
        truth = sum(row["size_count"] for row in grouped if row["extension"] == "truth.png")
        self.missing.add({"truth": table.num_rows - truth})

    def _known(self, table: pa.Table) -> None:
        for name, column in (("codecs", "codec"), ("splits", "split"), ("licences", "licence"), ("kinds", "masks")):
            self.tallies[name].add(_counts(table[column]))
        shared = pc.not_equal(table["group"], table["film"])  # a film of its own is no group
        self.tallies["groups"].add(_counts(table["group"].filter(shared)))
        labels = table["labels"].combine_chunks()
        pairs = pa.table([labels.keys, labels.items], ["name", "value"]).group_by(["name", "value"])
        for row in sorted(
            pairs.aggregate([([], "count_all")]).to_pylist(), key=lambda row: (row["name"], row["value"])
        ):
            self.labels.setdefault(row["name"], Tally()).add({row["value"]: row["count_all"]})
        self.missing.add({name: table[name].null_count for name in OPTIONAL})
        for name in ("labels", "fingerprint"):
            lengths = labels.offsets.to_numpy() if name == "labels" else table[name].combine_chunks().offsets.to_numpy()
            self.missing.add({name: int((np.diff(lengths) == 0).sum())})
        self.missing.add({"masks": table.num_rows - table["statistics"].combine_chunks().is_valid().sum().as_py()})

    def _masks(self, table: pa.Table) -> None:
        measured = judged(table)
        if not len(measured):
            return
        for name in ("foreground", "border"):
            self.masks[name].add(shares(measured, name))
        for name in ("flatness", "consistency"):
            self.masks[name].add(scores(measured, name))
        self.judged += len(measured)
        stored = table.select(["keep", "verdict"]).filter(table["statistics"].is_valid())
        self.kept_frames += int(pc.sum(stored["keep"].combine_chunks().flatten()).as_py() or 0)
        self.kept += int((pc.list_value_length(stored["verdict"]).to_numpy() == 0).sum())
        self.reasons.add(_counts(pc.list_flatten(stored["verdict"])))
        paper = verdicts(measured, Pruning.paper())
        self.paper_kept += int((~np.any(list(paper.values()), axis=0)).sum())
        self.paper_reasons.add({reason: int(paper[reason].sum()) for reason in REASONS if paper[reason].any()})

    def _bytes(self) -> dict[str, Any]:
        total = self.snapshot.bytes
        return {
            "total": total,
            "shards": len(self.snapshot.shards),
            "per_clip": round(total / max(self.clips, 1)),
            "per_frame": round(total / max(self.frames, 1), 1),
            "members": self.members.top(),
        }


class Films:
    """What became of the films that a snapshot was made from, as its ledger has it; nothing is known where that is missing."""

    def __init__(self, root: Place, snapshot: Snapshot) -> None:
        self.shots = Distribution()
        self.outcomes = read_ledger(root) if size_of(root / LEDGER) is not None else []
        self.outcomes = [o for o in self.outcomes if o.snapshot <= int(snapshot.id)]
        self.status = Tally()
        for outcome in self.outcomes:
            self.status.add({outcome.status: 1})
        self.shots.add(np.array([o.shots for o in self.outcomes if o.status == "used"], np.int64))
        self.reasons = counted(self.outcomes)

    @property
    def json(self) -> dict[str, Any]:
        """Films by status, and why they were not used; null where there is no ledger."""
        if not self.outcomes:
            return {"used": None, "skipped": None, "failed": None, "reasons": {}}
        return {s: self.status.counts[s] for s in ("used", "skipped", "failed")} | {"reasons": self.reasons}


def _pairs(column: pa.ChunkedArray) -> np.ndarray:
    """int64 (n, 2) of a column of lists of two."""
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.int64).reshape(-1, 2)


def _rows(pairs: np.ndarray, mark: str) -> dict[str, int]:
    values, counts = np.unique(pairs, axis=0, return_counts=True)
    return {f"{a}{mark}{b}": count for (a, b), count in zip(values.tolist(), counts.tolist(), strict=True)}


def _rate(fraction: str) -> str:
    numerator, _, denominator = fraction.partition("/")
    return f"{int(numerator) / int(denominator):.3f}".rstrip("0").rstrip(".")


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    found = pc.value_counts(column.drop_null())
    return dict(sorted((row["values"], row["counts"]) for row in found.to_pylist()))
