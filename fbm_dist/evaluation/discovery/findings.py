"""The study of a discovery, and what it found as tables, notes, figures and files."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_tools.places import write_atomic
from fbm_dist.evaluation.discovery.config import Algorithm, Discovery
from fbm_dist.evaluation.discovery.discover import Clusterings, assigned_at_random
from fbm_dist.evaluation.discovery.paper import WHAT, paper_rows
from fbm_dist.evaluation.discovery.pictures import (
    map_of_pictures,
    map_of_points,
    middle_frames,
    placed,
    purest,
    seats,
    sheet,
)
from fbm_dist.evaluation.encoders.candidates import Candidate
from fbm_dist.evaluation.encoders.origin import seen_in_pretraining
from fbm_dist.evaluation.labelled.clips import LabelledClips
from fbm_dist.evaluation.measures.clustering import BATCH, MINI_BATCH, spread
from fbm_dist.evaluation.measures.entropy import class_entropy
from fbm_dist.evaluation.report.delivery import facts
from fbm_dist.evaluation.report.figure import bars, canvas, save
from fbm_dist.evaluation.report.results import Cell, Results, Row, Subject, Table
from fbm_dist.schema import Data
from fbm_dist.training.distributed import World

WORD: dict[Algorithm, str] = {"k-means": "kmeans", "spectral": "spectral"}  # in the metrics' names
HEADING: dict[Algorithm, str] = {"k-means": "k-means", "spectral": "spectral clustering"}
CHANCE = "random assignment"
FEWEST = 10  # clips of a map
SEEDS = 2**32  # what scikit-learn takes is below


@dataclass
class Study:
    """An evaluation under way: what is fixed at the start, and what has been found so far (complete on rank 0).

    Attributes:
        data: what is read: the user's, narrowed to the part that is clustered.
        part: the data set's split that this is, None: all clips.
        found: algorithm -> encoder -> feature group -> its clusterings.
        points: feature group -> the main encoder's features, as they were clustered.
    """

    evaluation: Discovery
    world: World
    tested: tuple[Candidate, ...]
    data: Data
    clips: LabelledClips
    part: str | None
    found: dict[Algorithm, dict[str, dict[str, Clusterings]]] = field(init=False)
    points: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [candidate.name for candidate in self.tested]
        self.found = {algorithm: {name: {} for name in names} for algorithm in self.evaluation.algorithms}

    @property
    def main(self) -> str:
        """Name of the encoder that the evaluation is about."""
        return next(candidate.name for candidate in self.tested if candidate.uri == self.evaluation.encoder)

    @property
    def k(self) -> int:
        """Clusters: as many as classes occur, unless the config says so."""
        return self.evaluation.clusters or len(set(self.clips.target.tolist()))

    def clustering_seeds(self, seed: int) -> list[int]:
        """Of k-means' random numbers, for one seed of the encoder: others for another seed."""
        repeats = self.evaluation.repeats
        return [number % SEEDS for number in range(seed * repeats, (seed + 1) * repeats)]

    def at_random(self, algorithm: Algorithm) -> Clusterings:
        """Random assignment of the clips that an algorithm clusters."""
        rows = next(iter(self.found[algorithm][self.main].values())).rows
        return assigned_at_random(rows, self.k, self.clustering_seeds(self.evaluation.seeds[0]))

    def figure_group(self, algorithm: Algorithm) -> str:
        """The main encoder's feature group that the figures show."""
        groups = self.found[algorithm][self.main]
        least = min(groups, key=lambda group: groups[group].entropy(self.clips.target).value.mean)
        return self.evaluation.figure_group or least


