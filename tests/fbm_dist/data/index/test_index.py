"""The memory-mapped index against the manifest and the tar; filters; digests; refusals."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_tools.dataset import read_manifest
from data_tools.shards import shard_file
from fbm_dist.data.index.index import CODECS, Index, name_id
from fbm_dist.data.index.selection import digest, select
from fbm_dist.schema import ClipSpec, Data, Filter
from tests.datasets import write_dataset
from tests.logs import ours


def of(data: Data) -> tuple[Filter, ClipSpec]:
    """What of a config chooses clips."""
    return data.filter, data.clip


def keys(index: Index, data: Data) -> list[int]:
    """Numbers of the clips that a config selects."""
    return [int(index.key(row).rpartition("-")[2]) for row in select(index, *of(data)).kept.tolist()]


def test_rows_say_what_the_manifest_says_and_point_at_the_members(vp9: Path) -> None:
    index = pickle.loads(pickle.dumps(Index.open(vp9)))  # as a reader process gets it
    for number, (row, told) in enumerate(zip(index.rows, read_manifest(vp9).to_pylist(), strict=True)):
        labels = dict(told["labels"])
        assert index.shards[row["shard"]] == f"shards/{told['shard']}.tar"
        assert CODECS[row["codec"]] == told["codec"]
        assert (row["frames"], row["start"]) == (told["num_frames"], told["span"][0])
        assert [row["height"], row["width"], row["mask_height"], row["mask_width"]] == told["size"] + told["mask_size"]
        assert (row["film"], row["group"]) == (name_id(told["film"]), name_id(told["group"]))
        assert index.splits[row["split"]] == told["split"]
        assert (index.verdicts[row["verdict"]] if row["verdict"] >= 0 else None) == next(iter(told["verdict"]), None)
        tar = (vp9 / index.shards[row["shard"]]).read_bytes()
        for name, start in (("mask", b"\x89PNG"), ("truth", b"\x89PNG"), ("video", b"\0\0\0")):
            assert tar[row[name] : row[name] + row[f"{name}_size"]].startswith(start)
        assert index.key(number) == told["key"]
        for column, (name, classes) in enumerate(index.label_names.items()):
            code = index.labels[number, column]
            assert (classes[code] if code >= 0 else None) == labels.get(name)


def test_label_names_are_sorted_and_cover_the_whole_snapshot(vp9: Path) -> None:
    names = Index.open(vp9).label_names
    assert names == {"motion": ("left", "right"), "object": ("plain", "rough", "striped")}


def test_the_second_opening_maps_what_the_first_built(vp9: Path) -> None:
    first = Index.open(vp9)
    before = (first.folder / "rows.npy").stat().st_mtime_ns
    assert Index.open(vp9).folder == first.folder
    assert (first.folder / "rows.npy").stat().st_mtime_ns == before
    assert isinstance(first.rows, np.memmap)


def test_a_start_from_the_cache_looks_at_the_tars_alone(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", clips=12, seed=13)
    first = Index.open(root)
    for path in (*root.rglob("*.stats.json"), *root.rglob("*.parquet"), *root.rglob("*.idx")):
        path.unlink()
    assert Index.open(root) == first
    next(root.rglob("*.tar")).unlink()
    with pytest.raises(ValueError, match=r"\.tar: missing"):
        Index.open(root)


def test_reader_processes_load_neither_torch_nor_pyarrow() -> None:
    code = "import sys, fbm_dist.data.index.selection; print(sorted({'torch', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_damaged_cache_is_built_again(tmp_path: Path) -> None:
    index = Index.open(write_dataset(tmp_path / "data", clips=4, seed=7))
    rows = np.array(index.rows)
    (index.folder / "rows.npy").write_bytes(b"half")
    assert (Index.open(tmp_path / "data").rows == rows).all()


def test_an_older_snapshot_stays_readable_after_the_data_set_grew(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", clips=4, seed=8)
    before = Index.open(root).digest
    write_dataset(root, clips=3, seed=9)
    assert len(Index.open(root).rows) == 7
    assert (Index.open(root, "1").digest, len(Index.open(root, "1").rows)) == (before, 4)
    assert Index.open(root).digest != before


# Of 12 clips: film i//2, group film % 3, split by film; object label missing at 6; pruned: 5 and 11.
@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Filter(), list(range(12))),
        (Filter(split="val"), [6, 7]),
        (Filter(groups=("person-0", "person-2")), [0, 1, 4, 5, 6, 7, 10, 11]),
        (Filter(exclude_groups=("person-0", "person-2")), [2, 3, 8, 9]),
        (Filter(labelled="object"), [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]),
        (Filter(pruned=True), [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]),
        (Filter(split="train", groups=("person-2",), pruned=True), [4, 10]),
    ],
)
def test_filters_keep_what_they_say(
    vp9: Path, data_of: Callable[..., Data], chosen: Filter, expected: list[int]
) -> None:
    assert keys(Index.open(vp9), data_of(vp9, chosen)) == expected


def test_an_exclusion_list_is_read_by_its_contents(vp9: Path, data_of: Callable[..., Data], tmp_path: Path) -> None:
    listed = tmp_path / "opted-out.txt"
    listed.write_text("0-clip-0003\n\n0-clip-0007\n0-clip-0099\n")
    index, data = Index.open(vp9), data_of(vp9, Filter(exclude_keys=listed))
    assert keys(index, data) == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    before = digest(index, *of(data))
    (tmp_path / "copy.txt").write_text("0-clip-0007\n0-clip-0003\n0-clip-0099")
    assert digest(index, *of(data_of(vp9, Filter(exclude_keys=tmp_path / "copy.txt")))) == before
    listed.write_text("0-clip-0003\n")
    assert digest(index, *of(data)) != before
    assert 7 in keys(index, data)


def test_clips_that_are_too_short_are_left_out_and_counted(
    tmp_path: Path, data_of: Callable[..., Data], caplog: pytest.LogCaptureFixture
) -> None:
    root = write_dataset(tmp_path / "data", clips=3, frames=8, seed=10)
    write_dataset(root, clips=4, frames=20, seed=11)
    with caplog.at_level(logging.WARNING, "fbm_dist.data"):
        for _ in range(2):  # also when the selection is cached
            assert len(select(Index.open(root), *of(data_of(root, frames=5, stride=2)))) == 4
    assert [record.getMessage().partition(": ")[2] for record in ours(caplog)] == [
        "3 clips without at least 9 stored frames (data.clip.frames, stride) are left out"
    ] * 2


def test_each_part_of_the_digest_follows_its_cause(vp9: Path, data_of: Callable[..., Data], tmp_path: Path) -> None:
    index = Index.open(vp9)
    plain = digest(index, *of(data_of(vp9))).split(".")
    for changed in (
        {"frames": 7},
        {"stride": 2},
        {"size": 48},
        {"reverse": 0.1},
        {"window": "centre"},
        {"resize": "crop"},
    ):
        other = digest(index, *of(data_of(vp9, **changed))).split(".")
        assert (other[:2], other[2] == plain[2]) == (plain[:2], False)
    other = digest(index, *of(data_of(vp9, Filter(split="train")))).split(".")
    assert (other[0], other[1] == plain[1], other[2]) == (plain[0], False, plain[2])
    grown = Index.open(write_dataset(tmp_path / "data", seed=1))
    assert digest(grown, *of(data_of(vp9))).split(".")[0] != plain[0]
    readers = data_of(vp9).model_copy(update={"workers": 3, "threads": 2, "prefetch": 5, "path": Path("elsewhere")})
    assert digest(index, *of(readers)).split(".") == plain


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"filter": Filter(split="trian")}, "data.filter.split: the data set has no 'trian'; did you mean 'train'"),
        ({"filter": Filter(groups=("someone",))}, "data.filter.groups: .* has no 'someone'; it has person-0, person-1"),
        ({"filter": Filter(labelled="colour")}, "data.filter.labelled: .* it has motion, object"),
        ({"filter": Filter(exclude_keys=Path("missing.txt"))}, "exclude_keys=missing.txt: cannot be read"),
        (
            {"frames": 21},
            "no clip is left of 12: at least 21 stored frames .* keeps 0; the longest has 20: prepare longer",
        ),
        ({"filter": Filter(split="val", groups=("person-1",))}, "split=val keeps 2, then groups=person-1 keeps 0"),
    ],
)
def test_settings_that_leave_nothing_are_refused(
    vp9: Path, data_of: Callable[..., Data], settings: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        select(Index.open(vp9), *of(data_of(vp9, **settings)))


def test_masks_that_are_not_there_are_refused(tmp_path: Path, data_of: Callable[..., Data]) -> None:
    root = write_dataset(tmp_path / "data", clips=2, masks=False, truth=False)
    with pytest.raises(
        ValueError, match=r"masks \(data.clip.mask\) keeps 0; prepare the films with masks \(masks.kind=unlc\)"
    ):
        select(Index.open(root), *of(data_of(root)))
    with pytest.raises(
        ValueError, match=r"true masks \(data.clip.use_truth_as_mask\) keeps 0; prepare films that have true"
    ):
        select(Index.open(root), *of(data_of(root, mask=False, use_truth_as_mask=True)))
    assert keys(Index.open(root), data_of(root, mask=False)) == [0, 1]


@pytest.mark.parametrize(("size", "told"), [(128, False), (227, True)])
def test_that_frames_are_enlarged_is_told(
    vp9: Path, data_of: Callable[..., Data], caplog: pytest.LogCaptureFixture, size: int, told: bool
) -> None:
    """It costs detail, and nothing else would say so."""
    with caplog.at_level(logging.INFO, "fbm_dist.data"):
        select(Index.open(vp9), *of(data_of(vp9, size=size)))
    text = "frames of 128 pixels (short_side of prepare) are enlarged to data.clip.size=227"
    assert caplog.records[-1].getMessage().endswith(text) == told


def test_a_data_set_whose_files_changed_is_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", clips=2, seed=12)
    Index.open(root)
    tar = shard_file(root, "clips-012-000000", "tar")
    tar.write_bytes(tar.read_bytes()[:-1024])
    with pytest.raises(ValueError, match=r"clips-012-000000.tar: \d+ bytes, not \d+; see: python -m data_tools verify"):
        Index.open(root)
    tar.unlink()
    with pytest.raises(ValueError, match=r"clips-012-000000.tar: missing"):
        Index.open(root)
    with pytest.raises(ValueError, match="no such folder"):
        Index.open(tmp_path / "nothing")


def test_an_unwritable_cache_says_which_variable_to_set(
    vp9: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FBM_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="set FBM_CACHE"):
        Index.open(vp9)
