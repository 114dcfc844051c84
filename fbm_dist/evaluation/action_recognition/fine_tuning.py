"""Fine-tuning as in the FBM paper, section 5: encoder and a linear softmax layer, cross entropy, trained by THE trainer."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_tools.places import atomic
from fbm_dist.data.index.index import Index
from fbm_dist.data.index.selection import digest
from fbm_dist.data.loader import read_once
from fbm_dist.evaluation.candidates import Candidate
from fbm_dist.evaluation.clips import LabelledClips
from fbm_dist.evaluation.splits import Fold
from fbm_dist.objectives.classifier.config import ClassifierConfig
from fbm_dist.objectives.classifier.objective import Classifier
from fbm_dist.registry.folder import weights_digest
from fbm_dist.schema import ClipSpec, Data, Evaluation, FineTuning, Run, RunFolder, Tracking, Training
from fbm_dist.training.distributed import World
from fbm_dist.training.monitoring.metrics import read_lines
from fbm_dist.training.trainer import train

RESULT = "tested.npz"
LINES = 60  # about so many points make the curve
Curve = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class FineTuned:
    """One fine-tuned encoder.

    Attributes:
        probability: (n, classes) for every clip; rows of clips that were not tested are NaN.
        curve: (step, accuracy on the training batches) as logged.
        clips_seen: training clips in all, with repetition: the budget.
    """

    probability: np.ndarray
    curve: Curve
    clips_seen: int


def fine_tune(
    candidate: Candidate, seed: int, clips: LabelledClips, fold: Fold, evaluation: Evaluation, world: World
) -> FineTuned:
    """Train on the fold's training part, answer for its test part. Every rank calls it; all get the same.

    Training lies in evaluation.output/fine_tuning and goes on where it stopped; a finished one is read, not repeated.

    Raises:
        ValueError: the batch does not suit the number of processes, the run was interrupted.
    """
    settings = evaluation.fine_tuning
    assert settings is not None
    objective = _objective(candidate, seed, clips)
    folder = evaluation.output / "fine_tuning" / _name(objective, candidate, seed, clips, fold, evaluation)
    result = folder / RESULT
    if not world.broadcast(result.exists()):
        run = _run(objective, candidate, seed, clips, fold, evaluation, folder)
        summary = train(
            run, objective, quiet=not sys.stdout.isatty()
        )  # a bar on a terminal; hundreds of lines in a log help nobody
        if summary.interrupted:
            raise ValueError(
                f"fine-tuning was interrupted at step {summary.steps}; the same command goes on from there"
            )
        keys, probability = _test(
            objective, candidate.data(evaluation.data, clips.label), clips, fold, evaluation.batch, world
        )
        with world.agreed():
            if world.first:
                _store(result, keys, probability)
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # some GB that nobody will read again
    stored = np.load(result, allow_pickle=False)
    probability = np.full((len(clips), len(clips.classes)), np.nan)
    position = {key: i for i, key in enumerate(clips.key)}
    known = [(i, position[key]) for i, key in enumerate(stored["key"].tolist()) if key in position]
    for source, target in known:
        probability[target] = stored["probability"][source]
    lines = read_lines(folder / "metrics.jsonl")
    curve = tuple((line["step"], line["accuracy"]) for line in lines if line.get("accuracy") is not None)
    return FineTuned(probability, curve, settings.steps * settings.global_batch)


def steps_to(curve: Curve, accuracy: float) -> int | None:
    """The first logged step from which the mean of three neighbouring points reaches `accuracy`; None: never."""
    values = [value for _, value in curve]
    for i, (step, _) in enumerate(curve):
        near = values[max(0, i - 1) : i + 2]
        if sum(near) / len(near) >= accuracy:
            return step
    return None


def _objective(candidate: Candidate, seed: int, clips: LabelledClips) -> Classifier:
    """The candidate's weights under a linear layer that `seed` draws: the same layer for every candidate."""
    config = ClassifierConfig(trunk=candidate.family, label=clips.label, classes=len(clips.classes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        objective = config.build()
    objective.encoder().load_state_dict(candidate.encoder(seed).state_dict())
    return objective


def _run(
    objective: Classifier,
    candidate: Candidate,
    seed: int,
    clips: LabelledClips,
    fold: Fold,
    evaluation: Evaluation,
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
            log_every=max(1, settings.steps // LINES),
            picture_every=0,
            keep_checkpoints=1,
        ),
        tracking=Tracking(mlflow=False),
    )


def _training_data(candidate: Candidate, clips: LabelledClips, fold: Fold, evaluation: Evaluation) -> Data:
    settings = evaluation.fine_tuning
    assert settings is not None
    data = candidate.data(evaluation.data, clips.label)
    clip = data.clip.model_copy(update={"window": "random", "reverse": settings.reverse, "mirror": settings.mirror})
    return data.model_copy(update={"clip": ClipSpec(**clip.model_dump()), "filter": fold.filter(data.filter)})


def _name(
    objective: Classifier, candidate: Candidate, seed: int, clips: LabelledClips, fold: Fold, evaluation: Evaluation
) -> str:
    """A folder of its own for everything that shapes the result: weights, data, settings, seed and what is tested."""
    data = _training_data(candidate, clips, fold, evaluation)
    settings: FineTuning | None = evaluation.fine_tuning
    assert settings is not None
    says = {
        "weights": weights_digest(objective),
        "objective": objective.config.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json"),
        "data": digest(Index.open(data.path, data.snapshot), data.filter, data.clip),
        "decode": data.decode,
        "test": sorted(clips.key[fold.test].tolist()),
        "seed": seed,
    }
    told = hashlib.sha256(json.dumps(says, sort_keys=True).encode()).hexdigest()[:12]
    kind = "random" if candidate.random else "pretrained"
    return f"{kind}-seed{seed}-{told}"


@torch.inference_mode()
def _test(
    objective: Classifier, data: Data, clips: LabelledClips, fold: Fold, batch: int, world: World
) -> tuple[list[str], np.ndarray]:
    """(keys, probabilities) of the fold's test clips, on every rank; each rank answers for its share."""
    wanted = set(clips.key[fold.test].tolist())
    keys: list[str] = []
    rows: list[np.ndarray] = []
    with world.agreed():
        objective = objective.to(world.device).eval()
        for clip in read_once(data, batch=batch, rank=world.rank, world_size=world.size, device=world.device):
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
