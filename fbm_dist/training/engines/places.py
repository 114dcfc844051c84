"""Place: where in this process's memory a stretch of one parameter and of its optimizer state lives, whatever engine put it there.

A parameter stands whole under plain torch and ZeRO-0, and in stretches of flat partitions under ZeRO-1 to 3. Checkpoints and averages
are written in terms of places, and so know no engine, stage or number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MASTER = "master"  # the fp32 weights themselves; other kinds are the optimizer's: exp_avg, exp_avg_sq, momentum_buffer
Read = Callable[[str, str, int, int], Tensor]  # (kind, parameter, start, length) -> fp32 values, flat, on the CPU


@dataclass(frozen=True, eq=False)
class Place:
    """`length` elements of the flattened parameter `name` from `start` on; they are `owner`'s, flattened, from `offset` on.

    `owner` is what the optimizer steps: the parameter itself, or a flat partition that holds stretches of many.
    """

    name: str
    start: int
    length: int
    owner: Tensor
    offset: int

    def of(self, whole: Tensor) -> Tensor:
        """This place's stretch of a tensor that is laid out as `owner`: a view."""
        return whole.detach().view(-1)[self.offset : self.offset + self.length]


def state_kinds(optimizer: torch.optim.Optimizer, places: Iterable[Place]) -> tuple[str, ...]:
    """The names of the per-element tensors that the optimizer keeps; none before its first step."""
    for place in places:
        state = optimizer.state.get(place.owner, {})
        return tuple(sorted(key for key, value in state.items() if _per_element(value, place.owner)))
    return ()


def updates_done(optimizer: torch.optim.Optimizer, places: Iterable[Place]) -> int:
    """Adam's count of its updates (its bias correction needs it); 0 where the optimizer keeps none."""
    for place in places:
        return int(optimizer.state.get(place.owner, {}).get("step", 0))
    return 0


def pieces(optimizer: torch.optim.Optimizer, places: Iterable[Place]) -> dict[tuple[str, str, int], Tensor]:
    """(kind, parameter, start) -> live view of the weights and of every kind of optimizer state."""
    places = list(places)
    kinds = state_kinds(optimizer, places)
    found: dict[tuple[str, str, int], Tensor] = {}
    for place in places:
        found[MASTER, place.name, place.start] = place.of(place.owner)
        for kind in kinds:
            found[kind, place.name, place.start] = place.of(optimizer.state[place.owner][kind])
    return found


def fill(
    optimizer: torch.optim.Optimizer, places: Iterable[Place], kinds: Iterable[str], updates: int, read: Read
) -> None:
    """The inverse of `pieces`: weights and optimizer state as `read` gives them, with `updates` done."""
    places, kinds = list(places), tuple(kinds)
    counts = isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW)
    fresh: set[int] = set()
    with torch.no_grad():
        for place in places:
            place.of(place.owner).copy_(read(MASTER, place.name, place.start, place.length))
            if id(place.owner) not in fresh:
                fresh.add(id(place.owner))
                state: dict[str, Any] = {kind: torch.zeros_like(place.owner.detach()) for kind in kinds}
                if counts and kinds:
                    state["step"] = torch.tensor(float(updates), dtype=torch.float32)
                optimizer.state[place.owner] = state
            for kind in kinds:
                values = read(kind, place.name, place.start, place.length)
                place.of(optimizer.state[place.owner][kind]).copy_(values)


def whole_parameters(named: Mapping[str, Tensor]) -> list[Place]:
    """One place for each parameter that stands whole, by name."""
    return [Place(name, 0, p.numel(), p, 0) for name, p in named.items() if p.requires_grad]


def _per_element(value: Any, owner: Tensor) -> bool:
    return isinstance(value, Tensor) and value.numel() == owner.numel() and value.ndim > 0
