"""The exclusion list of a filter, sorted once a machine: millions of keys are mapped, not held. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from data_tools.places import Place, is_local, line, read_bytes, sha256_of
from fbm_dist.data.index.arrays import CHUNK, ArrayFile, mapped
from fbm_dist.data.index.cache import built, cache_folder

VERSION = 1  # of the folder's contents
KEYS = "keys.npy"
BLOCK = 1 << 23  # bytes of the list that are read together


@dataclass(frozen=True)
class Exclusion:
    """Keys that are left out.

    Attributes:
        folder: where they are cached.
        digest: sha256 over the sorted keys, a line each: lists that say the same in another order have the same.
        count: of different keys.
        strange: lines that can be no key of a clip, and exclude nothing; `example`: the first of them.
    """

    folder: Path
    digest: str
    count: int
    strange: int
    example: str

    @cached_property
    def keys(self) -> np.memmap:
        """Bytes, ascending."""
        return mapped(self.folder / KEYS)

    def holds(self, keys: np.ndarray) -> Bool[np.ndarray, " n"]:
        """Which of these keys (n of them, bytes) are in the list."""
        if not self.count:
            return np.zeros(len(keys), bool)
        # Keys longer than any listed one are cut and then differ from what they meet. One width: numpy would copy the list to widen it.
        order = np.argsort(keys)  # neighbours search the same part of the list
        sought = keys[order]
        place = np.searchsorted(self.keys, sought.astype(self.keys.dtype))
        found = np.empty(len(keys), bool)
        found[order] = self.keys[np.minimum(place, self.count - 1)] == sought
        return found


def open_exclusion(path: Place) -> Exclusion:
    """A text file of keys, one a line; blank lines and spaces around keys count for nothing.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        content = sha256_of(path) if is_local(path) else hashlib.sha256(read_bytes(path)).hexdigest()
        folder = cache_folder() / f"excluded-v{VERSION}-{content[:32]}"
        about = built(folder, lambda empty: _write(path, empty))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"data.filter.exclude_keys={path}: cannot be read: {line(error)}") from None
    return Exclusion(folder, about["digest"], about["count"], about["strange"], about["example"])


def _write(path: Place, folder: Path) -> dict[str, Any]:
    from fbm_dist.data.index.columns import fixed_width  # pyarrow is needed only here, not in reader processes

    parts, strange, example = [np.zeros(0, "S1")], 0, ""
    for lines, others in _lines(path):
        parts.append(fixed_width(lines))
        strange, example = strange + len(others), example or (others[0].as_py() if len(others) else "")
    keys = np.concatenate(parts)
    parts.clear()
    keys.sort()
    digest = hashlib.sha256()
    with ArrayFile(folder / KEYS, keys.dtype) as file:
        for start in range(0, len(keys), CHUNK):
            part = keys[start : start + CHUNK]
            fresh = np.append(not start or keys[start - 1] != part[0], part[1:] != part[:-1])
            file.append(part[fresh])
            digest.update(b"".join(key + b"\n" for key in part[fresh].tolist()))
        return {"digest": digest.hexdigest(), "count": len(file), "strange": strange, "example": example}


def _lines(path: Place) -> Iterator[tuple[Any, Any]]:
    """Some lines at a time, as arrow's texts: those that can be keys, and others that are not blank."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from data_tools.sample import KEY

    for block in _blocks(path):
        text = pa.array([block.decode("utf-8-sig")], pa.large_string())
        lines = pc.utf8_trim_whitespace(pc.split_pattern(text, "\n").flatten())
        lines = lines.filter(pc.not_equal(lines, ""))
        fits = pc.match_substring_regex(lines, f"^{KEY.pattern}$")
        yield lines.filter(fits), lines.filter(pc.invert(fits))


def _blocks(path: Place) -> Iterator[bytes]:
    """The file's bytes, cut where lines end."""
    rest = b""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            head, newline, tail = block.rpartition(b"\n")
            if newline:
                yield rest + head
                rest = tail
            else:
                rest += tail
    yield rest
