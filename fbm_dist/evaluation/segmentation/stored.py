"""Scores in the output folder, a file a method and sequence: the same command again goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from data_tools.places import atomic
from fbm_dist.evaluation.segmentation.folders.sequence import Sequence
from fbm_dist.evaluation.segmentation.methods.method import Method

FOLDER = "masks"
Scores = UInt8[np.ndarray, "n h w"]


def scores_of(method: Method, sequence: Sequence, output: Path) -> Scores:
    """Scores * 255 of the annotated frames, in the method's own resolution: from the file of an earlier run, else made and stored.

    A file of other settings, of other frames, or one that is damaged is not taken; the new one takes its place. 8 bits, as in the
    shards: what is measured is what was stored.

    Raises:
        ValueError: the method cannot do it.
    """
    if not method.stored:
        return _made(method, sequence)
    path, identity = place(method, sequence, output), _identity(method, sequence)
    found = _read(path, identity, len(sequence.truth))
    if found is None:
        found = _made(method, sequence)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path, durable=False) as file:
            np.savez_compressed(file, scores=found, frames=np.array(sequence.annotated), identity=np.array(identity))
    return found


def place(method: Method, sequence: Sequence, output: Path) -> Path:
    """masks/METHOD-DIGEST/DATA/SEQUENCE.npz: other settings do not overwrite it."""
    word = re.sub(r"[^a-z0-9]+", "-", method.row.lower()).strip("-")
    return output / FOLDER / f"{word}-{method.identity[:8]}" / sequence.data / f"{sequence.name}.npz"


def _identity(method: Method, sequence: Sequence) -> str:
    """A digest of the method and of the frames that it is given."""
    text = json.dumps([method.identity, sequence.digest, sequence.annotated])
    return hashlib.sha256(text.encode()).hexdigest()


def _made(method: Method, sequence: Sequence) -> Scores:
    return np.stack([np.rint(score * 255).astype(np.uint8) for score in method.scores(sequence)])


def _read(path: Path, identity: str, number: int) -> Scores | None:
    try:
        with path.open("rb") as file, np.load(file) as found:
            scores, written = found["scores"], str(found["identity"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    whole = written == identity and scores.dtype == np.uint8 and scores.ndim == 3 and len(scores) == number
    return scores if whole else None
