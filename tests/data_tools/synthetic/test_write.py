"""Synthetic films on disk: reproducible bytes, labels and masks that fit the frames, safe restarts, clear refusals."""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from data_tools.building.lock import exclusive
from data_tools.config import ConfigError
from data_tools.synthetic import synthesize, write
from data_tools.synthetic.config import FACTORS, Synthesize
from data_tools.synthetic.factors import plan
from data_tools.synthetic.scene import Scene, compose, render

SMALL: dict[str, Any] = {"size": (64, 80), "frames": (8, 12), "shots": 2, "workers": 1}


def settings(output: Path, **changes: Any) -> Synthesize:
    wanted: dict[str, Any] = SMALL | changes
    return Synthesize(output=output, **wanted)


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_bytes_do_not_depend_on_the_number_of_processes_or_of_films(tmp_path: Path) -> None:
    synthesize(settings(tmp_path / "alone", films=2))
    synthesize(settings(tmp_path / "many", films=4, workers=2))
    alone, many = contents(tmp_path / "alone"), contents(tmp_path / "many")
    assert len(alone) > 2 * 16
    assert {name: many.get(name) for name in alone if name != "labels.csv"} == {
        name: digest for name, digest in alone.items() if name != "labels.csv"
    }
    assert rows_of(tmp_path / "many")[:4] == rows_of(tmp_path / "alone")


@pytest.mark.parametrize("codec", ["h264", "vp9"])
def test_bytes_do_not_depend_on_what_memory_held_before(tmp_path: Path, codec: str) -> None:
    """An encoder that reads what it did not write gives other bytes in another process; x264's macroblock tree did."""
    video = np.random.default_rng(0).integers(0, 255, (4, 36, 44, 3), dtype=np.uint8)
    np.save(tmp_path / "video.npy", video.repeat(4, axis=1).repeat(4, axis=2).repeat(8, axis=0))
    program = (
        "import io, sys, numpy as np; from pathlib import Path; from data_tools.synthetic.config import Synthesize; "
        "from data_tools.synthetic.write import encode; file = io.BytesIO(); "
        "encode(iter(np.load(sys.argv[1])), Synthesize(output=Path('unused'), codec=sys.argv[2]), file); "
        "print(__import__('hashlib').sha256(file.getvalue()).hexdigest())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "video.npy"), codec]
    fills = [os.environ | {"MALLOC_PERTURB_": fill} for fill in ("1", "254")]  # glibc fills new memory with it
    digests = {subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout for env in fills}
    assert len(digests) == 1


def test_another_seed_gives_another_film(tmp_path: Path) -> None:
    for seed in (0, 1):
        synthesize(settings(tmp_path / str(seed), films=1, seed=seed))
    films = [(tmp_path / str(seed) / "films" / "film-00000.mp4").read_bytes() for seed in (0, 1)]
    assert films[0] != films[1]


@pytest.mark.parametrize("codec", ["h264", "vp9"])
def test_films_masks_and_labels_agree(tmp_path: Path, codec: str) -> None:
    summary = synthesize(settings(tmp_path, films=2, shots=3, codec=codec, noise=(1.0, 1.0)))
    rows = rows_of(tmp_path)
    assert list(rows[0]) == ["path", "start", "stop", *FACTORS, "group", "split", "truth"]
    assert (summary.films, summary.made, summary.shots) == (2, 2, len(rows)) == (2, 2, 6)
    frames = 0
    for path in sorted({row["path"] for row in rows}):
        own = [row for row in rows if row["path"] == path]
        video = decoded(tmp_path / path)
        with av.open(str(tmp_path / path)) as container:
            assert container.streams.video[0].codec_context.name == codec
            assert container.streams.video[0].average_rate == 25
        spans = [(int(row["start"]), int(row["stop"])) for row in own]
        assert spans[0][0] == 0
        assert all(before[1] == after[0] for before, after in pairwise(spans))
        assert spans[-1][1] == len(video)
        assert video.shape[1:] == (64, 80, 3)
        masks = sorted((tmp_path / own[0]["truth"]).iterdir())
        assert [mask.name for mask in masks] == [f"{i:05d}.png" for i in range(len(video))]
        assert all(Image.open(mask).mode == "1" and Image.open(mask).size == (80, 64) for mask in masks)
        # cuts, and only cuts, are where the spans meet
        change = np.abs(np.diff(video.astype(float), axis=0)).mean(axis=(1, 2, 3))
        cuts = {int(i) + 1 for i in np.argsort(change)[-2:]}
        assert cuts == {start for start, _ in spans[1:]}
        frames += len(video)
    assert summary.frames == frames
    assert summary.bytes == sum(path.stat().st_size for path in (tmp_path / "films").iterdir())


def test_encoded_pixels_are_those_that_were_drawn(tmp_path: Path) -> None:
    wanted = settings(tmp_path, films=1, crf=10)
    synthesize(wanted)
    film = plan(wanted)[0]
    drawn = np.concatenate([[frame for frame, _ in render(compose(wanted, 0, shot))] for shot in film.shots])
    video = decoded(tmp_path / "films" / "film-00000.mp4")
    # 4:2:0 blurs colour; brightness shows a wrong matrix or range
    difference = drawn.astype(float).mean(axis=3) - video.astype(float).mean(axis=3)
    assert np.abs(difference).mean() < 4
    assert abs(difference.mean()) < 1


def test_lower_quality_makes_smaller_files(tmp_path: Path) -> None:
    fine = synthesize(settings(tmp_path / "fine", films=1, crf=18))
    coarse = synthesize(settings(tmp_path / "coarse", films=1, crf=38))
    assert coarse.bytes < fine.bytes / 2


def test_running_again_makes_only_what_is_missing(tmp_path: Path) -> None:
    wanted = settings(tmp_path, films=3)
    synthesize(wanted)
    before = contents(tmp_path)
    # as a kill leaves it: one film half made, one whose masks alone are in place, no labels yet
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "films" / "film-00001.mp4").unlink()
    (tmp_path / "masks" / "film-00001" / "00003.png").write_bytes(b"")
    (tmp_path / ".making" / "film-00001" / "masks").mkdir(parents=True)
    (tmp_path / ".making" / "film-00001" / "film.mp4").write_bytes(b"half")
    kept = (tmp_path / "films" / "film-00000.mp4").stat().st_mtime_ns
    seen: list[tuple[int, int]] = []
    summary = synthesize(wanted, lambda done, total: seen.append((done, total)))
    assert (summary.made, summary.films) == (1, 3)
    assert seen == [(2, 3), (3, 3)]
    assert contents(tmp_path) == before
    assert (tmp_path / "films" / "film-00000.mp4").stat().st_mtime_ns == kept


