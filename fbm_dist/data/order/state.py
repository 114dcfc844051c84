"""The loader's whole state: one small value that lives in the checkpoint. Imports no torch."""

from __future__ import annotations

from data_tools.config import Config


class LoaderState(Config):
    """Where the stream of clips stands, and everything that its order and its pixels depend on.

    Attributes:
        epoch: of the next position, consumed // number of clips.
        consumed: global positions used so far, over all ranks and epochs.
        seed: of the order and the random numbers.
        dataset_digest: "data set.filter.clip settings", three hashes.
        global_batch: clips of one optimizer step over all ranks.
        decoder: dali-mixed, dali-cpu or pyav.
        shuffle: "global", or "blocks of N shards".
        snapshot: of the data set; what data.snapshot has to say to get the same clips again.
    """

    epoch: int
    consumed: int
    seed: int
    dataset_digest: str
    global_batch: int
    decoder: str
    shuffle: str = "global"
    snapshot: str = ""

    def check(self, expected: LoaderState) -> None:
        """Compare a checkpoint's state (`self`) with that of the run that wants to go on from it (`expected`).

        Raises:
            ValueError: the run would see other clips, or in another order; the text names each difference.
        """
        found = []
        if self.dataset_digest != expected.dataset_digest:
            names = ("the data set", "data.filter", "data.clip")
            parts = zip(names, self.dataset_digest.split("."), expected.dataset_digest.split("."), strict=False)
            changed = [name for name, ours, theirs in parts if ours != theirs] or ["the data"]
            found.append(
                f"{' and '.join(changed)} changed (digest {self.dataset_digest}, now {expected.dataset_digest})"
            )
            if "the data set" in changed and self.snapshot and self.snapshot != expected.snapshot:
                found[-1] += f"; data.snapshot={self.snapshot} pins the one that it started with"
        for name, ours, theirs in (
            ("run.seed", self.seed, expected.seed),
            ("training.global_batch", self.global_batch, expected.global_batch),
            ("data.decode", self.decoder, expected.decoder),
            ("data.shuffle", self.shuffle, expected.shuffle),
        ):
            if ours != theirs:
                found.append(f"{name} was {ours}, now {theirs}")
        if found:
            raise ValueError(
                f"the checkpoint does not continue this run's data: {'; '.join(found)}. "
                "Set it back, or start in a new run.folder"
            )
