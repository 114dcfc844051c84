"""How preflight calls the ranks: every check is looked at on all of them, and judged alike by all from what all have told."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Run
from fbm_dist.training.distributed import World
from fbm_dist.training.session import Stream

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One check: `figure` is what was found, in a few words; `advice` what to do about it; `numbers` for preflight.json."""

    name: str
    result: Literal["ok", "warning", "error"]
    figure: str
    advice: str = ""
    numbers: dict[str, float] = field(default_factory=dict)


class FailedError(Exception):
    """A check could not be carried out on some rank. Raised on all ranks alike; the text names the rank."""

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.advice = advice


@dataclass(frozen=True)
class Site:
    """What is checked, and how the ranks are called. Every rank makes every call in the same order, whatever it finds."""

    run: Run
    world: World
    objective: Objective | None
    open_stream: Callable[..., Stream]
    hosts: Sequence[str]  # by rank

    def name(self, rank: int) -> str:
        """`rank 3 on node07`."""
        return f"rank {rank} on {self.hosts[rank]}"

    def everywhere(self, look: Callable[[], T], advice: str = "") -> list[T]:
        """What `look` gives on every rank, in rank order, on every rank. No collective may wait for a peer inside `look` for ever.

        Raises:
            FailedError: it raised on some rank; the same on all ranks.
        """
        try:
            told: tuple[T | None, str | None] = look(), None
        except Exception as error:  # whatever it is, the peers must learn of it
            told = None, " ".join(str(error).split()) or type(error).__name__
        everyone = self.world.gather(told)
        failures = {rank: text for rank, (_, text) in enumerate(everyone) if text is not None}
        if failures:
            rank, text = next(iter(failures.items()))
            alike = len(failures) == self.world.size and len(set(failures.values())) == 1
            others = f" (and {len(failures) - 1} more ranks)" if len(failures) > 1 else ""
            raise FailedError(text if alike else f"{self.name(rank)}: {text}{others}", advice)
        return [value for value, _ in everyone]  # type: ignore[misc]

    def disagreement(self, told: Sequence[Mapping[str, Any]]) -> str:
        """Where the first rank that is not as rank 0 differs from it, of what `everywhere` gave; empty where all are alike."""
        for rank, one in enumerate(told):
            for key in [*told[0], *one]:
                ours, theirs = told[0].get(key), one.get(key)
                if ours != theirs:
                    return f"{key} is {ours!r} on {self.name(0)}, {theirs!r} on {self.name(rank)}"
        return ""


def hosts(world: World) -> list[str]:
    """Host names by rank."""
    return world.gather(socket.gethostname())
