"""Engine: forward, backward and step of one player. Plain torch is here; DeepSpeed's ZeRO, with the same semantics, in zero.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from fbm_dist.clip import Clip
from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Run, Training
from fbm_dist.training.distributed import World
from fbm_dist.training.engines.places import Place, Read, fill, whole_parameters
from fbm_dist.training.engines.turn import PlayerView
from fbm_dist.training.optimization.optimizers import build_optimizer, settings


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
    def places(self) -> list[Place]:
        """Where this rank holds which stretch of the player's trainable parameters; together the ranks hold every element once."""

    @property
    @abstractmethod
    def stepper(self) -> torch.optim.Optimizer:
        """The torch optimizer whose state belongs to the places' owners."""

    @abstractmethod
    def load(self, kinds: tuple[str, ...], updates: int, read: Read) -> None:
        """Weights and optimizer state as `read` gives them, by names within the player. Every rank must call it.

        Args:
            kinds: of the optimizer's per-element tensors; none: it has not stepped yet.
            updates: that the optimizer has done.
        """

    def close(self) -> None:  # noqa: B027 - plain torch holds nothing
        """Give back what the engine hooked into the process."""


def build_engine(run: Run, objective: Objective, player: str, world: World) -> Engine:
    """The engine that the config asks for, around `player` of `objective` (which stands on `world.device`)."""
    training = run.training
    accumulation = accumulation_steps(training, world.size)
    view = PlayerView(objective, player)
    optimizer = build_optimizer(settings(run, player).optimizer, objective, player)
    if training.engine == "torch":
        return TorchEngine(view, optimizer, training, accumulation, world)
    from fbm_dist.training.engines.zero import DeepSpeedEngine

    return DeepSpeedEngine(view, optimizer, training, accumulation, world)


def check_engine(training: Training, world_size: int) -> None:
    """What can be said before anything is built.

    Raises:
        ValueError: the batch sizes do not fit, or DeepSpeed's own keys cannot be used.
    """
    accumulation = accumulation_steps(training, world_size)
    if training.engine == "deepspeed":
        from fbm_dist.training.engines.zero import deepspeed_config

        deepspeed_config(training, accumulation)


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

    def places(self) -> list[Place]:
        return dealt(self.view, self.world)

    @property
    def stepper(self) -> torch.optim.Optimizer:
        return self.optimizer

    def load(self, kinds: tuple[str, ...], updates: int, read: Read) -> None:
        fill(self.optimizer, whole_parameters(dict(self.view.owned.named_parameters())), kinds, updates, read)


def dealt(view: PlayerView, world: World) -> list[Place]:
    """Every rank holds every parameter whole: each answers for its share."""
    return whole_parameters(dict(view.owned.named_parameters()))[world.rank :: world.size]


def set_learning_rate(optimizer: Any, lr: float) -> None:
    """Give every group of a torch or ZeRO optimizer the rate `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)
