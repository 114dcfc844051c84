"""prepare: every film has an outcome with a reason; a killed run ends with the same bytes; more films make a new snapshot."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_tools.building.pipeline import prepare
from data_tools.care.verify import verify
from data_tools.clips import mask_size, pieces, scaled, stored_size
from data_tools.config import ConfigError, load
from data_tools.dataset import open_dataset, read_manifest
from data_tools.schema import Prepare
from data_tools.shards import read_sample
from data_tools.videos import Frame, decode_clip, encode
from tests.films import files, film, ledger, picture, settings

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good films with labels, and everything that is none."""
    root = tmp_path_factory.mktemp("films")
    film(root / "a.mp4", (1, 40), (2, 30))
    film(root / "sub/b.mp4", (3, 100))
    film(root / "short.mp4", (4, 9))
    film(root / "tiny.mp4", (5, 20), size=(16, 24))
    shutil.copy(root / "a.mp4", root / "twin.mp4")
    (root / "broken.mp4").write_bytes(b"broken" * 50)
    (root / "empty.mp4").write_bytes(b"")
    (root / "labels.csv").write_text(
        "path,start,stop,label,group,split\n"
        "a.mp4,0,40,walk,anna,train\na.mp4,40,70,run,anna,train\nsub/b.mp4,,,jump,bert,test\nlost.mp4,,,walk,cara,train\n"
    )
    return root


