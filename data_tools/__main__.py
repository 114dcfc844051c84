"""The data tools' door: python -m data_tools synthesize|plan|prepare|verify|repair|scrub|stats|inspect."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from data_tools.config import ConfigError, load

COMMANDS = {
    "synthesize": "make films with known motion, objects, backgrounds and true masks",
    "plan": "predict what prepare would take, from a sample",
    "prepare": "films in, shards with soft motion masks out",
    "verify": "prove that a data set is what it says",
    "repair": "make damaged shards whole again, or drop what cannot be",
    "scrub": "remove films whose owners opted out",
    "stats": "count what is in a data set",
    "inspect": "draw a page or a contact sheet with mask overlays",
}
USAGE = {
    "synthesize": "python -m data_tools synthesize output=DIR films=24 seed=0",
    "plan": "python -m data_tools plan configs/prepare/default.yaml input=DIR films=700000",
    "prepare": "python -m data_tools prepare configs/prepare/default.yaml input=DIR output=DIR",
    "verify": "python -m data_tools verify DIR",
    "repair": "python -m data_tools repair DIR input=FILMS",
    "scrub": "python -m data_tools scrub DIR ids=FILE",
    "stats": "python -m data_tools stats DIR",
    "inspect": "python -m data_tools inspect DIR",
}
# Each takes its section of schema.py and a Progress, and returns something with `lines()`.
DOORS = {
    "plan": "data_tools.building.forecast:plan",
    "prepare": "data_tools.building.pipeline:prepare",
    "verify": "data_tools.care.verify:verify",
    "repair": "data_tools.care.repair:repair",
    "scrub": "data_tools.care.scrub:scrub",
    "stats": "data_tools.report.stats:stats",
    "inspect": "data_tools.report.inspect:inspect",
}
OF_FILMS = ("synthesize", "plan", "prepare")  # the others are about a data set


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
    from data_tools.synthetic.config import settings_of

    if command == "synthesize":
        return _synthesize(load(settings_of, config, overrides))
    section: type[BaseModel] = getattr(schema, command.capitalize())
    module, function = DOORS[command].split(":")
    settings = _load(section, config, overrides)

    from data_tools.progress import Console

    with Console() as console:
        report = getattr(importlib.import_module(module), function)(settings, console)
    print("\n".join(report.lines()))
    return 1 if getattr(report, "num_problems", 0) else 0


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


def _fail(message: object, status: int) -> int:
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_tools", description="Raw video in, shards out.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, epilog=f"example: {USAGE[name]}")
        what = "YAML file" if name in OF_FILMS else "the data set's folder (or URL), or a YAML file"
        command.add_argument("config", nargs="?", metavar="CONFIG" if name in OF_FILMS else "DIR", help=what)
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
