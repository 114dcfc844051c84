"""Mirror: checkpoints in object storage too (any fsspec URL), where a checkpoint without its marker does not exist."""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from data_tools.places import again, line
from fbm_dist.training.checkpoints.marker import FORMAT, MARKER, digest, sync_folder, write_marker

T = TypeVar("T")
ATTEMPTS = 5  # of one transfer
PAUSE = 1.0  # seconds before the second attempt; doubled before every further one
TRANSFERS = 4  # files at a time

log = logging.getLogger("fbm_dist.training")


class Mirror:
    """The checkpoints of one run at `url`. One process of the run uses it; several threads of that process may.

    Object stores cannot rename, so the marker is uploaded when all else has arrived and deleted before all else: a transfer that is
    killed at any moment leaves the checkpoint before it the newest. Credentials and addresses come from the environment (for S3:
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, or the machine's role).
    """

    def __init__(self, url: str, keep: int) -> None:
        """Nothing is read or written yet (`check` does).

        Args:
            url: a folder for this run alone: s3://bucket/run, file:///shared/run ...
            keep: how many checkpoints stay there.
        Raises:
            ValueError: no such kind of storage, or its package is missing.
        """
        self.url, self.keep = url, keep
        local = url.startswith(("file:", "local:", "/"))
        try:
            self._files, root = fsspec.url_to_fs(url, **({"auto_mkdir": True} if local else {}))
        except (ImportError, ValueError) as error:
            needed = "; pip install 'fbm-dist[s3]'" if isinstance(error, ImportError) and url.startswith("s3") else ""
            raise ValueError(f"training.checkpoint_mirror={url}: {line(error)}{needed}") from error
        self._root = root.rstrip("/")

    def check(self) -> None:
        """Write, read and delete a small object.

        Raises:
            ValueError: the storage cannot be used; one line with its own words and what to set.
        """
        content = uuid.uuid4().hex.encode()
        remote = f"{self._root}/.check-{content.decode()}"
        try:
            with tempfile.NamedTemporaryFile() as file:
                file.write(content)
                file.flush()
                self._again("write", lambda: self._files.put_file(file.name, remote))
            found = self._again("read", lambda: self._files.cat_file(remote))
            self._again("delete", lambda: self._files.rm_file(remote))
        except OSError as error:
            raise ValueError(
                f"{line(error)}; set the storage's credentials and address in the environment "
                "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL for s3), make the bucket, "
                "or leave training.checkpoint_mirror out"
            ) from error
        if found != content:
            raise ValueError(f"training.checkpoint_mirror={self.url} does not give back what was written to it")

    def send(self, folder: Path, keep_also: Collection[str] = ()) -> None:
        """Upload a whole local checkpoint, then remove older ones: `keep` stay, and those named in `keep_also`.

        Raises:
            ValueError: `folder` has no marker.
            OSError: the storage could not be written to; what was there before is intact, except an older copy of this checkpoint.
        """
        files = _files(_parsed((folder / MARKER).read_bytes() if (folder / MARKER).exists() else b""))
        if files is None:
            raise ValueError(f"{folder} is no whole checkpoint: {MARKER} is missing or of another format")
        names = self._names()
        if folder.name in names:  # half sent, or of a session whose steps were done again
            self._delete(folder.name)
        with ThreadPoolExecutor(TRANSFERS) as transfers:
            list(transfers.map(lambda name: self._put(folder, name), sorted(files)))
        self._put(folder, MARKER)
        try:
            self._forget(folder.name, [name for name in names if name != folder.name], keep_also)
        except OSError as error:  # the next one tries again
            log.warning("%s was copied, but older ones were not removed: %s", folder.name, line(error))

    def newest(self, before: int | None = None) -> tuple[int, str] | None:
        """(step, name) of the newest whole checkpoint, None where there is none.

        Args:
            before: only those of earlier steps, e.g. than one that `fetch` found damaged.
        Raises:
            OSError: the storage does not answer.
        """
        for name in sorted(self._names(), key=_step, reverse=True):
            if (before is None or _step(name) < before) and _files(self._marker(name)) is not None:
                return _step(name), name
        return None

    def fetch(self, name: str, into: Path) -> Path:
        """Download a checkpoint to `into`/`name`, which appears only when it is whole and replaces what stood there.

        Returns:
            The folder.
        Raises:
            ValueError: it is damaged there: a file is missing, or does not have its size and checksum.
            OSError: the storage does not answer, or the local disk is full.
        """
        manifest = self._marker(name)
        files = _files(manifest)
        if manifest is None or files is None:
            raise ValueError(f"{self._root}/{name}: {MARKER} is missing or unreadable")
        partial, final = into / f".{name}.partial", into / name
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            with ThreadPoolExecutor(TRANSFERS) as transfers:
                list(transfers.map(lambda item: self._get(name, partial, *item), sorted(files.items())))
            write_marker(partial, manifest)
            if final.exists():
                shutil.rmtree(final)
            partial.rename(final)
            sync_folder(into)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return final

    def _put(self, folder: Path, name: str) -> None:
        """Upload one file; it must arrive with its size."""
        local, remote = folder / name, f"{self._root}/{folder.name}/{name}"
        size = local.stat().st_size

        def transfer() -> None:
            self._files.put_file(str(local), remote)
            self._files.invalidate_cache()
            arrived = self._files.size(remote)
            if arrived != size:
                raise OSError(f"{name} arrived with {arrived} bytes, not {size}")

        self._again(f"write {folder.name}/{name}", transfer)

    def _get(self, name: str, partial: Path, file: str, entry: tuple[int, str]) -> None:
        """Download one file; it must have the size and sha256 of `entry`."""
        local, remote = partial / file, f"{self._root}/{name}/{file}"
        local.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._again(f"read {name}/{file}", lambda: self._files.get_file(remote, str(local)))
        except FileNotFoundError as error:
            raise ValueError(f"{remote} is missing in the mirror") from error
        if digest(local, sync=True) != tuple(entry):
            raise ValueError(f"{remote} is damaged in the mirror: it does not have its size and checksum")

    def _forget(self, sent: str, others: list[str], keep_also: Collection[str]) -> None:
        """Remove what lies beyond the newest `keep` up to `sent`, and everything unfinished.

        Later ones than `sent` stay: a run that was started from older local files must not cost the newer ones.
        """
        whole = []
        for name in sorted(others, key=_step, reverse=True):
            manifest = self._marker(name)
            if manifest is None:
                self._delete(name)
            elif _files(manifest) is not None and _step(name) < _step(sent):
                whole.append(name)
        for name in whole[self.keep - 1 :]:
            if name not in keep_also:
                self._delete(name)

    def _delete(self, name: str) -> None:
        """The marker first: from then on it does not exist."""

        def remove() -> None:
            self._files.invalidate_cache()
            if self._files.exists(f"{self._root}/{name}/{MARKER}"):
                self._files.rm_file(f"{self._root}/{name}/{MARKER}")
            self._files.invalidate_cache()
            if self._files.exists(f"{self._root}/{name}"):
                self._files.rm(f"{self._root}/{name}", recursive=True)

        self._again(f"delete {name}", remove)

    def _names(self) -> list[str]:
        """Of checkpoints, whole or not."""

        def names() -> list[str]:
            self._files.invalidate_cache()
            try:
                return [path.rstrip("/").rsplit("/", 1)[-1] for path in self._files.ls(self._root, detail=False)]
            except FileNotFoundError:
                return []

        return [name for name in self._again("list", names) if re.fullmatch(r"step-\d+", name)]

    def _marker(self, name: str) -> dict[str, Any] | None:
        """What a checkpoint says about itself, of whatever format; None where it is not whole."""

        def read() -> bytes:
            try:
                return self._files.cat_file(f"{self._root}/{name}/{MARKER}")
            except FileNotFoundError:
                return b""

        return _parsed(self._again(f"read {name}/{MARKER}", read))

    def _again(self, what: str, call: Callable[[], T]) -> T:
        """`call()`, tried again where the store fails for a moment."""
        return again(f"the checkpoint mirror {self.url}: cannot {what}", call, ATTEMPTS, PAUSE)


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        manifest = json.loads(text)
    except ValueError:
        return None
    return manifest if isinstance(manifest, dict) else None


def _files(manifest: dict[str, Any] | None) -> dict[str, tuple[int, str]] | None:
    """Name -> (bytes, sha256) of the files of a checkpoint that this code reads; None where it is not one."""
    if manifest is None or manifest.get("format") != FORMAT:
        return None
    return {name: (entry[0], entry[1]) for name, entry in manifest["files"].items()}


def _step(name: str) -> int:
    return int(name.removeprefix("step-"))
