"""The data tools' door: python -m data_tools synthesize|prepare|verify|inspect."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel

from data_tools.config import ConfigError, load

COMMANDS = {
    "synthesize": "make films with known motion, objects, backgrounds and true masks",
    "prepare": "films in, shards with soft motion masks out",
    "verify": "prove that a data set is what it says",
    "inspect": "draw a contact sheet with mask overlays",
}
USAGE = {
    "synthesize": "python -m data_tools synthesize output=DIR films=24 seed=0",
    "prepare": "python -m data_tools prepare configs/prepare/default.yaml input=DIR output=DIR",
    "verify": "python -m data_tools verify DIR",
    "inspect": "python -m data_tools inspect DIR",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, call, report. Exit status: 0 good, 1 the work cannot be done or problems were found, 2 a config error."""
    given = _settle(_parser().parse_args(arguments))
    try:
        return int(_call(given.command, given.config, given.overrides))
    except ConfigError as error:
        return _fail(error, 2)
    except (ValueError, RuntimeError) as error:
        return _fail(error, 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _fail("stopped; run the same command again to go on", 130)


def _call(command: str, config: str | None, overrides: Sequence[str]) -> int:
    from data_tools import schema
    from data_tools.synthetic.config import Synthesize

    doors: dict[str, tuple[type[BaseModel], Callable[..., int]]] = {
        "synthesize": (Synthesize, _synthesize),
        "prepare": (schema.Prepare, _prepare),
        "verify": (schema.Verify, _verify),
        "inspect": (schema.Inspect, _inspect),
    }
    section, run = doors[command]
    return run(_load(section, config, overrides))


def _load(section: type[BaseModel], first: str | None, overrides: Sequence[str]) -> BaseModel:
    """`first` is a YAML file, or the folder that the command is about."""
    if first is not None and "path" in section.model_fields and Path(first).suffix not in (".yaml", ".yml"):
        return load(section, None, [f"path={json.dumps(first, ensure_ascii=False)}", *overrides])  # a name, not YAML
    return load(section, first, overrides)


def _synthesize(settings: BaseModel) -> int:
    from data_tools.progress import Console
    from data_tools.synthetic import synthesize

    with Console() as console:
        done: int | None = None

        def progress(now: int, total: int) -> None:
            nonlocal done
            if done is None:
                console.stage("synthesizing", total, "films")
            console.advance(now - (done or 0))
            done = now

        summary = synthesize(settings, progress)  # type: ignore[arg-type]
    print(summary)
    return 0


def _prepare(settings: BaseModel) -> int:
    from data_tools.pipeline import prepare
    from data_tools.progress import Console

    with Console() as console:
        summary = prepare(settings, console)  # type: ignore[arg-type]
    print("\n".join(summary.lines()))
    return 0


def _verify(settings: BaseModel) -> int:
    from data_tools.progress import Console
    from data_tools.verify import verify

    with Console() as console:
        report = verify(settings, console)  # type: ignore[arg-type]
    print("\n".join(report.lines()))
    return 1 if report.num_problems else 0


def _inspect(settings: BaseModel) -> int:
    from data_tools.inspect import inspect

    print(inspect(settings))  # type: ignore[arg-type]
    return 0


def _fail(message: object, status: int) -> int:
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_tools", description="Raw video in, shards out.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, epilog=f"example: {USAGE[name]}")
        what = "YAML file" if name in ("synthesize", "prepare") else "the data set's folder, or a YAML file"
        command.add_argument(
            "config", nargs="?", metavar="DIR" if name in ("verify", "inspect") else "CONFIG", help=what
        )
        command.add_argument("overrides", nargs="*", metavar="a.b=c", help="a config key and its value, in YAML")
        command.set_defaults(command=name)
    return parser


def _settle(given: argparse.Namespace) -> argparse.Namespace:
    """`synthesize output=DIR` has no file: what looks like an override is one, unless there is such a folder."""
    if given.config is not None and "=" in given.config and not Path(given.config).exists():
        given.overrides, given.config = [given.config, *given.overrides], None
    return given


if __name__ == "__main__":
    sys.exit(main())
