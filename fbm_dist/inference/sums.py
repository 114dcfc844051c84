"""SHA256SUMS: what the files of a pulled folder must be; `sha256sum --check SHA256SUMS` reads it, too. Needs the standard library alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

SUMS = "SHA256SUMS"
WEIGHTS, CONFIG, PROGRAM = "encoder.safetensors", "config.json", "encoder.pt2"
CARD, VERSION, TABLES = "README.md", "version.json", "evaluation"
LINE = re.compile(
    r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?)"
)  # no way out of the folder
LONGEST = 1 << 20  # bytes of SHA256SUMS
AGAIN = "the folder was changed after it was pulled; pull it again"


def write_sums(folder: Path) -> None:
    """List every file of `folder` in its SHA256SUMS."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{digest(folder / name)}  {name}" for name in names if name != SUMS]
    (folder / SUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_sums(folder: Path) -> dict[str, str]:
    """sha256 by name, as SHA256SUMS says it.

    Raises:
        ValueError: there is none, or it is damaged or names what lies outside.
    """
    path = folder / SUMS
    if not path.is_file() or path.is_symlink():
        why = f"holds no {SUMS}" if folder.is_dir() else "is no folder"
        raise ValueError(
            f"{folder}: no pulled encoder: it {why}; python -m fbm_dist.registry pull models:/NAME@ALIAS to=DIR makes one"
        )
    if path.stat().st_size > LONGEST:
        raise ValueError(f"{path}: {path.stat().st_size} bytes are no list of checksums; {AGAIN}")
    out = {}
    for number, text in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), 1):
        found = LINE.fullmatch(text)
        if found is None or found[2] in out:
            raise ValueError(f"{path}: line {number} is not a checksum of a file in this folder; {AGAIN}")
        out[found[2]] = found[1]
    return out


def check(folder: Path, *, only: Iterable[str] = ()) -> dict[str, str]:
    """Compare files with their checksums; `only` these, else all, and nothing else may lie there.

    Raises:
        ValueError: the first that is not what it was.
    """
    sums = read_sums(folder)
    for name in only or sums:
        found = digest(_regular(folder, name, sums))
        if found != sums[name]:
            raise ValueError(f"{folder / name}: checksum {found[:12]} is not {sums[name][:12]} of {SUMS}; {AGAIN}")
    if not only:
        there = {
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
        }
        further = sorted(there - {*sums, SUMS})
        if further:
            raise ValueError(f"{folder / further[0]}: not listed in {SUMS}; {AGAIN}")
    return sums


def read_checked(folder: Path, name: str) -> bytes:
    """The bytes of a file, once they are known to be those that were pulled.

    Raises:
        ValueError: they are not.
    """
    sums = read_sums(folder)
    if name not in sums and name == PROGRAM and not (folder / name).exists():
        raise ValueError(
            f"{folder}: pulled with program=false, so there is no {PROGRAM}; pull it with program=true, or load(folder, exported=False)"
        )
    content = _regular(folder, name, sums).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sums[name]:
        raise ValueError(f"{folder / name}: checksum {found[:12]} is not {sums[name][:12]} of {SUMS}; {AGAIN}")
    return content


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _regular(folder: Path, name: str, sums: dict[str, str]) -> Path:
    """The path of a listed file, which is one and no link to elsewhere."""
    path = folder / name
    if name not in sums:
        raise ValueError(f"{path}: not listed in {SUMS}; {AGAIN}")
    if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
        raise ValueError(f"{path}: {'a link' if path.is_symlink() else 'missing'}; {AGAIN}")
    return path
