"""Keeper: what a run keeps so that it can go on: it saves, resumes, rolls back, and finds the best weights again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Run
from fbm_dist.training.checkpoints.folder import Checkpoints, Copies
from fbm_dist.training.checkpoints.identity import changes, identity, refuse_changes
from fbm_dist.training.checkpoints.parts import AVERAGE, WEIGHTS
from fbm_dist.training.distributed import World
from fbm_dist.training.faults.guard import Recovery
from fbm_dist.training.game import Game, Outcome
from fbm_dist.training.monitoring.validation import EarlyStopping
from fbm_dist.training.session import Position, Stream


class Keeper:
    """The part of a run's state that moves, and its checkpoints."""

    def __init__(self, run: Run, world: World, players: Sequence[str], copies: Copies | None = None) -> None:
        """Find the newest checkpoint of the run folder (or of the mirror, through `copies`), and take the position from it.

        Raises:
            ValueError: it belongs to another run.
        """
        training = run.training
        self.run, self.world, self.players = run, world, tuple(players)
        self.recovery = Recovery(training.guard)
        self.stopping = EarlyStopping(run.validation) if run.validation else None
        self.checkpoints = Checkpoints(
            run.run.folder / "checkpoints",
            training.keep_checkpoints,
            world,
            background=training.async_checkpoints,
            copies=copies,
        )
        self._waiting = False  # a checkpoint is due
        found = self.checkpoints.open()
        self.found = found  # (folder, manifest) that this session goes on from
        self.position = Position(**found[1]["position"]) if found else Position()
        if found:
            with world.agreed():
                refuse_changes(found[1], run, self.players)

    @property
    def decoder(self) -> str | None:
        """What decoded the clips so far; None for a run that begins."""
        return self.found[1]["loader"]["decoder"] if self.found else None

    def check_data(self, stream: Stream, consumed: int) -> None:
        """The stream must give what the checkpoint's run would have read next.

        Raises:
            ValueError: naming what differs.
        """
        with self.world.agreed():
            if self.found:
                state = stream.state(consumed)
                type(state)(**self.found[1]["loader"]).check(state)

    def prepare(self, objective: Objective) -> None:
        """Put the checkpoint's weights into a freshly built objective: those that are not trained come from nowhere else."""
        if self.found is not None:
            with self.world.agreed():
                load_whole(objective, self.found[0] / WEIGHTS)

    def resume(self, game: Game, total: int) -> None:
        """Put everything back as the checkpoint has it, and say what is different now."""
        if self.found is None:
            return
        folder, manifest = self.found
        game.load(folder, manifest["game"])
        self.recovery.restore(manifest["recovery"])
        if self.stopping and not (manifest["stopping"] and self.stopping.restore(manifest["stopping"])):
            self.position.best_step = None
            self.world.say("validation judges by another measure now: its best begins anew")
        self.world.say(f"{self.run.run.folder}: goes on from step {self.position.step} of {total}")
        changed = changes(manifest, self.run, self.world)
        if not changed:
            return
        self.world.say(f"the run goes on with {', '.join(changed)}; the order of the data is the same")
        if any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in game.objective.modules()):
            self._tell_statistics(manifest)

    def _tell_statistics(self, manifest: dict[str, Any]) -> None:
        """Say whether BatchNorm's statistics make the losses others than those of before."""
        rest = "losses will not be those of before to the last digits"
        before, now = manifest["micro_batch"] * manifest["world_size"], self.run.training.micro_batch * self.world.size
        if not self.run.training.sync_batchnorm:
            self.world.say(f"BatchNorm takes its statistics per process: {rest}")
        elif now != before:
            self.world.say(f"BatchNorm took its statistics of {before} clips, now of {now}: {rest}")

    def due(self) -> bool:
        """Whether a checkpoint should be made after this step: not in a row of skipped ones, whose weights are there already."""
        self._waiting = self._waiting or self.position.step % self.run.training.checkpoint_every == 0
        return self._waiting and not self.recovery.in_a_row

    def save(self, game: Game, stream: Stream, *, last: bool) -> None:
        """Begin to save; wait for it if it is the `last` one.

        Raises:
            ValueError: it cannot be written, and there has been no other for long, or will be.
        """
        position, self._waiting = self.position, False
        manifest = {
            "position": asdict(position),
            "loader": stream.state(position.step * self.run.training.global_batch).model_dump(mode="json"),
            "game": game.state(),
            "recovery": self.recovery.state(),
            "stopping": self.stopping.state() if self.stopping else None,
            **identity(self.run, self.world, self.players),
        }
        keep = [position.best_step] if position.best_step is not None else []
        part = game.part(self.run.training.async_checkpoints and not last)
        self.checkpoints.begin(position.step, manifest, part, game.assembler(), keep, last)

    def count(self, outcome: Outcome, game: Game) -> None:
        """Take note of a step; after many skipped ones go back to older weights.

        Raises:
            ValueError: that has not helped.
        """
        position = self.position
        if outcome.applied:
            self.recovery.applied(position.step)
            return
        position.skipped += 1
        self.world.say(f"step {position.step}: {outcome.why}, update skipped ({position.skipped} so far)")
        if self.recovery.skipped(position.step, outcome.why) == "roll back":
            self._roll_back(game)

    def _roll_back(self, game: Game) -> None:
        """To the newest checkpoint with older weights than the present ones; steps and data go on from here."""
        self.checkpoints.finish()
        present = self.recovery.weights_of
        found = self.checkpoints.newest(lambda manifest: manifest["recovery"]["weights_of"] < present)
        if found is None:
            self.world.say("there is no checkpoint with older weights to go back to: they stay as they are")
            self.recovery.rolled_back(present)
            return
        game.load(found[0], found[1]["game"], back=True)
        self.recovery.rolled_back(found[1]["recovery"]["weights_of"])
        self.world.say(f"back to the weights of step {found[1]['step']}; steps and data go on")

    def judge(self, figures: dict[str, float]) -> bool:
        """Whether these figures are a validation's, and the best so far."""
        if not self.stopping or not self.stopping.due(figures):
            return False
        self.stopping.see(self.position.step, figures)
        if self.stopping.improved:
            self.position.best_step = self.position.step
        return self.stopping.improved

    @property
    def stopped_early(self) -> bool:
        """Validation has not improved for long."""
        return bool(self.stopping and self.stopping.stopped)

    def take_best(self, objective: Objective) -> None:
        """Load the best weights by validation, where the run keeps those and they are not the last ones."""
        best, validation = self.position.best_step, self.run.validation
        if validation is None or validation.keep == "last" or best is None or best == self.position.step:
            return
        folder = self.checkpoints.whole(best)
        if folder is None:
            self.world.say(f"the checkpoint of step {best}, the best by validation, is gone: the last weights are kept")
            return
        with self.world.agreed():
            load_whole(objective, folder / (AVERAGE if (folder / AVERAGE).exists() else WEIGHTS))
        self.world.say(f"kept are the weights of step {best}, the best by validation")

    def close(self) -> None:
        """End the threads that write."""
        self.checkpoints.close()


def load_whole(objective: Objective, path: Path) -> None:
    """Load a file of full weights and buffers into an objective."""
    state: dict[str, Any] = load_file(path)
    with torch.no_grad():
        for name, target in [*objective.named_parameters(), *objective.named_buffers()]:
            if name in state:
                target.copy_(state[name])
