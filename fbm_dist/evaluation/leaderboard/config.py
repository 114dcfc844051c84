"""The config of the leaderboard; imports no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from data_tools.config import Config
from fbm_dist.evaluation.config import Evaluation, dotted
from fbm_dist.objectives.families import Pretraining

OWN = ("protocol", "encoder", "compare_with", "architecture", "output", "tracking")  # the leaderboard gives them
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def _free(given: dict[str, Any]) -> dict[str, Any]:
    """What a protocol's config may be changed by."""
    for key, _ in dotted(given):
        if key.split(".")[0] in OWN:
            raise ValueError(
                f"{key} is for the leaderboard itself to give; its own keys are encoders, output, tracking"
            )
    return given


Changes = Annotated[dict[str, Any], AfterValidator(_free)]


class Part(Config):
    """One protocol: its columns stand beside those of the others."""

    config: Path  # of the protocol, as on the command line: relative to the working folder
    name: str | None = None  # before its columns, and its folder in `output`; None: the config file's name
    set: Changes = {}  # keys of that config and their values, e.g. {data.path: shards, label: motion}
    # figures by their names in MLflow, COLUMN.TABLE, * for any text; empty: all columns of its first table
    columns: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Its name, whether given or not."""
        return self.name or self.config.stem

    @model_validator(mode="after")
    def _named(self) -> Part:
        if not NAME.fullmatch(self.title):
            raise ValueError(f"{self.title!r} cannot name a folder; give name, of letters, digits, - and _")
        return self


class Leaderboard(Evaluation):
    """Several encoders through several protocols: one table."""

    protocol: Literal["leaderboard"] = "leaderboard"
    encoders: tuple[str, ...] = Field(min_length=1)  # rows: URIs as `encoder` of a protocol takes them, also random
    architecture: Pretraining | None = Field(None, discriminator="family")  # of random; None: of the first other one
    protocols: tuple[Part, ...] = Field(min_length=1)
    set: Changes = {}  # as that of each protocol, for all of them; a protocol's own comes after it
    seeds: tuple[int, ...] = ()  # for all protocols; empty: as each protocol's config says
    output: Path = Path("runs/leaderboard")

    @model_validator(mode="after")
    def _apart(self) -> Leaderboard:
        if len(set(self.encoders)) < len(self.encoders):
            raise ValueError("encoders names one twice; name each once")
        titles = [part.title for part in self.protocols]
        twice = next((title for title in titles if titles.count(title) > 1), None)
        if twice is not None:
            raise ValueError(f"two protocols are called {twice!r}; give each a name of its own")
        return self
