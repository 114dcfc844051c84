"""Which 64-bit hashes are nearly equal, among ten millions: sorted by bands of bits, compared with their neighbours in the same band."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int64, UInt64

BITS = 64
FEW = 1 << 17  # up to so many hashes the bands have 8 bits: one of 8 bands is untouched by any 7 flips
COMPARISONS = 20_000_000_000  # of hashes, that a search may cost: what bounds the window at large numbers
WINDOW = 256  # neighbours that a hash is compared with at least, if its band has so many
MATCHES = 1 << 27  # that a search may find: what bounds the memory at large numbers
CROWD = 4  # after so many at least, a hash is compared no further in one band: what looks alike is linked through its neighbours
BLOCK = 1 << 15  # hashes compared at a time: small enough for the cache
PAIRS = 1 << 22  # of hashes compared at a time when films are


def close_owners(
    hashes: UInt64[np.ndarray, "n"], owners: Int64[np.ndarray, "n"], max_distance: int
) -> tuple[Int64[np.ndarray, "m 2"], float]:
    """Pairs of owners that have hashes at most `max_distance` bits apart: not all of them, but those that share many are not missed.

    Two hashes are compared where one of their bands of bits is equal. Where so many hashes share a band that not all can be compared
    (black frames with the same logo), each is compared with those that follow it in the order of its other bits.

    Returns:
        pairs (smaller, larger), sorted, each once; and the share of the comparisons of a hash with a band that were cut short.
    """
    width = 8 if len(hashes) <= FEW else 16
    passes = max(len(hashes), 1) * (BITS // width)
    limits = max(WINDOW, COMPARISONS // passes), max(CROWD, MATCHES // passes)
    number = int(owners.max(initial=0)) + 1
    found = np.empty(0, np.int64)
    crowded = 0
    for turn in range(0, BITS, width):
        rotated = (hashes << np.uint64(turn)) | (hashes >> np.uint64((BITS - turn) % BITS))
        order = np.argsort(rotated, kind="stable")
        rotated, own = rotated[order], owners[order]
        parts = [found]
        for start in range(0, len(rotated), BLOCK):
            codes, cut = _block(rotated, own, start, width, limits, max_distance, number)
            parts.append(codes)
            crowded += cut
        found = _unique(parts)
    return np.stack([found // number, found % number], axis=1), crowded / passes


def _block(
    rotated: np.ndarray,
    owners: np.ndarray,
    start: int,
    width: int,
    limits: tuple[int, int],
    max_distance: int,
    number: int,
) -> tuple[np.ndarray, int]:
    """Pairs, as smaller * number + larger, of the hashes from `start` on with what follows them; and how many were cut short."""
    window, crowd = limits
    same_band = np.uint64(1 << (BITS - width))
    found: list[np.ndarray] = []
    here = np.arange(start, min(start + BLOCK, len(rotated)))  # that are still compared
    matches = np.zeros(len(here), np.int32)
    crowded = 0
    for step in range(1, window + 1):
        here = here[: np.searchsorted(here, len(rotated) - step)]
        different = rotated[here] ^ rotated[here + step]
        together = different < same_band
        close = here[together & (np.bitwise_count(different) <= max_distance)]
        first, second = owners[close], owners[close + step]
        other = first != second
        found.append(np.minimum(first, second)[other] * number + np.maximum(first, second)[other])
        matches[close[other] - start] += 1
        # sorted: who has no longer a band in common with the next one has none with those behind it either
        here = here[together]
        done = matches[here - start] >= crowd
        crowded += int(done.sum())
        here = here[~done]
        if not here.size:
            break
    return _unique(found), crowded + len(here)


def _unique(parts: list[np.ndarray]) -> np.ndarray:
    """All values once, sorted; numpy's own `unique` hashes, which is ten times slower for so many."""
    values = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
    return values[np.r_[True, values[1:] != values[:-1]]] if len(values) else values


def matched(
    hashes: UInt64[np.ndarray, "n"], starts: Int64[np.ndarray, "_"], pairs: Int64[np.ndarray, "m 2"], max_distance: int
) -> Int64[np.ndarray, "m"]:
    """For each pair of owners, how many hashes of the one with fewer have one of the other at most `max_distance` bits away.

    Args:
        hashes: ordered by owner; those of owner i are `hashes[starts[i]:starts[i + 1]]`.
    """
    lengths = np.diff(starts)
    swap = lengths[pairs[:, 0]] > lengths[pairs[:, 1]]
    few, many = np.where(swap[:, None], pairs[:, ::-1], pairs).T
    counts = np.zeros(len(pairs), np.int64)
    for chosen, num_few, num_many in _alike(lengths[few], lengths[many]):
        a = hashes[starts[few[chosen], None] + np.arange(num_few)]
        b = hashes[starts[many[chosen], None] + np.arange(num_many)]
        rows = max(1, PAIRS // (len(chosen) * num_many))
        for row in range(0, num_few, rows):
            different = a[:, row : row + rows, None] ^ b[:, None, :]
            counts[chosen] += _within(different, max_distance).any(axis=2).sum(axis=1)
    return counts


def _alike(few: np.ndarray, many: np.ndarray) -> Iterator[tuple[np.ndarray, int, int]]:
    """Pairs with equal numbers of hashes together, so that they are compared as one dense array."""
    if not len(few):
        return
    order = np.lexsort((many, few))
    changes = np.flatnonzero((np.diff(few[order]) != 0) | (np.diff(many[order]) != 0)) + 1
    for group in np.split(order, changes):
        num_few, num_many = int(few[group[0]]), int(many[group[0]])
        step = max(1, PAIRS // (num_few * num_many))
        for at in range(0, len(group), step):
            yield group[at : at + step], num_few, num_many


def _within(different: UInt64[np.ndarray, "m a b"], max_distance: int) -> Bool[np.ndarray, "m a b"]:
    return np.bitwise_count(different) <= max_distance
