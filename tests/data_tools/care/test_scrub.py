"""scrub leaves no trace of a film whose owner opted out, touches no other shard, and ends with the same bytes after kill -9."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_tools.building.ledger import read_ledger, write_ledger
from data_tools.care.scrub import Report, scrub
from data_tools.care.verify import verify
from data_tools.dataset import open_dataset, read_dataset, read_manifest
from data_tools.places import Place, place, write_atomic
from data_tools.report.near_duplicates import write_near_duplicates
from data_tools.schema import Scrub, Verify
from data_tools.shards import shard_file
from tests.data_tools.care.cases import FILMS, files, samples, write
from tests.data_tools.care.killing import killed

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good")
    write(root)
    (root / ".identities.jsonl").write_text(
        "".join(f'{{"source": "folder/{f}.mp4", "stamp": "1", "film": "content-of-{f}"}}\n' for f in FILMS)
    )
    (root / "inspect.html").write_text("a picture of folder/c.mp4")
    return root


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "data"))


def take_out(root: Path, *ids: str, listed: Path | None = None) -> Report:
    path = listed or root.parent / "ids.txt"
    path.write_text("".join(f"{name}\n" for name in ids))
    return scrub(Scrub(path=str(root), ids=str(path)))


def problems(root: Place) -> list[str]:
    return verify(Verify(path=str(root), decode=0)).problems


def traces(root: Path, film: str) -> list[str]:
    """Where in the folder a film's clips, or its name, can still be found."""
    marks = [s.video[200:400] for s in samples(film, FILMS[film])] + [f"folder/{film}.mp4".encode()]
    return sorted(name for name, data in files(root).items() if any(mark in data for mark in marks))


@pytest.mark.parametrize("name", ["id-c", "folder/c.mp4", "content-of-c"])
def test_no_trace_is_left(good: Path, copy: Path, name: str) -> None:
    assert traces(copy, "c") == [
        ".identities.jsonl",
        "films.jsonl",
        "inspect.html",
        "shards/000001.parquet",
        "shards/000001.tar",
    ]
    report = take_out(copy, name)
    assert traces(copy, "c") == ["films.jsonl", *(["optouts.txt"] if "/" in name else [])], "the ledger keeps sources"
    assert (copy / "optouts.txt").read_text().split() == sorted({name, "content-of-c"})
    assert open_dataset(copy).snapshot().shards == ("000000", "000001-1", "000002")
    for file, data in files(good).items():
        if file.startswith(("shards/000000.", "shards/000002.")):
            assert files(copy)[file] == data, "only the shard that held it is rewritten"
    assert problems(copy) == []
    freed = sum(
        shard_file(r, n, "tar").stat().st_size * sign for r, n, sign in ((good, "000001", 1), (copy, "000001-1", -1))
    )
    assert report.lines() == [
        "1 of 1 ids are of films here",
        f"{copy}: 1 films removed: 2 clips, 1 shards rewritten, {freed / 1e6:.1f} MB freed; snapshot 2",
    ]
    with pytest.raises(ValueError, match=r"snapshot 1 was withdrawn \(scrubbed 1 films\)"):
        read_manifest(copy, "1")


def test_the_ledger_says_what_became_of_them(copy: Path) -> None:
    take_out(copy, "id-a")
    rows = {o.source: o for o in read_ledger(copy)}
    a, twin = rows["folder/a.mp4"], rows["twin-of-a.mp4"]
    assert (a.status, a.reason, a.clips, a.frames, a.film, a.id, a.job) == (
        "skipped",
        "opted out",
        0,
        0,
        "content-of-a",
        "id-a",
        "job-a",
    )
    assert (twin.status, twin.reason, twin.film) == ("skipped", "opted out", "content-of-a"), (
        "no mention of the other source"
    )
    assert rows["folder/b.mp4"].status == "used"


def test_an_id_of_a_copy_means_the_content(copy: Path) -> None:
    """The clips came in under another name; they are of the film that must go."""
    report = take_out(copy, "id-twin-a")
    assert (report.films, report.clips, report.unknown) == (1, 2, [])
    assert not {"a-0", "a-1"} & set(read_manifest(copy)["key"].to_pylist())
    assert (copy / "optouts.txt").read_text().split() == ["content-of-a", "id-twin-a"]


