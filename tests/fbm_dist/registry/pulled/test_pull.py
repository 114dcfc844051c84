"""Pull: a folder that explains and checks itself, whole or not at all; what was tampered with is refused in one line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from fbm_dist import registry
from fbm_dist.inference import load
from fbm_dist.inference.sums import write_sums
from fbm_dist.registry.catalogue import entry
from fbm_dist.registry.client import connect, experiment_id
from fbm_dist.registry.folder import read_description, weights_digest
from fbm_dist.registry.pulled import pull as pulling
from fbm_dist.registry.pulled.card import card, plain

NAME = "fbm-encoder"
CHAMPION = f"models:/{NAME}@champion"
FILES = {"README.md", "SHA256SUMS", "config.json", "encoder.pt2", "encoder.safetensors", "version.json"}


@pytest.fixture
def registered(uri: str, folders: list[Path]) -> str:
    """The address of a registry with two versions."""
    for folder in folders[:2]:
        registry.register(NAME, folder, tracking_uri=uri, metrics={"loss": 0.25})
    return uri


@pytest.fixture
def pulled(registered: str, tmp_path: Path) -> Path:
    registry.pull(CHAMPION, tmp_path / "new" / "mine", program=False, tracking_uri=registered)
    return tmp_path / "new" / "mine"


def test_a_pulled_folder(registered: str, folders: list[Path], tmp_path: Path, measured: Callable[..., None]) -> None:
    measured(registered, {f"models:/{NAME}/1": 0.75, f"models:/{NAME}/2": 0.5})
    folder = tmp_path / "mine"
    done = registry.pull(CHAMPION, folder, tracking_uri=registered)
    assert (done.version.uri, done.tables, done.new) == (f"models:/{NAME}/1", ("probes",), True)
    assert {path.name for path in folder.iterdir()} == FILES | {"evaluation"}
    original = registry.load_encoder(folders[0])
    video = torch.rand(3, 3, 16, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(load(folder)(video), original(video))
    assert weights_digest(load(folder, exported=False)) == weights_digest(original)
    assert weights_digest(registry.load_encoder(folder)) == weights_digest(original), "it is an encoder folder, too"
    assert json.loads((folder / "version.json").read_text())["metrics"] == {
        "loss": 0.25,
        "probes.motion.linear.clip": 0.75,
    }
    assert json.loads((folder / "evaluation" / "probes.json").read_text())["protocol"] == "probes"
    assert "75.0" in (folder / "evaluation" / "probes.md").read_text()
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    verified = registry.verify(folder, against=CHAMPION, tracking_uri=registered)
    assert verified.far is not None
    assert verified.far < 1e-5
    with pytest.raises(ValueError, match=f"which the registry has for models:/{NAME}/2: another version, or changed"):
        registry.verify(folder, against=f"models:/{NAME}/2", tracking_uri=registered)


def test_the_card_is_what_is_known(registered: str, tmp_path: Path, measured: Callable[..., None]) -> None:
    measured(registered, {f"models:/{NAME}/1": 0.75})
    registry.pull(CHAMPION, tmp_path / "mine", program=False, tracking_uri=registered)
    text = (tmp_path / "mine" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    assert YAML(typ="safe").load(front) == {
        "library_name": "pytorch",
        "pipeline_tag": "feature-extraction",
        "tags": ["video", "self-supervised-learning", "feature-extraction", "fbm"],
    }
    for said in (
        "# fbm-encoder, version 1",
        "Lin et al., 2017",
        "`(b, 3, 16, 64, 64)`",
        "| `motion` | 128 |",
        "| data digest | `d0` |",
        "| `probes.motion.linear.clip` | 0.75 |",
        "(evaluation/probes.md)",
        "licence of these weights | not stated",
        read_description(tmp_path / "mine").sha256,
    ):
        assert said in body, said
    assert "$" not in body
    assert str(tmp_path) not in text


def test_nothing_from_outside_becomes_markup(registered: str, tmp_path: Path) -> None:
    client = connect(registered)
    version = entry(client, CHAMPION)
    described = registry.describe(CHAMPION, tracking_uri=registered)
    evil = "x](http://evil) | <script>\n---\nlicense: mit `code` $steps"
    described = described.model_copy(update={"info": {"run": evil, "films": {"licences": {evil: 3}, "fps": {"25": 7}}}})
    text = card(version, described, (), {})
    assert "<script>" not in text
    assert "](http" not in text
    assert "\nlicense:" not in text
    assert "25 frames/s (7 clips)" in text
    assert plain("a\n|b|") == "a &#124;b&#124;"


def test_the_same_version_again_is_nothing_to_do(registered: str, pulled: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in pulled.iterdir()}
    again = registry.pull(CHAMPION, pulled, program=False, tracking_uri=registered)
    assert not again.new
    assert before == {path: path.stat().st_mtime_ns for path in pulled.iterdir()}
    with pytest.raises(
        ValueError, match=f"holds models:/{NAME}/1, not models:/{NAME}/2; give another folder, or remove it"
    ):
        registry.pull(f"models:/{NAME}/2", pulled, program=False, tracking_uri=registered)
    with pytest.raises(ValueError, match=r"without encoder\.pt2"):
        registry.pull(CHAMPION, pulled, tracking_uri=registered)
    (pulled / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="pull it again"):
        registry.pull(CHAMPION, pulled, program=False, tracking_uri=registered)


def test_another_folder_is_left_alone(registered: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="mine exists and is no pulled encoder"):
        registry.pull(CHAMPION, tmp_path / "mine", tracking_uri=registered)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_whole_or_not_at_all(registered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pulling, "write_sums", fail)
    with pytest.raises(OSError, match="disk full"):
        registry.pull(CHAMPION, tmp_path / "new" / "mine", program=False, tracking_uri=registered)
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("what", ["weights", "config", "both", "truncated"])
def test_what_was_changed_in_the_store_is_not_pulled(registered: str, tmp_path: Path, what: str) -> None:
    weights = next(path for path in (tmp_path / "mlruns").rglob("encoder.safetensors"))
    config = weights.with_name("config.json")
    said = json.loads(config.read_text())
    if what in ("weights", "both"):
        weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\1\0")
    if what == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    if what == "config":
        said["value_range"] = [0.0, 1.0]
        config.write_text(json.dumps(said))
    if what == "both":  # the config vouches for the changed weights; the registry does not
        from fbm_dist.registry.folder import sha256

        said["sha256"] = sha256(weights)
        config.write_text(json.dumps(said))
    uris = [f"models:/{NAME}/{version}" for version in (1, 2)]
    failed = []
    for uri in uris:  # which of the two it was, the store does not say
        try:
            registry.pull(uri, tmp_path / f"pulled-{uri[-1]}", program=False, tracking_uri=registered)
        except ValueError as error:
            failed.append(str(error))
    assert len(failed) == 1
    assert "checksum" in failed[0]
    assert "\n" not in failed[0]
    assert ("which the registry has" in failed[0]) == (what in ("config", "both"))
    assert len(list(tmp_path.glob("pulled-*"))) == 1


def test_runs_have_checksums_too(uri: str, folders: list[Path], tmp_path: Path) -> None:
    client = connect(uri)
    run = client.create_run(experiment_id(client, "pretraining")).info.run_id
    registry.register(NAME, folders[0], tracking_uri=uri, run_id=run)
    config = next((tmp_path / "mlruns").rglob("artifacts/encoder/config.json"))
    config.write_text(config.read_text() + " ")
    with pytest.raises(ValueError, match=r"checksum \w+ of its config\.json is not \w+, which the registry has"):
        registry.describe(f"runs:/{run}", tracking_uri=uri)


def test_verify_looks_beyond_the_sums(registered: str, pulled: Path) -> None:
    """Who can write into the folder can rewrite its sums: then the weights must still be the config's, and the registry knows both."""
    config = json.loads((pulled / "config.json").read_text())
    config["value_range"] = [0.0, 1.0]
    (pulled / "config.json").write_text(json.dumps(config))
    write_sums(pulled)
    registry.verify(pulled)
    with pytest.raises(ValueError, match="another version, or changed"):
        registry.verify(pulled, against=CHAMPION, tracking_uri=registered)
    weights = pulled / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\1\0")
    write_sums(pulled)
    with pytest.raises(ValueError, match="checksum"):
        registry.verify(pulled)
    (pulled / "version.json").unlink()
    write_sums(pulled)
    with pytest.raises(ValueError, match=r"version\.json is missing"):
        registry.verify(pulled)


