"""repair puts back the same bytes wherever they can be had, drops only what is lost, and ends well after kill -9."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from data_tools.building.ledger import read_ledger
from data_tools.care.rebuilding import Rebuild, Wanted
from data_tools.care.repair import Report, repair
from data_tools.care.verify import verify
from data_tools.dataset import open_dataset, read_dataset, read_manifest
from data_tools.places import Place, place, read_bytes, remove, write_atomic
from data_tools.progress import Silent
from data_tools.schema import Repair, Verify
from data_tools.shards import shard_file, to_stretch
from tests.data_tools.care.cases import FILMS, files, sample, samples, stretches_of, write
from tests.data_tools.care.killing import killed
from tests.films import film, settings


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good")
    write(root)
    return root


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "data"))


def fix(root: Place, rebuild: Any = None, **options: Any) -> Report:
    return repair(Repair(path=str(root), **{"max_dropped": 1.0, **options}), None, rebuild)


class Films:
    """The films that are still there; it remembers what it was asked for."""

    def __init__(self, *names: str) -> None:
        self.names, self.asked = names, list[tuple[str, str, list[str]]]()

    def __call__(self, wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, dict[str, bytes]]]:
        for one in reversed(wanted):  # in whatever order they are finished
            self.asked.append((one.film, one.source, sorted(one.keys)))
            name = one.film.removeprefix("content-of-")
            made = stretches_of(name, FILMS[name]) if name in self.names else {}
            yield one, {key: data for key, data in made.items() if key in one.keys}


def answering(made: dict[str, bytes]) -> Rebuild:
    return lambda wanted: iter([(one, made) for one in wanted])


def problems(root: Place, decode: int = 0) -> list[str]:
    return verify(Verify(path=str(root), decode=decode, decoders=())).problems


def change(path: Place, edit: Callable[[bytes], bytes]) -> None:
    write_atomic(path, edit(read_bytes(path)))


def spoil(root: Place, *keys: str) -> None:
    """Turn over a byte in the middle of the videos of some clips."""
    for row in read_manifest(root).to_pylist():
        if row["key"] in keys:
            member = next(m for m in row["members"] if m["extension"] == "mp4")
            at = member["offset"] + member["size"] // 2
            change(shard_file(root, row["shard"], "tar"), lambda b, at=at: b[:at] + bytes([b[at] ^ 255]) + b[at + 1 :])


def lose(root: Place, *kinds: str, name: str = "000001") -> None:
    for kind in kinds:
        remove(shard_file(root, name, kind))


def test_a_good_data_set_is_left_alone(copy: Path) -> None:
    before = files(copy)
    report = fix(copy, decode=True)
    assert report.lines() == [
        f"{copy}: nothing to repair in 3 shards; snapshot 1, digest {open_dataset(copy).snapshot().digest[:16]}"
    ]
    assert files(copy) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: lose(r, "idx"),
        lambda r: lose(r, "parquet"),
        lambda r: lose(r, "stats.json"),
        lambda r: lose(r, "idx", "parquet", "stats.json"),
        lambda r: change(shard_file(r, "000001", "idx"), lambda b: b[:40]),
        lambda r: change(shard_file(r, "000001", "parquet"), lambda b: b[:-9]),
        lambda r: change(shard_file(r, "000001", "parquet"), lambda b: b"x" + b[1:]),
        lambda r: change(shard_file(r, "000001", "stats.json"), lambda b: b[:30]),
        lambda r: change(shard_file(r, "000001", "stats.json"), lambda b: b.replace(b'"sha256": "', b'"sha256": "0')),
        lambda r: change(shard_file(r, "000001", "stats.json"), lambda b: b.replace(b'idx_sha256": "', b'idx_sha256": "0')),
        lambda r: change(shard_file(r, "000001", "stats.json"), lambda b: b.replace(b'"clips": 4', b'"clips": 5')),
        lambda r: change(shard_file(r, "000001", "tar"), lambda b: b + bytes(512)),
        lambda r: change(shard_file(r, "000001", "tar"), lambda b: b[:-512]),
        lambda r: [lose(r, "idx", "parquet", name=n) for n in ("000000", "000001", "000002")],
        lambda r: [lose(r, "parquet", "stats.json", name=n) for n in ("000000", "000001")],
    ],
)  # fmt: skip
def test_what_follows_from_the_tars_comes_back_with_the_same_bytes(
    good: Path, copy: Path, damage: Callable[[Path], None]
) -> None:
    """The ranks of `b`, whose long shot lies across two shards, included."""
    damage(copy)
    assert files(copy) != files(good)
    report = fix(copy)
    assert files(copy) == files(good)
    assert (report.rebuilt, report.dropped, report.snapshot.id) == (0, 0, "1")


def hide(root: Path, after: str = "c-0.json") -> None:
    """A second sample of a stranger, in front of one of ours."""
    path = shard_file(root, "000001", "tar")
    with tarfile.open(str(path)) as tar:
        at = tar.getmember(after).offset
    stranger = sample("hidden", "x")
    change(path, lambda b: b[:at] + to_stretch("hidden", stranger.members()) + b[at:])


def test_a_hidden_sample_is_taken_out(good: Path, copy: Path) -> None:
    hide(copy)
    fix(copy)
    assert files(copy) == files(good)


@pytest.mark.parametrize(
    ("damage", "rebuilt"),
    [
        (lambda r: spoil(r, "b-3", "c-0"), 2),
        (lambda r: change(shard_file(r, "000001", "tar"), lambda b: b[: len(b) // 2]), 2),
        (lambda r: lose(r, "tar"), 4),
        (lambda r: lose(r, "tar", "parquet"), 4),  # the index names the keys, the ledger the films that miss some
        (
            lambda r: (spoil(r, "b-3"), lose(r, "parquet", "stats.json")),
            4,
        ),  # it decodes, but nothing vouches for the four
        (
            lambda r: (spoil(r, "b-3"), lose(r, "parquet", "stats.json", name="000002")),
            1,
        ),  # the digest does for the three
        (lambda r: [lose(r, "tar", name=n) for n in ("000000", "000001", "000002")], 11),
    ],
)
def test_damaged_samples_are_made_again_from_their_films(
    good: Path, copy: Path, damage: Callable[[Path], None], rebuilt: int
) -> None:
    damage(copy)
    report = fix(copy, Films(*FILMS))
    assert (report.rebuilt, report.dropped) == (rebuilt, 0)
    assert files(copy) == files(good), "same bytes, same digest, same snapshot"


def test_what_nothing_vouches_for_is_kept_if_it_can_be_decoded(copy: Path) -> None:
    spoil(copy, "b-3")
    lose(copy, "parquet", "stats.json")
    report = fix(copy)
    assert report.dropped == 0
    assert report.snapshot.shards == ("000000", "000001-1", "000002")
    assert (
        "nothing vouches for 4 samples, which can be decoded and are kept, rewritten as 000001-1" in report.lines()[0]
    )
    assert problems(copy) == []


def test_a_film_is_asked_once_for_all_its_samples(copy: Path) -> None:
    spoil(copy, "b-1", "b-3", "c-1")
    films = Films(*FILMS)
    fix(copy, films)
    assert sorted(films.asked) == [
        ("content-of-b", "folder/b.mp4", ["b-1", "b-3"]),
        ("content-of-c", "folder/c.mp4", ["c-1"]),
    ]


def test_what_is_lost_is_dropped_in_a_new_snapshot(good: Path, copy: Path) -> None:
    spoil(copy, "b-3", "c-0", "c-1")
    report = fix(copy, Films("a"))
    assert report.dropped == 3
    dataset = open_dataset(copy)
    assert report.snapshot == dataset.snapshot() == dataset.snapshots[1]
    assert dataset.snapshots[0].withdrawn == "repair dropped 3 clips"
    assert dataset.snapshot().shards == ("000000-1", "000001-1", "000002")
    assert [row["key"] for row in read_manifest(copy).to_pylist()] == [
        "a-0",
        "a-1",
        "b-0",
        "b-1",
        "b-2",
        "d-0",
        "d-1",
        "d-2",
    ]
    ledger = {o.source: o for o in read_ledger(copy)}
    b, c = ledger["folder/b.mp4"], ledger["folder/c.mp4"]
    left = [s.metadata for s in samples("b", FILMS["b"])[:3]]
    assert (b.status, b.clips, b.frames, b.kept_clips) == ("used", 3, 22, 2)
    assert b.kept_frames == sum(sum(m.keep) for m in left)
    assert (c.status, c.clips, c.kept_frames) == ("failed", 0, 0)
    assert c.reason == "all its clips were damaged and dropped by repair"
    assert not any(name.startswith(("shards/000000.", "shards/000001.")) for name in files(copy))
    assert files(copy)["shards/000002.tar"] == files(good)["shards/000002.tar"]
    assert problems(copy) == []
    assert report.lines() == [
        "000000: a shot goes on in a shard that lost clips: rewritten as 000000-1",
        "000001: tar is damaged, 3 of 4 samples are damaged: 3 samples dropped, rewritten as 000001-1",
        "films.jsonl: the counts of 2 films set right",
        f"{copy}: 2 of 3 shards repaired, 0 samples made again, 3 dropped; snapshot 2, digest {report.snapshot.digest[:16]}",
    ]
    spoil(copy, "b-2")
    assert fix(copy).snapshot.shards == ("000000-2", "000002")
    assert problems(copy) == []


def test_a_lost_shard_leaves_the_data_set(copy: Path) -> None:
    lose(copy, "tar", "idx", "parquet", "stats.json", name="000002")
    report = fix(copy, Films(*FILMS))
    assert report.snapshot.shards == ("000000", "000001")
    assert (
        "000002: stats.json is missing, idx is missing, parquet is missing, tar is missing: nothing is left of it"
        in report.lines()[0]
    )
    assert {o.source: o.status for o in read_ledger(copy)}["folder/d.mp4"] == "failed"
    assert problems(copy) == []


def test_a_film_that_gives_other_bytes_is_not_what_it_was(copy: Path) -> None:
    """Another version of a library: a good sample, in a new snapshot."""
    spoil(copy, "d-1")
    other = sample("d-1", "d", shot=1, span=(8, 16), keep=(True,) * 8, versions={"av": "99"})

    report = fix(copy, answering({"d-1": to_stretch("d-1", other.members())}))
    assert (report.rebuilt, report.dropped) == (1, 0)
    assert report.snapshot.shards == ("000000", "000001", "000002-1")
    assert open_dataset(copy).snapshots[0].withdrawn == "repair rewrote damaged shards"
    assert problems(copy) == []


@pytest.mark.parametrize("answer", [b"", b"rubbish" * 99, to_stretch("d-1", sample("d-1", "c").members())])
def test_what_is_no_such_sample_is_not_taken(copy: Path, answer: bytes) -> None:
    spoil(copy, "d-1")
    report = fix(copy, answering({"d-1": answer, "d-9": answer}))
    assert (report.rebuilt, report.dropped) == (0, 1)
    assert problems(copy) == []


def test_a_clip_that_cannot_be_decoded_though_its_checksum_holds(tmp_path: Path) -> None:
    from tests.data_tools.care.test_verify import dataset

    root = dataset(tmp_path, sample("key-0", "x"), sample("key-1", "y", encoded=6))
    assert fix(root).details == []
    assert fix(root, decode=True).dropped == 1
    assert problems(root, decode=100) == []


def test_counts_of_the_ledger_are_set_right(good: Path, copy: Path) -> None:
    change(copy / "films.jsonl", lambda b: b.replace(b'"clips": 4', b'"clips": 5'))
    assert fix(copy).details == ["films.jsonl: the counts of 1 films set right"]
    assert files(copy) == files(good)


@pytest.mark.parametrize(
    "damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b"\xff\n"), lambda p: p.write_bytes(b"{}\n")]
)
def test_shards_are_repaired_without_a_ledger(good: Path, copy: Path, damage: Callable[[Path], None]) -> None:
    damage(copy / "films.jsonl")
    lose(copy, "parquet")
    assert fix(copy).details[1].startswith("films.jsonl: cannot be compared with the shards: ")
    assert files(copy).items() >= {k: v for k, v in files(good).items() if k != "films.jsonl"}.items()


def test_nothing_is_dropped_where_much_is_lost(copy: Path) -> None:
    lose(copy, "tar")
    before = files(copy)
    with pytest.raises(ValueError, match=r"4 of 11 clips would be dropped; nothing was changed.* max_dropped=1"):
        fix(copy, max_dropped=0.1)
    for name in ("000000", "000002"):
        lose(copy, "tar", name=name)
    with pytest.raises(ValueError, match="11 of 11 clips would be dropped"):
        fix(copy)
    assert files(copy).items() < before.items()


def test_a_file_that_cannot_be_read_is_not_taken_for_lost(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_tools.care import examine

    def fail(*_: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(examine, "sha256_of", fail)
    before = files(copy)
    with pytest.raises(PermissionError):
        fix(copy)
    assert files(copy) == before


def test_a_dry_run_says_what_is_wrong_and_changes_nothing(copy: Path) -> None:
    spoil(copy, "b-3")
    lose(copy, "idx", name="000000")
    before = files(copy)
    assert fix(copy, Films(*FILMS), dry_run=True).lines()[:2] == [
        "000000: idx is missing",
        "000001: tar is damaged, 1 of 4 samples are damaged",
    ]
    assert "2 of 3 shards would be repaired; nothing was changed" in fix(copy, dry_run=True).lines()[-1]
    assert files(copy) == before


def test_while_a_prepare_is_unfinished_no_snapshot_is_added(good: Path, copy: Path) -> None:
    (copy / "staging").mkdir()
    spoil(copy, "b-3")
    lose(copy, "idx", name="000000")
    with pytest.raises(ValueError, match=r"shard 000000 must be rewritten, and there is an unfinished `prepare`"):
        fix(copy)
    assert len(open_dataset(copy).snapshots) == 1
    fix(copy, Films(*FILMS))
    assert files(copy) == files(good)


def test_killed_at_any_change_and_the_same_command_again(copy: Path, tmp_path: Path) -> None:
    """The process dies in the middle of its n-th change of a file; what it was writing stays behind."""
    spoil(copy, "b-3", "c-0", "c-1")
    lose(copy, "idx", name="000002")
    whole = Path(shutil.copytree(copy, tmp_path / "whole"))
    fix(whole, Films("b"))
    wanted, moment, going = files(whole), 0, True
    while going:
        root = Path(shutil.copytree(copy, tmp_path / f"killed-{moment}"))
        going = killed(root, moment, lambda root=root: fix(root, Films("b")))
        fix(root, Films("b"))
        assert files(root) == wanted, moment
        moment += 1
    assert problems(whole) == []
    assert moment > 10


class Notes(Silent):
    """What was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


