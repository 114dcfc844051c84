"""python -m fbm_dist.registry: on SQLite, on a real server, through a pipe; every error is one line and has its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fbm_dist import registry
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.registry.__main__ import DOORS, main, parsed
from fbm_dist.schema import ClipSpec

NAME = "fbm-encoder"
METRIC = "probes.motion.linear.clip"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def registered(uri: str, folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two versions of one size and a third that is wider; the database is the one that the environment names."""
    wide = FBMConfig(size=64, width=0.06)
    registry.save_encoder(
        registry.fresh_encoder(wide, seed=0), wide, ClipSpec(size=64), tmp_path / "wide", {"steps": 9}
    )
    for folder, loss in zip((*folders[:2], tmp_path / "wide"), (0.5, 0.25, 0.125), strict=True):
        registry.register(NAME, folder, tracking_uri=uri, metrics={"loss": loss})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def test_list(registered: str, measured: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    measured(registered, {f"models:/{NAME}/1": 0.75})
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "version", "aliases", "family", "metrics", "age"]
    assert [line.split()[1] for line in lines[1:4]] == ["3", "2", "1"]
    assert f"{METRIC} 0.75" in lines[3]
    assert "champion" in lines[3]
    for words in (["list", "--json"], ["list", NAME, "json=true"]):
        assert main(words) == 0
        found = json.loads(capsys.readouterr().out)
        assert [one["version"] for one in found] == [3, 2, 1]
        assert found[2]["aliases"] == ["champion"]
        assert found[2]["metrics"] == {"loss": 0.5, METRIC: 0.75}
    assert main(["list", "other"]) == 1
    assert "error: MLflow cannot find 'other'" in capsys.readouterr().err


def test_show(registered: str, measured: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    measured(registered, {f"models:/{NAME}/1": 0.75})
    assert main(["show", f"models:/{NAME}@champion"]) == 0
    text = capsys.readouterr().out
    for said in ("(champion)", "data digest", "d0", "width", "motion 128", f"{METRIC}", "| fbm-encoder/1 |"):
        assert said in text, said
    assert main(["show", f"models:/{NAME}@champion", "tables=false"]) == 0
    assert "| fbm-encoder/1 |" not in capsys.readouterr().out
    assert main(["show", f"models:/{NAME}/3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["config"]["objective"]["width"] == 0.06
    assert found["evaluations"] == []


def test_compare(registered: str, measured: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    one, two, three = (f"models:/{NAME}/{i}" for i in (1, 2, 3))
    measured(registered, {one: 0.75}, data="shards")
    measured(registered, {two: 0.5}, data="others")
    assert main(["compare", one, two, three]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line.split() for line in lines if METRIC in line) == [METRIC, "0.75", "0.5"]
    assert next(line.split() for line in lines if line.startswith("objective.width")) == [
        "objective.width",
        "0.05",
        "0.05",
        "0.06",
    ]
    assert "measured on different data:" in lines
    assert main(["compare", one, three, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["differences"]["objective.width"] == {one: 0.05, three: 0.06}
    assert "objective.size" not in found["differences"]
    assert main(["compare", one, f"models:/{NAME}@champion"]) == 1
    assert f"{one} is named twice" in capsys.readouterr().err


def test_promote_pull_verify_export(
    registered: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    two = f"models:/{NAME}/2"
    assert main(["promote", two, "metric=loss"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["promote", two, "metric=loss", "mode=min"]) == 0
    assert capsys.readouterr().out == f"{two} is champion now: loss 0.25, 0.5 before (models:/{NAME}/1)\n"
    monkeypatch.chdir(tmp_path)
    assert main(["pull", f"models:/{NAME}@champion", "to=mine"]) == 0
    assert capsys.readouterr().out == f"{two} is in mine\n"
    assert main(["pull", two, "to=mine"]) == 0
    assert capsys.readouterr().out == f"mine holds {two} already\n"
    assert main(["verify", "mine", f"against={two}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["against"] == two
    for source in (two, "mine", "wide"):  # the registry, a pulled folder, an encoder folder
        assert main(["export", source, "to=exported/x.pt2", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["far"] <= 1e-5
    with (tmp_path / "mine" / "config.json").open("a") as file:
        file.write(" ")
    assert main(["verify", "mine"]) == 1
    assert capsys.readouterr().err.startswith("error: mine/config.json: checksum ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pull", "models:/a/1"], "'to' is missing"),
        (["show", "a/1"], "write models:/NAME@ALIAS"),
        (["show", "models:/a/1", "models:/a/2"], "is too much; example: python -m fbm_dist.registry show"),
        (["compare", "models:/a/1"], "uris"),
        (["promote", "models:/a/1", "metric=x", "mode=best"], "mode"),
        (["promote", "models:/a/1", "metrics=x"], "the nearest valid key is 'metric'"),
        (["export", "x", "to=x.pt"], "ends in .pt2 or .onnx"),
        (["list", "json=yes"], "json is true or false"),
        (["list", "registry=http://ada:secret@host"], "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_config_errors(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    text = capsys.readouterr().err
    assert said in text
    assert text.count("\n") == 1
    assert "secret" not in text


def test_what_cannot_be_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", f"registry=sqlite:///{tmp_path}/none.db"]) == 1
    assert "no MLflow database" in capsys.readouterr().err
    assert main(["verify", str(tmp_path)]) == 1
    assert "holds no SHA256SUMS" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "nowhere"), f"to={tmp_path}/x.pt2"]) == 1
    assert "is no folder" in capsys.readouterr().err


def test_examples_are_valid() -> None:
    for command, (section, _, _, example) in DOORS.items():
        assert isinstance(parsed(command, example.split()[1:]), section)


@pytest.mark.slow  # two new interpreters
def test_through_a_pipe_and_into_a_closed_one(registered: str) -> None:
    command = f"{sys.executable} -m fbm_dist.registry list"
    found = subprocess.run(f"{command} | cat", shell=True, capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stderr == ""
    assert len(found.stdout.splitlines()) == 4
    assert "\x1b" not in found.stdout
    found = subprocess.run(f"{command} | true", shell=True, capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stderr == ""


@pytest.mark.slow  # starts a server: a quarter of a minute
def test_everything_on_a_server(
    server: str, folders: list[Path], tmp_path: Path, measured: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"registry={server}"
    for folder in folders[:2]:
        registry.register(NAME, folder, tracking_uri=server)
    one, two = (f"models:/{NAME}/{i}" for i in (1, 2))
    measured(server, {one: 0.5, two: 0.75})
    assert main(["list", address, "--json"]) == 0
    assert [found["metrics"] for found in json.loads(capsys.readouterr().out)] == [{METRIC: 0.75}, {METRIC: 0.5}]
    assert main(["promote", two, f"metric={METRIC}", address]) == 0
    assert main(["compare", one, two, address]) == 0
    assert main(["show", f"models:/{NAME}@champion", address]) == 0
    assert "| fbm-encoder/2 |" in capsys.readouterr().out
    assert main(["pull", f"models:/{NAME}@champion", f"to={tmp_path}/mine", "program=false", address]) == 0
    assert (tmp_path / "mine" / "evaluation" / "probes.md").is_file()
    assert main(["verify", f"{tmp_path}/mine", f"against={two}", address]) == 0
    assert main(["verify", f"{tmp_path}/mine", f"against={one}", address]) == 1
    stored = list((tmp_path / "store").rglob("config.json"))
    for path in stored:
        path.write_text(path.read_text() + " ")
    assert main(["show", one, address]) == 1
    assert "which the registry has" in capsys.readouterr().err