def assemble(study: Study, seconds: float) -> tuple[Results, Sequence[Path]]:
    """The results, and the files written beside them; on rank 0."""
    clips, evaluation = study.clips, study.evaluation
    subjects = tuple(Subject.of(c, seen_in_pretraining(c, clips, evaluation.data)) for c in study.tested)
    entropy = [_table(study, algorithm, WORD[algorithm], Clusterings.entropy) for algorithm in evaluation.algorithms]
    information = [
        _table(study, algorithm, f"{WORD[algorithm]}_nmi", Clusterings.information)
        for algorithm in evaluation.algorithms
    ]
    results = Results(
        protocol=evaluation.protocol,
        title=f"Discovery: {clips.label} ({len(set(clips.target.tolist()))} classes) of {evaluation.data.path.name}",
        subjects=subjects,
        main=study.main,
        tables=(*entropy, *information),
        notes=tuple(_notes(study)),
        details={
            "label": clips.label,
            "classes": list(clips.classes),
            "clusters": study.k,
            "class_entropy_bits": class_entropy(clips.target),
        },
        facts=facts(evaluation, study.world, seconds, split=study.part or "all clips"),
    )
    return results, [_draw(entropy, evaluation.output / "figure.png"), *_pictures(study), _clusters(study)]


def _table(study: Study, algorithm: Algorithm, name: str, measure: Callable[[Clusterings, np.ndarray], Cell]) -> Table:
    """A row an encoder, a column a feature group; the paper's rows where they speak of the same measure."""
    target, entropy = study.clips.target, measure is Clusterings.entropy
    found = study.found[algorithm]
    columns = dict.fromkeys(group for groups in found.values() for group in groups)
    rows, footer = [], {}
    for encoder, groups in found.items():
        rows.append(Row(encoder, {group: measure(clusterings, target) for group, clusterings in groups.items()}))
        for group, clusterings in groups.items():
            footer[group] = str(len(clusterings.rows))
    rows.insert(0, Row(CHANCE, dict.fromkeys(columns, measure(study.at_random(algorithm), target)), "chance"))
    reported = paper_rows(study.evaluation.paper, algorithm) if entropy else []
    columns |= dict.fromkeys(layer for row in reported for layer in row.cells)
    return Table(
        name,
        HEADING[algorithm] if entropy else f"{HEADING[algorithm]}, mutual information",
        "H(class | cluster), bits" if entropy else "normalised, 0 to 1",
        tuple(columns),
        (*rows, *reported),
        better="lower" if entropy else "higher",
        scale=1.0,
        digits=2,
        footer_name="clips",
        footer=footer,
    )


def _notes(study: Study) -> list[str]:
    clips, evaluation, k = study.clips, study.evaluation, study.k
    seeds = len(evaluation.seeds)
    whole, classes = class_entropy(clips.target), len(set(clips.target.tolist()))
    part = "All clips" if study.part is None else f"The clips of the split {study.part!r}"
    told = "as many as classes" if k == classes else f"of {classes} classes"
    of = f", for random initialisation of each of {seeds} encoders" if seeds > 1 else ""
    out = [
        f"{part}: {len(clips)} of {len(set(clips.film))} films, in {k} clusters, {told}. Features scaled: {evaluation.scale}.",
        f"Mean ± standard deviation of {evaluation.repeats} clusterings{of}. {_starts(study)}",
        f"Conditional entropy: 0 where every cluster is of one class, {whole:.2f} bits where clusters tell nothing; "
        "random assignment stays below that, the more the fewer clips a cluster has.",
    ]
    missing = sorted({*clips.classes} - {clips.classes[i] for i in clips.target})
    if missing:
        out.append(f"Without a clip here: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}.")
    if "spectral" in study.found:
        out.append(
            f"Normalised spectral clustering: Ng, Jordan and Weiss (2001), Gaussian kernel, sigma {_sigma(study)}."
        )
        if len(clips) > evaluation.spectral_clips:
            out.append(
                f"It clusters {evaluation.spectral_clips} of the clips, evenly spread (spectral_clips). The fewer clips, the lower "
                "the conditional entropy, whatever the features: compare tables of one number of clips, or each with its random "
                "assignment."
            )
    for algorithm in evaluation.algorithms:
        out.append(_uncertainty(study, algorithm))
    if evaluation.paper != "none":
        out.append(
            f"The paper's rows: {WHAT[evaluation.paper]}; here the encoder's clips are clustered, not single frames."
        )
    return out + study.notes


