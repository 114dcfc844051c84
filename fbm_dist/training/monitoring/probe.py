"""Probe: how well the features tell a label apart while training, by k nearest neighbours (Wu et al., 2018) and a linear layer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Data, LinearProbe, Probe, Run
from fbm_dist.training.distributed import World
from fbm_dist.training.monitoring.reading import idle, looking_on, precision, read_spread
from fbm_dist.training.session import Check

log = logging.getLogger("fbm_dist.training")

PREFIX = "probe/"
TEMPERATURE = 0.07  # of the votes, as in Wu et al. (2018) and DINO
CHUNK = 1024  # clips that ask for their neighbours together
TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class Sample:
    """The labelled clips that are looked at, before a frame is decoded; arrays of one length n.

    Attributes:
        data: what they are read from.
        num_classes: of the label, in the whole data set.
        position: key -> place in the arrays.
        target: class index, int64.
        train, test: bool: is learnt from, is asked about. A group is never in both; a clip may be in neither.
    """

    data: Data
    num_classes: int
    position: dict[str, int]
    target: np.ndarray
    train: np.ndarray
    test: np.ndarray


def check_probe(run: Run) -> None:
    """Find the labelled clips, without decoding a frame: what is wrong shall end a run at its start.

    Raises:
        ValueError: in one line: no data set, no label, or nothing to tell apart.
    """
    if run.probe is not None:
        labelled_sample(run, run.probe)


def labelled_sample(run: Run, probe: Probe) -> Sample:
    """Up to `probe.max_clips` labelled clips, spread over the data set, cut into training and test by `_split`.

    Raises:
        ValueError: as `check_probe`.
    """
    from fbm_dist.data.index.index import Index
    from fbm_dist.data.index.labels import choose_label
    from fbm_dist.data.index.selection import select
    from fbm_dist.data.order.spread import Spread

    snapshot = run.data.snapshot if probe.path is None else "latest"
    clip = run.objective.pictures(run.data.clip)
    path = probe.path or run.data.path
    data = run.data.model_copy(update={"path": path, "snapshot": snapshot, "clip": clip, "filter": probe.filter})
    try:
        label = choose_label(data, probe.label, "probe.label")
        if probe.filter.labelled is None:
            data = data.model_copy(update={"filter": probe.filter.model_copy(update={"labelled": label})})
        index = Index.open(data.path, data.snapshot)
        kept = select(index, data.filter, data.clip).kept
        order = Spread(len(kept), 1, limit=probe.max_clips)
        rows = kept[[order.clip(position) for position in range(order.size)]]
        target = index.labels[rows, list(index.label_names).index(label)].astype(np.int64)
        rows, target = rows[target >= 0], target[target >= 0]  # probe.filter.labelled may be another label
        splits = np.array([*index.splits, ""])[index.rows["split"][rows]]  # -1: none
        train, test = _split(target, index.rows["group"][rows], splits)
    except ValueError as error:
        raise ValueError(f"probe: {error}") from None
    position = {index.key(row): i for i, row in enumerate(rows.tolist())}
    return Sample(data, len(index.label_names[label]), position, target, train, test)


def _split(target: np.ndarray, group: np.ndarray, split: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The data set's own train and test where it names both, else half of each class's groups, in the order of their hash.

    Classes that are in no training clip are not asked about.

    Raises:
        ValueError: a group in both, or fewer than two classes that can be asked about.
    """
    if {TRAIN, TEST} <= set(split.tolist()):
        train, test = split == TRAIN, split == TEST
        leaked = len(np.intersect1d(group[train], group[test]))
        if leaked:
            raise ValueError(f"{leaked} groups are in both train and test; correct `split` in labels.csv")
    else:
        groups, first, member = np.unique(group, return_index=True, return_inverse=True)
        rank = np.empty(len(groups), np.int64)
        # By class, then hash: neighbours take turns, so the groups of a class come to both halves.
        rank[np.lexsort((groups, target[first]))] = np.arange(len(groups))
        train = (rank % 2 == 0)[member]
        test = ~train
    known = np.isin(target, target[train])
    if (test & ~known).any():
        number = len(np.unique(target[test & ~known]))
        log.warning("probe: %d classes have no clip to learn from and are not asked about", number)
        test = test & known
    if len(np.unique(target[test])) < 2:
        raise ValueError(
            f"{len(target)} labelled clips of {len(np.unique(group))} groups and {len(np.unique(target))} classes leave no "
            "two classes that are in training and in test: relax probe.filter or probe.max_clips, or give more groups"
        )
    return train, test


