"""Checkpoints that a reader never sees half of: written beside, hashed, synced, renamed; the newest sound one is found again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fbm_dist.training.checkpoints.marker import (
    FORMAT,
    MARKER,
    damage,
    digest,
    name_of,
    read_manifest,
    sync_folder,
    write_marker,
)
from fbm_dist.training.checkpoints.parts import Part
from fbm_dist.training.distributed import World, agreed

MAX_FAILURES = 3  # saves in a row that may fail before the run ends
NONE = -1.0  # no step


@runtime_checkable  # the tests check annotations
class Copies(Protocol):
    """Where checkpoints go beside the run folder (mirror.py)."""

    def send(self, folder: Path, keep_also: Collection[str] = ()) -> None: ...
    def newest(self, before: int | None = None) -> tuple[int, str] | None: ...
    def fetch(self, name: str, into: Path) -> Path: ...


@dataclass
class Save:
    """A checkpoint that is being written: by every rank its part, then by rank 0 the whole of it."""

    step: int
    partial: Path
    manifest: dict[str, Any]
    assemble: Callable[[Path], None]
    keep: frozenset[int]
    written: Future[None] = field(init=False)
    published: Future[None] | None = None


class Checkpoints:
    """The folder `checkpoints/step-00000123` ... of one run.

    `begin` takes what is to be saved and returns; a thread writes it. No collective runs in a thread: the ranks learn of each other's
    progress from numbers (`signals`) whose maximum the trainer takes over the ranks in its vote after every step, and give to `heed`.
    Every method must be called by every rank.
    """

    def __init__(
        self, folder: Path, keep: int, world: World, *, background: bool = False, copies: Copies | None = None
    ) -> None:
        self.folder, self.keep, self.world, self.background, self.copies = folder, keep, world, background, copies
        self._threads = ThreadPoolExecutor(1, "checkpoint")
        self._senders = ThreadPoolExecutor(1, "mirror")  # a slow store holds up no save
        self._outgoing: set[str] = set()  # names of checkpoints on their way to the mirror
        self._sending: tuple[Future[None], str] | None = None
        self._spared: set[str] = set()  # kept beside the newest
        self._pending: Save | None = None
        self._settled = self._failed = self._done = NONE  # steps: written or failed here; failed here; published
        self._why = ""
        self._failures = 0

    def begin(
        self,
        step: int,
        manifest: dict[str, Any],
        part: Part,
        assemble: Callable[[Path], None],
        keep: Iterable[int] = (),
        last: bool = False,
    ) -> None:
        """Save a checkpoint of `step`; in the background, or before it returns.

        Args:
            assemble: what rank 0 does in the folder when all parts are there.
            keep: steps whose checkpoints are kept beside the newest ones.
            last: see `finish`, which is called then.
        Raises:
            ValueError: as `finish`.
        """
        self.finish()
        partial = self.folder / f".{name_of(step)}.partial"
        save = Save(step, partial, manifest, assemble, frozenset(keep))
        save.written = self._threads.submit(self._write, save, part)
        self._pending = save
        if last or not self.background:
            self.finish(last=last)

    def signals(self) -> list[float]:
        """What the other ranks must know; to be reduced by maximum."""
        self._look()
        return [-self._settled, self._failed, self._done]

    def heed(self, signals: Sequence[float]) -> None:
        """Go on with a save by what the ranks have signalled.

        Raises:
            ValueError: three saves in a row could not be written; what was there before is intact.
        """
        save = self._pending
        if save is None:
            return
        settled, failed, done = -signals[0], signals[1], signals[2]
        if done >= save.step:
            self._pending, self._failures = None, 0
        elif settled >= save.step and failed >= save.step:
            self._give_up(save)
        elif settled >= save.step and self.world.first and save.published is None:
            save.published = self._threads.submit(self._publish, save)

    def finish(self, *, last: bool = False) -> None:
        """Wait until nothing is being written.

        Args:
            last: no later save can make up for one that fails.
        Raises:
            ValueError: the checkpoint could not be written (disk full, no permission); what was there before is intact.
        """
        while self._pending is not None:
            save = self._pending
            for future in (save.written, save.published):
                if future is not None:
                    with suppress(Exception):
                        future.result()
            rows = self.world.gather(self.signals())
            if last:
                self._failures = MAX_FAILURES
            self.heed([max(column) for column in zip(*rows, strict=True)])

    def close(self) -> None:
        """Wait for what is being written and sent, and end the threads."""
        self._threads.shutdown(wait=True)
        self._senders.shutdown(wait=True)

    def open(self) -> tuple[Path, dict[str, Any]] | None:
        """At the start of a session: clear away what is half written, look into the mirror, then `newest`.

        Damaged ones that are newer are put aside as `.damaged-step-...`: steps are done again under their names.

        Raises:
            ValueError: there are checkpoints, and none is whole.
        """
        with self.world.agreed():
            if self.world.first:
                self._clear()
                self._fetch()
        listed = self.world.broadcast(self._listed())
        found = self.newest()
        with self.world.agreed():
            if found is None and listed:
                raise ValueError(
                    f"{self.folder}: none of the {len(listed)} checkpoints is whole, or they are of an older version of this "
                    "project; move the folder away to begin anew"
                )
            if found is not None and self.world.first:
                for folder in listed:
                    if folder.name > found[0].name and folder.exists():
                        aside = folder.with_name(f".damaged-{folder.name}")
                        shutil.rmtree(aside, ignore_errors=True)
                        folder.rename(aside)
        return found

    def newest(
        self, accept: Callable[[dict[str, Any]], bool] = lambda manifest: True
    ) -> tuple[Path, dict[str, Any]] | None:
        """(folder, manifest) of the newest checkpoint that is whole; damaged ones are passed over, saying so.

        Args:
            accept: whether one with this manifest will do.
        """
        for folder in self.world.broadcast(self._listed()):
            manifest = self._whole(folder, accept)
            if manifest is not None:
                return folder, manifest
        return None

    def whole(self, step: int) -> Path | None:
        """The checkpoint of `step`, from the mirror where it is damaged or missing here; None: there is none."""
        folder = self.of(step)
        return folder if self._whole(folder, lambda manifest: True) is not None else None

    def _whole(self, folder: Path, accept: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
        """The manifest of a checkpoint that will do and is whole, or can be made so."""
        manifest, wrong = self._examine(folder)
        if manifest is not None and not accept(manifest):
            return None
        if wrong:
            self.world.say(f"{folder}: damaged ({wrong})")
            if self._replaced(folder):
                manifest, wrong = self._examine(folder)
        if wrong:
            self.world.say(f"{folder}: passed over")
        return None if wrong else manifest

    def _examine(self, folder: Path) -> tuple[dict[str, Any] | None, str]:
        """(manifest, what is wrong with it on some rank), the same on every rank."""
        manifest = self.world.broadcast(read_manifest(folder) if self.world.first else None)
        if manifest is None:
            return None, f"{MARKER} is missing or unreadable"
        found = self.world.gather(damage(folder, manifest, self.world.rank, self.world.size))
        return manifest, next((text for text in found if text), "")

    def _replaced(self, folder: Path) -> bool:
        """Whether the mirror had a sound copy, which is now in the place of the damaged one."""
        done = False
        with self.world.agreed():
            if self.copies is not None:
                with suppress(ValueError, OSError):
                    self.copies.fetch(folder.name, self.folder)
                    self.world.say(f"{folder}: fetched anew from the mirror")
                    done = True
        return self.world.broadcast(done)

    def of(self, step: int) -> Path:
        """Where the checkpoint of `step` is or will be."""
        return self.folder / name_of(step)

    def _listed(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)

    def _clear(self) -> None:
        for partial in sorted(self.folder.glob(".step-*.partial")):
            self.world.say(f"{partial}: half written when its run was stopped; passed over and removed")
            shutil.rmtree(partial, ignore_errors=True)

    def _fetch(self) -> None:
        """A newer checkpoint than those here, from the mirror; the one before it where it is damaged."""
        if self.copies is None:
            return
        here = next((m["step"] for m in map(read_manifest, self._listed()) if m is not None), NONE)
        found = self.copies.newest()
        while found is not None and found[0] > here:
            try:
                self.copies.fetch(found[1], self.folder)
                self.world.say(f"{self.folder / found[1]}: fetched from the mirror")
                return
            except ValueError as damaged:
                self.world.say(f"{damaged}; passed over for the one before")
                found = self.copies.newest(before=found[0])

    def _write(self, save: Save, part: Part) -> None:
        """This rank's share, and a note of what it wrote for rank 0 to read."""
        save.partial.mkdir(parents=True, exist_ok=True)
        part.write(save.partial)
        names = [p.name for p in save.partial.glob(f"*-{part.rank:05d}.*") if not p.name.startswith("weights-")]
        note = save.partial / f".digests-{part.rank:05d}.json"
        note.write_text(json.dumps({name: digest(save.partial / name, sync=True) for name in names}))

    def _publish(self, save: Save) -> None:
        """Make it whole and visible, then forget old ones. Rank 0, in the thread."""
        partial, final = save.partial, self.of(save.step)
        save.assemble(partial)
        files: dict[str, Any] = {}
        for rank in range(self.world.size):  # by name: a listing of a network's file system may lag behind
            note = partial / f".digests-{rank:05d}.json"
            files |= json.loads(note.read_text())
            note.unlink()
        files |= {p.name: digest(p, sync=True) for p in partial.iterdir() if p.name not in files}
        manifest = {"format": FORMAT, "step": save.step, **save.manifest, "files": files}
        write_marker(partial, manifest)
        if final.exists():  # a damaged one of the same step, passed over before
            shutil.rmtree(final)
        partial.rename(final)
        sync_folder(self.folder)
        if self._sending is not None and self._sending[0].cancel():  # a slow store gets the newest, not all
            self._outgoing.discard(self._sending[1])
        self._forget_old(save)
        if self.copies is not None:
            self._outgoing.add(final.name)
            keep = [name_of(step) for step in save.keep]
            self._sending = self._senders.submit(self._send, final, keep), final.name

    def _send(self, folder: Path, keep: list[str]) -> None:
        assert self.copies is not None
        try:
            self.copies.send(folder, keep)
        except Exception as error:  # the store may be away for a while; what is on the disk is what counts
            self.world.say(f"the checkpoint {folder.name} was not copied: {' '.join(str(error).split())}")
        finally:
            self._outgoing.discard(folder.name)

    def _forget_old(self, save: Save) -> None:
        """Keep the newest `self.keep` up to this one, and those that the save names: one that never came leaves its forerunner.

        Renamed first: a reader sees a checkpoint whole or not at all.
        """
        if all(self.of(step).exists() for step in save.keep):
            self._spared = {name_of(step) for step in save.keep}
        older = [f for f in self._listed() if f.name <= name_of(save.step)][self.keep :]
        for folder in [f for f in older if f.name not in self._spared | self._outgoing]:
            doomed = folder.rename(folder.with_name(f".{folder.name}.partial"))
            shutil.rmtree(doomed, ignore_errors=True)

    def _look(self) -> None:
        """Whether this rank's threads have done something since the last look."""
        save = self._pending
        if save is None:
            return
        if save.written.done():
            self._note(save, save.written)
            self._settled = save.step
        if save.published is not None and save.published.done() and not self._note(save, save.published):
            self._done = save.step

    def _note(self, save: Save, future: Future[None]) -> bool:
        error = future.exception()
        if error is not None:
            self._failed, self._why = save.step, " ".join(str(error).split()) or type(error).__name__
        return error is not None

    def _give_up(self, save: Save) -> None:
        self._pending = None
        self._failures += 1
        why = next((text for text in self.world.gather(self._why) if text), "unknown")
        self._why = ""
        if self.world.first:
            shutil.rmtree(save.partial, ignore_errors=True)
        text = f"the checkpoint of step {save.step} could not be written to {self.folder}: {why}"
        if self._failures < MAX_FAILURES:
            self.world.say(f"{text}; training goes on, and the next one is tried in its time")
            return
        raise agreed(f"{text}; the last good one is intact, and the same command goes on from there")
