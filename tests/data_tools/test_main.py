"""The door: exit status 0, 1 or 2, and never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_tools.__main__ import main
from data_tools.progress import Console
from data_tools.videos import encode

ROOT = Path(__file__).parents[2]


def test_prepare_verify_inspect_as_the_readme_has_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "films").mkdir()
    rng = np.random.default_rng(0)
    frames = (
        np.repeat(rng.integers(0, 255, (1, 8, 12, 3)), 30, axis=0)
        .repeat(12, axis=1)
        .repeat(12, axis=2)
        .astype(np.uint8)
    )
    (tmp_path / "films/a.mp4").write_bytes(encode(frames, (25, 1), "h264"))
    data = tmp_path / "data"
    config = str(ROOT / "configs/prepare/default.yaml")
    assert main(["prepare", config, f"input={tmp_path / 'films'}", f"output={data}", "masks.kind=none"]) == 0
    assert "films: 1 of 1 used" in capsys.readouterr().out
    assert main(["verify", str(data)]) == 0
    assert "no problems in 1 shards, 1 clips" in capsys.readouterr().out
    assert main(["inspect", str(data)]) == 0
    assert Path(capsys.readouterr().out.strip()) == data / "inspect.html"
    (data / "shards/000000.idx").unlink()
    assert main(["verify", str(data)]) == 1
    assert "problem: 000000.idx: is missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["prepare", "codek=vp9", "input=a", "output=b"], 2, "unknown key 'codek'; the nearest valid key is 'codec'"),
        (["prepare", "output=b"], 2, "'input' is missing"),
        (["prepare", "input=a", "output=b", "max_frames=many"], 2, "max_frames"),
        (["prepare", "input=a", "output=b", "min_frames=99"], 2, "min_frames 99 is larger than max_frames 64"),
        (["prepare", "gone.yaml"], 2, "gone.yaml: no such config file"),
        (["prepare", "input=gone", "output=b"], 1, "gone: no such input"),
        (["verify", "gone"], 1, "gone: no such folder"),
        (["inspect", "."], 1, "no data set"),
        (["inspect", ".", "snapshot=3", "colour=red"], 2, "unknown key 'colour'"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "file").write_text("no folder")
    assert main(["prepare", f"input={tmp_path / 'a.mp4'}", f"output={tmp_path / 'file' / 'data'}"]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'file' / 'data'}: Not a directory\n"


@pytest.mark.parametrize("command", [[], ["synthesize"], ["prepare"], ["verify"], ["inspect"]])
def test_help(command: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "data_tools", *command, "--help"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.startswith("usage: python -m data_tools")
    assert not command or f"example: python -m data_tools {command[0]}" in " ".join(result.stdout.split())


def test_a_folder_with_an_equals_sign_is_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "lr=1 #2"
    folder.mkdir()
    assert main(["verify", str(folder)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {folder}: no data set")


def test_synthesize_is_one_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int]] = []

    class Recorder(Console):
        def stage(self, name: str, total: int, unit: str) -> None:
            told.append((name, total))

        def advance(self, things: int = 0, frames: int = 0) -> None:
            told.append(("advance", things))

    monkeypatch.setattr("data_tools.progress.Console", Recorder)
    command = ["synthesize", f"output={tmp_path}", "films=2", "shots=1", "frames=[2, 3]", "size=[64, 64]", "workers=1"]
    assert main(command) == 0
    assert told == [("synthesizing", 2), ("advance", 0), ("advance", 1), ("advance", 1)]
    told.clear()
    assert main(command) == 0
    assert told == [("synthesizing", 2), ("advance", 2)]