def probe_check(run: Run) -> Check:
    """Every `probe.every` steps: `probe/GROUP_knn` for each group of features and `probe/all_knn` for all side by side, with
    `probe.linear` also `probe/GROUP_linear`, and `probe/chance`: always naming the most frequent training class.

    Accuracies are in [0, 1]. Each rank takes its share of the clips; the features of up to `probe.max_clips` clips are in memory.
    """
    probe = run.probe
    assert probe is not None, "the run has no probe section"
    found: list[Sample] = []  # by the first look, for all others

    def look(objective: Objective, world: World, touch: Callable[[], None] = idle) -> dict[str, float]:
        with world.agreed():
            if not found:
                found.append(labelled_sample(run, probe))
            share = _features(run, found[0], probe.max_clips, objective, world, touch)
        shares = world.gather(share)
        figures: dict[str, float] = {}
        with world.agreed():
            if world.first:
                figures = _judged(found[0], probe, shares, world.device)
        return world.broadcast(figures)

    return Check(probe.every, look)


Share = tuple[list[int], dict[str, np.ndarray]]  # positions within the sample, and their features: float32 (n, d)


def _features(
    run: Run, sample: Sample, limit: int | None, objective: Objective, world: World, touch: Callable[[], None]
) -> Share:
    positions: list[int] = []
    parts: dict[str, list[np.ndarray]] = {}
    with looking_on(run, world):
        for clip in read_spread(sample.data, limit, run.training.micro_batch, world):
            touch()
            slots = [slot for slot, key in enumerate(clip.key) if key in sample.position]
            if not slots:
                continue
            with precision(run, world):
                features = objective.features(clip)
            for group, value in features.items():
                parts.setdefault(group, []).append(value.float().cpu().numpy()[slots])
            positions.extend(sample.position[clip.key[slot]] for slot in slots)
    return positions, {group: np.concatenate(values) for group, values in parts.items()}


def _judged(sample: Sample, probe: Probe, shares: list[Share], device: torch.device) -> dict[str, float]:
    """The figures, from the features of all ranks; the order of the clips is the sample's, whoever read them."""
    shares = [share for share in shares if share[0]]
    position = np.array([p for positions, _ in shares for p in positions], np.int64)
    order = np.argsort(position)
    position = position[order]
    train, test = np.flatnonzero(sample.train[position]), np.flatnonzero(sample.test[position])
    if not len(train) or not len(test):
        path = sample.data.path
        raise ValueError(f"probe: {path}: no clip could be decoded; see: python -m data_tools verify {path}")
    target = sample.target[position]
    names = shares[0][1]
    groups = {name: np.concatenate([features[name] for _, features in shares])[order] for name in names}
    majority = np.bincount(target[train]).argmax()
    figures = {f"{PREFIX}chance": float((target[test] == majority).mean())}
    return figures | _accuracies(sample.num_classes, probe, groups, target, train, test, device)


def _accuracies(
    num_classes: int,
    probe: Probe,
    groups: Mapping[str, np.ndarray],
    target: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    device: torch.device,
) -> dict[str, float]:
    from fbm_dist.training.monitoring.linear_probe import probabilities, with_all  # scikit-learn takes a second

    figures: dict[str, float] = {}
    for name, values in with_all(groups).items():
        finite = bool(np.isfinite(values).all())  # else the figure is not a number either: the guard decides on the run
        learnt, asked = (torch.from_numpy(values[part]).to(device) for part in (train, test))
        classes = torch.from_numpy(target[train]).to(device)
        answers = nearest_neighbours(learnt, classes, asked, probe.neighbours, num_classes).cpu().numpy()
        figures[f"{PREFIX}{name}_knn"] = float((answers == target[test]).mean()) if finite else float("nan")
        if probe.linear:
            accuracy = float("nan")
            if finite:
                found, _ = probabilities(values[train], target[train], values[test], num_classes, LinearProbe())
                accuracy = float((found.argmax(axis=1) == target[test]).mean())
            figures[f"{PREFIX}{name}_linear"] = accuracy
    return figures


def nearest_neighbours(
    train: Float[Tensor, "n d"],
    target: Int64[Tensor, " n"],
    test: Float[Tensor, "m d"],
    neighbours: int,
    num_classes: int,
) -> Int64[Tensor, " m"]:
    """The class of each test clip: its k nearest training clips by cosine vote with exp(similarity / 0.07).

    Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination (2018), section 3.4.
    """
    known = F.normalize(train, dim=1)
    answers = []
    for part in test.split(CHUNK):
        similarity, index = (F.normalize(part, dim=1) @ known.T).topk(min(neighbours, len(known)), dim=1)
        votes = torch.zeros(len(part), num_classes, device=part.device)
        votes.scatter_add_(1, target[index], (similarity / TEMPERATURE).exp())
        answers.append(votes.argmax(dim=1))
    return torch.cat(answers)
