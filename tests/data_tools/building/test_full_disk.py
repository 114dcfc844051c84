"""A disk that is full or cannot be written: one clear error, nothing half-written, and the same command goes on when there is room."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_tools.__main__ import main
from data_tools.building.pipeline import prepare
from tests.films import files, film, settings


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of its own, or changes how it is mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"{'remount,' if mounted else ''}{options}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode and not mounted:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        assert not done.returncode, done.stderr
        mounted.append(options)
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(tmp_path: Path, disk: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(6):
        film(tmp_path / f"films/{i}.mp4", (2 * i, 64), (2 * i + 1, 64))
    output = disk("size=200k") / "data"
    given = [f"input={tmp_path / 'films'}", "masks.kind=none", "short_side=128", "workers=2"]
    assert main(["prepare", f"output={output}", *given]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {output}")
    assert said.endswith("No space left on device")
    assert not [name for name in files(output) if name.endswith(".tmp")], "nothing half-written"
    assert not (output / "dataset.json").exists()
    disk("size=20m")
    assert main(["prepare", f"output={output}", *given]) == 0
    assert main(["prepare", f"output={tmp_path / 'whole'}", *given]) == 0
    assert files(output) == files(tmp_path / "whole")


def test_a_folder_that_cannot_be_written(tmp_path: Path, disk: Callable[[str], Path]) -> None:
    film(tmp_path / "films/0.mp4", (1, 40))
    folder = disk("size=1m,ro")
    with pytest.raises(OSError, match="Read-only file system") as caught:
        prepare(settings(tmp_path / "films", folder / "data"))
    assert caught.value.errno == errno.EROFS
    assert list(folder.iterdir()) == []
