"""A user's own collection: every clip's features in parquet files, clusters, nearest neighbours, a map, and a page with clips that play."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_tools.building.lock import exclusive
from data_tools.places import write_atomic
from fbm_dist.data.opened import OpenedData
from fbm_dist.evaluation.embedding.clips import read_media
from fbm_dist.evaluation.embedding.clusters import Found, learn, look
from fbm_dist.evaluation.embedding.config import Embedding
from fbm_dist.evaluation.embedding.map import colours, draw_map
from fbm_dist.evaluation.embedding.page import Content, page, shown_rows
from fbm_dist.evaluation.embedding.parts import Job, missing_parts, share, write_parts
from fbm_dist.evaluation.embedding.reader import ALL, FOLDER, FORMAT, Embeddings, open_embeddings
from fbm_dist.evaluation.encoders.candidates import Candidate, found
from fbm_dist.evaluation.report.delivery import deliver, facts
from fbm_dist.evaluation.report.results import Cell, Results, Row, Subject, Table
from fbm_dist.evaluation.world import join
from fbm_dist.registry.client import connect
from fbm_dist.registry.folder import weights_digest
from fbm_dist.schema import ClipSpec
from fbm_dist.training.distributed import World, agreed

COLUMNS = ("clips", "films", "clusters", "largest", "smallest")


@dataclass
class Study:
    """What is fixed at the start."""

    evaluation: Embedding
    world: World
    candidate: Candidate
    job: Job

    @property
    def seed(self) -> int:
        """Of everything that is drawn by lot."""
        return self.evaluation.seeds[0]


def evaluate(evaluation: Embedding) -> Results:
    """Embed every clip, then cluster and show them: embeddings/part-*.parquet, clusters.parquet, neighbours.parquet, map.png, page.html.

    Every rank calls it, alone or under a launcher; every rank gets the results. The same command again goes on where it stopped.

    Raises:
        ValueError: what the user can put right, in one line.
    """
    began = time.monotonic()
    world = join(evaluation.device)
    with ExitStack() as held:
        with world.agreed():
            study = _prepare(evaluation, world)
            if world.first:
                evaluation.output.mkdir(parents=True, exist_ok=True)
                held.enter_context(exclusive(evaluation.output, "evaluation"))
        embedded = _embed(study)
        return deliver(
            evaluation,
            world,
            lambda: _assemble(study, embedded, time.monotonic() - began),
            data=str(evaluation.data.path),
        )


def _prepare(evaluation: Embedding, world: World) -> Study:
    """Everything that can be refused, before anything is computed."""
    (candidate,) = found([evaluation.encoder], evaluation.architecture, evaluation.tracking.uri)
    if evaluation.tracking.mlflow and world.first:
        connect(evaluation.tracking.uri)
    data = candidate.data(evaluation.data)
    opened = OpenedData(data, world.device, batch=evaluation.batch, ranks=world.local_size)
    encoder = candidate.encoder(evaluation.seeds[0])
    groups = _lengths(encoder, data.clip)
    wanted = evaluation.clusters.group
    if wanted != ALL and wanted not in groups:
        raise ValueError(f"clusters.group={wanted}: the encoder gives {', '.join(groups)}; choose one of them, or all")
    about = {
        "format": FORMAT,
        "encoder": candidate.registered.uri if candidate.registered else candidate.uri,
        "sha256": candidate.description.sha256 if candidate.description else weights_digest(encoder),
        "data": str(data.path),
        "snapshot": opened.parts[0].index.snapshot,
        "digest": opened.digest,
        "clips": len(opened),  # that pass the filter
        "part_clips": evaluation.part_clips,
        "precision": evaluation.precision,
        "groups": groups,
    }
    job = Job(evaluation.output / FOLDER, opened, encoder, candidate.name, evaluation.batch, about)
    return Study(evaluation, world, candidate, job)


@torch.inference_mode()
def _lengths(encoder: torch.nn.Module, clip: ClipSpec) -> dict[str, int]:
    """Length of each group of features."""
    nothing = torch.zeros(1, 3, clip.frames, clip.size, clip.size)
    return {name: value.shape[1] for name, value in encoder(nothing).items()}


def _embed(study: Study) -> int:
    """Make the files that are missing, every rank its share; returns how many were made."""
    world, job = study.world, study.job
    missing, decoder = list[int](), None
    with world.agreed():
        if world.first:
            missing, decoder = missing_parts(job, study.evaluation.retry)
    missing, decoder = world.broadcast((missing, decoder))
    there = job.number - len(missing)
    told = f"; {there} are there already" if there else ""
    world.say(f"{len(job.opened)} clips in {job.number} parts{told}")
    if missing:
        chosen = job.opened.agree(world.gather, decoder)
        if decoder not in (None, chosen):
            raise agreed(
                f"{job.folder}: its files were read with {decoder}, which {_wanted(study)} does not offer here ({chosen} would read "
                "the rest, and its pixels differ); go on where it works, with data.decode=auto, or give another output"
            )
        with world.agreed():
            write_parts(job, share(missing, world.rank, world.size), world)
    return len(missing)


def _wanted(study: Study) -> str:
    opened = study.job.opened
    return f"data.decode={opened.data.decode} on device {opened.device.type}"


def _assemble(study: Study, made: int, seconds: float) -> tuple[Results, Sequence[Path]]:
    """Clusters, map and page, on rank 0."""
    evaluation, output = study.evaluation, study.evaluation.output
    embeddings = open_embeddings(output)
    if not len(embeddings):
        path = evaluation.data.path
        raise ValueError(
            f"{path}: no clip could be decoded; see: python -m data_tools verify {path}; after a repair: retry=true"
        )
    number = min(evaluation.clusters.number, len(embeddings))
    study.world.say(f"clusters: learning {number} from {len(embeddings)} clips")
    model = learn(embeddings, evaluation.clusters, study.seed)
    seen = look(embeddings, model, evaluation.page, study.seed, output)
    files = [output / "clusters.parquet", output / "neighbours.parquet"]
    picture, told = None, ""
    if evaluation.map is not None:
        files.append(output / "map.png")
        told = draw_map(embeddings, model, evaluation.map, study.seed, files[-1])
        picture = files[-1].read_bytes()
    results = _results(study, seen, embeddings, made, seconds)
    root = study.job.opened.parts[0].index.root
    media = read_media(root, [row for line in shown_rows(seen) for row in line], evaluation.page.height)
    content = Content(
        title=f"Clips of {evaluation.data.path.name}",
        about=f"{study.candidate.name} · {' · '.join(results.notes)}",
        found=seen,
        media=media,
        colours=colours(len(seen.clusters)),
        picture=picture,
        picture_told=told,
        similarity=_similarity(evaluation),
        settings=evaluation.model_dump(mode="json"),
    )
    files.append(output / "page.html")
    write_atomic(files[-1], page(content, evaluation.page.max_bytes))
    if evaluation.log_embeddings:
        files.append(study.job.folder)
    return results, files


def _results(study: Study, seen: Found, embeddings: Embeddings, made: int, seconds: float) -> Results:
    evaluation, name = study.evaluation, study.candidate.name
    sizes = sorted(cluster.size for cluster in seen.clusters if cluster.size)
    figures = (seen.clips, seen.films, len(sizes), sizes[-1], sizes[0])
    cells = {column: Cell.of(value) for column, value in zip(COLUMNS, figures, strict=True)}
    table = Table(
        "clusters", "clusters of similar clips", "number of", COLUMNS, (Row(name, cells),), scale=1.0, digits=0
    )
    notes = [_told(evaluation, study.job.about["groups"])]
    number = evaluation.clusters.number
    if len(seen.clusters) < number:
        notes.append(f"{seen.clips} clips make no {number} clusters (clusters.number); {seen.clips} were looked for.")
    if embeddings.lost:
        told = f"{len(embeddings.lost)} clips could not be decoded and are left out"
        notes.append(f"{told}; after a repair of the shards: retry=true.")
    clusters: list[dict[str, Any]] = [
        {"cluster": c.number, "clips": c.size, "films": c.films, "mean_distance": round(c.distance, 6)}
        for c in seen.clusters
    ]
    return Results(
        protocol=evaluation.protocol,
        title=f"Embedding of {evaluation.data.path.name}",
        subjects=(Subject.of(study.candidate),),
        main=name,
        tables=(table,),
        notes=tuple(notes),
        details={"clusters": clusters, "explained_variance": seen.explained, "lost": list(embeddings.lost)},
        facts=facts(
            evaluation, study.world, seconds, embeddings=study.job.about, parts=study.job.number, parts_made=made
        ),
    )


def _told(evaluation: Embedding, groups: dict[str, int]) -> str:
    settings = evaluation.clusters
    used = groups if settings.group == ALL else {settings.group: groups[settings.group]}
    how = "standardised" if settings.scale == "standard" else "scaled to length 1"
    return f"k-means on {', '.join(used)} features ({sum(used.values())} numbers a clip), {how}."


def _similarity(evaluation: Embedding) -> str:
    how = "standardised" if evaluation.clusters.scale == "standard" else "scaled"
    return (
        "Each framed clip was drawn by lot; with it stand the nearest clips of other films, by the cosine of the "
        f"{how} features: 1 is the same direction, 0 is unrelated."
    )
