"""The registry's door: python -m fbm_dist.registry list|show|compare|promote|pull|export|verify."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence

from data_tools.config import ConfigError, load
from fbm_dist.registry import settings

COMMANDS = {
    "list": "models, versions, aliases, figures",
    "show": "everything about a version: origin, config, features, figures, tables",
    "compare": "figures of several versions beside each other, and how their configs differ",
    "promote": "move an alias, if a figure is at least that of the version that has it",
    "pull": "a version into a folder that needs neither MLflow nor this project",
    "export": "an encoder into FILE.pt2 or FILE.onnx, checked against the encoder",
    "verify": "is a pulled folder as it was pulled",
}
# Of each: its section of settings.py, the keys that may stand without their name, the door, an example.
DOORS: dict[str, tuple[type[settings.Command], tuple[str, ...], str, str]] = {
    "list": (settings.List, ("name",), "list_versions", "list fbm-encoder"),
    "show": (settings.Show, ("uri",), "show", "show models:/fbm-encoder@champion"),
    "compare": (settings.Compare, ("uris",), "compare", "compare models:/fbm-encoder/1 models:/fbm-encoder/2"),
    "promote": (
        settings.Promote,
        ("uri",),
        "promote",
        "promote models:/fbm-encoder/2 metric=probes.motion.linear.clip",
    ),
    "pull": (settings.Pull, ("uri",), "pull_version", "pull models:/fbm-encoder@champion to=encoder"),
    "export": (settings.Export, ("uri",), "export", "export models:/fbm-encoder@champion to=encoder.onnx"),
    "verify": (settings.Verify, ("folder",), "verify_folder", "verify encoder"),
}
SECRET = re.compile(r"://[^/@]*:[^/@]*@")
KEY = re.compile(r"[a-z_.]+=")
WIDTH = 120  # of tables where no terminal says how wide it is


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, call, report. Exit status: 0 good, 1 cannot be done, refused or found wrong, 2 a config error."""
    given = _parser().parse_intermixed_args(arguments)
    try:
        return _call(given.command, given.words, given.json)
    except ConfigError as error:
        return _fail(error, 2)
    except ValueError as error:
        return _fail(error, 1)
    except BrokenPipeError:  # `| head`
        sys.stderr.close()
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _fail("stopped", 130)


def parsed(command: str, words: Sequence[str]) -> settings.Command:
    """The settings of a command line.

    Raises:
        ConfigError: an unknown key, a missing one, a wrong value.
    """
    section, names, _, example = DOORS[command]
    plain = [word for word in words if not KEY.match(word)]
    overrides = [word for word in words if KEY.match(word)]
    several = names == ("uris",)
    if len(plain) > len(names) and not several:
        raise ConfigError(
            f"{command}: {plain[len(names)]!r} is too much; example: python -m fbm_dist.registry {example}"
        )
    if several:
        overrides = [f"uris={json.dumps(plain)}", *overrides]
    else:
        overrides = [
            *(f"{n}={json.dumps(w, ensure_ascii=False)}" for n, w in zip(names, plain, strict=False)),
            *overrides,
        ]
    if any(word.startswith("registry=") and SECRET.search(word) for word in words):
        # a command line is seen by everyone on the machine, and kept in a shell's history
        raise ConfigError("registry: no passwords here; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    try:
        return load(section, None, overrides)
    except ConfigError as error:
        raise ConfigError(f"{error}; example: python -m fbm_dist.registry {example}") from None


def _call(command: str, words: Sequence[str], as_json: bool) -> int:
    choices = [word for word in words if word.startswith("json=")]
    if any(word not in ("json=true", "json=false") for word in choices):
        raise ConfigError(f"{choices[0]}: json is true or false")
    as_json = as_json or "json=true" in choices
    given = parsed(command, [word for word in words if word not in choices])

    from fbm_dist.registry import doors

    report = getattr(doors, DOORS[command][2])(given)
    if as_json:
        print(json.dumps(report.value, indent=1))
        return 0

    from rich.console import Console

    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=WIDTH, highlight=False)
    for part in report.shown:
        console.print(part, soft_wrap=isinstance(part, str), markup=False)
    return 0


def _fail(message: object, status: int) -> int:
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    commands = "\n".join(f"  {name:<9}{text}" for name, text in COMMANDS.items())
    examples = "\n".join(f"  python -m fbm_dist.registry {door[3]}" for door in DOORS.values())
    parser = argparse.ArgumentParser(
        prog="python -m fbm_dist.registry",
        description=f"Encoders by name.\n\n{commands}",
        epilog=f"examples:\n{examples}\n\nregistry=ADDRESS names MLflow's address, else MLFLOW_TRACKING_URI does, else it is sqlite:///mlflow.db.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the above")
    parser.add_argument(
        "words", nargs="*", metavar="URI | DIR | a=b", help="what it is about; keys and their values, in YAML"
    )
    parser.add_argument("--json", action="store_true", help="for programs (also json=true)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
