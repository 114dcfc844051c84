"""The search finds what comparing all with all finds, and stays bounded where everything is alike."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools.report import hamming
from data_tools.report.hamming import close_owners, matched


def flipped(hashes: np.ndarray, bits: int, rng: np.random.Generator) -> np.ndarray:
    """The same hashes with so many bits flipped in each."""
    where = rng.permuted(np.tile(np.arange(64, dtype=np.uint64), (len(hashes), 1)), axis=1)[:, :bits]
    return hashes ^ (np.uint64(1) << where).sum(axis=1, dtype=np.uint64)


def all_with_all(hashes: np.ndarray, owners: np.ndarray, most: int) -> set[tuple[int, int]]:
    close = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= most
    return {
        (min(a, b), max(a, b)) for a, b in zip(*(owners[i].tolist() for i in np.nonzero(close)), strict=True) if a != b
    }


def as_set(pairs: np.ndarray) -> set[tuple[int, int]]:
    return {(a, b) for a, b in pairs.tolist()}


@pytest.mark.parametrize("most", [0, 3, 7])
def test_up_to_seven_bits_nothing_is_missed_among_few(most: int) -> None:
    rng = np.random.default_rng(most)
    base = rng.integers(0, 2**64, 150, dtype=np.uint64)
    hashes = np.concatenate([base, *(flipped(base, bits, rng) for bits in (1, 3, 5, 7, 9))])
    owners = rng.integers(0, 200, len(hashes))
    pairs, crowded = close_owners(hashes, owners, most)
    assert as_set(pairs) == all_with_all(hashes, owners, most)
    assert crowded == 0
    assert pairs.tolist() == sorted(pairs.tolist())


def test_wide_bands_find_what_shares_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamming, "FEW", 0)  # as among millions
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**64, 400, dtype=np.uint64)
    hashes = np.concatenate([base, flipped(base, 3, rng)])
    owners = np.arange(800) % 400 + 400 * (np.arange(800) >= 400)
    pairs, _ = close_owners(hashes, owners, 3)
    assert as_set(pairs) == all_with_all(hashes, owners, 3), "3 flips leave one of 4 bands alone"


def test_a_crowd_is_linked_but_not_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamming, "MATCHES", 0)
    rng = np.random.default_rng(0)
    crowd = np.full(3000, 0xF0F0F0F0F0F0F0F0, np.uint64)
    alone = rng.integers(0, 2**64, 50, dtype=np.uint64)
    hashes, owners = np.concatenate([crowd, alone, flipped(alone, 2, rng)]), np.arange(3100)
    pairs, crowded = close_owners(hashes, owners, 8)
    assert crowded > 0
    assert len(pairs) < 3000 * 5 * hamming.CROWD
    linked = {0}
    for a, b in pairs[pairs[:, 1] < 3000].tolist():
        if a in linked:
            linked.add(b)
    assert len(linked) == 3000
    assert as_set(pairs) >= {(3000 + i, 3050 + i) for i in range(50)}, "others are found all the same"


def test_the_order_of_the_hashes_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    base = rng.integers(0, 2**64, 300, dtype=np.uint64)
    hashes, owners = np.concatenate([base, flipped(base, 4, rng)]), np.arange(600) % 250
    order = rng.permutation(600)
    assert np.array_equal(close_owners(hashes, owners, 6)[0], close_owners(hashes[order], owners[order], 6)[0])


def test_nothing_among_nothing() -> None:
    pairs, crowded = close_owners(np.empty(0, np.uint64), np.empty(0, np.int64), 8)
    assert pairs.shape == (0, 2)
    assert crowded == 0
    assert matched(np.empty(0, np.uint64), np.zeros(1, np.int64), pairs, 8).shape == (0,)


def test_matches_are_counted_for_the_one_with_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamming, "PAIRS", 7)  # in many small steps
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 7, 30)
    starts = np.r_[0, np.cumsum(lengths)]
    hashes = rng.integers(0, 2**64, starts[-1], dtype=np.uint64) & np.uint64(0xFFF)  # near enough to match now and then
    pairs = np.array([(a, b) for a in range(30) for b in range(a + 1, 30)])
    expected = []
    for a, b in pairs.tolist():
        few, many = sorted((hashes[starts[a] : starts[a + 1]], hashes[starts[b] : starts[b + 1]]), key=len)
        expected.append(sum(min((int(x) ^ int(y)).bit_count() for y in many) <= 3 for x in few))
    assert matched(hashes, starts, pairs, 3).tolist() == expected