def test_real_films_are_made_again_with_the_same_bytes(tmp_path: Path) -> None:
    """Through the stages of `prepare`, in processes of their own; a film that is gone, and one that is another now, lose their clips."""
    from data_tools.building.pipeline import prepare

    for name, scene in (("a", 1), ("b", 2), ("c", 3)):
        film(tmp_path / f"films/{name}.mp4", (scene, 40), (scene + 10, 30))
    (tmp_path / "films/labels.csv").write_text(
        "path,start,stop,label,licence\na.mp4,0,40,walk,CC0\na.mp4,40,70,run,CC0\n"
    )
    root = tmp_path / "data"
    prepare(settings(tmp_path / "films", root, "shard_bytes=30000"))
    wanted = files(root)
    keys = {(row["source"], row["shot"]): row["key"] for row in read_manifest(root).to_pylist()}
    spoil(root, keys["a.mp4", 1], keys["b.mp4", 0], keys["c.mp4", 0])
    films = str(tmp_path / "films")
    assert fix(root, input=films, workers=1).rebuilt == 3
    assert files(root) == wanted
    spoil(root, keys["a.mp4", 0], keys["b.mp4", 0], keys["c.mp4", 0])
    (tmp_path / "films/b.mp4").unlink()
    film(tmp_path / "films/c.mp4", (4, 40))
    notes = Notes()
    report = repair(Repair(path=str(root), input=films, workers=1, max_dropped=0.5), notes)
    assert (report.rebuilt, report.dropped) == (1, 2)
    assert problems(root, decode=100) == []
    assert sorted(notes.told) == ["b.mp4: is not in the input any more", "c.mp4: its content is another one now"]
    assert problems(root) == []


def test_settings_that_are_none_of_prepare_cannot_make_films_again(copy: Path) -> None:
    with pytest.raises(
        ValueError, match=r"its settings are not those of this version's `prepare` \(made_by: Extra inputs"
    ):
        fix(copy, input="films")


def test_a_remote_data_set(tmp_path: Path) -> None:
    root, whole = place(f"memory://{tmp_path.name}/repaired"), place(f"memory://{tmp_path.name}/whole")
    write(root)
    write(whole)
    spoil(root, "b-3", "d-0")
    lose(root, "idx", "parquet", name="000000")
    assert fix(root, Films("b", "d")).rebuilt == 2
    assert files(root) == files(whole)
    spoil(root, "d-0")
    assert fix(root).snapshot.shards == ("000000", "000001", "000002-1")
    assert problems(root) == []


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        fix(tmp_path / "nowhere")
    (tmp_path / "dataset.json").write_text(json.dumps({"settings": {}, "snapshots": []}))
    with pytest.raises(ValueError, match="empty"):
        fix(tmp_path)
    assert read_dataset(tmp_path) is not None
