"""Game: an objective's players with their engines, guards and averages; one step, and everything of it that a checkpoint holds."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fbm_dist.clip import Clip
from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Run
from fbm_dist.training.checkpoints.parts import Part, Saved, assemble, take
from fbm_dist.training.distributed import World, random_state, restore_random_state, seed_everything
from fbm_dist.training.engines.batchnorm import synchronised
from fbm_dist.training.engines.engine import Engine, build_engine
from fbm_dist.training.engines.places import pieces, state_kinds, updates_done
from fbm_dist.training.engines.turn import player_module, turn
from fbm_dist.training.faults.guard import NOT_FINITE, SPIKE, SpikeGuard
from fbm_dist.training.monitoring.metrics import merge
from fbm_dist.training.optimization.ema import Average
from fbm_dist.training.optimization.optimizers import peak_rate, settings
from fbm_dist.training.optimization.schedules import learning_rate


@dataclass
class Outcome:
    """What one step of all players did."""

    applied: bool = True  # every player's update was
    why: str = ""  # else NOT_FINITE or SPIKE
    # Loss terms of this rank where asked for, gradient norms, rates.
    figures: dict[str, float] = field(default_factory=dict)


class Game:
    """Trains a copy of `objective`: engines reshape what they train (flat buffers, ZeRO-3's partitions, hooks)."""

    def __init__(self, run: Run, objective: Objective, world: World) -> None:
        self.run, self.objective, self.world = run, objective, world
        self.working = copy.deepcopy(objective).to(world.device).train()
        if run.training.sync_batchnorm:
            self.working = synchronised(self.working, world.device)
        players = self.working.players
        self.engines: dict[str, Engine] = {p: build_engine(run, self.working, p, world) for p in players}
        self.places = {player: engine.places() for player, engine in self.engines.items()}
        decay = run.training.ema_decay
        self.averages = {p: Average(decay, self.places[p]) for p in players} if decay else {}
        guard = run.training.guard
        self.guards = {p: SpikeGuard(guard) for p in players} if guard.spike else {}
        self._means: dict[str, float] = {}  # the step's loss over micro-batches and ranks, where a guard wants it
        self._gathered: int | None = None  # the step whose weights `objective` holds

    def step(self, clips: list[Clip], step: int, total: int, logged: bool, beat: Any = lambda phase: None) -> Outcome:
        """One optimizer step of every player on the same micro-batches; update number `step` of `total`.

        Args:
            logged: the loss terms are wanted, which waits for the device.
            beat: told of each phase.
        """
        outcome, rows = Outcome(), []
        rates: dict[str, float] = {}
        for player in self.engines:
            prefix = f"{player}/" if len(self.engines) > 1 else ""
            rate = self._rate(player, step, total)
            before = [buffer.clone() for buffer in self.working.buffers()]  # BatchNorm statistics
            with turn(self.working, player):
                rows += self._gradient(player, clips, prefix, logged, outcome, beat)
                beat("step")
                done = self.engines[player].step(rate)
            if done.applied and player in self.averages:
                self.averages[player].update()
            if done.applied and player in self.guards:
                self.guards[player].accept(self._means[player])
            if not done.applied:
                outcome.applied, outcome.why = False, outcome.why or NOT_FINITE
                for buffer, value in zip(self.working.buffers(), before, strict=True):
                    buffer.copy_(value)
            outcome.figures[f"{prefix}grad_norm"] = done.norm
            rates[f"{prefix}lr"] = rate
        one = len(set(rates.values())) == 1
        outcome.figures = {**merge(rows), **outcome.figures, **({"lr": rate} if one else rates)}
        return outcome

    def _gradient(
        self, player: str, clips: list[Clip], prefix: str, logged: bool, outcome: Outcome, beat: Any
    ) -> list[dict[str, float]]:
        """Forward and backward of every micro-batch; a spike is made a gradient that is not finite, which every engine skips."""
        engine, guard = self.engines[player], self.guards.get(player)
        rows, losses = [], []
        for number, clip in enumerate(clips, 1):
            beat("forward")
            loss, terms = engine.forward(clip)
            losses.append(loss.detach())
            if logged:
                rows.append({prefix + name: float(value) for name, value in {"loss": loss.detach(), **terms}.items()})
            if guard and number == len(clips):
                mean = float(self.world.mean_(torch.stack(losses).float().mean()))
                if guard.judge(mean):
                    outcome.why = SPIKE if math.isfinite(mean) else NOT_FINITE
                    loss = loss * float("nan")
                self._means[player] = mean
            beat("backward")
            engine.backward(loss)
        return rows

    def _rate(self, player: str, step: int, total: int) -> float:
        own = settings(self.run, player)
        return learning_rate(own.schedule, peak_rate(own.optimizer, self.run.training.global_batch), step, total)

    def gather(self, step: int) -> Objective:
        """The caller's objective with the full weights of `step` (averaged ones, where they are kept) on the run's device.

        BatchNorm's running statistics are the mean over the ranks: only `sync_batchnorm` makes them one while training. Every rank must
        call it.
        """
        if self._gathered != step:
            self.fill_objective(averaged=bool(self.averages))
            self._gathered = step
        return self.objective.to(self.world.device)

    def fill_objective(self, averaged: bool) -> None:
        """Copy the full weights, or their average, and the buffers' mean into the caller's objective."""
        state: dict[str, Tensor] = {}
        for player, engine in self.engines.items():
            found = self._averaged(player) if averaged else engine.weights()
            state |= {self._full(player, name): value for name, value in found.items()}
        for name, buffer in self.working.named_buffers():
            value = buffer.detach().cpu().clone()
            state[name] = self.world.mean_(value) if value.is_floating_point() else value
        with torch.no_grad():
            for name, target in [*self.objective.named_parameters(), *self.objective.named_buffers()]:
                if name in state:
                    target.copy_(state[name])

    def _averaged(self, player: str) -> dict[str, Tensor]:
        """Full averaged parameters on the CPU: every rank adds its stretches into zeros, on the device that reduces fastest."""
        full = {}
        pieces_of: dict[str, list[tuple[int, Tensor]]] = defaultdict(list)
        for (_, name, start), values in self.averages[player].pieces().items():
            pieces_of[name].append((start, values))
        for name, parameter in player_module(self.objective, player).named_parameters():
            if parameter.requires_grad:
                whole = torch.zeros(parameter.numel(), device=self.world.device)
                for start, values in pieces_of[name]:
                    whole[start : start + len(values)] = values
                full[name] = self.world.sum_(whole).cpu().view(parameter.shape)
        return full

    def part(self, copied: bool) -> Part:
        """This rank's share of a checkpoint. `copied`: training may go on while it is written."""
        held: dict[tuple[str, str, int], Tensor] = {}
        for player, engine in self.engines.items():
            found = pieces(engine.stepper, self.places[player])
            if player in self.averages:
                found |= self.averages[player].pieces()
            held |= {(kind, self._full(player, name), start): value for (kind, name, start), value in found.items()}
        return take(self.world.rank, held, self.working, random_state(), copied)

    def assembler(self) -> partial[None]:
        """What rank 0 does when all parts are written: `f(folder)`."""
        named = dict(self.objective.named_parameters())
        shapes = {name: p.shape for name, p in named.items() if p.requires_grad}
        fixed = {name: p.detach().cpu().clone() for name, p in named.items() if not p.requires_grad}
        return partial(assemble, ranks=self.world.size, shapes=shapes, fixed=fixed)

    def state(self) -> dict[str, Any]:
        """Of a checkpoint's manifest: what is small."""
        rows = {
            p: (updates_done(e.stepper, self.places[p]), state_kinds(e.stepper, self.places[p]))
            for p, e in self.engines.items()
        }
        everywhere = self.world.gather(rows)  # a rank may hold no place of a small player
        return {
            "updates": {p: max(row[p][0] for row in everywhere) for p in rows},
            "kinds": {p: max((list(row[p][1]) for row in everywhere), key=len) for p in rows},
            "averaged": {p: average.updates for p, average in self.averages.items()},
            "guards": {p: guard.state() for p, guard in self.guards.items()},
        }

    def load(self, folder: Path, state: dict[str, Any], *, back: bool = False) -> None:
        """Go on from a checkpoint: weights, optimizer state, averages, buffers, and this rank's random generators.

        Args:
            state: the manifest's own value of `state`.
            back: a rollback within a run: guards and random generators stay as they are.
        """
        saved, rank, size = Saved(folder), self.world.rank, self.world.size
        self._gathered = None
        for player, engine in self.engines.items():
            read = partial(_read, saved, self._full(player, ""))
            engine.load(tuple(state["kinds"][player]), state["updates"][player], read)
            if player in self.averages and saved.averaged:
                self.averages[player].load(state["averaged"][player], read)
            elif player in self.averages:  # switched on since: it begins with these weights
                self.averages[player] = Average(self.averages[player].decay, self.places[player])
            if player in self.guards and player in state["guards"] and not back:
                self.guards[player].restore(state["guards"][player])
        buffers = saved.buffers(rank, size)
        with torch.no_grad():
            for name, buffer in self.working.named_buffers():
                buffer.copy_(buffers[name])
        if back:
            return
        generators = saved.random(rank, size)
        if generators is not None:
            restore_random_state(generators)
        else:  # no rank's numbers of before: new ones, the same whenever this is done again
            words = [self.run.run.seed, size, rank, *state["updates"].values()]
            seed_everything(int(np.random.SeedSequence(words).generate_state(1)[0]))

    def _full(self, player: str, name: str) -> str:
        return name if len(self.engines) == 1 else f"{player}.{name}"

    def close(self) -> None:
        """Give back what the engines hooked into the process."""
        for engine in self.engines.values():
            engine.close()


def _read(saved: Saved, prefix: str, kind: str, name: str, start: int, length: int) -> Tensor:
    return saved.read(kind, prefix + name, start, length)
