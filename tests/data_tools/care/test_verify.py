"""verify finds every kind of damage, names the place, and finds nothing where there is nothing."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools.building.ledger import read_ledger, write_ledger
from data_tools.care.verify import Report, verify
from data_tools.dataset import commit_snapshot, read_manifest, replace_shards
from data_tools.places import place
from data_tools.sample import Sample
from data_tools.schema import Verify
from data_tools.shards import remove_shard, shard_file, write_shard
from tests.data_tools.care.cases import SETTINGS, outcome, sample, write


def dataset(root: Path, *given: Sample) -> Path:
    """Of single samples, a film each."""
    write_shard(root, "000000", given)
    commit_snapshot(root, SETTINGS, ["000000"])
    write_ledger(root, [outcome(s.metadata.film.removeprefix("content-of-"), [s], 1) for s in given])
    return root


def check(root: Path, **options: Any) -> Report:
    return verify(Verify(path=str(root), **options))


def found(report: Report, *expected: str) -> None:
    for text in expected:
        assert any(re.search(text, problem) for problem in report.problems), (text, report.problems)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good")
    write(root)
    return root


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "data"))


def test_a_good_data_set_has_no_problems(good: Path) -> None:
    report = check(good)
    assert report.problems == []
    assert (report.shards, report.clips) == (3, 11)
    assert report.decoded == {"PyAV": 11, "DALI": 11, "OpenCV": 11}
    assert report.lines() == [
        f"{good}, snapshot 1: no problems in 3 shards, 11 clips; "
        "decoded with PyAV: 11 clips, DALI: 11 clips, OpenCV: 11 clips"
    ]


def test_fewer_clips_may_be_decoded(good: Path) -> None:
    assert check(good, decode=1, decoders=("opencv",)).decoded == {"PyAV": 1, "OpenCV": 1}
    assert "decoded with" not in check(good, decode=0).lines()[-1]


def test_a_remote_data_set(good: Path, tmp_path: Path) -> None:
    root = place(f"memory://{tmp_path.name}/verified")
    write(root)
    assert check(root, decode=2).problems == []
    flip(shard_file(root, "000001", "tar"), 3000)
    found(check(root, decode=0), "000001.tar: its sha256")


def change(path: Any, edit: Callable[[bytes], bytes]) -> None:
    path.write_bytes(edit(path.read_bytes()))


def flip(path: Any, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))


def in_video(root: Path, clip: int = 5) -> int:
    row = read_manifest(root).to_pylist()[clip]
    place = next(m for m in row["members"] if m["extension"] == "mp4")
    return int(place["offset"] + place["size"] // 2)


def tar_of(root: Path) -> Path:
    path = shard_file(root, "000001", "tar")
    assert isinstance(path, Path)
    return path


def without_end(tar: bytes) -> bytes:
    members = tar.rstrip(b"\0")
    return members + bytes(-len(members) % 512)


def as_json(root: Path, edit: Callable[[Any], None]) -> None:
    content = json.loads((root / "dataset.json").read_text())
    edit(content)
    (root / "dataset.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda r: flip(tar_of(r), in_video(r)), ["000001.tar: its sha256", "000001/b-3: its sha256"]),
        (lambda r: change(tar_of(r), lambda b: b[: len(b) // 2]), ["is no whole tar", "puts it at bytes"]),
        (lambda r: change(tar_of(r), without_end), ["is no whole tar: it ends at byte"]),
        (lambda r: change(tar_of(r), lambda b: b + bytes(10240)), ["its members need"]),
        (lambda r: change(shard_file(r, "000001", "idx"), lambda b: b.replace(b"mp4", b"mpx", 1)), ["000001.idx: does not give"]),
        (lambda r: change(shard_file(r, "000001", "parquet"), lambda b: b[:-9]), ["parquet: its sha256", "cannot be read"]),
        (lambda r: shard_file(r, "000001", "parquet").unlink(), ["000001.parquet: is missing", "the shards hold 7"]),
        (lambda r: shard_file(r, "000001", "idx").unlink(), ["000001.idx: is missing"]),
        (lambda r: tar_of(r).unlink(), ["000001.tar: is missing"]),
        (lambda r: shard_file(r, "000001", "stats.json").unlink(), ["the shard is unfinished or lost"]),
        (lambda r: shard_file(r, "000001", "stats.json").write_text("{"), ["000001.stats.json: .*not the statistics"]),
        (lambda r: write_shard(r, "000001", [sample("x", "x")]), ["a shard was replaced", "says 11 clips, the shards hold 8"]),
        (lambda r: as_json(r, lambda d: d["snapshots"][0].update(frames=7)), ["snapshot 1 says 7 frames"]),
        (lambda r: as_json(r, lambda d: d["snapshots"][0].update(id="one")), ["not numbered 1, 2"]),
    ],
)  # fmt: skip
def test_damage_is_found(copy: Path, damage: Callable[[Path], None], expected: list[str]) -> None:
    damage(copy)
    found(check(copy, decode=0), *expected)


def test_a_clip_that_no_decoder_takes_is_told_for_each(copy: Path) -> None:
    with tarfile.open(tar_of(copy)) as tar:
        video = tar.getmember("b-3.mp4")
    start, stop = video.offset_data + 64, video.offset_data + video.size
    change(tar_of(copy), lambda b: b[:start] + bytes(stop - start) + b[stop:])
    report = check(copy)
    found(report, "b-3: PyAV cannot decode it|b-3: PyAV decodes", "b-3: DALI", "b-3: OpenCV")


def test_decoders_that_see_other_pictures_are_found(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_tools.care import decoders
    from data_tools.care import verify as verifying

    real, missing = decoders.available(("opencv",))
    turned = decoders.Decoder("OpenCV", real[1].codecs, lambda data: real[1].decode(data)[:, :, ::-1])
    cut = decoders.Decoder("DALI", real[1].codecs, lambda data: real[1].decode(data)[1:])
    monkeypatch.setattr(verifying, "available", lambda names: ([real[0], turned, cut], missing))
    found(
        check(good, decode=1),
        r"000000/a-0: OpenCV and PyAV decode different pictures \(\d+.\d grey levels apart\)",
        r"000000/a-0: DALI decodes \(7, 128, 160, 3\), its json says \(8, 128, 160, 3\)",
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"encoded": 6}, r"PyAV decodes \(6, 128, 160, 3\), its json says \(8, 128, 160, 3\)"),
        ({"size": (128, 144)}, r"PyAV decodes \(8, 128, 160, 3\)"),
        ({"span": (0, 9)}, r"span \(0, 9\) does not hold 8 frames"),
        ({"masks": "none"}, "masks are 'none', but mask.png is there"),
        ({"mask": None}, "masks are 'unlc', but mask.png is missing"),
        ({"mask_size": (20, 16)}, r"mask.png holds \(8, 16, 20\)"),
        ({"keep": (True,) * 3}, "3 keep for 8 frames"),
        ({"fingerprint": ("xyz",)}, "fingerprint 'xyz' is not 16 hex digits"),
    ],
)
def test_samples_that_break_the_contract_are_found(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    found(check(dataset(tmp_path, sample("x", "x"), sample("key-1", "y", **changes))), f"000000/key-1: {expected}")


def rewrite_manifest(root: Path, edit: Callable[[list[dict[str, Any]]], None]) -> None:
    """Another manifest, with statistics that vouch for it."""
    import hashlib

    path, done = shard_file(root, "000001", "parquet"), shard_file(root, "000001", "stats.json")
    table = pq.read_table(path)
    rows = table.to_pylist()
    edit(rows)
    pq.write_table(table.from_pylist(rows, schema=table.schema), path)
    stats = json.loads(done.read_text())
    done.write_text(json.dumps(stats | {"parquet_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda rows: rows[1].update(id="mallory"), "b-3: the manifest says id = 'mallory', its json 'id-b'"),
        (lambda rows: rows[1].update(fingerprint=[]), r"b-3: the manifest says fingerprint = \[\]"),
        (lambda rows: rows[1].update(labels=[("motion", "up")]), "b-3: the manifest says labels"),
        (lambda rows: rows[1].update(shot_rank=[0, 1]), "b-3: 2 shot ranks for 8 frames"),
        (lambda rows: rows[0].update(shot_rank=rows[1]["shot_rank"]), "b-2: its shot ranks are not those of its shot"),
        (lambda rows: rows[1].update(keep=[True] * 8), "b-2: its shot ranks are not those"),  # of another clip
        (lambda rows: rows[1].update(members=None), "b-3: the manifest's row names no members"),
        (lambda rows: rows[1].update(key=None, num_frames=None, film=None), "None"),
        (lambda rows: rows[1]["members"][-1].update(size=1 << 60), "puts it at bytes"),
        (lambda rows: rows[1]["members"][0].update(offset=-(1 << 40)), "puts it at bytes"),
        (lambda rows: rows.append(rows[0]), "the key stands in the data set twice"),
        (lambda rows: rows[1].update(sha256=None), "its sha256 is not the one in the manifest"),
    ],
)
def test_a_manifest_that_lies_is_found(copy: Path, edit: Callable[[list[dict[str, Any]]], None], expected: str) -> None:
    rewrite_manifest(copy, edit)
    found(check(copy, decode=0), expected)


def test_a_manifest_with_text_that_is_none_is_found(copy: Path) -> None:
    path = shard_file(copy, "000001", "parquet")
    table = pq.read_table(path)
    bad = pa.array([b"\xff\xfe"] * table.num_rows, pa.binary()).view(pa.string())
    pq.write_table(table.set_column(table.column_names.index("group"), "group", bad), path)
    found(check(copy, decode=0), "000001.parquet: .*cannot be read: .*UTF8")


def test_ranks_may_be_absent(copy: Path) -> None:
    rewrite_manifest(copy, lambda rows: [row.update(shot_rank=None) for row in rows])
    assert check(copy, decode=0).problems == []


def member(name: str, data: bytes = b"x", **fields: Any) -> bytes:
    """A member of a tar, whatever it is."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def add(root: Path, *members: bytes, after: str = "b-3.json") -> None:
    """Put members into the second shard's tar, in front of a sample of its own."""
    path = tar_of(root)
    with tarfile.open(path) as tar:
        at = tar.getmember(after).offset
    change(path, lambda b: b[:at] + b"".join(members) + b[at:])


