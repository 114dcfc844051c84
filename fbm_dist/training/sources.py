"""Where earlier weights lie: a registered model, a run's folder, a checkpoint, an encoder's folder, or a .safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fbm_dist.schema import InitFrom
from fbm_dist.training.checkpoints.marker import MARKER
from fbm_dist.training.checkpoints.parts import AVERAGE, WEIGHTS

Fetch = Callable[
    [str], AbstractContextManager[Path]
]  # an address -> its encoder folder, gone afterwards if it was fetched
ADDRESSES = ("models:/", "runs:/")
# The registry's format; the registry stands downstream of training, which must not import it.
ENCODER, DESCRIPTION = "encoder.safetensors", "config.json"


@dataclass(frozen=True)
class Found:
    """A .safetensors file, its checksum, and how to name it to a person."""

    path: Path
    label: str
    sha256: str


@contextmanager
def found_weights(init: InitFrom, fetch: Fetch | None, say: Callable[[str], None]) -> Iterator[Found]:
    """The file that `init.source` means; checked against its checksum where one was written beside it.

    A run's folder means its newest whole checkpoint, else its encoder. A checkpoint's averaged weights are taken where it has
    them, unless `init.ema` is off. Nothing is written or removed: the source may be a run that is still going.

    Raises:
        ValueError: nothing there, or damaged.
    """
    source = init.source
    if source.startswith(ADDRESSES):
        if fetch is None:
            raise ValueError(
                f"init_from {source}: there is no model registry here; give a folder or a .safetensors file"
            )
        with fetch(source) as folder:
            found = _encoder(folder)
            yield Found(found.path, source, found.sha256)
    elif Path(source).is_file():
        yield Found(Path(source), source, _sha256(Path(source)))
    else:
        yield _in_folder(Path(source), init.ema, say)


def _in_folder(folder: Path, ema: bool, say: Callable[[str], None]) -> Found:
    if (folder / WEIGHTS).is_file():
        return _weights(folder, ema)
    for checkpoint in sorted(folder.glob("checkpoints/step-*"), reverse=True):
        try:
            return _weights(checkpoint, ema)
        except ValueError as damage:
            say(f"{damage}; passed over for the one before")
    for candidate in (folder, folder / "encoder"):
        if (candidate / ENCODER).is_file():
            return _encoder(candidate)
    why = f"holds no whole checkpoint and no {ENCODER}" if folder.is_dir() else "is no file or folder"
    raise ValueError(
        f"init_from {folder} {why}; give models:/NAME@ALIAS, models:/NAME/VERSION, a run's folder, a checkpoint's folder, "
        "or a .safetensors file"
    )


def _weights(checkpoint: Path, ema: bool) -> Found:
    """The weights of a checkpoint, whose marker has their checksum.

    Raises:
        ValueError: damaged, or half written.
    """
    try:
        files = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))["files"]
        path = checkpoint / (AVERAGE if ema and AVERAGE in files else WEIGHTS)
        digest = _sha256(path)
        whole = digest == files[path.name][1]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"init_from {checkpoint}: {MARKER} or what it lists is missing or unreadable ({error})"
        ) from None
    if not whole:
        raise ValueError(f"init_from {path}: was changed or cut short (checksum)")
    return Found(path, str(path), digest)


def _encoder(folder: Path) -> Found:
    """The weights of an encoder folder, whose description has their checksum.

    Raises:
        ValueError: damaged or not there.
    """
    path = folder / ENCODER
    try:
        wanted = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["sha256"]
        digest = _sha256(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"init_from {folder}: {DESCRIPTION} or {ENCODER} is missing or unreadable ({error})") from None
    if digest != wanted:
        raise ValueError(f"init_from {path}: was changed or cut short (checksum); fetch or save it again")
    return Found(path, str(path), digest)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