@pytest.fixture(scope="module")
def prepared(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("out") / "data"
    summary = prepare(settings(films, output, "labels={action: label}"))
    assert summary.used == 2
    return output


def test_every_film_has_an_outcome_and_a_reason(films: Path, prepared: Path) -> None:
    outcomes = ledger(prepared)
    assert {s: o.reason for s, o in outcomes.items()} == {
        "a.mp4": "",
        "sub/b.mp4": "",
        "twin.mp4": "duplicate of a.mp4",
        "short.mp4": "9 frames: shorter than min_frames = 16",
        "tiny.mp4": "24x16 px is below min_source_side = 32",
        "broken.mp4": "cannot be opened: Invalid data found when processing input",
        "empty.mp4": "the file is empty (0 bytes)",
        "lost.mp4": "labels.csv names it, but there is no film of that name",
    }
    assert not (prepared / "staging").exists()
    a = outcomes["a.mp4"]
    assert (a.shots, a.clips, a.frames, a.film_frames, a.short_frames) == (2, 2, 70, 70, 0)


def test_clips_are_what_the_contract_says(films: Path, prepared: Path) -> None:
    rows = {(r["source"], r["shot"], r["span"][0]): r for r in read_manifest(prepared).to_pylist()}
    assert set(rows) == {("a.mp4", 0, 0), ("a.mp4", 1, 40), ("sub/b.mp4", 0, 0), ("sub/b.mp4", 0, 50)}
    assert dict(rows["a.mp4", 1, 40]["labels"]) == {"action": "run"}
    assert rows["sub/b.mp4", 0, 50]["group"] == "bert"
    assert rows["sub/b.mp4", 0, 50]["split"] == "test"
    for (_, shot, start), row in rows.items():
        sample = read_sample(prepared, row)
        frames = decode_clip(sample.video)
        assert frames.shape == (row["num_frames"], 64, 86, 3) == (row["span"][1] - start, *row["size"], 3)
        scene = {"a.mp4": 1 + shot, "sub/b.mp4": 3}[row["source"]]
        first = 0 if row["source"] == "a.mp4" else start
        reference = np.asarray(Image.fromarray(picture(scene, 2 * first)).resize((86, 64), Image.Resampling.BICUBIC))
        assert np.abs(frames[0].astype(int) - reference).mean() < 12, "the right frames, in place"
    assert verify_problems(prepared) == []


def verify_problems(output: Path) -> list[str]:
    from data_tools.schema import Verify

    return verify(load(Verify, None, [f"path={output}"])).problems


def test_the_same_command_again_changes_nothing(films: Path, prepared: Path) -> None:
    before = files(prepared)
    summary = prepare(settings(films, prepared, "labels={action: label}"))
    assert summary.new_clips == 0
    assert files(prepared) == before


def test_the_number_of_workers_and_the_folder_change_nothing(films: Path, prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(films, tmp_path / "moved")
    prepare(settings(tmp_path / "moved", tmp_path / "data", "labels={action: label}", "workers=1"))
    assert files(tmp_path / "data") == files(prepared)


def test_more_films_make_a_snapshot_and_touch_no_shard(films: Path, prepared: Path, tmp_path: Path) -> None:
    more, output = tmp_path / "films", tmp_path / "data"
    shutil.copytree(films, more)
    shutil.copytree(prepared, output)
    before = files(output)
    film(more / "c.mp4", (6, 50))
    summary = prepare(settings(more, output, "labels={action: label}"))
    assert (summary.snapshot, summary.new_clips, summary.shards) == ("2", 1, 2)
    after = files(output)
    for name, data in before.items():
        if name.startswith("shards/"):
            assert after[name] == data, name
    assert read_manifest(output, "1").num_rows == 4
    assert read_manifest(output).num_rows == 5
    assert open_dataset(output).snapshot("1") == open_dataset(prepared).snapshot()
    assert ledger(output)["c.mp4"].snapshot == 2
    assert ledger(output)["a.mp4"].snapshot == 1


def test_other_settings_are_refused_by_name(films: Path, prepared: Path) -> None:
    before = files(prepared)
    with pytest.raises(ConfigError, match=r'made with other settings \(codec was "vp9", is "h264"\)'):
        prepare(settings(films, prepared, "labels={action: label}", "codec=h264"))
    assert files(prepared) == before


def test_changed_labels_are_refused(films: Path, prepared: Path, tmp_path: Path) -> None:
    changed = tmp_path / "films"
    shutil.copytree(films, changed)
    text = (changed / "labels.csv").read_text()
    (changed / "labels.csv").write_text(text.replace("bert", "emil"))
    shutil.copytree(prepared, tmp_path / "data")
    with pytest.raises(ValueError, match=r"labels or masks of 1 films changed .*sub/b.mp4"):
        prepare(settings(changed, tmp_path / "data", "labels={action: label}"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no usable film: no file looks like one"),
        (lambda p: (p / "a.mp4").write_bytes(b"x" * 99), "no usable film among 1: 1 x cannot be opened"),
        (lambda p: (p / "a.mp4").write_bytes(b""), r"no usable film: 1 x the file is empty"),
    ],
)
def test_no_usable_film_is_one_line_and_leaves_nothing(tmp_path: Path, make: Any, message: str) -> None:
    (tmp_path / "films").mkdir()
    make(tmp_path / "films")
    with pytest.raises(ValueError, match=message) as caught:
        prepare(settings(tmp_path / "films", tmp_path / "data"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_a_strangers_folder_is_not_written_into(films: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty and holds no data set"):
        prepare(settings(films, tmp_path))
    assert files(tmp_path) == {"thesis.txt": b"mine"}


def test_frames_with_given_masks(tmp_path: Path) -> None:
    for name, count in (("bear", 30), ("bare", 20), ("partly", 40)):
        for i in range(count):
            for kind in ("frames", "masks"):
                (tmp_path / "films" / name / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(7 + count, 2 * i)).save(tmp_path / "films" / name / f"frames/{i}.png")
            mask = np.zeros((72, 96), bool)
            mask[18:54, i : i + 24] = True
            if name == "bear" or (name == "partly" and i < 25):
                Image.fromarray(mask).save(tmp_path / "films" / name / f"masks/{i}.png")
    output = tmp_path / "data"
    prepare(settings(tmp_path / "films", output, "masks.kind=given", "max_frames=20", "min_frames=10"))
    outcomes = ledger(output)
    assert outcomes["bare"].reason == "no true masks beside it, and masks.kind is given"
    assert outcomes["partly"].clips == 1
    assert outcomes["partly"].notes == ("1 clips have no true masks: 25 masks for 40 frames",)
    rows = {(r["source"], r["span"][0]): r for r in read_manifest(output).to_pylist()}
    assert set(rows) == {("bear", 0), ("bear", 15), ("partly", 0)}
    row = rows["bear", 15]
    sample = read_sample(output, row)
    assert sample.truth is not None
    assert sample.mask is not None
    assert np.array_equal(sample.mask, sample.truth)
    assert set(np.unique(sample.truth)) == {0, 255}
    assert sample.truth.shape == (15, 64, 86)
    x0, y0, x1, y1 = row["boxes"][3]
    assert (x0 * 96, x1 * 96) == (pytest.approx(18, abs=1), pytest.approx(42, abs=1))
    assert (y0, y1) == (pytest.approx(0.25, abs=0.02), pytest.approx(0.75, abs=0.02))
    assert row["statistics"]["foreground"][0] == pytest.approx(0.125, abs=0.01)
    assert all(row["keep"])
    assert verify_problems(output) == []


def test_unlc_masks_are_made_for_every_frame(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    background = picture(3, 0, 72, 96)
    frames = np.repeat(background[None], 20, axis=0)
    for i in range(20):
        frames[i, 24:48, 10 + 3 * i : 30 + 3 * i] = picture(9, 0)[:24, :20]
    (tmp_path / "films/a.mp4").write_bytes(encode(frames, (25, 1), "h264"))
    prepare(settings(tmp_path / "films", tmp_path / "data", "masks.kind=unlc", "masks.side=48"))
    (row,) = read_manifest(tmp_path / "data").to_pylist()
    sample = read_sample(tmp_path / "data", row)
    assert sample.mask is not None
    assert sample.mask.shape == (20, 48, 64)
    assert len(row["keep"]) == len(row["statistics"]["foreground"]) == 20
    truth = np.zeros((72, 96), bool)
    truth[24:48, 40:60] = True
    score = np.asarray(Image.fromarray(sample.mask[10]).resize((96, 72)))
    assert score[truth].mean() > 2 * score[~truth].mean(), "what moves is brighter than what does not"
    assert verify_problems(tmp_path / "data") == []


def test_single_pictures_become_clips_of_one_frame(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    for i in range(3):
        Image.fromarray(picture(i, 0)).save(tmp_path / f"films/{i}.png")
    (tmp_path / "films/bad.png").write_bytes(b"no picture")
    prepare(settings(tmp_path / "films", tmp_path / "data", "pictures=single", "masks.kind=unlc"))
    rows = read_manifest(tmp_path / "data").to_pylist()
    assert [(r["num_frames"], r["codec"], r["masks"]) for r in rows] == [(1, "png", "none")] * 3
    assert "cannot be decoded" in ledger(tmp_path / "data")["bad.png"].reason
    assert verify_problems(tmp_path / "data") == []


def test_a_film_that_kills_or_hangs_its_worker_is_one_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that crashes is put under the real pipeline by a sitecustomize of the workers."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(
        "import os, signal, sys, time\n"
        "if 'data_tools.execution.processes' in ' '.join(sys.orig_argv):\n"
        "    import data_tools.videos as videos\n"
        "    real = videos.probe\n"
        "    def probe(source):\n"
        "        if 'crash' in source.name: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "        if 'hang' in source.name: time.sleep(600)\n"
        "        return real(source)\n"
        "    videos.probe = probe\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    films, output = tmp_path / "films", tmp_path / "data"
    for i, name in enumerate(("crash", "good", "hang", "fine")):
        film(films / f"{name}.mp4", (i, 20))
    prepare(settings(films, output, "time_limit=6"))
    outcomes = ledger(output)
    assert {s: (o.status, o.reason) for s, o in outcomes.items()} == {
        "good.mp4": ("used", ""),
        "fine.mp4": ("used", ""),
        "crash.mp4": ("failed", "the process died (SIGSEGV)"),
        "hang.mp4": ("failed", "no progress for 6 s: given up"),
    }
    before = files(output)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path / "site")])
    prepare(settings(films, output, "time_limit=6"))
    assert files(output) == before, "a second run decides alike"
    summary = prepare(settings(films, output, "time_limit=6", "retry=true"))
    assert (summary.used, summary.snapshot, summary.new_clips) == (4, "2", 2)


def command(films: Path, output: Path, *more: str) -> list[str]:
    given = [f"input={films}", f"output={output}", "masks.kind=none", "short_side=64", "shard_bytes=40000", *more]
    return [sys.executable, "-m", "data_tools", "prepare", *given]


def staged(output: Path) -> int:
    return len(list((output / "staging").rglob("*.clip")))


@pytest.mark.slow  # a dozen runs of the real command
def test_kill_9_at_any_moment_and_the_same_bytes(tmp_path: Path) -> None:
    films = tmp_path / "films"
    for i in range(8):
        film(films / f"{i}.mp4", (2 * i, 40), (2 * i + 1, 70))
    subprocess.run(command(films, tmp_path / "whole"), cwd=ROOT, check=True, capture_output=True)
    wanted = files(tmp_path / "whole")
    assert len(open_dataset(tmp_path / "whole").snapshot().shards) > 3
    moments = random.Random(0)
    killed = 0
    for attempt in range(3):
        output = tmp_path / f"killed-{attempt}"
        for workers in ("workers=1", "workers=2"):
            process = subprocess.Popen(
                command(films, output, workers), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            enough = staged(output) + moments.randrange(
                6
            )  # of 16: a count, for a machine may be slow at one run and fast at the next
            while staged(output) < enough and process.poll() is None:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.3))
            killed += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(command(films, output), cwd=ROOT, check=True, capture_output=True)
        assert files(output) == wanted, f"attempt {attempt}"
    assert killed > 2, "most runs were really killed"


def test_a_run_killed_while_packing_goes_on_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: shards are there, the snapshot is not; then films are added before the run goes on."""
    import data_tools.building.packing as packing

    films, output = tmp_path / "films", tmp_path / "data"
    for i in range(3):
        film(films / f"{i}.mp4", (i, 40))
    options = ("shard_bytes=20000",)
    prepare(settings(films, tmp_path / "whole", *options))
    assert len(open_dataset(tmp_path / "whole").snapshot().shards) > 1

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    for target in ("write_ledger", "commit_snapshot"):
        with monkeypatch.context() as patch:
            patch.setattr(packing, target, die)
            with pytest.raises(KeyboardInterrupt):
                prepare(settings(films, output, *options))
        assert (output / "staging").exists()
        assert not (output / "dataset.json").exists()
    prepare(settings(films, output, *options))
    assert files(output) == files(tmp_path / "whole")

    shutil.rmtree(output)
    with monkeypatch.context() as patch:
        patch.setattr(packing, "commit_snapshot", die)
        with pytest.raises(KeyboardInterrupt):
            prepare(settings(films, output, *options))
    film(films / "4.mp4", (44, 40))
    prepare(settings(films, output, *options))
    prepare(settings(films, tmp_path / "whole", *options))
    assert files(output) == files(tmp_path / "whole"), "what was being packed is a snapshot, what came later another"
    assert len(open_dataset(output).snapshots) == 2


def test_a_clip_that_is_made_is_never_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 in the middle of one long film: of its clips one at most is encoded twice."""
    (tmp_path / "site").mkdir()
    log = tmp_path / "encoded"
    (tmp_path / "site/sitecustomize.py").write_text(
        "import sys, time\n"
        "if 'data_tools.execution.processes' in ' '.join(sys.orig_argv):\n"
        "    import data_tools.videos as videos\n"
        "    real = videos.encode\n"
        "    def encode(*given):\n"
        f"        open({str(log)!r}, 'a').write('x')\n"
        "        time.sleep(0.05)\n"
        "        return real(*given)\n"
        "    videos.encode = encode\n"
    )
    films, output = tmp_path / "films", tmp_path / "data"
    film(films / "a.mp4", (3, 40 * 16))
    more = ("max_frames=16", "workers=1")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(ROOT)])}
    process = subprocess.Popen(command(films, output, *more), env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list((output / "staging").rglob("*.clip"))) < 12 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert 12 <= len(log.read_text()) < 40, "it was killed midway"
    subprocess.run(command(films, output, *more), env=environment, cwd=tmp_path, check=True, capture_output=True)
    assert len(log.read_text()) <= 41
    prepare(settings(films, tmp_path / "whole", "shard_bytes=40000", *more))
    assert files(output) == files(tmp_path / "whole")