@pytest.mark.parametrize(
    ("hostile", "expected"),
    [
        (member("../../x"), r"member '../../x' is no name of a sample's member"),
        (member("/etc/passwd"), "member '/etc/passwd' is no name"),
        (member("a\nb.json"), r"member 'a\\nb.json' is no name"),
        (member("link.json", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "member 'link.json' is a link"),
        (member("link.json", b"", type=tarfile.LNKTYPE, linkname="b-3.json"), "is a hard link"),
        (member("dev.json", b"", type=tarfile.CHRTYPE, devmajor=1), "is a device"),
        (member("dir.json", b"", type=tarfile.DIRTYPE), "is a folder"),
        (member("pax.json", b"30 path=../../../../etc/cron.d\n", type=tarfile.XHDTYPE), "is of type b'x', no plain file"),
        (member("x.json", b"{}", mode=0o4755), "has a date, an owner or a mode"),
        (member("huge.json")[:124] + b"77777777777\0", "is no whole tar"),
        (b"rubbish" * 100, "is no whole tar: at byte"),
        (member("hidden.json", b"{}") + member("hidden.mp4"), "not those of the manifest: 'hidden.json' stands at"),
        (member("b-9.json", b"{}"), "not those of the manifest"),
    ],
)  # fmt: skip
def test_a_hostile_tar_is_problems_and_no_exception(copy: Path, hostile: bytes, expected: str) -> None:
    add(copy, hostile)
    before = set(copy.parent.rglob("*"))
    found(check(copy, decode=0), expected, "000001.tar: its sha256")
    assert set(copy.parent.rglob("*")) == before, "nothing was extracted"


@pytest.mark.parametrize("size", [1 << 62, -1])
def test_a_size_beyond_all_bounds(copy: Path, size: int) -> None:
    add(copy, member("huge.json", b"", size=size))
    found(check(copy, decode=0), "'huge.json' says it has")


def test_samples_in_the_wrong_order(copy: Path) -> None:
    with tarfile.open(tar_of(copy)) as tar:
        first, second, third = (tar.getmember(f"{key}.json").offset for key in ("b-3", "c-0", "c-1"))
    change(tar_of(copy), lambda b: b[:first] + b[second:third] + b[first:second] + b[third:])
    found(check(copy, decode=0), "not those of the manifest: 'c-0.json' stands at byte .* where 'b-3.json' should")


def test_a_sample_behind_the_end(copy: Path) -> None:
    """`tar` stops at the end, other readers go on."""
    change(tar_of(copy), lambda b: b + member("hidden.json", b"{}") + bytes(1024))
    found(check(copy, decode=0), "holds something behind its end")


def test_the_library_reads_what_has_no_oddities(copy: Path) -> None:
    """Of members in another order the webdataset library makes other samples."""
    buffer = io.BytesIO()
    with tarfile.open(tar_of(copy)) as old, tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as new:
        members = old.getmembers()
        for info in [m for m in members if m.name.endswith("json")] + [
            m for m in members if not m.name.endswith("json")
        ]:
            new.addfile(info, old.extractfile(info))
    tar_of(copy).write_bytes(buffer.getvalue())
    found(check(copy, decode=0), "webdataset library (reads|cannot)", "not those of the manifest")


def test_a_key_that_stands_twice_is_found(tmp_path: Path) -> None:
    write_shard(tmp_path, "000000", [sample("key-0", "x")])
    write_shard(tmp_path, "000001", [sample("key-0", "x")])
    commit_snapshot(tmp_path, {}, ["000000", "000001"])
    found(check(tmp_path, decode=0), "'key-0': the key stands in the data set twice")


def edit_ledger(root: Path, name: str, **changes: Any) -> None:
    rows = [o.model_copy(update=changes if o.source == f"folder/{name}.mp4" else {}) for o in read_ledger(root)]
    write_ledger(root, rows)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda r: edit_ledger(r, "b", clips=3), "says 3 clips of 30 frames of film content-of-b .'folder/b.mp4'., the shards hold 4"),
        (lambda r: edit_ledger(r, "b", film="other"), "films.jsonl: says 4 clips .* of film other .* the shards hold 0"),
        (lambda r: edit_ledger(r, "b", film="other"), "does not say that film 'content-of-b' was used"),
        (lambda r: edit_ledger(r, "b", status="failed"), "does not say that film 'content-of-b' was used"),
        (lambda r: edit_ledger(r, "b", film="content-of-c"), "film 'content-of-c' stands in it 2 times as used"),
        (lambda r: (r / "films.jsonl").unlink(), "films.jsonl: .*is missing"),
        (lambda r: (r / "films.jsonl").write_bytes(b"\xff\n"), "films.jsonl: "),
    ],
)  # fmt: skip
def test_a_ledger_that_does_not_fit_is_found(copy: Path, damage: Callable[[Path], None], expected: str) -> None:
    damage(copy)
    found(check(copy, decode=0), expected)


