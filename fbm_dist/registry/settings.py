"""The keys of `python -m fbm_dist.registry`'s commands. Imports no torch and no MLflow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from data_tools.config import Config

ALIAS = "^[A-Za-z][A-Za-z0-9_-]{0,63}$"


def _version(uri: str) -> str:
    """A models:/ URI; whether there is such a version says the registry."""
    if not re.fullmatch(r"models:/[^/@]+(?:/(?:\d+|latest)|@[^/@]+)/?", uri):
        raise ValueError("write models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME/latest")
    return uri


Version = Annotated[str, AfterValidator(_version)]


class Command(Config):
    """What all commands take."""

    registry: str | None = None  # MLflow's address; None: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db


class List(Command):
    """`list [NAME]`."""

    name: str | None = None  # one model; None: all


class Show(Command):
    """`show URI`."""

    uri: Version
    tables: bool = True  # the evaluations' tables, too


class Compare(Command):
    """`compare URI URI [...]`."""

    uris: tuple[Version, ...] = Field(min_length=2)


class Promote(Command):
    """`promote URI metric=NAME`."""

    uri: Version
    metric: str  # as `list` and `show` name it
    mode: Literal["max", "min"] = "max"  # max: the larger figure is the better one
    alias: str = Field("champion", pattern=ALIAS)
    force: bool = False  # also a worse one; needs a reason
    reason: str = ""  # kept with the version
    by: str | None = None  # None: MLFLOW_TRACKING_USERNAME, else this machine's user


class Pull(Command):
    """`pull URI to=DIR`."""

    uri: Version
    to: Path  # the new folder
    program: bool = True  # also encoder.pt2, which needs torch alone


class Export(Command):
    """`export URI to=FILE`."""

    uri: str  # models:/..., runs:/RUN_ID, a run's folder, an encoder folder or a pulled one
    to: Path  # FILE.pt2 or FILE.onnx

    @field_validator("to")
    @classmethod
    def _kind(cls, value: Path) -> Path:
        if value.suffix not in (".pt2", ".onnx"):
            raise ValueError("an exported encoder's file ends in .pt2 or .onnx")
        return value


class Verify(Command):
    """`verify DIR`."""

    folder: Path
    against: Version | None = None  # compare with this version's checksums in the registry; None: offline
