"""Moving MNIST: digits keep to their square, colours and splits; the bytes are reproducible; shards come of the films as of any."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from data_tools.__main__ import main
from data_tools.config import ConfigError, load
from data_tools.dataset import read_manifest
from data_tools.synthetic import synthesize
from data_tools.synthetic.config import MovingMnist, Synthesize, settings_of
from data_tools.synthetic.digits import SPEEDS, cast, enlarged, paint, path, plan, render


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two files of 40 digits: a bright bar each, at a place of its own."""
    folder, found = tmp_path_factory.mktemp("mnist"), {}
    for name, seed in (("train", 0), ("test", 1)):
        x = np.zeros((40, 28, 28), np.uint8)
        for i in range(40):
            x[i, 4:24, 4 + i % 20 : 8 + i % 20] = 255 - i - seed
        found[name] = folder / f"{name}.npz"
        np.savez(found[name], x=x, y=np.arange(40) % 10)
    return found


def settings(files: dict[str, Path], output: Path, **changes: Any) -> MovingMnist:
    given: dict[str, Any] = {**files, "output": output, "films": 4, "frames": 20, "workers": 1, **changes}
    return MovingMnist(kind="moving_mnist", **given)


def test_a_digit_bounces_within_the_square() -> None:
    """By hand along the first axis; for random ones: never outside, always by its own speed but at a wall."""
    places = path(np.array([[29, 10]]), np.array([[2, -4]]), 8)[:, 0]
    assert places[:, 0].tolist() == [29, 31, 32, 30, 28, 26, 24, 22]
    assert places[:, 1].tolist() == [10, 6, 2, 0, 4, 8, 12, 16]
    rng = np.random.default_rng(0)
    start, speed = rng.integers(0, 33, (50, 2)), rng.choice(SPEEDS, (50, 2))
    places = path(start, speed, 200)
    assert places.min() == 0
    assert places.max() == 32
    steps = np.abs(np.diff(places, axis=0))
    at_wall = (places[1:] == 0) | (places[1:] == 32)
    assert (steps[~at_wall] == np.broadcast_to(np.abs(speed), steps.shape)[~at_wall]).all()
    assert (steps <= np.abs(speed)).all()


def test_speeds_are_the_authors_intention() -> None:
    """-4 to 4 without 0 (their Lua lists 4 in the place of -4, their Python draws 0 and never 4)."""
    assert sorted(SPEEDS) == [-4, -3, -2, -1, 1, 2, 3, 4]


def test_each_digit_has_its_colour_and_the_one_in_front_hides_the_other() -> None:
    digits = np.zeros((2, 32, 32), np.uint8)
    digits[0, 8:24, 8:24], digits[1, 8:24, 8:24] = 200, 100
    places = np.array([[0, 0], [8, 8]])
    for order in ([0, 1], [1, 0]):
        frame = paint(digits, places, np.array(order))
        front = order[1]
        assert frame[8:16, 8:16].max(axis=(0, 1)).tolist() == [200, 0, 0], "the first alone"
        assert frame[24:32, 24:32].max(axis=(0, 1)).tolist() == [0, 100, 0], "the second alone"
        overlap = frame[16:24, 16:24].reshape(-1, 3)
        assert (overlap[:, front] == digits[front].max()).all()
        assert not overlap[:, 1 - front].any()
    assert not frame[..., 2].any()


def test_a_film_shows_what_its_plan_says(files: dict[str, Path], tmp_path: Path) -> None:
    wanted = settings(files, tmp_path, scale=2)
    film = plan(wanted)[0]
    drawn = cast(wanted, 0, film.split)
    with np.load(files["train"]) as file:
        digits = np.stack([enlarged(file["x"][i]) for i in drawn.number])
        assert film.shots[0].labels == {f"digit_{i}": str(file["y"][n]) for i, n in enumerate(drawn.number)}
    where = path(drawn.start, drawn.speed, 20)
    frames = list(render(wanted, film))
    assert len(frames) == 20
    for t, (frame, mask) in enumerate(frames):
        small = paint(digits, where[t], drawn.order)
        assert frame.shape == (128, 128, 3)
        assert np.array_equal(frame[::2, ::2], small)
        assert np.array_equal(frame[1::2, 1::2], small)
        assert np.array_equal(mask, frame.max(axis=2) > 127)


