"""The loop: every player in its turn minimises its loss; logs, pictures, checks, checkpoints and resume around it. Knows no model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from fbm_dist.clip import Clip
from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Data, Run
from fbm_dist.training.checkpoints.folder import Copies
from fbm_dist.training.checkpoints.keeper import Keeper
from fbm_dist.training.distributed import World, seed_everything, start
from fbm_dist.training.engines.engine import accumulation_steps, check_engine
from fbm_dist.training.engines.turn import check_players
from fbm_dist.training.faults.stop import StopRequest, listening
from fbm_dist.training.faults.vote import StopVote
from fbm_dist.training.faults.watchdog import Watchdog
from fbm_dist.training.game import Game
from fbm_dist.training.monitoring.metrics import NAME, MetricsFile, read_lines
from fbm_dist.training.monitoring.pictures import NUM_CLIPS, latest_pictures, save_pictures
from fbm_dist.training.monitoring.progress import Console
from fbm_dist.training.monitoring.system import SystemMetrics, over_ranks
from fbm_dist.training.optimization.optimizers import check_settings
from fbm_dist.training.session import Check, Record, Report, Stream, Summary, Window


def train(
    run: Run,
    objective: Objective,
    report: Report = lambda metrics: None,
    *,
    record: Record | None = None,
    open_stream: Callable[..., Stream] | None = None,
    picture_clip: Callable[[Data, torch.device], Clip] | None = None,
    begin: Callable[[Objective], None] = lambda objective: None,
    checks: Sequence[Check] = (),
    copies: Copies | None = None,
    request: StopRequest | None = None,
    watchdog: Watchdog | None = None,
    quiet: bool = False,
) -> Summary:
    """Minimise `objective` as `run` says, from the newest checkpoint in the run folder or from the start.

    Every process of the world calls it. Afterwards `objective` holds the full weights to be kept (the last, their average, or the best
    by validation, as the run says) on every rank, with BatchNorm statistics averaged over the ranks, in train mode, on the run's device.

    Args:
        report: called on rank 0 with every logged line (a sweep's scheduler); may raise to end the run.
        record: follows the run on rank 0.
        open_stream: opens the data; default: `fbm_dist.data.loader.Loader`. Same arguments.
        picture_clip: the clips that pictures show; default: the first of the data set.
        begin: called on every rank with the objective before a run that has no checkpoint yet, e.g. to load earlier weights.
        checks: looked at while training; early stopping goes by their figures.
        copies: where checkpoints go beside the run folder.
        request: listens for the signals that stop a run; default: one that listens from now on.
        watchdog: an open one, which watches more than the training; default: one of its own.
        quiet: no progress on the console.
    Raises:
        ValueError: data, config or checkpoint cannot be used; the same error on every rank.
    """
    world = start(run.training)
    with world.agreed():
        check_players(objective)
        check_settings(run, objective)
        check_engine(run.training, world.size)
    watch = Watchdog(world, run.training.hang_timeout) if watchdog is None else nullcontext(watchdog)
    listen = listening(run.training.hang_timeout) if request is None else nullcontext(request)
    with watch as watching, listen as stop:
        watching.beat(0, "open")
        trainer = Trainer(run, objective, world, watching, checks, open_stream or _open_loader, copies)
        try:
            trainer.build(begin)
            with world.agreed(), watching.paused():
                if world.first and record:
                    trainer.told = record
                    record.opened(trainer.facts())
            trainer.picture_clip = picture_clip or _first_clips
            return trainer.go(report, stop, quiet)
        finally:
            trainer.close()


class Trainer:
    """One session of a run: built (and resumed) by the constructor, run by `go`."""

    def __init__(
        self,
        run: Run,
        objective: Objective,
        world: World,
        watchdog: Watchdog,
        checks: Sequence[Check],
        open_stream: Callable[..., Stream],
        copies: Copies | None,
    ) -> None:
        self.run, self.world, self.objective, self.watchdog = run, world, objective, watchdog
        self.checks = tuple(checks)
        self.told: Record | None = None
        self.picture_clip: Callable[[Data, torch.device], Clip] = _first_clips
        self.folder = run.run.folder
        self.shown: Clip | None = None
        self.game: Game | None = None
        self.metrics: dict[str, float] = {}
        self.system = SystemMetrics(world.device)
        self.keeper = Keeper(run, world, objective.players, copies)
        self.position = self.keeper.position
        with world.agreed():
            self.stream = open_stream(
                run.data,
                seed=run.run.seed,
                global_batch=run.training.global_batch,
                micro_batch=run.training.micro_batch,
                rank=world.rank,
                world_size=world.size,
                ranks_here=world.local_size,
                device=world.device,
                consumed=self.consumed,
            )
        with world.agreed():
            self.stream.agree(world.gather, self.keeper.decoder)
        self.total = run.training.steps or math.ceil((run.training.epochs or 0) * self.stream.num_clips / self.batch)

    def build(self, begin: Callable[[Objective], None]) -> None:
        """Engines around the objective, as it begins or as the checkpoint has it.

        Raises:
            ValueError: the checkpoint's data are others.
        """
        run, world = self.run, self.world
        self.keeper.check_data(self.stream, self.consumed)
        self.watchdog.beat(0, "build")
        seed_everything(run.run.seed + 1_000_003 * world.rank)
        if self.keeper.found:
            self.keeper.prepare(self.objective)
        else:
            begin(self.objective)
        self.game = Game(run, self.objective, world)
        self.watchdog.beat(0, "resume")
        self.keeper.resume(self.game, self.total)

    def close(self) -> None:
        """End reader processes, writing threads and engines."""
        self.stream.close()
        self.keeper.close()
        if self.game:
            self.game.close()

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

    def go(self, report: Report, request: StopRequest, quiet: bool) -> Summary:
        """Train to the end, to a signal, or until validation has not improved for long."""
        position, world, game = self.position, self.world, self.game
        assert game is not None, "build comes first"
        lines: MetricsFile | None = None
        with world.agreed():
            if world.first:
                lines = MetricsFile(self.folder, position.step)
        logged = read_lines(self.folder / NAME)[-1:] if world.first else []
        self.metrics = {k: v for line in logged for k, v in line.items() if k not in ("step", "time") and v is not None}
        if lines and lines.dropped:
            world.say(f"{lines.dropped} logged steps after the checkpoint are done again")
        interrupted = False
        console = Console(self.total, position.step, shown=world.first and not quiet)
        try:
            with console:
                interrupted = self._loop(game, StopVote(world, request), console, lines, report)
        finally:
            if lines:
                lines.close()
        self.watchdog.beat(position.step, "end")
        game.gather(position.step)
        if self._over:
            self.keeper.take_best(self.objective)
        self.keeper.close()  # rank 0 may still send to the mirror: a launcher ends it soon after the first rank has left
        self.watchdog.beat(position.step, "mirror")
        world.barrier()
        return Summary(
            folder=self.folder,
            steps=position.step,
            clips=self.consumed,
            seconds=position.seconds,
            skipped=position.skipped,
            metrics=self.metrics,
            interrupted=interrupted,
            data_digest=self.stream.digest,
            pictures=latest_pictures(self.folder),
            stopped_early=self._over and position.step < self.total,
            best_step=position.best_step,
        )

    @property
    def _over(self) -> bool:
        return self.position.step >= self.total or self.keeper.stopped_early

    def _loop(self, game: Game, vote: StopVote, console: Console, lines: MetricsFile | None, report: Report) -> bool:
        """Returns whether a signal ended it."""
        training, position = self.run.training, self.position
        accumulation = accumulation_steps(training, self.world.size)
        batches: Iterator[Clip] = iter(()) if self._over else iter(self.stream)
        window = Window()
        while not self._over:
            step = position.step + 1
            due = [check for check in self.checks if step % check.every == 0 or step in (1, self.total)]
            logged = bool(due) or step in (1, self.total) or step % training.log_every == 0

            def beat(phase: str, step: int = step) -> None:
                self.watchdog.beat(step, phase)

            beat("data")
            clips = window.fetch(batches, accumulation)
            outcome = game.step(clips, position.step, self.total, logged, beat)
            position.step = step
            self.keeper.count(outcome, game)
            console.advance(step)
            beat("checks")
            improved = self._look(game, due, outcome.figures)
            if logged:
                self._log(window, outcome.figures, console, lines, report)
            last = self._over
            if training.picture_every and (last or step % training.picture_every == 0):
                beat("picture")
                self._picture(game)
            beat("vote")
            stop, signals = vote.cast(self.keeper.checkpoints.signals())
            with window.stalling():
                beat("checkpoint")
                if signals:
                    self.keeper.checkpoints.heed(signals)
                if stop or last or improved or self.keeper.due():
                    position.seconds += window.lap()
                    self.keeper.save(game, self.stream, last=stop or last)
            if stop and not last:
                return True
        return False

    def _look(self, game: Game, due: list[Check], figures: dict[str, float]) -> bool:
        """Look at what is due, for the log; returns whether validation has found the best weights so far."""
        if not due:
            return False
        whole = game.gather(self.position.step).eval()
        try:
            with torch.no_grad():
                for check in due:
                    figures |= check.look(whole, self.world, self.watchdog.touch)
        finally:
            whole.train()
        return self.keeper.judge(figures)

    def _log(
        self, window: Window, found: dict[str, float], console: Console, lines: MetricsFile | None, report: Report
    ) -> None:
        """metrics.jsonl first, then the record, the console and the sweep."""
        times = window.figures()
        local = {**found, "data_wait": times["waited"] / times["seconds"], "checkpoint_stall": times["stalled"]}
        rows = self.world.gather(({**local, **self.system.figures()}, self.stream.undecodable))
        with self.world.agreed():  # a report may raise
            if self.world.first and lines:
                self._tell(rows, times, console, lines, report)

    def _tell(
        self,
        rows: list[tuple[dict[str, float], int]],
        times: dict[str, float],
        console: Console,
        lines: MetricsFile,
        report: Report,
    ) -> None:
        position = self.position
        self.metrics = {
            **over_ranks(row for row, _ in rows),
            "clips_per_second": self.batch * times["steps"] / times["seconds"],
            "epoch": self.consumed / self.stream.num_clips,
            "seconds": position.seconds + times["session"],
            "skipped": float(position.skipped),
            "undecodable": float(sum(count for _, count in rows)),
        }
        failed = lines.write(position.step, self.metrics)
        if failed:
            self.world.say(f"step {position.step} waits to be written to {lines.path}: {failed}")
        if self.told:
            self.told.wake()
        console.show(position.step, self.metrics)
        report({"step": float(position.step), **self.metrics})

    def _picture(self, game: Game) -> None:
        """Rank 0 draws with the gathered weights; the others help gathering and learn whether it failed."""
        whole = game.gather(self.position.step)
        with self.world.agreed():
            if not self.world.first:
                return
            if self.shown is None:
                self.shown = self.picture_clip(self.run.data, self.world.device)
            try:
                save_pictures(whole, self.shown, self.folder, self.position.step)
            except OSError as error:  # a full disk ends no run
                self.world.say(f"the pictures of step {self.position.step} could not be written: {error}")
            if self.told:
                self.told.wake()


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