def test_verify_finds_a_program_of_other_weights(registered: str, folders: list[Path], tmp_path: Path) -> None:
    for version in (1, 2):
        registry.pull(f"models:/{NAME}/{version}", tmp_path / str(version), tracking_uri=registered)
    (tmp_path / "1" / "encoder.pt2").write_bytes((tmp_path / "2" / "encoder.pt2").read_bytes())
    write_sums(tmp_path / "1")
    with pytest.raises(ValueError, match=r"encoder\.pt2: its values of \w+ are .* from the original's"):
        registry.verify(tmp_path / "1")


def test_tables_that_are_gone_do_no_harm(registered: str, tmp_path: Path, measured: Callable[..., None]) -> None:
    measured(registered, {f"models:/{NAME}/1": 0.75})
    client = connect(registered)
    version = client.get_model_version(NAME, "1")
    (tmp_path / "evaluation" / "results.json").unlink()
    for file in [*tmp_path.glob("mlruns/**/results.json"), *tmp_path.glob("mlruns/**/table.md")]:
        file.unlink()
    client.set_model_version_tag(NAME, "1", "a/b.run", version.tags["probes.run"])  # as far as MLflow takes such names
    client.set_model_version_tag(NAME, "1", "other.run", "0" * 32)
    done = registry.pull(CHAMPION, tmp_path / "mine", program=False, tracking_uri=registered)
    assert done.tables == ()
    assert {path.name for path in (tmp_path / "mine").iterdir()} == FILES - {"encoder.pt2"}
    assert "The tables of `probes` are not there any more" in (tmp_path / "mine" / "README.md").read_text()