def test_splits_share_no_digit(files: dict[str, Path], tmp_path: Path) -> None:
    wanted = settings(files, tmp_path, films=200, digits=3)
    films = plan(wanted)
    seen: dict[str, set[int]] = {"train": set(), "val": set(), "test": set()}
    for film in films:
        seen[film.split] |= set(cast(wanted, film.number, film.split).number.tolist())
    assert seen["val"] == {9, 19, 29, 39}
    assert not seen["train"] & seen["val"]
    assert len(seen["train"]) == 36
    assert len(seen["test"]) > 30, "of the other file"
    assert plan(settings(files, tmp_path, films=10, digits=3)) == films[:10]


def test_films_masks_and_labels_on_disk(files: dict[str, Path], tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        synthesize(settings(files, tmp_path / name, workers=workers))
    contents = [
        {
            str(p.relative_to(tmp_path / n)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in (tmp_path / n).rglob("*.*")
        }
        for n in ("one", "two")
    ]
    assert contents[0] == contents[1]
    with (tmp_path / "one" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "start", "stop", "digit_0", "digit_1", "group", "split", "truth"]
    assert [(row["start"], row["stop"]) for row in rows] == [("0", "20")] * 4
    with av.open(str(tmp_path / "one" / rows[0]["path"])) as container:
        video = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    wanted = settings(files, tmp_path / "one")
    drawn = list(render(wanted, plan(wanted)[0]))
    difference = video.astype(int) - np.stack([frame for frame, _ in drawn]).astype(int)
    assert np.abs(difference).mean() < 4
    mask = np.asarray(Image.open(tmp_path / "one" / rows[0]["truth"] / "00003.png"))
    assert np.array_equal(mask, drawn[3][1])


def test_the_road_to_shards(files: dict[str, Path], tmp_path: Path) -> None:
    films, shards = tmp_path / "films", tmp_path / "shards"
    given = [f"{name}={file}" for name, file in files.items()]
    command = ["synthesize", "kind=moving_mnist", f"output={films}", "films=3", "frames=16", "workers=1", *given]
    assert main(command) == 0
    assert (
        main(["prepare", f"input={films}", f"output={shards}", "masks.kind=none", "shots.detector=none", "workers=1"])
        == 0
    )
    rows = read_manifest(shards).to_pylist()
    assert len(rows) == 3
    for row in rows:
        labels = row["labels"] if isinstance(row["labels"], dict) else dict(row["labels"])
        assert set(labels) == {"digit_0", "digit_1"}
        assert row["split"] in ("train", "val", "test")


def test_other_settings_or_digits_in_the_same_folder_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "films"
    synthesize(settings(files, output, films=1))
    with pytest.raises(ConfigError, match=r"^scale: .* was made with scale=2, not 1"):
        synthesize(settings(files, output, films=1, scale=1))
    other = tmp_path / "other.npz"
    np.savez(other, x=np.zeros((20, 28, 28), np.uint8), y=np.arange(20))
    with pytest.raises(ConfigError, match=r"^train: "):
        synthesize(settings({**files, "train": other}, output, films=1))
    moved = tmp_path / "moved.npz"
    moved.write_bytes(files["train"].read_bytes())
    assert synthesize(settings({**files, "train": moved}, output, films=2)).made == 1, "the same digits elsewhere"
    with pytest.raises(ConfigError, match="was made with"):
        synthesize(Synthesize(output=output, films=2))


def test_what_is_no_digits_file_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.npz"
    broken.write_text("no zip")
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, x=np.zeros((20, 32, 32), np.uint8), y=np.arange(20))
    for file, told in ((broken, "no npz file with x and y"), (wrong, r"x must be uint8 of \(n, 28, 28\)")):
        with pytest.raises(ConfigError, match=told):
            plan(settings({**files, "train": file}, tmp_path / "films"))
    with pytest.raises(ConfigError, match="no npz file"):
        plan(settings({**files, "train": tmp_path / "nowhere.npz"}, tmp_path / "films"))


def test_the_kind_chooses_the_settings(files: dict[str, Path], tmp_path: Path) -> None:
    given = [f"output={tmp_path}", f"train={files['train']}", "split.test=0"]
    assert isinstance(load(settings_of, None, ["kind=moving_mnist", *given]), MovingMnist)
    assert isinstance(load(settings_of, None, [f"output={tmp_path}"]), Synthesize)
    with pytest.raises(ConfigError, match="kind: 'mnist' is not known; give moving_mnist"):
        load(settings_of, None, ["kind=mnist", *given])
    with pytest.raises(ConfigError, match=r"split test need digits of their own; give test=FILE, or split\.test=0"):
        load(settings_of, None, ["kind=moving_mnist", *given[:2]])
