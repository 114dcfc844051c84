"""pretrain and evaluate: the two functions that every caller enters by, shell and sweep alike."""

from __future__ import annotations

import dataclasses
import json
import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_tools.places import Place, is_local
from fbm_dist.data.provenance import films_of
from fbm_dist.objectives.classifier.config import ClassifierConfig
from fbm_dist.objectives.objective import Objective
from fbm_dist.record import RunRecord, code_version, run_name, write_json
from fbm_dist.schema import Run
from fbm_dist.training.checkpoints.identity import differences
from fbm_dist.training.checkpoints.mirror import Mirror
from fbm_dist.training.distributed import World, seed_everything, start
from fbm_dist.training.faults.preflight import preflight
from fbm_dist.training.faults.stop import StopRequest, listening
from fbm_dist.training.faults.watchdog import Watchdog
from fbm_dist.training.initialization import initialize
from fbm_dist.training.monitoring.probe import check_probe, probe_check
from fbm_dist.training.monitoring.tracking import unsent
from fbm_dist.training.monitoring.validation import check_validation, training_filter, validation_check
from fbm_dist.training.session import Check
from fbm_dist.training.trainer import Report, Summary, train

if TYPE_CHECKING:
    from fbm_dist.evaluation.config import Evaluation
    from fbm_dist.evaluation.report.results import Results

FINISHED = "finished.json"


def pretrain(run: Run, report: Report = lambda metrics: None, request: StopRequest | None = None) -> Summary:
    """Train `run`'s objective, keep its encoder in the run folder, and register it if the config says so.

    Every process of a distributed run calls it. The same call again goes on where the run stopped; a finished run returns at once.

    Args:
        report: called on rank 0 with every logged line.
        request: listens for what stops a run; default: one that listens from now on.
    Raises:
        ValueError: what the user can mend, in one line, on every rank.
    """
    with listening(run.training.hang_timeout) if request is None else nullcontext(request) as stop:
        return _pretrain(absolute(run), report, stop)


def _pretrain(run: Run, report: Report, request: StopRequest) -> Summary:
    world = start(run.training)
    with Watchdog(world, run.training.hang_timeout) as watchdog:
        only = run.training.preflight == "only"
        with world.agreed():
            run.objective.check_clip(run.data.clip)
            check_folder(run)
            finished = read_finished(run) if world.first and not only else None
        summary = world.broadcast(finished)
        if summary is not None:
            return _already(run, world, summary)
        seed_everything(run.run.seed)  # the same first weights on every rank
        with world.agreed():
            objective = run.objective.build()
            check_validation(run, objective.players)
            check_probe(run)
            checks = checks_of(run)
        watchdog.beat(0, "preflight")
        looked = preflight(run, world, objective)
        if only:
            return Summary(run.run.folder, 0, 0, 0.0, 0, {}, interrupted=False, data_digest="")
        with world.agreed():
            record = RunRecord(run, world, looked) if world.first else None
            copies = mirror_of(run, world)
        run = run.model_copy(update={"data": training_filter(run.data, run.validation)})
        settings: dict[str, Any] = {"checks": checks, "copies": copies, "request": request, "watchdog": watchdog}
        status = "FAILED"
        try:
            begin = partial(begin_from, run, world, record)
            summary = train(run, objective, report, record=record, begin=begin, **settings)
            status = "KILLED" if summary.interrupted else "FINISHED"
        finally:
            if record:
                record.close(status)
        watchdog.beat(summary.steps, "register")
        with watchdog.paused():  # a server has all the time that it wants
            return _end(run, world, objective, summary, record)


def _end(run: Run, world: World, objective: Objective, summary: Summary, record: RunRecord | None) -> Summary:
    """Say how it ended, and keep the encoder of a run that has come to its end."""
    if summary.interrupted:
        world.barrier()  # rank 0 has told the server by now; a launcher ends it soon after the first rank has left
        world.say(f"stopped by a signal after step {summary.steps}; the same command goes on from there")
        return summary
    if summary.stopped_early:
        world.say(f"stopped early after step {summary.steps}: validation was best at step {summary.best_step}")
    with world.agreed():
        if world.first:
            summary = keep(run, objective, summary, record.tracker.run_id if record and record.tracker else None)
    return world.broadcast(summary)


def check_folder(run: Run) -> None:
    """The run folder is one, or can be made.

    Raises:
        ValueError: saying why not.
    """
    folder = run.run.folder
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"run.folder={folder}: {there} is a file; give another folder")
    if not os.access(there, os.W_OK):
        raise ValueError(f"run.folder={folder}: {there} cannot be written to; give another folder")


def checks_of(run: Run) -> list[Check]:
    """What is looked at while training."""
    found = [validation_check(run)] if run.validation else []
    return found + ([probe_check(run)] if run.probe else [])


def mirror_of(run: Run, world: World) -> Mirror | None:
    """Where checkpoints go beside the run folder; rank 0 sends and fetches.

    Raises:
        ValueError: it cannot be written.
    """
    url = run.training.checkpoint_mirror
    if not url or not world.first:
        return None
    mirror = Mirror(url, run.training.keep_checkpoints)
    mirror.check()
    return mirror