def test_an_older_snapshot_is_compared_with_what_it_held(copy: Path) -> None:
    write(copy, {"e": [[8]]})
    assert check(copy, decode=0).problems == []
    assert check(copy, decode=0, snapshot="1").problems == []
    remove_shard(copy, "000003")
    found(check(copy, decode=0, snapshot="1"), "000003.stats.json: is missing")


def test_a_withdrawn_snapshot_is_refused_and_its_leftovers_are_remarked(copy: Path) -> None:
    write_shard(copy, "000002-1", [sample("x", "x")])
    replace_shards(copy, {"000002": "000002-1"}, "repair dropped 2 clips")
    report = check(copy, decode=0)
    assert "4 files in shards/ belong to no snapshot that can be read (first: '000002.idx')" in report.lines()[-2]
    assert not any("000002." in problem for problem in report.problems)
    with pytest.raises(ValueError, match=r"snapshot 1 was withdrawn \(repair dropped 2 clips\)"):
        check(copy, snapshot="1")


def test_only_so_many_problems_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    root = dataset(tmp_path, *(sample(f"key-{i}", f"f{i}", span=(0, 9)) for i in range(6)))
    report = check(root, decode=0, max_problems=2)
    assert report.num_problems == 6
    assert report.lines()[2] == "... and 4 more"
    assert "6 problems" in report.lines()[-1]


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"settings": {}, "snapshots": []}))
    with pytest.raises(ValueError, match="empty"):
        check(tmp_path)
