"""What an unfinished `prepare` has done so far, in OUTPUT/staging, a clip at a time: whatever stands there is whole."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from data_tools.building.ledger import Outcome
from data_tools.places import (
    Place,
    again,
    is_local,
    line,
    listed,
    read_bytes,
    read_range,
    remove,
    size_of,
    write_atomic,
)
from data_tools.sample import Metadata
from data_tools.shards import BLOCK, metadata_of

CLIP = ".clip"
DAMAGED = "a staged clip is damaged:"  # and then the film
OUTCOME = ".json"
HEAD = 1 << 14  # bytes in which the json member of most clips lies
TRANSFERS = 16  # requests at a time to a remote store


@dataclass(frozen=True)
class Staging:
    """The staging folder of a data set. Small enough to pickle: workers write into it, on whatever machine they are.

    A clip's file is named START-HASH-SIZE.clip after its content, so that a torn one (a machine that lost its power) is none.
    """

    root: Place

    def clips(self, film: str) -> dict[int, str]:
        """First frame -> file of the clips of a film that are there, in order."""
        return {int(name.partition("-")[0]): name for name in listed(self._folder(film)) if name.endswith(CLIP)}

    def put_clip(self, film: str, start: int, stretch: bytes) -> None:
        """Keep the clip that begins at frame `start` (its stretch of a tar); from now on it is done."""
        name = f"{start:09d}-{_hash(stretch)}-{len(stretch)}{CLIP}"
        path = self._folder(film) / name
        if is_local(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, stretch, durable=False)

    def get_clip(self, film: str, name: str) -> bytes | None:
        """The stretch in a clip's file; None where it is missing or damaged."""
        try:
            stretch = read_bytes(self._folder(film) / name)
        except FileNotFoundError:
            return None
        return stretch if name.endswith(f"-{_hash(stretch)}-{len(stretch)}{CLIP}") else None

    def metadata(self, film: str, name: str) -> Metadata:
        """The `json` member of a clip, without reading the rest of it.

        Raises:
            ValueError: the clip is missing or damaged.
        """
        path = self._folder(film) / name
        try:
            head = read_range(path, 0, HEAD)
            size = tarfile.TarInfo.frombuf(head[:BLOCK], "utf-8", "strict").size
            if BLOCK + size > len(head):
                head = read_range(path, 0, BLOCK + size)
            return metadata_of(head, [("json", BLOCK, size)])
        except (FileNotFoundError, tarfile.HeaderError, ValueError) as error:
            raise ValueError(f"{DAMAGED} {film} ({name}: {line(error)})") from None

    def whole(self, film: str, sizes: Sequence[int]) -> bool:
        """Are the clips of a film there, with their sizes. In object storage they are: it takes whole objects."""
        folder = self._folder(film)
        if not is_local(folder):
            return True
        found = [
            (int(name.removesuffix(CLIP).rpartition("-")[2]), size_of(folder / name))
            for name in self.clips(film).values()
        ]
        return [said for said, _ in found] == list(sizes) and all(said == size for said, size in found)

    def drop(self, film: str) -> None:
        """Remove a film, its outcome first: it has to be made again."""
        remove(self.root / "outcomes" / f"{film}{OUTCOME}")
        self.forget(film)

    def forget(self, film: str) -> None:
        """Remove the clips of a film."""
        folder = self._folder(film)
        for name in listed(folder):
            remove(folder / name)
        if is_local(folder) and folder.is_dir():
            folder.rmdir()

    def put_outcome(self, film: str, outcome: Outcome) -> None:
        """Keep what became of a film: from now on it is done."""
        path = self.root / "outcomes" / f"{film}{OUTCOME}"
        if is_local(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, outcome.model_dump_json().encode(), durable=False)

    def outcomes(self) -> dict[str, Outcome]:
        """Outcomes by film, of this run and of interrupted ones. A torn one is none."""
        folder = self.root / "outcomes"
        names = [name for name in listed(folder) if name.endswith(OUTCOME)]
        with ThreadPoolExecutor(1 if is_local(folder) else TRANSFERS) as readers:
            contents = readers.map(lambda name: read_bytes(folder / name), names)
            return {name.removesuffix(OUTCOME): o for name, o in zip(names, map(_outcome, contents), strict=True) if o}

    def write(self, name: str, content: Any) -> None:
        """Keep a JSON value."""
        write_atomic(self.root / name, json.dumps(content).encode())

    def read(self, name: str) -> Any:
        """The JSON value kept under that name; None where there is none."""
        try:
            return json.loads(read_bytes(self.root / name))
        except FileNotFoundError:
            return None

    def forget_run(self) -> None:
        """Remove the clips, outcomes and plan of a run that is finished; its settings and what it read stay."""
        for folder in ("films", "outcomes"):
            Staging(self.root / folder).clear()
        remove(self.root / "plan.json")

    def clear(self) -> None:
        """Remove everything."""
        if is_local(self.root):
            if self.root.exists():
                shutil.rmtree(self.root)
            return
        folder = self.root
        if folder.fs.exists(folder.path):
            again(f"cannot remove {folder}", lambda: folder.fs.rm(folder.path, recursive=True))

    def _folder(self, film: str) -> Place:
        return self.root / "films" / film[:2] / film


def read_lines(content: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file of lines; a line that was cut off when the process died is passed over."""
    for text in content.splitlines():
        try:
            yield json.loads(text)
        except ValueError:
            continue


def to_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    """JSON objects, one a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _outcome(content: bytes) -> Outcome | None:
    try:
        return Outcome.model_validate_json(content)
    except ValueError:
        return None
