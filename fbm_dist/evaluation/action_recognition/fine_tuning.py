"""Fine-tuning (FBM paper, section 5): encoder and a linear softmax layer, or the layer alone, trained by THE trainer."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from data_tools.places import atomic
from fbm_dist.data.index.index import Index
from fbm_dist.data.index.selection import digest
from fbm_dist.evaluation.action_recognition.config import ActionRecognition, FineTuning
from fbm_dist.evaluation.encoders.candidates import Candidate
from fbm_dist.evaluation.labelled.clips import LabelledClips
from fbm_dist.evaluation.labelled.splits import Fold
from fbm_dist.evaluation.world import interrupted, shared_pass
from fbm_dist.objectives.classifier.config import ClassifierConfig
from fbm_dist.objectives.classifier.objective import Classifier
from fbm_dist.objectives.objective import Objective
from fbm_dist.registry.folder import weights_digest
from fbm_dist.schema import ClipSpec, Data, Run, RunFolder, Tracking, Training
from fbm_dist.training.distributed import World
from fbm_dist.training.monitoring.metrics import read_lines
from fbm_dist.training.session import Check
from fbm_dist.training.trainer import train

RESULT = "tested.npz"
LINES = 60  # so many points make the curve of training accuracy
CERTAIN = 256  # clips, at least, whose mean counts as an accuracy
CURVE = "held_out/accuracy"  # in the run's metrics
Curve = tuple[tuple[float, float], ...]  # (epoch, accuracy)


@dataclass(frozen=True)
class FineTuned:
    """One fine-tuned encoder.

    Attributes:
        probability: (n, classes) for every clip; rows of clips that were not tested are NaN.
        training: accuracy on the training batches by epoch, means of neighbouring steps.
        testing: accuracy on the test clips by epoch (the paper's Figure 3); nothing is chosen by it.
        to_90: epochs until 90 % of the training clips were right; None: never.
    """

    probability: np.ndarray
    training: Curve
    testing: Curve
    to_90: float | None


def fine_tune(
    candidate: Candidate,
    seed: int,
    clips: LabelledClips,
    fold: Fold,
    evaluation: ActionRecognition,
    world: World,
    *,
    frozen: bool = False,
) -> FineTuned:
    """Train on the fold's training part, answer for its test part. Every rank calls it; all get the same.

    Training lies in evaluation.output/fine_tuning and goes on where it stopped; a finished one is read, not repeated.

    Args:
        frozen: the linear layer alone learns.
    Raises:
        ValueError: the batch does not suit the number of processes, the run was interrupted.
    """
    settings = evaluation.fine_tuning
    assert settings is not None
    with world.agreed():
        objective = _objective(candidate, seed, clips, frozen)
        folder = evaluation.output / "fine_tuning" / _name(objective, candidate, seed, clips, fold, evaluation)
    result = folder / RESULT
    if not world.broadcast(result.exists()):
        run = _run(objective, candidate, seed, clips, fold, evaluation, folder)
        data = candidate.data(evaluation.data, clips.label)
        looks = _looks(data, clips, fold, evaluation) if settings.looks else []
        # a bar on a terminal; hundreds of lines in a log help nobody
        summary = train(run, objective, quiet=not sys.stdout.isatty(), checks=looks)
        if summary.interrupted:
            raise interrupted("fine-tuning", summary.steps)
        keys, probability = _test(objective, data, clips, fold, evaluation.batch, world)
        with world.agreed():
            if world.first:
                _store(result, keys, probability)
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # some GB that nobody will read again
    found: FineTuned | None = None
    with world.agreed():
        if world.first:
            found = _read(folder, clips, settings.global_batch, len(fold.train))
    shared = world.broadcast(found)
    assert shared is not None
    return shared


def _read(folder: Path, clips: LabelledClips, batch: int, num_train: int) -> FineTuned:
    """A finished training, for the clips of the study."""
    try:
        with np.load(folder / RESULT, allow_pickle=False) as stored:
            keys, answers = stored["key"].tolist(), stored["probability"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ValueError(f"{folder / RESULT} is damaged ({error}); remove {folder} and run again") from None
    probability = np.full((len(clips), len(clips.classes)), np.nan)
    position = {key: i for i, key in enumerate(clips.key.tolist())}
    for key, answer in zip(keys, answers, strict=True):
        if key in position:
            probability[position[key]] = answer
    lines = read_lines(folder / "metrics.jsonl")
    epoch = batch / num_train  # of one step

    def curve(key: str) -> Curve:
        return tuple((epoch * line["step"], line[key]) for line in lines if line.get(key) is not None)

    training = curve("accuracy")
    to_90 = first_above(training, 0.9, window_of(num_train, batch))
    return FineTuned(probability, _thinned(training), curve(CURVE), to_90)


def window_of(num_train: int, batch: int) -> int:
    """Steps whose mean counts as the accuracy on the training clips: an epoch, and `CERTAIN` clips at least."""
    return math.ceil(max(num_train, CERTAIN) / batch)


def first_above(curve: Curve, accuracy: float, window: int) -> float | None:
    """The first epoch at which the mean of the last `window` points, one a step, reaches `accuracy`; None: never.

    One batch says little: of 16 clips, 15 are right now and then where 80 % are on average. A window holds an epoch.
    """
    values = np.array([value for _, value in curve])
    if len(values) < window:
        return None
    means = np.convolve(values, np.full(window, 1 / window), mode="valid")
    above = np.flatnonzero(means >= accuracy - 1e-9)
    return curve[int(above[0]) + window - 1][0] if len(above) else None


def _thinned(curve: Curve) -> Curve:
    """About so many points as a figure shows: means of neighbours."""
    parts = np.array_split(np.array(curve), min(LINES, len(curve))) if curve else []
    return tuple((float(epoch), float(value)) for epoch, value in (part.mean(axis=0) for part in parts))


def _objective(candidate: Candidate, seed: int, clips: LabelledClips, frozen: bool) -> Classifier:
    """The candidate's weights under a linear layer that `seed` draws: the same layer for every candidate."""
    config = ClassifierConfig(trunk=candidate.family, label=clips.label, classes=len(clips.classes), frozen=frozen)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        objective = config.build()
    objective.encoder().load_state_dict(candidate.encoder(seed).state_dict())
    return objective


def _looks(data: Data, clips: LabelledClips, fold: Fold, evaluation: ActionRecognition) -> list[Check]:
    """Accuracy on the test clips now and then, while training."""
    settings = evaluation.fine_tuning
    assert settings is not None
    position = {key: i for i, key in enumerate(clips.key.tolist())}

    def look(objective: Objective, world: World, touch: Callable[[], None] = lambda: None) -> dict[str, float]:
        assert isinstance(objective, Classifier)
        keys, probability = _test(objective, data, clips, fold, evaluation.batch, world, touch)
        target = clips.target[[position[key] for key in keys]]
        return {CURVE: float((probability.argmax(axis=1) == target).mean())}

    return [Check(max(1, settings.steps // settings.looks), look)]


def _run(
    objective: Classifier,
    candidate: Candidate,
    seed: int,
    clips: LabelledClips,
    fold: Fold,
    evaluation: ActionRecognition,
    folder: Path,
) -> Run:
    settings = evaluation.fine_tuning
    assert settings is not None
    return Run(
        run=RunFolder(folder=folder, seed=seed),
        objective=objective.config,
        data=_training_data(candidate, clips, fold, evaluation),
        optimizer=settings.optimizer,
        schedule=settings.schedule,
        training=Training(
            steps=settings.steps,
            global_batch=settings.global_batch,
            micro_batch=settings.micro_batch,
            engine="torch",
            precision=settings.precision,
            device=evaluation.device,
            log_every=1,
            picture_every=0,
            keep_checkpoints=1,
        ),
        tracking=Tracking(mlflow=False),
    )


def _training_data(candidate: Candidate, clips: LabelledClips, fold: Fold, evaluation: ActionRecognition) -> Data:
    settings = evaluation.fine_tuning
    assert settings is not None
    data = candidate.data(evaluation.data, clips.label)
    clip = data.clip.model_copy(update={"window": "random", "reverse": settings.reverse, "mirror": settings.mirror})
    return data.model_copy(update={"clip": ClipSpec(**clip.model_dump()), "filter": fold.filter(data.filter)})


def _name(
    objective: Classifier,
    candidate: Candidate,
    seed: int,
    clips: LabelledClips,
    fold: Fold,
    evaluation: ActionRecognition,
) -> str:
    """A folder of its own for everything that shapes the result: weights, data, settings, seed and what is tested."""
    data = _training_data(candidate, clips, fold, evaluation)
    settings: FineTuning | None = evaluation.fine_tuning
    assert settings is not None
    says = {
        "weights": weights_digest(objective),
        "objective": objective.config.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json", exclude={"modes", "folds"}),
        "data": digest(Index.open(data.path, data.snapshot), data.filter, data.clip),
        "decode": data.decode,
        "test": sorted(clips.key[fold.test].tolist()),
        "seed": seed,
    }
    told = hashlib.sha256(json.dumps(says, sort_keys=True).encode()).hexdigest()[:12]
    kind = ("frozen-" if objective.config.frozen else "") + ("random" if candidate.random else "pretrained")
    return f"{kind}-seed{seed}-{told}"


@torch.inference_mode()
def _test(
    objective: Classifier,
    data: Data,
    clips: LabelledClips,
    fold: Fold,
    batch: int,
    world: World,
    touch: Callable[[], None] = lambda: None,
) -> tuple[list[str], np.ndarray]:
    """(keys, probabilities) of the fold's test clips, on every rank; each rank answers for its share."""
    tested = data.model_copy(update={"filter": fold.test_filter(data.filter)})
    wanted = set(clips.key[fold.test].tolist())
    keys: list[str] = []
    rows: list[np.ndarray] = []
    read = shared_pass(tested, batch, world)
    with world.agreed():
        objective = objective.to(world.device).eval()
        for clip in read:
            touch()
            chosen = [i for i, key in enumerate(clip.key) if key in wanted]
            if chosen:
                probability = objective.logits(clip.video[chosen]).float().softmax(dim=1)
                rows.append(probability.cpu().numpy())
                keys.extend(clip.key[i] for i in chosen)
        if not rows:
            rows = [np.zeros((0, len(clips.classes)), dtype=np.float32)]
    shares = world.gather((keys, np.concatenate(rows)))
    return [key for share, _ in shares for key in share], np.concatenate([share for _, share in shares])


def _store(path: Path, keys: list[str], probability: np.ndarray) -> None:
    with atomic(path) as file:
        np.savez(file, key=np.array(keys), probability=probability)