def test_a_film_that_fails_leaves_no_film_and_no_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(drawn: Scene) -> Any:
        yield from list(render(drawn))[:3]
        raise OSError("no space left on device")

    wanted = settings(tmp_path, films=1)
    with monkeypatch.context() as broken:
        broken.setattr(write, "render", full)
        with pytest.raises(OSError, match="no space"):
            synthesize(wanted)
    assert not list((tmp_path / "films").iterdir())
    assert not (tmp_path / "labels.csv").exists()
    assert synthesize(wanted).made == 1


def test_a_film_that_fails_in_a_worker_costs_no_other(tmp_path: Path) -> None:
    wanted = settings(tmp_path, films=3, workers=2)
    synthesize(settings(tmp_path, films=1))
    # film 1 cannot be put in place: a file stands where its masks go
    (tmp_path / "masks" / "film-00001").write_text("in the way")
    with pytest.raises(ValueError, match=r"^1 of 2 films could not be made \(film-00001: .*run the same command again"):
        synthesize(wanted)
    assert sorted(path.name for path in (tmp_path / "films").iterdir()) == ["film-00000.mp4", "film-00002.mp4"]
    (tmp_path / "masks" / "film-00001").unlink()
    assert synthesize(wanted).made == 1


def test_another_setting_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    synthesize(settings(tmp_path, films=2))
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"^seed: .* was made with seed=0, not 5; give another output"):
        synthesize(settings(tmp_path, films=2, seed=5))
    with pytest.raises(ConfigError, match=r"holds 2 films; ask for films=2 or more"):
        synthesize(settings(tmp_path, films=1))
    assert contents(tmp_path) == before
    assert synthesize(settings(tmp_path, films=3, workers=2)).made == 1


def test_coverage_is_told_only_where_it_is_not_the_old_one(tmp_path: Path) -> None:
    """Folders of before this key are the default's: byte for byte, and they go on."""
    synthesize(settings(tmp_path / "default", films=1))
    assert "coverage" not in (tmp_path / "default" / "synthesize.json").read_text()
    synthesize(settings(tmp_path / "said", films=1, coverage=(0.05, 0.12)))
    assert contents(tmp_path / "said") == contents(tmp_path / "default")
    with pytest.raises(ConfigError, match=r"^coverage: .* was made with coverage=\[0.05, 0.12\], not \[0.15, 0.3\]"):
        synthesize(settings(tmp_path / "default", films=1, coverage=(0.15, 0.3)))
    synthesize(settings(tmp_path / "large", films=1, coverage=(0.15, 0.3)))
    with pytest.raises(ConfigError, match=r"^coverage: .* was made with coverage=\[0.15, 0.3\], not \[0.05, 0.12\]"):
        synthesize(settings(tmp_path / "large", films=1))


def test_two_calls_do_not_write_to_one_folder(tmp_path: Path) -> None:
    wanted = settings(tmp_path, films=1)
    with exclusive(tmp_path, "synthesize"), pytest.raises(ValueError, match="another `synthesize` is at work here"):
        synthesize(wanted)
    assert not list(tmp_path.iterdir())
    assert synthesize(wanted).made == 1


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty and was not made by synthesize"):
        synthesize(settings(tmp_path))
    with pytest.raises(ConfigError, match="is a file"):
        synthesize(settings(tmp_path / "thesis.txt"))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
