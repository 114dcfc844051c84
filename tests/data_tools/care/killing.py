"""Death at a chosen moment: while a file of a data set is put under its name, or removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Killed(BaseException):
    """The process is dead: nothing catches it."""


def kill_at(patch: pytest.MonkeyPatch, root: Path, moment: int, die: Callable[[], None]) -> None:
    """Call `die` in place of the change of a file in `root` that has that number, and at all that follow."""
    done = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(self: Path, *args: Any, **options: Any) -> Any:
            nonlocal done
            if root in self.parents:
                done += 1
                if done > moment:
                    die()
            return real(self, *args, **options)

        return change

    for name in ("rename", "unlink"):
        patch.setattr(Path, name, counted(getattr(Path, name)))


def killed(root: Path, moment: int, call: Callable[[], Any]) -> bool:
    """Run `call`; was it killed at that moment, or was it done before."""

    def die() -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, root, moment, die)
        try:
            call()
        except Killed:
            return True
    return False
