"""Arrays that are written in a stream are those that numpy writes; parts of them are what a mapped array has there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fbm_dist.data.index import arrays
from fbm_dist.data.index.arrays import ArrayFile, Chunk, chunks, mapped, read_part
from fbm_dist.data.index.index import ROW


@pytest.mark.parametrize("dtype", [np.dtype("i8"), np.dtype("S11"), ROW])
@pytest.mark.parametrize("sizes", [(), (0,), (1,), (3, 0, 100_000, 1)])
def test_the_file_is_the_one_that_numpy_writes(tmp_path: Path, dtype: np.dtype, sizes: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    parts = [random.integers(1, 9, size * dtype.itemsize, np.uint8).view(dtype) for size in sizes]
    with ArrayFile(tmp_path / "streamed.npy", dtype) as file:
        for part in parts:
            file.append(part)
        assert len(file) == sum(sizes)
    whole = np.concatenate([np.zeros(0, dtype), *parts])
    np.save(tmp_path / "whole.npy", whole)
    found = np.load(tmp_path / "streamed.npy")
    assert found.dtype == dtype
    assert found.tobytes() == whole.tobytes()
    assert (tmp_path / "streamed.npy").read_bytes()[:6] == (tmp_path / "whole.npy").read_bytes()[:6]


def test_chunks_cover_every_row_once_and_read_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHUNK", 7)
    np.save(tmp_path / "plain.npy", np.arange(30, dtype=np.int64))
    np.save(tmp_path / "columns.npy", np.asfortranarray(np.arange(60, dtype=np.int32).reshape(30, 2)))
    plain, columns = mapped(tmp_path / "plain.npy"), mapped(tmp_path / "columns.npy")
    parts = list(chunks(30))
    assert [len(part) for part in parts] == [7, 7, 7, 7, 2]
    assert np.concatenate([part.of(plain) for part in parts]).tolist() == list(range(30))
    for column in (0, 1):
        assert np.concatenate([part.of(columns, column) for part in parts]).tolist() == columns[:, column].tolist()
    assert parts[0].of(plain) is parts[0].of(plain)  # read once
    assert list(chunks(0)) == []


def test_a_file_that_ends_early_is_no_shorter_array(tmp_path: Path) -> None:
    np.save(tmp_path / "plain.npy", np.arange(30, dtype=np.int64))
    plain = mapped(tmp_path / "plain.npy")
    with pytest.raises(AssertionError, match="ends before element 31"):
        read_part(plain, 29, 31)
    assert Chunk(29, 30).of(plain).tolist() == [29]
