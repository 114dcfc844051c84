"""Engines: forward, backward and step of one player, by DeepSpeed's ZeRO or by plain torch, with the same semantics."""

from __future__ import annotations

import logging
import math
import sys
import warnings
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from fbm_dist.clip import Clip
from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Run, Training
from fbm_dist.training.distributed import World
from fbm_dist.training.optimizers import build_optimizer
from fbm_dist.training.turn import PlayerView

NEVER = 10**9  # steps between DeepSpeed's own progress lines; ours say more


@dataclass(frozen=True)
class Step:
    """What one optimizer step did. `norm`: global L2 norm of the gradient before clipping; not finite where it was skipped."""

    applied: bool
    norm: float


class Engine(ABC):
    """One player's share of a step. Between two `step`s, `forward` and `backward` are called `accumulation` times.

    The gradient of a step is the mean over micro-batches and ranks. One backward belongs to one micro-batch: two of them before a
    boundary would lose the first one's gradient under ZeRO-1 and 2. A step whose gradient is not finite changes nothing, on any rank.
    """

    @abstractmethod
    def forward(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        """(total, terms) of one micro-batch."""

    @abstractmethod
    def backward(self, total: Tensor) -> None:
        """Add the micro-batch's gradient; after the last one of a step, reduce over ranks."""

    @abstractmethod
    def step(self, lr: float) -> Step:
        """Clip and update with learning rate `lr`, or skip."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Full fp32 parameters on the CPU by name within the player. Every rank must call it."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write weights and optimizer state below `folder`. Every rank must call it."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """The inverse of `save`, at the same world size and ZeRO stage, on a freshly built engine."""

    def close(self) -> None:  # noqa: B027 - plain torch holds nothing
        """Give back what the engine hooked into the process."""


def build_engine(run: Run, objective: Objective, player: str, world: World) -> Engine:
    """The engine that the config asks for, around `player` of `objective` (which stands on `world.device`)."""
    training = run.training
    accumulation = accumulation_steps(training, world.size)
    view = PlayerView(objective, player)
    optimizer = build_optimizer(run.optimizer, objective, player)
    if training.engine == "torch":
        return TorchEngine(view, optimizer, training, accumulation, world)
    return DeepSpeedEngine(view, optimizer, deepspeed_config(training, accumulation), training.zero_stage)


def accumulation_steps(training: Training, world_size: int) -> int:
    """Micro-batches per process and step.

    Raises:
        ValueError: the global batch is no multiple of micro_batch * processes; the text names working values.
    """
    together = training.micro_batch * world_size
    if training.global_batch % together:
        near = max(1, round(training.global_batch / together)) * together
        raise ValueError(
            f"training.global_batch={training.global_batch} is not a multiple of training.micro_batch={training.micro_batch} x "
            f"{world_size} processes; use training.global_batch={near}, or another micro_batch"
        )
    return training.global_batch // together


class TorchEngine(Engine):
    """Plain torch with one all-reduce of the gradients: the reference that DeepSpeed's stages are held against."""

    def __init__(
        self, view: PlayerView, optimizer: torch.optim.Optimizer, training: Training, accumulation: int, world: World
    ) -> None:
        self.view = view
        self.optimizer = optimizer
        self.clipping = training.gradient_clipping
        self.bf16 = training.precision == "bf16"
        self.accumulation = accumulation
        self.world = world
        self.parameters = [p for p in view.parameters() if p.requires_grad]

    def forward(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(self.world.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext():
            return self.view(clip)

    def backward(self, total: Tensor) -> None:
        (total / self.accumulation).backward()

    def step(self, lr: float) -> Step:
        for (
            parameter
        ) in self.parameters:  # as ZeRO does: a parameter that took no part has gradient zero, on every rank
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients: list[Tensor] = [p.grad for p in self.parameters if p.grad is not None]
        if self.world.size > 1:
            flat = self.world.mean_(_flatten_dense_tensors(gradients))
            for gradient, mean in zip(gradients, _unflatten_dense_tensors(flat, gradients), strict=True):
                gradient.copy_(mean)
        norm = torch.nn.utils.get_total_norm(gradients)
        applied = bool(torch.isfinite(norm))
        if applied:
            if self.clipping is not None:
                torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clipping, norm)
            set_learning_rate(self.optimizer, lr)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Step(applied, float(norm))

    def weights(self) -> dict[str, Tensor]:
        return {name: p.detach().float().cpu().clone() for name, p in self.view.owned.named_parameters()}

    def save(self, folder: Path) -> None:
        if self.world.first:  # all ranks hold the same
            folder.mkdir(parents=True, exist_ok=True)
            state = {"model": self.view.owned.state_dict(), "optimizer": self.optimizer.state_dict()}
            torch.save(state, folder / "engine.pt")

    def load(self, folder: Path) -> None:
        state = torch.load(folder / "engine.pt", map_location=self.world.device, weights_only=True)
        self.view.owned.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


class DeepSpeedEngine(Engine):
    """ZeRO stage 0 to 3 around one player."""

    def __init__(self, view: PlayerView, optimizer: torch.optim.Optimizer, config: dict[str, Any], stage: int) -> None:
        import deepspeed

        # Joining would compile an operator that only inference uses, and fail where no compiler is. (The package's attribute of
        # this name is plain torch, hence sys.modules.)
        vars(sys.modules["deepspeed.comm.torch"])["build_shm_op"] = lambda: None
        deepspeed.utils.logger.setLevel(logging.ERROR)
        # DeepSpeed calls collectives by names that torch has renamed.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch\.distributed|deepspeed)\b")
        self.stage = stage
        self.view = view
        self.parameters = [p for p in view.parameters() if p.requires_grad]
        deepspeed.init_distributed(verbose=False)
        self.engine, self.optimizer, _, _ = deepspeed.initialize(model=view, optimizer=optimizer, config=config)

    def forward(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        return self.engine(clip)

    def backward(self, total: Tensor) -> None:
        self.engine.backward(total)
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()  # counts the micro-batch; the update itself waits for `step`

    def step(self, lr: float) -> Step:
        assert self.engine.is_gradient_accumulation_boundary(), "step before the last micro-batch"
        set_learning_rate(self.optimizer, lr)
        if self.stage == 0:
            return self._plain_step()
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        applied = bool(self.engine.was_step_applied())
        return Step(applied, float(norm) if applied and norm is not None else math.inf)

    def _plain_step(self) -> Step:
        """Stage 0 looks at nothing before it updates: judge the reduced gradient, the same on all ranks, here."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        applied = bool(torch.isfinite(norm))
        if applied:
            self.engine.step()
        else:  # what `engine.step` does around the update that must not be
            self.engine.zero_grad()
            self.engine.micro_steps += 1
            self.engine.global_steps += 1
            self.engine.skipped_steps += 1
        return Step(applied, float(norm))

    def weights(self) -> dict[str, Tensor]:
        import deepspeed

        full: dict[str, Tensor] = {}
        for name, parameter in self.view.owned.named_parameters():
            gathered = deepspeed.zero.GatheredParameters([parameter]) if self.stage == 3 else nullcontext()
            with gathered:
                full[name] = parameter.detach().float().cpu().clone()
        return full

    def save(self, folder: Path) -> None:
        failures: list[Exception] = []
        writer = self.engine.checkpoint_engine
        write = writer.save

        def remember(*arguments: Any, **named: Any) -> Any:
            try:
                return write(*arguments, **named)
            except Exception as error:  # raised below: between DeepSpeed's barriers it would leave the peers waiting
                failures.append(error)

        writer.save = remember
        try:
            self.engine.save_checkpoint(str(folder.parent), tag=folder.name, save_latest=False)
        finally:
            writer.save = write
        if failures:
            raise failures[0]

    def load(self, folder: Path) -> None:
        path, _ = self.engine.load_checkpoint(str(folder.parent), tag=folder.name)
        assert path is not None, f"DeepSpeed found nothing in {folder}"

    def close(self) -> None:
        self.engine.destroy()


def deepspeed_config(training: Training, accumulation: int) -> dict[str, Any]:
    """Every key that has a surprising default, said: clipping is 1.0 and all schedulers start at rate 0 unless told otherwise."""
    return {
        "train_micro_batch_size_per_gpu": training.micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": training.gradient_clipping or 0.0,
        "zero_optimization": {"stage": training.zero_stage},
        "zero_allow_untested_optimizer": True,  # ours come from torch.optim
        "zero_force_ds_cpu_optimizer": False,
        # fp32 parameters under autocast: DeepSpeed's own bf16 mode fails on BatchNorm's fp32 buffers.
        "torch_autocast": {"enabled": training.precision == "bf16", "dtype": "bfloat16"},
        "steps_per_print": NEVER,
        "wall_clock_breakdown": False,
    }


def set_learning_rate(optimizer: Any, lr: float) -> None:
    """Give every group of a torch or ZeRO optimizer the rate `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def gather_weights(objective: Objective, working: Objective, engines: dict[str, Engine], world: World) -> None:
    """Fill `objective` with the full weights of `working` (which may be partitioned) and its buffers' mean over ranks.

    Nothing synchronises BatchNorm's running statistics while training; their mean is what is kept of them. `working` is not touched.
    Every rank must call it.
    """
    alone = len(engines) == 1
    state: dict[str, Tensor] = {}
    for player, engine in engines.items():
        state |= {name if alone else f"{player}.{name}": value for name, value in engine.weights().items()}
    for name, buffer in working.named_buffers():
        value = buffer.detach().cpu().clone()
        state[name] = world.mean_(value) if value.is_floating_point() else value
    with torch.no_grad():
        for name, target in [*objective.named_parameters(), *objective.named_buffers()]:
            target.copy_(state[name])