def test_two_at_once_in_one_folder_are_refused(films: Path, tmp_path: Path) -> None:
    import fcntl

    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(ValueError, match="another `prepare` is at work here"):
            prepare(settings(films, tmp_path))
    finally:
        os.close(handle)


def test_several_inputs_and_a_list(films: Path, tmp_path: Path) -> None:
    film(tmp_path / "other/x.mp4", (8, 20))
    with (tmp_path / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["path", "action", "licence"], [str(films / "a.mp4"), "walk", "CC0"], ["gone.mp4", "run", ""]])
    prepare(
        load(
            Prepare, None, [f"input=[{tmp_path / 'other'}, {tmp_path / 'list.csv'}]", *settings_list(tmp_path / "data")]
        )
    )
    outcomes = ledger(tmp_path / "data")
    assert outcomes["other/x.mp4"].status == "used"
    assert outcomes["list.csv/gone.mp4"].reason.startswith("cannot be opened")
    listed = [r for r in read_manifest(tmp_path / "data").to_pylist() if r["source"].startswith("list.csv/")]
    assert {r["licence"] for r in listed} == {"CC0"}
    assert {dict(r["labels"])["action"] for r in listed} == {"walk"}


def test_labels_that_no_input_has_are_refused(tmp_path: Path) -> None:
    film(tmp_path / "films/a.mp4", (8, 20))
    with pytest.raises(ValueError, match=r"no input has a labels.csv, and the config asks for labels"):
        prepare(settings(tmp_path / "films", tmp_path / "data", "labels={action: label}"))


