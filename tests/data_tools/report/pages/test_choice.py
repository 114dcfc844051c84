"""Clips are drawn evenly from all shards, the same for the same seed, and each is shown once."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from data_tools.report.pages.choice import Choice

SIZE = 20  # clips of a shard


def table(shard: int, verdicts: list[list[str]]) -> pa.Table:
    rows = [
        {
            "key": f"{shard}-{i}",
            "shard": f"{shard:06d}",
            "members": [{"extension": "json", "offset": 512 + 1000 * i, "size": 1}],
            "film": f"film-{shard}-{i // 2}",
            "verdict": verdict,
        }
        for i, verdict in enumerate(verdicts)
    ]
    return pa.Table.from_pylist(rows, pa.schema([
        ("key", pa.string()), ("shard", pa.string()),
        ("members", pa.list_(pa.struct([("extension", pa.string()), ("offset", pa.int64()), ("size", pa.int64())]))),
        ("film", pa.string()), ("verdict", pa.list_(pa.string())),
    ]))  # fmt: skip


SHARDS = [table(shard, [["small"], ["small", "flat"], ["large"], []] * (SIZE // 4)) for shard in range(4)]


def chosen(seed: int) -> Choice:
    choice = Choice(6, 2, (), seed)
    for shard in SHARDS:
        choice.add(shard)
    return choice


def keys(rows: list[dict]) -> list[str]:
    return [row["key"] for row in rows]


def test_all_shards_are_drawn_from_alike() -> None:
    counts = Counter(key.partition("-")[0] for seed in range(100) for key in keys(chosen(seed).kept))
    assert len(counts) == 4
    assert max(counts.values()) < 1.5 * min(counts.values())


def test_the_seed_decides() -> None:
    assert keys(chosen(1).kept) == keys(chosen(1).kept) != keys(chosen(2).kept)


def test_kept_clips_have_no_verdict_and_stand_in_reading_order() -> None:
    rows = chosen(0).kept
    assert len(rows) == 6
    assert not any(row["verdict"] for row in rows)
    assert rows == sorted(rows, key=lambda row: (row["shard"], row["members"][0]["offset"]))


def test_a_rejected_clip_stands_under_one_of_its_reasons() -> None:
    rejected = chosen(0).rejected
    assert set(rejected) == {"small", "flat", "large"}
    assert all(len(rows) == 2 for rows in rejected.values())
    assert all(reason in row["verdict"] for reason, rows in rejected.items() for row in rows)
    every = [key for rows in rejected.values() for key in keys(rows)]
    assert len(every) == len(set(every))


def test_the_first_clip_of_a_film_in_question() -> None:
    choice = Choice(1, 1, ["film-1-3", "film-9-9"], 0)
    for shard in range(3):
        choice.add(table(shard, [[]] * SIZE))
    assert {film: row["key"] for film, row in choice.films.items()} == {"film-1-3": "1-6"}


def test_nothing_is_asked_for() -> None:
    choice = Choice(1, 0, (), 0)
    choice.add(table(0, [["small"]] * 3))
    assert choice.kept == []
    assert choice.rejected == {"small": []}
