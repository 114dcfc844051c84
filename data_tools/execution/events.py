"""What is heard of jobs, and what everything that does jobs has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable


@dataclass(frozen=True)
class Done:
    """A job that returned."""

    job: int
    result: Any


@dataclass(frozen=True)
class Failed:
    """A job that did not: the process died, fell silent or went beyond a limit, or the function raised something unforeseen."""

    job: int
    reason: str


@dataclass(frozen=True)
class Progressed:
    """A sign of life: `amount` more of what the function counts (frames)."""

    job: int
    amount: int


Event: TypeAlias = Done | Failed | Progressed
# (job, what its function returned) -> ("module:name", payload) to go on with, or None
Follow: TypeAlias = Callable[[int, Any], tuple[str, Any] | None]


@runtime_checkable
class Executor(Protocol):
    """Does jobs: processes of this machine (`processes.Crew`), or workers of a Ray cluster (`cluster.RayCrew`)."""

    def run(self, function: str, jobs: Iterable[Any], follow: Follow | None = None) -> Iterator[Event]:
        """Run `function` on every job; yields what happens, in the order in which it does. A job ends once: Done or Failed.

        Args:
            function: "module:name" of a callable `(job, beat) -> result`; it calls `beat(amount)` while it gets on.
            jobs: picklable; taken as workers become free for them. `event.job` counts them from 0.
            follow: asked when a job's function returned: what the same worker does next as part of the same job. Done then
                has the second result. A job whose worker is lost starts again, so that it may be asked twice.
        Raises:
            OSError: the function met a full disk or a read-only folder: going on would fail for every job.
            RuntimeError: there is nobody to do the work.
        """
        ...
