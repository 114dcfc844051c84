"""preflight: before a run of a month, a minute of looking whether data, disk, versions, network and kernels will carry it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_tools.places import write_atomic
from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import Data, Run
from fbm_dist.training.distributed import World
from fbm_dist.training.faults import checks, hardware
from fbm_dist.training.faults.site import FailedError, Row, Site, hosts
from fbm_dist.training.session import Stream

NAME = "preflight.json"
SAID = ("data", "disk", "versions", "all-reduce", "bf16 Conv3d")  # in the one line of a run that goes on
COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}

# In this order: what comes later relies on what came before.
CHECKS: dict[str, Callable[[Site], list[Row]]] = {
    "config": checks.config,
    "versions": checks.versions,
    "devices": checks.devices,
    "run folder": checks.run_folder,
    "data": checks.data,
    "disk": checks.disk,
    "shared memory": checks.shared_memory,
    "device speed": hardware.device_speed,
    "all-reduce": hardware.all_reduce,
    "bf16 Conv3d": hardware.convolution,
}


@dataclass(frozen=True)
class Report:
    """What preflight found; the same on every rank. No rows: it was off."""

    rows: tuple[Row, ...] = ()
    seconds: float = 0.0

    @property
    def errors(self) -> list[Row]:
        """What a run must not start with."""
        return [row for row in self.rows if row.result == "error"]

    @property
    def warnings(self) -> list[Row]:
        """What a run can start with."""
        return [row for row in self.rows if row.result == "warning"]

    def write(self, folder: Path) -> None:
        """`folder`/preflight.json, with every figure. On rank 0, once the run is known to be accepted; nothing where it was off."""
        if self.rows:
            rows = [asdict(row) for row in self.rows]
            for row in rows:  # JSON has no word for what is not finite
                row["numbers"] = {name: v if math.isfinite(v) else None for name, v in row["numbers"].items()}
            told = {"time": time.time(), "seconds": self.seconds, "rows": rows}
            write_atomic(folder / NAME, json.dumps(told, indent=1).encode())


def preflight(
    run: Run, world: World, objective: Objective | None = None, open_stream: Callable[..., Stream] | None = None
) -> Report:
    """Look at everything that a long run relies on, as `training.preflight` says; every rank calls it, before training.

    Warnings are printed. The run folder is left as it was: a refused run leaves no trace; with `only`, RUN/preflight.json is written.
    A rank that cannot carry out a check makes the others wait no longer than that check takes.

    Args:
        objective: what will be trained; without it, sizes of checkpoints and gradients are not known.
        open_stream: opens the data; default: `fbm_dist.data.loader.Loader`. Same arguments.
    Raises:
        ValueError: what must be mended first, in one line; the same error on every rank.
    """
    mode = world.broadcast(run.training.preflight)  # rank 0's: the others must not be left waiting
    if mode == "off":
        return Report()
    began = time.perf_counter()
    site = Site(run, world, objective, open_stream or _open_loader, hosts(world))
    rows: list[Row] = []
    for name, check in CHECKS.items():
        try:
            rows += check(site)
        except FailedError as failed:
            rows.append(Row(name, "error", str(failed), failed.advice))
    report = Report(tuple(rows), time.perf_counter() - began)
    with world.agreed():
        if world.first and mode == "only":
            _show(report)
            with suppress(OSError):  # a folder that cannot be written is among the errors
                run.run.folder.mkdir(parents=True, exist_ok=True)
                report.write(run.run.folder)
        _refuse(report)
    if mode == "on":
        _say(report, world)
    return report


def _refuse(report: Report) -> None:
    if report.errors:
        found = "; ".join(f"{row.name}: {_with_advice(row)}" for row in report.errors)
        raise ValueError(f"preflight: {found}")


def _say(report: Report, world: World) -> None:
    for row in report.warnings:
        world.say(f"preflight: warning: {row.name}: {_with_advice(row)}")
    world.say("preflight: " + ", ".join(r.figure for r in report.rows if r.name in SAID and r.result == "ok"))


def _with_advice(row: Row) -> str:
    return f"{row.figure}; {row.advice}" if row.advice else row.figure


def _show(report: Report) -> None:
    table = Table("check", "result", "found", "what to do", title=f"preflight, {report.seconds:.1f} s")
    for row in report.rows:
        cells = (row.figure, row.advice)  # as Text: a path in brackets is no markup
        table.add_row(row.name, Text(row.result, COLOURS[row.result]), *map(Text, cells))
    Console().print(table)


def _open_loader(data: Data, *, device: torch.device, **arguments: Any) -> Stream:
    from fbm_dist.data.loader import Loader

    return Loader(data, device=device, **arguments)