def settings_list(output: Path) -> list[str]:
    return [f"output={output}", "masks.kind=none", "short_side=64"]


def test_shots_are_dealt_to_clips_without_loss() -> None:
    chosen = settings(Path("x"), Path("y"), "shots.detector=none", "max_frames=10", "min_frames=1")
    for count in range(1, 60):
        parts = list(pieces((Frame(np.zeros((8, 8, 3), np.uint8), i, (8, 8)) for i in range(count)), chosen))
        assert [f.source for _, _, frames in parts for f in frames] == list(range(count))
        assert [start for _, start, _ in parts] == [frames[0].source for _, _, frames in parts]
        assert max(len(frames) for _, _, frames in parts) <= 10
        assert count < 10 or min(len(frames) for _, _, frames in parts) >= 5


@pytest.mark.parametrize(("count", "chunks"), [(31, 0), (32, 1), (40, 1), (63, 1), (64, 2), (100, 3)])
def test_chunks_of_one_length_lose_only_the_rest(count: int, chunks: int) -> None:
    """FBM's: 32 frames each, the remainder dropped."""
    chosen = settings(Path("x"), Path("y"), "shots.detector=none", "max_frames=32", "min_frames=32")
    parts = list(pieces((Frame(np.zeros((8, 8, 3), np.uint8), i, (8, 8)) for i in range(count)), chosen))
    assert [(start, len(frames)) for _, start, frames in parts if len(frames) >= 32] == [
        (32 * i, 32) for i in range(chunks)
    ]


def test_sizes() -> None:
    chosen = load(Prepare, None, ["input=x", "output=y"])
    assert stored_size(480, 854, chosen) == (128, 228)
    assert stored_size(854, 480, chosen) == (228, 128)
    assert stored_size(120, 160, chosen) == (128, 170), "NVDEC takes no VP9 below 128 px"
    assert stored_size(100, 133, load(Prepare, None, ["input=x", "output=y", "codec=h264"])) == (100, 132), (
        "as it is, but even"
    )
    assert mask_size((128, 228), chosen) == (128, 228)
    assert scaled(480, 854, 240) == (240, 427)


def test_dataset_json_says_how_it_was_made(prepared: Path) -> None:
    made = json.loads((prepared / "dataset.json").read_text())["settings"]
    assert made["codec"] == "vp9"
    assert made["labels"] == {"action": "label"}
    assert not {"input", "output", "workers"} & set(made), "nothing of a machine"
