"""Tiny data sets with films that lie across shards, shots that do, a ledger and user's ids: what the tests of this room damage."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from data_tools.building.ledger import Outcome, write_ledger
from data_tools.dataset import commit_snapshot, read_dataset
from data_tools.places import Place, listed, read_bytes
from data_tools.sample import Metadata, Sample
from data_tools.sampling import ranks_of
from data_tools.shards import Stretch, to_stretch, write_stretches
from data_tools.videos import encode

SETTINGS = {"made_by": "tests/data_tools/care"}
# film -> its shots, each as the lengths of its clips; in three shards of four clips the long shot of `b` lies across two
FILMS: dict[str, Sequence[Sequence[int]]] = {"a": [[8, 8]], "b": [[6], [8, 8, 8]], "c": [[6, 6]], "d": [[8], [8], [8]]}


@cache
def video(seed: int, frames: int) -> bytes:
    """A picture of coarse blocks that stands still, as VP9."""
    blocks = np.random.default_rng(seed).integers(0, 255, (1, 4, 5, 3)).astype(np.uint8)
    return encode(blocks.repeat(frames, axis=0).repeat(32, axis=1).repeat(32, axis=2), (25, 1))


def sample(key: str, film: str, **changes: Any) -> Sample:
    """A clip of 8 frames; `changes` are of its metadata, `encoded` frames in the video, and `mask`."""
    frames = changes.get("num_frames", 8)
    mask = changes.pop("mask", np.full((frames, 16, 20), 200, np.uint8))
    data = video(zlib.crc32(key.encode()), changes.pop("encoded", frames))
    values: dict[str, Any] = {
        "film": f"content-of-{film}", "source": f"folder/{film}.mp4", "id": f"id-{film}", "shot": 0, "span": (0, frames),
        "fps": (25, 1), "size": (128, 160), "num_frames": frames, "codec": "vp9", "group": film, "masks": "unlc",
        "mask_size": (16, 20), "fingerprint": ("00ff00ff00ff00ff",), "labels": {"motion": "left"},
    }  # fmt: skip
    return Sample(key, Metadata.model_validate(values | changes), data, mask)


def samples(film: str, shots: Sequence[Sequence[int]]) -> list[Sample]:
    """The clips of a film, in order; every third frame is not kept."""
    made, start = [], 0
    for shot, lengths in enumerate(shots):
        for frames in lengths:
            keep = tuple((start + i) % 3 != 0 for i in range(frames))
            where: dict[str, Any] = {"shot": shot, "span": (start, start + frames), "num_frames": frames}
            verdict = ("small",) if len(made) == 1 else ()
            made.append(sample(f"{film}-{len(made)}", film, keep=keep, verdict=verdict, **where))
            start += frames
    return made


def stretches_of(film: str, shots: Sequence[Sequence[int]]) -> dict[str, bytes]:
    """Key -> bytes in a tar: what making the film again gives."""
    return {s.key: to_stretch(s.key, s.members()) for s in samples(film, shots)}


def write(root: Place, films: Mapping[str, Sequence[Sequence[int]]] = FILMS, per_shard: int = 4) -> Place:
    """A data set of `films`, with its ledger; adds a snapshot where there is one already. Returns `root`."""
    made = [s for film, shots in films.items() for s in samples(film, shots)]
    ranks = ranks_of([((s.metadata.film, s.metadata.shot), s.metadata.keep, s.metadata.num_frames) for s in made])
    packed = [Stretch(to_stretch(s.key, s.members()), r) for s, r in zip(made, ranks, strict=True)]
    dataset = read_dataset(root)
    first = dataset.next_shard() if dataset is not None else 0
    parts = range(0, len(packed), per_shard)
    names = [f"{first + i:06d}" for i in range(len(parts))]
    for name, start in zip(names, parts, strict=True):
        write_stretches(root, name, packed[start : start + per_shard])
    snapshot = commit_snapshot(root, SETTINGS, names)
    outcomes = [outcome(f, samples(f, shots), int(snapshot.id)) for f, shots in films.items()]
    twin = Outcome(
        source=f"twin-of-{min(films)}.mp4", id=f"id-twin-{min(films)}", film=f"content-of-{min(films)}",
        job=f"twin-{min(films)}", status="skipped", reason=f"duplicate of folder/{min(films)}.mp4", snapshot=int(snapshot.id),
    )  # fmt: skip
    write_ledger(root, [*old_outcomes(root), *outcomes, twin])
    return root


def old_outcomes(root: Place) -> list[Outcome]:
    """Rows of the ledger that is there."""
    try:
        text = read_bytes(root / "films.jsonl").decode()
    except FileNotFoundError:
        return []
    return [Outcome.model_validate_json(line) for line in text.splitlines()]


def outcome(film: str, made: Sequence[Sample], snapshot: int) -> Outcome:
    """What the ledger says of a film with those clips."""
    metas = [s.metadata for s in made]
    return Outcome(
        source=f"folder/{film}.mp4", id=f"id-{film}", film=f"content-of-{film}", job=f"job-{film}", status="used",
        clips=len(metas), frames=sum(m.num_frames for m in metas), kept_frames=sum(sum(m.keep) for m in metas),
        kept_clips=sum(not m.verdict for m in metas), verdicts={"small": 1} if any(m.verdict for m in metas) else {},
        shots=len({m.shot for m in metas}), snapshot=snapshot,
    )  # fmt: skip


def files(root: Place) -> dict[str, bytes]:
    """Every file of a data set."""
    found = {name: read_bytes(root / name) for name in listed(root)}
    return found | {f"shards/{name}": read_bytes(root / "shards" / name) for name in listed(root / "shards")}