def test_a_film_across_shards_and_a_shard_left_empty(copy: Path) -> None:
    report = take_out(copy, "id-b", "id-d")
    assert (report.films, report.clips, report.shards) == (2, 7, 3)
    assert open_dataset(copy).snapshot().shards == ("000000-1", "000001-1")
    assert [row["key"] for row in read_manifest(copy).to_pylist()] == ["a-0", "a-1", "c-0", "c-1"]
    assert {name.partition(".")[0] for name in files(copy) if name.startswith("shards")} == {
        "shards/000000-1",
        "shards/000001-1",
    }
    assert problems(copy) == []


def test_ranks_and_bytes_of_the_others_stay(good: Path, copy: Path) -> None:
    take_out(copy, "id-c")
    before = {row["key"]: row for row in read_manifest(good).to_pylist()}
    for row in read_manifest(copy).to_pylist():
        old = before[row["key"]]
        assert {k: v for k, v in row.items() if k not in ("shard", "members")} == {
            k: v for k, v in old.items() if k not in ("shard", "members")
        }


def test_ids_of_no_film_are_counted_named_and_kept_out_for_ever(good: Path, copy: Path) -> None:
    unknown = [f"nobody-{i}" for i in range(7)]
    report = take_out(copy, *unknown, "", "  ")
    assert report.lines() == [
        "0 of 7 ids are of films here",
        "7 are of none, and will never be taken: nobody-0, nobody-1, nobody-2, nobody-3, nobody-4, ...",
        f"{copy}: no shard holds any of them; snapshot 1",
    ]
    assert files(copy) == files(good) | {"optouts.txt": "".join(f"{name}\n" for name in unknown).encode()}
    take_out(copy, "id-c", "nobody-0")
    assert (copy / "optouts.txt").read_text().split() == sorted([*unknown, "id-c", "content-of-c"])


def test_the_same_list_again_changes_nothing(copy: Path) -> None:
    take_out(copy, "id-b", "nobody")
    before = files(copy)
    report = take_out(copy, "id-b", "nobody")
    assert (report.unknown, report.shards) == (["nobody"], 0)
    assert files(copy) == before


def test_one_after_the_other(copy: Path) -> None:
    take_out(copy, "id-c")
    take_out(copy, "id-b")
    dataset = open_dataset(copy)
    assert dataset.snapshot().shards == ("000000-1", "000002")
    assert [s.withdrawn for s in dataset.snapshots] == ["scrubbed 1 films", "scrubbed 1 films", ""]
    assert problems(copy) == []


def test_everything_may_be_scrubbed(copy: Path) -> None:
    take_out(copy, *(f"id-{film}" for film in FILMS))
    dataset = read_dataset(copy)
    assert dataset is not None
    assert dataset.snapshots[-1].shards == ()
    before = files(copy)
    assert not any(name.startswith("shards/") for name in before)
    take_out(copy, *(f"id-{film}" for film in FILMS))
    assert files(copy) == before


def test_a_film_that_was_never_used_is_kept_out_too(copy: Path) -> None:
    rows = read_ledger(copy)
    write_ledger(
        copy,
        [
            *rows,
            rows[0].model_copy(
                update={"source": "bad.mp4", "film": "", "id": "id-bad", "status": "failed", "clips": 0}
            ),
        ],
    )
    assert take_out(copy, "id-bad").unknown == []
    assert {o.source: o.reason for o in read_ledger(copy)}["bad.mp4"] == "opted out"


def test_groups_of_films_that_look_alike_name_it_no_more(copy: Path) -> None:
    """All films of the tests have the same fingerprint."""
    assert write_near_duplicates(copy) == 1
    assert b"folder/c.mp4" in files(copy)["near_duplicates.jsonl"]
    take_out(copy, "id-c")
    assert b"folder/c.mp4" not in files(copy)["near_duplicates.jsonl"]
    assert b"folder/b.mp4" in files(copy)["near_duplicates.jsonl"]


