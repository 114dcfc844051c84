"""What the doors in launch/ have in common: parse, load the config, call, and tell an error in one line. Imports no torch."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from fbm_dist.config import Config, ConfigError, Schema, load

Settings = TypeVar("Settings", bound=Config)
PATIENCE = 5.0  # seconds in which rank 0 gets to say what is wrong with a config


def enter(
    schema: Schema[Settings],
    call: Callable[[Settings], int],
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse `CONFIG [a.b=c ...]`, load it as `schema` (which may choose by what the file says), and `call` with it.

    Args:
        call: does the work and gives the exit code; may import what is heavy.
        parser: holds the door's name and help; the arguments are added here.
    Returns:
        The exit code: call's own, 1 cannot be done, 2 config error, 130 stopped from the keyboard.
    """
    parser.add_argument("config", metavar="CONFIG", help="YAML file")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="a config key and its value, in YAML")
    # the deepspeed launcher adds it
    parser.add_argument("--local_rank", type=int, default=None, help=argparse.SUPPRESS)
    given = parser.parse_intermixed_args(arguments)
    if given.local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(given.local_rank))
    _show_log()
    try:
        code = call(load(schema, given.config, given.overrides))
    except ConfigError as error:
        return fail(error, 2)
    except (ValueError, OSError) as error:
        return fail(error, 1)
    except KeyboardInterrupt:
        return fail(KeyboardInterrupt("stopped; the same command goes on from the last checkpoint"), 130)
    _leave()
    return code


def _rank() -> str:
    """This process's number, as its launcher says it."""
    return os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0"


def _show_log() -> None:
    """What the project's modules log goes to stderr: all of it from rank 0, warnings from everybody."""
    logger, handler = logging.getLogger("fbm_dist"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if _rank() == "0" else logging.WARNING)


def fail(error: BaseException, code: int) -> int:
    """One line for what all ranks agree on, from rank 0; what only this rank knows it says itself."""
    agreed = getattr(error, "agreed", False)
    if _rank() == "0" or not (isinstance(error, ConfigError) or agreed):
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    elif not agreed:
        time.sleep(PATIENCE)  # launchers kill the others at the first exit: rank 0, if slower, would never get to speak
    if agreed:
        _leave()
    return code


def _leave() -> None:
    from fbm_dist.training.distributed import leave

    leave()