def begin_from(run: Run, world: World, record: RunRecord | None, objective: Objective) -> None:
    """Earlier weights for a run that begins; what they are goes into version.json."""
    if run.initial is None:
        return
    from fbm_dist.registry import fetched

    loaded = initialize(objective, run.initial, world, partial(fetched, tracking_uri=run.tracking.uri))
    if record:
        record.begun_from = loaded.facts()


def evaluate(evaluation: Evaluation) -> Results:
    """How good the encoder is (fbm_dist/evaluation)."""
    from fbm_dist import evaluation as protocols

    return protocols.evaluate(evaluation, pretrain)


def absolute(run: Run) -> Run:
    """The same run whatever the working folder is: a sweep's trials run in folders of their own."""
    from fbm_dist.registry.client import tracking_address

    folder = run.run.model_copy(update={"folder": run.run.folder.absolute()})
    mix = tuple(portion.model_copy(update={"path": _absolute(portion.path)}) for portion in run.data.mix)
    data = run.data.model_copy(update={"path": _absolute(run.data.path), "mix": mix})
    tracking = run.tracking
    if tracking.mlflow or tracking.register_as:
        tracking = tracking.model_copy(update={"uri": tracking_address(tracking.uri)})
    found = {"run": folder, "data": data, "tracking": tracking}
    initial = run.initial
    if initial and not initial.source.startswith(("models:/", "runs:/")):
        found["init_from"] = initial.model_copy(update={"source": str(Path(initial.source).absolute())})
    if run.probe and run.probe.path:
        found["probe"] = run.probe.model_copy(update={"path": _absolute(run.probe.path)})
    return run.model_copy(update=found)


def _absolute(there: Place) -> Place:
    return there.absolute() if is_local(there) else there


def keep(run: Run, objective: Objective, summary: Summary, tracking_run: str | None) -> Summary:
    """Write RUN/encoder, register it, and mark the run finished. On rank 0."""
    from fbm_dist.registry import register, save_encoder

    folder = run.run.folder / "encoder"
    info = {
        "run": run_name(run),
        "tracking_run": tracking_run,
        "data_digest": summary.data_digest,
        "data": run.data.model_dump(mode="json"),  # an evaluation asks it which films were seen
        "films": films_of(run.data),
        "code": code_version(),
        "init_from": run.initial.source if run.initial else None,
        "labels": run.objective.label if isinstance(run.objective, ClassifierConfig) else None,  # that were learnt
        "steps": summary.steps,
        "clips": summary.clips,
        "metrics": summary.metrics,
    }
    family = run.objective.trunk if isinstance(run.objective, ClassifierConfig) else run.objective
    save_encoder(objective.encoder(), family, run.data.clip, folder, info)
    print(f"encoder: {folder}", flush=True)
    uri = None
    name = run.tracking.register_as
    if name:
        try:
            version = register(
                name,
                folder,
                tracking_uri=run.tracking.uri,
                run_id=tracking_run,
                metrics={key: summary.metrics[key] for key in summary.metrics if "loss" in key},
                tags={"run": run_name(run), "data.digest": summary.data_digest},
            )
        except ValueError as error:
            raise ValueError(f"{error}; the encoder is in {folder}, the same command again registers it") from error
        uri = f"models:/{name}/{version}"
        print(f"registered: {uri}", flush=True)
    summary = dataclasses.replace(summary, encoder=folder, model_uri=uri, tracking_run=tracking_run)
    found = {"objective": run.objective.model_dump(mode="json"), "length": length_of(run), "register_as": name}
    write_json(run.run.folder / FINISHED, {**found, "summary": dataclasses.asdict(summary)})
    return summary


def read_finished(run: Run) -> Summary | None:
    """The summary of this very run, if it has come to its end before.

    Raises:
        ValueError: the folder holds a finished run of another objective.
    """
    path = run.run.folder / FINISHED
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); remove it, and the run goes on from its checkpoint") from None
    for key, old, new in differences(found["objective"], run.objective.model_dump(mode="json"), "objective"):
        raise ValueError(
            f"{run.run.folder} holds a finished run with {key}={old!r}, not {new!r}; give another run.folder"
        )
    if found["length"] != length_of(run) or found["register_as"] != run.tracking.register_as:
        return None  # longer, or to be registered: the trainer goes on from the last checkpoint
    values = found["summary"]
    paths = {key: Path(values[key]) if values[key] else None for key in ("folder", "encoder")}
    return Summary(**{**values, **paths, "pictures": tuple(Path(p) for p in values["pictures"])})


def length_of(run: Run) -> dict[str, Any]:
    """What decides when a run is at its end, and which weights it keeps."""
    training, validation = run.training, run.validation
    length: dict[str, Any] = {"steps": training.steps, "epochs": training.epochs}
    if validation:
        length |= {"patience": validation.patience, "keep": validation.keep}
    return length


def _already(run: Run, world: World, summary: Summary) -> Summary:
    """A finished run again: say so, and send what MLflow has not got."""
    world.say(f"{run.run.folder}: finished after {summary.steps} steps; nothing to do (another run.folder starts anew)")
    with world.agreed():
        if world.first and run.tracking.mlflow and unsent(run.run.folder):
            record = RunRecord(run, world)
            record.follow()
            record.close("FINISHED")
    world.say(f"encoder: {summary.encoder}" + (f"\nregistered: {summary.model_uri}" if summary.model_uri else ""))
    return summary