def test_killed_at_every_other_change_and_the_same_command_again(copy: Path, tmp_path: Path) -> None:
    write_near_duplicates(copy)
    whole = Path(shutil.copytree(copy, tmp_path / "whole"))
    ids = tmp_path / "ids"
    take_out(whole, "id-b", "nobody", listed=ids)
    wanted, moment, going = files(whole), 0, True
    while going:
        root = Path(shutil.copytree(copy, tmp_path / f"killed-{moment}"))
        going = killed(root, moment, lambda root=root: scrub(Scrub(path=str(root), ids=str(ids))))
        scrub(Scrub(path=str(root), ids=str(ids)))
        assert files(root) == wanted, moment
        moment += 2
    assert problems(whole) == []
    assert moment > 20


def test_kill_9(copy: Path, tmp_path: Path) -> None:
    """A real process, really killed; the lock dies with it."""
    moment = 12
    whole = Path(shutil.copytree(copy, tmp_path / "whole"))
    take_out(whole, "id-b", "id-d")
    script = (
        "import os, pytest, signal, sys; from pathlib import Path\n"
        "from data_tools.care.scrub import scrub; from data_tools.schema import Scrub\n"
        "from tests.data_tools.care.killing import kill_at\n"
        f"kill_at(pytest.MonkeyPatch(), Path(sys.argv[1]), {moment}, lambda: os.kill(os.getpid(), signal.SIGKILL))\n"
        "scrub(Scrub(path=sys.argv[1], ids=sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", script, str(copy), str(tmp_path / "ids.txt")]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert files(copy) != files(whole)
    take_out(copy, "id-b", "id-d")
    assert files(copy) == files(whole)


def test_what_a_killed_run_left_goes_even_if_another_film_is_meant_now(copy: Path, tmp_path: Path) -> None:
    """The first list was wrong; shards that were written for it must not stay."""
    assert killed(copy, 8, lambda: take_out(copy, "id-c"))
    assert any("000001-1" in name for name in files(copy))
    take_out(copy, "id-d")
    assert not any("000001-1" in name for name in files(copy))
    assert problems(copy) == ["problem: optouts.txt: film 'folder/c.mp4' was opted out, and is used; run `scrub` again"]


def test_a_remote_data_set_and_list(tmp_path: Path) -> None:
    root = place(f"memory://{tmp_path.name}/scrubbed")
    write(root)
    write_atomic(place(f"memory://{tmp_path.name}/ids.txt"), b"\xef\xbb\xbfid-b\r\nid-d\r\n")
    report = scrub(Scrub(path=str(root), ids=f"memory://{tmp_path.name}/ids.txt"))
    assert (report.films, report.clips) == (2, 7)
    assert open_dataset(root).snapshot().shards == ("000000-1", "000001-1")
    assert problems(root) == []


def test_damage_is_repaired_first(copy: Path) -> None:
    before = files(copy)
    for kind, name in (("parquet", "000002"), ("tar", "000001")):
        path = shard_file(copy, name, kind)
        data = path.read_bytes()
        path.write_bytes(data[:3000] + bytes([data[3000] ^ 255]) + data[3001:])
        with pytest.raises(ValueError, match=f"shard {name} is damaged; first run: python -m data_tools repair"):
            take_out(copy, "id-c")
        path.write_bytes(data)
    assert files(copy)["dataset.json"] == before["dataset.json"]
    assert files(copy)["films.jsonl"] == before["films.jsonl"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file; `ids` names a list"), (b"\n \n", "holds no id"), (b"\xff\xfe", "cannot be read")],
)
def test_a_list_that_is_none_is_refused(copy: Path, tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "ids").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        scrub(Scrub(path=str(copy), ids=str(tmp_path / "ids")))
    assert "\n" not in str(caught.value)


def test_an_unfinished_prepare_is_finished_first(copy: Path) -> None:
    (copy / "staging").mkdir()
    with pytest.raises(ValueError, match="an unfinished `prepare` is in the folder, and may hold these films"):
        take_out(copy, "id-c")
