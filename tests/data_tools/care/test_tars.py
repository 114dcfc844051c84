"""A tar is read as it is: what looks like a sample is found again behind whatever stands in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_tools.care.tars import here, shown, stretches, walk
from data_tools.places import place, write_atomic
from data_tools.shards import to_stretch
from tests.data_tools.care.cases import sample

A, B = (to_stretch(key, sample(key, "x").members()) for key in ("a", "b"))


def found(path: Path, content: bytes) -> list[tuple[str, int, int]]:
    path.write_bytes(content)
    with path.open("rb") as file:
        return list(stretches(file))


@pytest.mark.parametrize(
    "between",
    [b"", b"rubbish " * 64, bytes(1024), A[:512] + b"x" * 512, bytes(3 * 512) + b"\xff" * 512],
    ids=["nothing", "rubbish", "an end", "a header with other data", "an end and rubbish"],
)
def test_samples_are_found_behind_damage(tmp_path: Path, between: bytes) -> None:
    starts = [(key, start, size) for key, start, size in found(tmp_path / "x.tar", A + between + B + bytes(1024))]
    assert starts[0] == ("a", 0, len(A))
    assert starts[-1] == ("b", len(A) + len(between), len(B))


def test_a_sample_that_is_cut_off_is_a_shorter_one(tmp_path: Path) -> None:
    assert found(tmp_path / "x.tar", A + B[:-700])[1][2] < len(B)


def test_a_whole_tar_is_walked_without_a_word(tmp_path: Path) -> None:
    content = A + B + bytes(1024)
    (tmp_path / "x.tar").write_bytes(content + bytes(-len(content) % 10240))
    with (tmp_path / "x.tar").open("rb") as file:
        members = list(walk(file))
    assert [m.name for m in members] == [f"{key}.{e}" for key in "ab" for e in ("json", "mask.png", "mp4", "shape.npy")]
    assert not any(m.odd for m in members)
    assert [m.start for m in members[1:]] == [m.end for m in members[:-1]]


def test_a_remote_file_is_here_while_it_is_needed(tmp_path: Path) -> None:
    there = place(f"memory://{tmp_path.name}/x.tar")
    write_atomic(there, A)
    with here(there) as path:
        assert path.read_bytes() == A
    assert not path.exists()
    with pytest.raises(FileNotFoundError), here(place(f"memory://{tmp_path.name}/y.tar")):
        pass


def test_names_in_messages_are_one_short_line() -> None:
    assert shown("a\nb\x1b[31m") == r"'a\nb\x1b[31m'"
    assert len(shown("x" * 10_000)) <= 80
