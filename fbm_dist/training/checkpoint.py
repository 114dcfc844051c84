"""Checkpoints that a reader never sees half of: written beside, hashed, synced, renamed; the newest sound one is found again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fbm_dist.schema import Run
from fbm_dist.training.distributed import World

MARKER = "complete.json"  # written last; holds the manifest and every file's size and sha256
FORMAT = 1


class Checkpoints:
    """The folder `checkpoints/step-00000123` ... of one run. Every method must be called by every rank."""

    def __init__(self, folder: Path, keep: int, world: World) -> None:
        self.folder = folder
        self.keep = keep
        self.world = world

    def save(self, step: int, manifest: dict[str, Any], writers: Sequence[Callable[[Path], None]]) -> Path:
        """Write a checkpoint of `step`: each of `writers(folder)` on every rank, in a folder that becomes visible only when whole.

        After each writer the ranks agree whether it worked, so a writer may use collectives only if it runs them all in any case.

        Raises:
            ValueError: it could not be written (disk full, no permission); what was there before is intact.
        """
        final, partial = self._path(step), self.folder / f".{self._path(step).name}.partial"
        with self._explained(step):
            if self.world.first:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
        try:
            for write in writers:
                with self._explained(step):
                    write(partial)
            with self._explained(step):
                files = self._digests(partial, sync=True)
            everything = {name: entry for part in self.world.gather(files) for name, entry in part.items()}
            with self._explained(step):
                if self.world.first:
                    self._publish(partial, final, {"format": FORMAT, "step": step, **manifest, "files": everything})
        except Exception:
            if self.world.first:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        if self.world.first:
            self._forget_old()
        self.world.barrier()
        return final

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """(folder, manifest) of the newest checkpoint that is whole; damaged and half-written ones are passed over, saying so."""
        if self.world.first:
            for partial in sorted(self.folder.glob(".step-*.partial")):
                self.world.say(f"{partial}: half written when its run was stopped; passed over and removed")
                shutil.rmtree(partial, ignore_errors=True)
        for folder in self.world.broadcast(self._listed()):
            manifest = self.world.broadcast(self._manifest(folder) if self.world.first else None)
            found = self._damage(folder, manifest) if manifest is not None else f"{MARKER} is missing or unreadable"
            damage = [text for text in self.world.gather(found) if text]
            if not damage and manifest is not None:
                return folder, manifest
            self.world.say(f"{folder}: damaged ({damage[0]}); passed over for the one before")
        return None

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _listed(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)

    @contextmanager
    def _explained(self, step: int) -> Iterator[None]:
        """`world.agreed()` whose errors say in one line what could not be done."""
        try:
            with self.world.agreed():
                yield
        except (OSError, RuntimeError, ValueError) as failed:
            why = " ".join(str(failed).split())
            clear = ValueError(f"the checkpoint of step {step} could not be written to {self.folder}: {why}")
            clear.agreed = True  # type: ignore[attr-defined]
            raise clear from failed

    def _share(self, folder: Path) -> list[Path]:
        """The files that this rank hashes: reading them all is shared out."""
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MARKER)
        return files[self.world.rank :: self.world.size]

    def _digests(self, folder: Path, sync: bool = False) -> dict[str, tuple[int, str]]:
        found = {}
        for path in self._share(folder):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if sync:
                    os.fsync(file.fileno())
            found[path.relative_to(folder).as_posix()] = (path.stat().st_size, digest)
        return found

    def _publish(self, partial: Path, final: Path, manifest: dict[str, Any]) -> None:
        with (partial / MARKER).open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        for folder in [partial, *(p for p in partial.rglob("*") if p.is_dir())]:
            _sync_folder(folder)
        if final.exists():  # a damaged one of the same step, passed over before
            shutil.rmtree(final)
        partial.rename(final)
        _sync_folder(self.folder)

    def _forget_old(self) -> None:
        """Keep the newest `keep`. Renamed first: a reader sees a checkpoint whole or not at all."""
        for folder in self._listed()[self.keep :]:
            doomed = folder.rename(folder.with_name(f".{folder.name}.partial"))
            shutil.rmtree(doomed, ignore_errors=True)

    def _manifest(self, folder: Path) -> dict[str, Any] | None:
        try:
            manifest = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None

    def _damage(self, folder: Path, manifest: dict[str, Any]) -> str | None:
        """What is wrong with this rank's share of the files, None if nothing."""
        for name in sorted(manifest["files"])[self.world.rank :: self.world.size]:
            size, digest = manifest["files"][name]
            path = folder / name
            try:
                if path.stat().st_size != size:
                    return f"{name} has {path.stat().st_size} bytes, not {size}"
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                        return f"{name} does not have its checksum"
            except OSError as error:
                return f"{name}: {error.strerror}"
        return None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse_changes(manifest: dict[str, Any], run: Run, world: World) -> None:
    """A run goes on only as what it was.

    Raises:
        ValueError: naming what differs between the checkpoint and this run.
    """
    training = run.training
    then, now = manifest["objective"], run.objective.model_dump(mode="json")
    if then["family"] != now["family"]:
        raise ValueError(_refusal(run, "objective.family", then["family"], now["family"]))
    for key, old, new in differences(then, now, "objective"):
        raise ValueError(_refusal(run, key, old, new))
    stage = training.zero_stage if training.engine == "deepspeed" else None
    for key, old, new in (
        ("run.seed", manifest["seed"], run.run.seed),
        ("training.global_batch", manifest["global_batch"], training.global_batch),
        ("training.engine", manifest["engine"], training.engine),
        ("training.zero_stage", manifest["zero_stage"], stage),
        ("optimizer.kind", manifest["optimizer"], run.optimizer.kind),
        ("the number of processes", manifest["world_size"], world.size),
    ):
        if old != new:
            raise ValueError(_refusal(run, key, old, new))


def identity(run: Run, world: World) -> dict[str, Any]:
    """What a checkpoint says about the run it belongs to: the counterpart of `refuse_changes`."""
    training = run.training
    return {
        "objective": run.objective.model_dump(mode="json"),
        "seed": run.run.seed,
        "global_batch": training.global_batch,
        "engine": training.engine,
        "zero_stage": training.zero_stage if training.engine == "deepspeed" else None,
        "optimizer": run.optimizer.kind,
        "world_size": world.size,
    }


def differences(then: Any, now: Any, path: str) -> list[tuple[str, Any, Any]]:
    """(dotted key, old, new) of every leaf that differs between two trees of plain values."""
    if isinstance(then, dict) and isinstance(now, dict):
        keys = sorted({*then, *now})
        return [d for k in keys for d in differences(then.get(k), now.get(k), f"{path}.{k}" if path else k)]
    return [] if then == now else [(path, then, now)]


def _refusal(run: Run, key: str, old: Any, new: Any) -> str:
    return f"{run.run.folder}: {key} is {new!r}, but the checkpoint there has {old!r}; set it back, or give another run.folder"
