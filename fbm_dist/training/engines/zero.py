"""DeepSpeed's ZeRO stages 0 to 3 as an Engine, without its surprising defaults and without its checkpoint format."""

from __future__ import annotations

import copy
import difflib
import logging
import math
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from fbm_dist.clip import Clip
from fbm_dist.schema import Training
from fbm_dist.training.distributed import World
from fbm_dist.training.engines.engine import Engine, Step, dealt, set_learning_rate
from fbm_dist.training.engines.places import MASTER, Place, Read, fill, whole_parameters
from fbm_dist.training.engines.turn import PlayerView

NEVER = 10**9  # steps between DeepSpeed's own progress lines; ours say more


class DeepSpeedEngine(Engine):
    """ZeRO stage 0 to 3 around one player."""

    def __init__(
        self, view: PlayerView, optimizer: torch.optim.Optimizer, training: Training, accumulation: int, world: World
    ) -> None:
        import deepspeed

        # Joining would compile an operator that only inference uses, and fail where no compiler is. (The package's attribute of
        # this name is plain torch, hence sys.modules.)
        vars(sys.modules["deepspeed.comm.torch"])["build_shm_op"] = lambda: None
        deepspeed.utils.logger.setLevel(logging.ERROR)
        # DeepSpeed calls collectives by names that torch has renamed.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch\.distributed|deepspeed)\b")
        self.stage = training.zero_stage
        self.view = view
        self.world = world
        config = deepspeed_config(training, accumulation)
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

    def places(self) -> list[Place]:
        if self.stage == 0:
            return dealt(self.view, self.world)
        return list(self._whole_partitions() if self.stage == 3 else self._flat_partitions())

    @property
    def stepper(self) -> torch.optim.Optimizer:
        inner = self.optimizer if self.stage == 0 else self.optimizer.optimizer
        assert isinstance(inner, torch.optim.Optimizer)
        return inner

    def load(self, kinds: tuple[str, ...], updates: int, read: Read) -> None:
        import deepspeed

        named = {name: p for name, p in self.view.owned.named_parameters() if p.requires_grad}
        places = whole_parameters(named) if self.stage == 0 else self.places()
        fill(self.stepper, places, kinds, updates, read)
        if self.stage == 0:
            return
        for name, parameter in named.items():  # beside the optimizer's copy: what forward and backward use
            gathered = deepspeed.zero.GatheredParameters([parameter], modifier_rank=0)
            with gathered if self.stage == 3 else nullcontext(), torch.no_grad():
                if self.stage < 3 or self.world.first:
                    parameter.copy_(read(MASTER, name, 0, parameter.numel()).view_as(parameter))
        if self.stage < 3:
            self.optimizer._hp_optimizer_states_linked = False  # the state is new: to be looked up again

    def _names(self) -> dict[int, str]:
        return {id(p): name for name, p in self.view.owned.named_parameters()}

    def _flat_partitions(self) -> Iterator[Place]:
        """ZeRO-1 and 2: this rank's flat partition of each group holds stretches of the group's parameters."""
        names = self._names()
        for group, flat in zip(
            self.optimizer.bit16_groups, self.optimizer.single_partition_of_fp32_groups, strict=True
        ):
            for parameter in group:
                found = parameter._hp_mapping
                if found is not None:
                    here, there = found.lp_fragment_address, found.hp_fragment_address
                    yield Place(names[id(parameter)], here.start, here.numel, flat, there.start)

    def _whole_partitions(self) -> Iterator[Place]:
        """ZeRO-3: every parameter is cut into equal stretches, one a rank, the last one padded."""
        zero = self.optimizer
        named: Iterable[tuple[str, Any]] = self.view.owned.named_parameters()  # with attributes that ZeRO-3 adds
        for name, parameter in named:
            if not parameter.requires_grad:
                continue
            group, offset, padded = zero.grad_position[zero.get_param_id(parameter)]
            start = padded * zero._get_param_partition_rank(parameter)
            length = min(padded, parameter.ds_numel - start)
            if length > 0:
                yield Place(name, start, length, zero.fp32_partitioned_groups_flat[group], offset)

    def close(self) -> None:
        self.engine.destroy()


OURS = (  # said by other keys, or by the trainer itself
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer",
    "scheduler",
    "fp16",
    "bf16",
    "torch_autocast",
    "checkpoint",
    "elasticity",
    "steps_per_print",
)


PASSED = (
    "zero_optimization",
    "aio",
    "activation_checkpointing",
    "comms_logger",
    "communication_data_type",
    "compile",
    "data_types",
    "dump_state",
    "flops_profiler",
    "gradient_predivide_factor",
    "memory_breakdown",
    "prescale_gradients",
    "wall_clock_breakdown",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
)


def deepspeed_config(training: Training, accumulation: int) -> dict[str, Any]:
    """Every key that has a surprising default, said: clipping is 1.0 and all schedulers start at rate 0 unless told otherwise.

    `training.deepspeed` is laid over it, e.g. ZeRO's offload options and bucket sizes.

    Raises:
        ValueError: `training.deepspeed` has a key that another one of this project's keys says, or offloads to NVMe.
    """
    config: dict[str, Any] = {
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
    given = copy.deepcopy(training.deepspeed)
    for key in given:
        if key in OURS:
            raise ValueError(f"training.deepspeed.{key}: the trainer sets it; use training's and optimizer's own keys")
        if key not in PASSED:
            near = difflib.get_close_matches(key, PASSED, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(PASSED)}"
            raise ValueError(f"training.deepspeed.{key}: no such key; {hint}")
    config["zero_optimization"] |= _zero_options(given.pop("zero_optimization", {}))
    return config | given


def _zero_options(zero: Any) -> dict[str, Any]:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    where = "training.deepspeed.zero_optimization"
    if not isinstance(zero, dict):
        raise ValueError(
            f"{where}: expected keys and values, e.g. {{offload_optimizer: {{device: cpu}}}}, not {zero!r}"
        )
    if "stage" in zero:
        raise ValueError(f"{where}.stage: use training.zero_stage")
    try:
        DeepSpeedZeroConfig(**zero)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{where}.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    for key in ("offload_optimizer", "offload_param"):
        if (zero.get(key) or {}).get("device") == "nvme":
            raise ValueError(f"{where}.{key}.device: nvme is not supported, cpu is")
    return zero
