"""Films that look alike (the same one uploaded twice, in another codec, size or cut), from the fingerprints in the manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_tools.dataset import open_dataset
from data_tools.places import Place, write_atomic
from data_tools.report.hamming import close_owners, matched
from data_tools.report.manifests import manifests
from data_tools.report.names import percent

NEAR_DUPLICATES = "near_duplicates.jsonl"
MAX_DISTANCE = 8  # bits of 64 by which two fingerprints of one picture may differ
SHARE = 0.5  # of the shorter film's fingerprints
LEAST = 2  # fingerprints that must match at least, if the shorter film has so many


@dataclass(frozen=True, order=True)
class Named:
    """A film by its names: path relative to the input, content hash, the user's own id."""

    source: str
    film: str
    id: str | None = None


@dataclass(frozen=True)
class Group:
    """Films that look alike, each like at least one other of the group.

    Attributes:
        films: two or more, sorted.
        share: of the shorter film's fingerprints that the longer one has too; the lowest of all pairs that were found.
    """

    films: tuple[Named, ...]
    share: float

    def line(self) -> str:
        """A line of near_duplicates.jsonl, without its end."""
        films = [{"source": f.source, "film": f.film, "id": f.id} for f in self.films]
        return json.dumps({"films": films, "share": self.share}, ensure_ascii=False)


def near_duplicates(
    root: Place,
    snapshot: str = "latest",
    max_distance: int = MAX_DISTANCE,
    share: float = SHARE,
    note: Callable[[str], None] = lambda text: None,
) -> list[Group]:
    """Groups of films that look alike, sorted by their first films.

    Two films do where at least `share` of the distinct fingerprints of the one with fewer, and at least 2 if it has so many, are within
    `max_distance` bits of one of the other's; a single one must be within half as many. Ten million fingerprints (one a second of
    film) take two minutes and a GiB, and the films' names.

    Args:
        note: told in a line where the search was cut short.
    Raises:
        ValueError: no such data set or snapshot, or a fingerprint that is none.
    """
    films, hashes, owners = _fingerprints(root, snapshot)
    pairs, shares, crowded = alike(hashes, owners, len(films), max_distance, share)
    if crowded:
        note(f"near-duplicates: {percent(crowded)} of all comparisons were cut short: too many frames are nearly equal")
    return _groups(films, pairs, shares)


def write_near_duplicates(root: Place, note: Callable[[str], None] = lambda text: None) -> int:
    """Write root/near_duplicates.jsonl of the newest snapshot, atomically; a line for each group. Returns how many there are."""
    groups = near_duplicates(root, note=note)
    write_atomic(root / NEAR_DUPLICATES, "".join(f"{group.line()}\n" for group in groups).encode())
    return len(groups)


def alike(
    hashes: np.ndarray, owners: np.ndarray, num_films: int, max_distance: int = MAX_DISTANCE, share: float = SHARE
) -> tuple[np.ndarray, np.ndarray, float]:
    """Pairs of films that look alike.

    Args:
        hashes: uint64 (n,): fingerprints.
        owners: int64 (n,): the film of each, in [0, num_films).
    Returns:
        int64 (m, 2) pairs of films; float64 (m,) shares in [0, 1]; which share of the search's comparisons was cut short.
    """
    order = np.lexsort((hashes, owners))
    hashes, owners = hashes[order], owners[order]
    if len(hashes):  # a film that stands still says the same many times
        new = np.r_[True, (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])]
        hashes, owners = hashes[new], owners[new]
    starts = np.searchsorted(owners, np.arange(num_films + 1)).astype(np.int64)
    pairs, crowded = close_owners(hashes, owners, max_distance)
    fewer = np.diff(starts)[pairs].min(axis=1, initial=np.iinfo(np.int64).max)
    counts = matched(hashes, starts, pairs, max_distance)
    single = fewer == 1  # nothing else confirms its match: among millions, chance alone would bring some
    counts[single] = matched(hashes, starts, pairs[single], max_distance // 2)
    good = (counts >= share * fewer) & (counts >= np.minimum(LEAST, fewer))
    return pairs[good], counts[good] / fewer[good], crowded


def _fingerprints(root: Place, snapshot: str) -> tuple[list[Named], np.ndarray, np.ndarray]:
    """The films, in the order of their ids; fingerprints as uint64, and the number of each one's film as int64."""
    numbers: dict[str, int] = {}
    films: list[Named] = []
    hashes, owners = [], []
    for table in manifests(root, open_dataset(root).snapshot(snapshot)):
        columns = table.select(["film", "source", "id"]).to_pylist()
        for row in columns:
            if row["film"] not in numbers:
                numbers[row["film"]] = len(films)
                films.append(Named(**row))
        clips = np.array([numbers[row["film"]] for row in columns], np.int64)
        texts, lengths = _lists(table["fingerprint"])
        hashes.append(parse(texts))
        owners.append(np.repeat(clips, lengths))
    order = sorted(range(len(films)), key=lambda i: films[i].film)
    rank = np.empty(len(films), np.int64)
    rank[order] = np.arange(len(films))
    return [films[i] for i in order], np.concatenate(hashes), rank[np.concatenate(owners)]


def parse(texts: list[str]) -> np.ndarray:
    """16 hex digits each -> uint64 (n,).

    Raises:
        ValueError: something else.
    """
    try:
        data = bytes.fromhex("".join(texts))
    except ValueError:
        data = b""
    if len(data) != 8 * len(texts) or any(len(text) != 16 for text in texts):
        raise ValueError("the manifest holds fingerprints that are not 16 hex digits; prepare the data set again")
    return np.frombuffer(data, ">u8").astype(np.uint64)


def _lists(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """All strings of a column of lists, and how many each row has."""
    array = column.combine_chunks()
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return array.flatten().to_pylist(), lengths


def _groups(films: list[Named], pairs: np.ndarray, shares: np.ndarray) -> list[Group]:
    if not len(pairs):
        return []
    size = len(films)
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    component = connected_components(graph, directed=False)[1]
    lowest = np.ones(component.max() + 1)
    np.minimum.at(lowest, component[pairs[:, 0]], shares)
    members: dict[int, list[Named]] = {}
    for number in np.unique(pairs):
        members.setdefault(int(component[number]), []).append(films[number])
    groups = [Group(tuple(sorted(group, key=_order)), round(float(lowest[c]), 4)) for c, group in members.items()]
    return sorted(groups, key=lambda group: _order(group.films[0]))


def _order(film: Named) -> tuple[str, str]:
    return film.source, film.film
