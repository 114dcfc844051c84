"""The loop: every player in its turn minimises its loss; logs, pictures, checkpoints and resume around it. Knows no model."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fbm_dist.clip import Clip
from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Data, Run
from fbm_dist.training.checkpoint import Checkpoints, identity, refuse_changes
from fbm_dist.training.distributed import World, seed_everything, start
from fbm_dist.training.engines import Engine, accumulation_steps, build_engine, gather_weights
from fbm_dist.training.metrics import NAME, MetricsFile, merge, read_lines
from fbm_dist.training.pictures import NUM_CLIPS, latest_pictures, save_pictures
from fbm_dist.training.progress import Console
from fbm_dist.training.schedules import learning_rate
from fbm_dist.training.session import Position, Record, Report, Stream, Summary, Window
from fbm_dist.training.signals import StopVote
from fbm_dist.training.state import restore, writers
from fbm_dist.training.turn import check_players, turn

MAX_SKIPPED_IN_A_ROW = 20  # so many non-finite gradients one after the other are no accident


def train(
    run: Run,
    objective: Objective,
    report: Report = lambda metrics: None,
    *,
    record: Record | None = None,
    open_stream: Callable[..., Stream] | None = None,
    picture_clip: Callable[[Data, torch.device], Clip] | None = None,
    quiet: bool = False,
) -> Summary:
    """Minimise `objective` as `run` says, from the newest checkpoint in the run folder or from the start.

    Every process of the world calls it. Afterwards `objective` holds the full weights on every rank, with BatchNorm statistics
    averaged over the ranks, in train mode, on the run's device.

    Args:
        report: called on rank 0 with every logged line (a sweep's scheduler); may raise to end the run.
        record: follows the run on rank 0.
        open_stream: opens the data; default: `fbm_dist.data.loader.Loader`. Same arguments.
        picture_clip: the clips that pictures show; default: the first of the data set.
        quiet: no progress on the console.
    Raises:
        ValueError: data, config or checkpoint cannot be used; the same error on every rank.
    """
    world = start(run.training)
    with world.agreed():
        check_players(objective)
        accumulation_steps(run.training, world.size)
    trainer = Trainer(run, objective, world, open_stream or _open_loader, picture_clip or _first_clips, quiet)
    try:
        with world.agreed():
            trainer.told = record if world.first else None
            if trainer.told:
                trainer.told.opened(trainer.facts())
        return trainer.go(report)
    finally:
        trainer.close()


class Trainer:
    """One session of a run: built (and resumed) by the constructor, run by `go`."""

    def __init__(
        self,
        run: Run,
        objective: Objective,
        world: World,
        open_stream: Callable[..., Stream],
        picture_clip: Callable[[Data, torch.device], Clip],
        quiet: bool,
    ) -> None:
        self.run, self.world, self.objective, self.quiet = run, world, objective, quiet
        self.told: Record | None = None
        self.folder = run.run.folder
        self.picture_clip = picture_clip
        self.shown: Clip | None = None
        self.metrics: dict[str, float] = {}
        self.accumulation = accumulation_steps(run.training, world.size)
        self.checkpoints = Checkpoints(self.folder / "checkpoints", run.training.keep_checkpoints, world)
        found = self.checkpoints.newest()
        self.position = Position(**found[1]["position"]) if found else Position()
        if found:
            with world.agreed():
                refuse_changes(found[1], run, world)
        with world.agreed():
            self.stream = open_stream(
                run.data,
                seed=run.run.seed,
                global_batch=run.training.global_batch,
                micro_batch=run.training.micro_batch,
                rank=world.rank,
                world_size=world.size,
                device=world.device,
                consumed=self.consumed,
            )
        try:
            self._build(found)
        except BaseException:
            self.stream.close()
            raise

    def _build(self, found: tuple[Path, dict[str, Any]] | None) -> None:
        run, world = self.run, self.world
        with world.agreed():
            if found:
                state = self.stream.state(self.consumed)
                type(state)(**found[1]["loader"]).check(state)
        self.total = run.training.steps or math.ceil((run.training.epochs or 0) * self.stream.num_clips / self.batch)
        seed_everything(run.run.seed + 1_000_003 * world.rank)
        # Engines reshape what they train (flat buffers, ZeRO-3's partitions, hooks): they get a copy, the caller's module stays whole.
        self.working = copy.deepcopy(self.objective).to(world.device).train()
        self.engines: dict[str, Engine] = {
            player: build_engine(run, self.working, player, world) for player in self.working.players
        }
        if found:
            with world.agreed():
                restore(found[0], self.engines, self.working, world)
            world.say(f"{self.folder}: goes on from step {self.position.step} of {self.total}")

    def close(self) -> None:
        """End reader processes and engines."""
        self.stream.close()
        for engine in self.engines.values():
            engine.close()

    @property
    def batch(self) -> int:
        """Clips per optimizer step over all ranks."""
        return self.run.training.global_batch

    @property
    def consumed(self) -> int:
        """Clips taken from the stream by the steps that are done."""
        return self.position.step * self.batch

    def facts(self) -> dict[str, str]:
        """What is known about the data and the world, for the record."""
        stream = self.stream
        return {
            "data.digest": stream.digest,
            "data.decoder": stream.decoder,
            "data.num_clips": str(stream.num_clips),
            "world_size": str(self.world.size),
            "device": str(self.world.device),
            "total_steps": str(self.total),
        }

    def go(self, report: Report) -> Summary:
        """Train to the end, or to a signal."""
        position, world = self.position, self.world
        lines = MetricsFile(self.folder, position.step) if world.first else None
        logged = read_lines(self.folder / NAME)[-1:] if world.first else []
        self.metrics = {k: v for line in logged for k, v in line.items() if k not in ("step", "time") and v is not None}
        if lines and lines.dropped:
            world.say(f"{lines.dropped} logged steps after the checkpoint are done again")
        interrupted = False
        console = Console(self.total, position.step, shown=world.first and not self.quiet)
        try:
            with StopVote(world) as vote, console:
                interrupted = self._loop(vote, console, lines, report)
        finally:
            if lines:
                lines.close()
        gather_weights(self.objective, self.working, self.engines, world)
        self.objective.to(world.device)
        clips = self.consumed
        return Summary(
            folder=self.folder,
            steps=position.step,
            clips=clips,
            seconds=position.seconds,
            skipped=position.skipped,
            metrics=self.metrics,
            interrupted=interrupted,
            data_digest=self.stream.digest,
            pictures=latest_pictures(self.folder),
        )

    def _loop(self, vote: StopVote, console: Console, lines: MetricsFile | None, report: Report) -> bool:
        """Returns whether a signal ended it."""
        training, position = self.run.training, self.position
        batches = iter(self.stream) if position.step < self.total else iter(())
        window = Window()
        while position.step < self.total:
            clips = window.fetch(batches, self.accumulation)
            last = position.step + 1 == self.total
            logged = last or position.step == 0 or (position.step + 1) % training.log_every == 0
            found = self._step(clips, logged)
            position.step += 1
            console.advance(position.step)
            if logged:
                self._log(window, found, console, lines, report)
            if training.picture_every and (last or position.step % training.picture_every == 0):
                self._picture()
            stop = vote.cast()
            if stop or last or position.step % training.checkpoint_every == 0:
                position.seconds += window.lap()
                self._save()
            if stop and not last:
                return True
        return False

    def _step(self, clips: list[Clip], logged: bool) -> dict[str, float]:
        """One optimizer step of every player on the same clips; its loss terms on this rank where it is `logged`."""
        run, position = self.run, self.position
        rate = learning_rate(run.schedule, run.optimizer.lr, position.step, self.total)
        rows: list[dict[str, float]] = []
        figures: dict[str, float] = {}
        applied = True
        for player, engine in self.engines.items():
            prefix = f"{player}/" if len(self.engines) > 1 else ""
            with turn(self.working, player):
                for clip in clips:
                    total, terms = engine.forward(clip)
                    engine.backward(total)
                    if logged:
                        terms = {"loss": total.detach(), **terms}
                        rows.append({prefix + name: float(value) for name, value in terms.items()})
                step = engine.step(rate)
            figures[f"{prefix}grad_norm"] = step.norm
            applied = applied and step.applied
        self._count(applied)
        return {**merge(rows), **figures, "lr": rate}

    def _count(self, applied: bool) -> None:
        """The engines decided alike on all ranks; count, and end a run that has gone wrong for good."""
        position = self.position
        position.skipped_in_a_row = 0 if applied else position.skipped_in_a_row + 1
        if applied:
            return
        position.skipped += 1
        self.world.say(f"step {position.step + 1}: gradient not finite, update skipped ({position.skipped} so far)")
        if position.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            error = ValueError(
                f"{MAX_SKIPPED_IN_A_ROW} steps in a row had gradients that are not finite; the weights are those of step "
                f"{position.step + 1 - MAX_SKIPPED_IN_A_ROW}; lower optimizer.lr, or set training.gradient_clipping or "
                "training.precision=fp32"
            )
            error.agreed = True  # type: ignore[attr-defined]
            raise error

    def _log(
        self, window: Window, found: dict[str, float], console: Console, lines: MetricsFile | None, report: Report
    ) -> None:
        """metrics.jsonl first, then the record, the console and the sweep."""
        position = self.position
        waited, seconds, steps = window.figures()
        local = {**found, "data_wait": waited / max(seconds, 1e-9)}
        rows = self.world.gather((local, self.stream.undecodable))
        if not self.world.first or lines is None:
            return
        self.metrics = {
            **merge(row for row, _ in rows),
            "clips_per_second": self.batch * steps / max(seconds, 1e-9),
            "epoch": self.consumed / self.stream.num_clips,
            "seconds": position.seconds + window.elapsed(),
            "skipped": float(position.skipped),
            "undecodable": float(sum(count for _, count in rows)),
        }
        lines.write(position.step, self.metrics)
        if self.told:
            self.told.wake()
        console.show(position.step, self.metrics)
        report({"step": float(position.step), **self.metrics})

    def _picture(self) -> None:
        """Rank 0 draws with the gathered weights; the others help gathering and learn whether it failed."""
        gather_weights(self.objective, self.working, self.engines, self.world)
        with self.world.agreed():
            if not self.world.first:
                return
            self.objective.to(self.world.device)
            if self.shown is None:
                self.shown = self.picture_clip(self.run.data, self.world.device)
            save_pictures(self.objective, self.shown, self.folder, self.position.step)
            if self.told:
                self.told.wake()

    def _save(self) -> None:
        gather_weights(self.objective, self.working, self.engines, self.world)
        manifest = {
            "position": asdict(self.position),
            "loader": self.stream.state(self.consumed).model_dump(mode="json"),
            **identity(self.run, self.world),
        }
        parts = writers(self.engines, self.working, self.objective, self.world)
        self.checkpoints.save(self.position.step, manifest, parts)


def _open_loader(data: Data, **arguments: Any) -> Stream:
    from fbm_dist.data.loader import Loader

    return Loader(data, **arguments)


def _first_clips(data: Data, device: torch.device) -> Clip:
    """The data set's first clips, without augmentation: the same in every session."""
    from fbm_dist.data.loader import read_once

    clips = read_once(data, batch=NUM_CLIPS, device=device)
    try:
        return next(iter(clips))
    finally:
        close = getattr(clips, "close", None)
        if close:
            close()