def _starts(study: Study) -> str:
    """What k-means did of its starts, which depends on how many points it had."""
    starts = study.evaluation.starts
    numbers = {len(study.at_random(algorithm).rows) for algorithm in study.found}
    best = f"Each is the best of {starts} k-means++ starts"
    if max(numbers) < MINI_BATCH:
        return f"{best}."
    small = f" (below {MINI_BATCH} clips)" if min(numbers) < MINI_BATCH else ""
    told = f"{best}{small}. " if small else ""
    return (
        f"{told}From {MINI_BATCH} clips on, k-means learns its centres from batches of {BATCH} clips, once, from the best of "
        f"{starts} k-means++ starts, judged by a sample of the clips."
    )


def _uncertainty(study: Study, algorithm: Algorithm) -> str:
    """The paper's own reading of the conditional entropy: 2^H classes are left to choose from."""
    target = study.clips.target
    group = study.figure_group(algorithm)
    found = study.found[algorithm][study.main][group].entropy(target).value.mean
    chance = study.at_random(algorithm).entropy(target).value.mean
    why = "" if study.evaluation.figure_group else " (the best of its groups)"
    return (
        f"{HEADING[algorithm].capitalize()} of {study.main}'s {group} features{why} leaves 2^{found:.2f} = {2**found:.2f} classes "
        f"in doubt, random assignment 2^{chance:.2f} = {2**chance:.2f}."
    )


def _sigma(study: Study) -> str:
    return "the median distance of two clips" if study.evaluation.sigma == "median" else f"{study.evaluation.sigma:g}"


def _draw(tables: Sequence[Table], path: Path) -> Path:
    """Bars of the conditional entropies, a panel an algorithm."""
    figure = canvas(6.5 * len(tables), 4.5)
    for axes, table in zip(figure.subplots(1, len(tables), squeeze=False, sharey=True)[0], tables, strict=True):
        bars(axes, table)
        axes.set_title(table.heading, fontsize="medium")
    return save(figure, path)


def _pictures(study: Study) -> list[Path]:
    """Maps of the main encoder's features and a sheet of its purest clusters, the first clustering of the first algorithm."""
    evaluation, clips = study.evaluation, study.clips
    algorithm = evaluation.algorithms[0]
    group = study.figure_group(algorithm)
    clusterings = study.found[algorithm][study.main][group]
    clustered = clips.take(clusterings.rows)
    chosen = purest(clustered.target, clusterings.cluster[0], evaluation.figure_clusters)
    rows = spread(len(clips), evaluation.figure_clips)
    shown = clips.take(rows)
    place = placed(study.points[group][rows]) if len(rows) >= FEWEST else None
    keys = [*clustered.key[np.concatenate([pure.members for pure in chosen])].tolist()]
    if place is not None:
        keys += shown.key[list(seats(place).values())].tolist()
    main = next(candidate for candidate in study.tested if candidate.name == study.main)
    frames = middle_frames(main.data(study.data, clips.label), keys)
    told = f"{study.main}: {group} features"
    title = f"{told}, {HEADING[algorithm]}: the purest clusters, random clips of each"
    out = [sheet(clustered, chosen, frames, title, evaluation.output / "clusters.png")]
    if place is not None:
        title = f"{told}, t-SNE"
        out.append(map_of_points(place, shown, f"{title}, coloured by {clips.label}", evaluation.output / "map.png"))
        out.append(map_of_pictures(place, shown, frames, title, evaluation.output / "map_frames.png"))
    return out


def _clusters(study: Study) -> Path:
    """clusters.csv: which cluster each clip is in, for the main encoder: the first clustering of every algorithm and group."""
    clips = study.clips
    columns: dict[str, list[str]] = {
        "key": clips.key.tolist(),
        "film": clips.film.tolist(),
        "class": [clips.classes[i] for i in clips.target],
    }
    for algorithm, by_encoder in study.found.items():
        for group, clusterings in by_encoder[study.main].items():
            values = [""] * len(clips)
            for row, cluster in zip(clusterings.rows.tolist(), clusterings.cluster[0].tolist(), strict=True):
                values[row] = str(cluster)
            columns[f"{WORD[algorithm]}.{group}"] = values
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    path = study.evaluation.output / "clusters.csv"
    write_atomic(path, text.getvalue().encode())
    return path
