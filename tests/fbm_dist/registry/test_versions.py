"""Register, promote, fetch: against a real SQLite registry, and a server that is not there."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from fbm_dist import registry
from fbm_dist.registry.client import connect, experiment_id, tracking_address
from fbm_dist.registry.folder import weights_digest

NAME = "fbm-encoder"


def digest(encoder: torch.nn.Module) -> str:
    return weights_digest(encoder)


def test_versions_aliases_and_promotion(uri: str, folders: list[Path]) -> None:
    wanted = [digest(registry.load_encoder(folder)) for folder in folders]
    versions = [registry.register(NAME, folder, tracking_uri=uri, metrics={"accuracy": 0.5}) for folder in folders]
    assert versions == ["1", "2", "3"]

    def loaded(model: str) -> str:
        return digest(registry.load_encoder(model, tracking_uri=uri))

    assert loaded(f"models:/{NAME}@champion") == wanted[0], "only the first version becomes champion by itself"
    assert loaded(f"models:/{NAME}/latest") == wanted[2]
    assert loaded(f"models:/{NAME}/2") == wanted[1]
    registry.promote(NAME, 2, tracking_uri=uri)
    assert loaded(f"models:/{NAME}@champion") == wanted[1]
    resolved = registry.resolve(f"models:/{NAME}@champion", tracking_uri=uri)
    assert resolved is not None
    assert resolved.uri == f"models:/{NAME}/2"
    assert registry.describe(f"models:/{NAME}/3", tracking_uri=uri).info == {"data_digest": "d2"}
    tags = connect(uri).get_model_version(NAME, "3").tags
    assert tags["metric.accuracy"] == "0.5"
    assert tags["data_digest"] == "d2"
    assert tags["family"] == "fbm"


def test_registered_under_the_run_that_made_it(uri: str, folders: list[Path]) -> None:
    client = connect(uri)
    run_id = client.create_run(experiment_id(client, "pretraining")).info.run_id
    registry.register(NAME, folders[0].parent, tracking_uri=uri, run_id=run_id, tags={"note": "first"})
    version = client.get_model_version(NAME, "1")
    assert version.run_id == run_id
    assert version.tags["note"] == "first"
    for model in (f"runs:/{run_id}", run_id):
        assert digest(registry.load_encoder(model, tracking_uri=uri)) == digest(registry.load_encoder(folders[0]))
    assert client.get_run(run_id).outputs.model_outputs, "the run's page shows the model"


def test_pyfunc_equals_torch_and_holds_no_pickle(
    uri: str, folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = list(sys.path)
    registry.register(NAME, folders[1], tracking_uri=uri)
    assert sys.path == path
    files = [file.name for file in (tmp_path / "mlruns").rglob("*") if file.is_file()]
    assert "encoder.safetensors" in files
    assert "input_example.json" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin"))]
    video = np.random.default_rng(0).uniform(-1, 1, (3, 3, 16, 64, 64)).astype(np.float32)
    monkeypatch.setattr(sys, "path", path)  # MLflow puts the model's own code in front when it loads one
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.set_tracking_uri(uri)
        try:
            model = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
            found = model.predict(video)
            assert model.metadata.signature.inputs.inputs[0].shape == (-1, 3, 16, 64, 64)
            assert set(model.metadata.signature.outputs.input_names()) == {"foreground", "background", "motion"}
            with pytest.raises(mlflow.exceptions.MlflowException, match="shape"):
                model.predict(video[:, :, :8])
        finally:
            mlflow.set_tracking_uri(None)
    with torch.no_grad():
        expected = registry.load_encoder(folders[1])(torch.from_numpy(video))
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.numpy(), atol=1e-6)


def test_tampered_artifact_is_refused_and_never_registered(uri: str, folders: list[Path], tmp_path: Path) -> None:
    registry.register(NAME, folders[0], tracking_uri=uri)
    stored = next((tmp_path / "mlruns").rglob("encoder.safetensors"))
    stored.write_bytes(stored.read_bytes()[:-4] + b"\0\0\1\0")
    with pytest.raises(ValueError, match="checksum"):
        registry.load_encoder(f"models:/{NAME}/1", tracking_uri=uri)
    damaged = folders[1] / "encoder.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4])
    with pytest.raises(ValueError, match="checksum"):
        registry.register(NAME, folders[1], tracking_uri=uri)
    assert len(connect(uri).search_model_versions(f"name='{NAME}'")) == 1


def test_what_is_not_there_is_one_line(uri: str, folders: list[Path]) -> None:
    registry.register(NAME, folders[0], tracking_uri=uri)
    for model, said in {
        "models:/other@champion": f"it has {NAME}",
        f"models:/{NAME}@challenger": r"versions \[1\] and aliases \['champion'\]",
        f"models:/{NAME}/7": r"versions \[1\]",
        f"models:/{NAME}": "no model URI",
        "runs:/" + "0" * 32: "find run",
    }.items():
        with pytest.raises(ValueError, match=said) as caught:
            registry.load_encoder(model, tracking_uri=uri)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="not in the registry"):
        registry.promote(NAME, 9, tracking_uri=uri)


def test_no_database_is_not_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no MLflow database"):
        registry.load_encoder(f"models:/{NAME}/1", tracking_uri=f"sqlite:///{tmp_path / 'none.db'}")
    assert not list(tmp_path.iterdir())


def test_server_that_is_down_is_one_line_without_the_password(folders: list[Path]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ValueError, match=f"127.0.0.1:{port} does not answer") as caught:
        registry.register(NAME, folders[0], tracking_uri=f"http://user:secret@127.0.0.1:{port}")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_address_rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_address() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert tracking_address() == "http://host:5000"
    assert tracking_address("sqlite:////srv/runs.db") == "sqlite:////srv/runs.db"
    with pytest.raises(ValueError, match="plain folders"):
        tracking_address("runs/mlruns")


@pytest.mark.slow  # a new interpreter imports torch and MLflow, and makes a database
def test_nothing_of_mlflow_reaches_the_console(folders: list[Path], tmp_path: Path) -> None:
    code = (
        "from fbm_dist import registry\n"
        f"uri = 'sqlite:///{tmp_path}/quiet.db'\n"
        f"registry.register('{NAME}', '{folders[0]}', tracking_uri=uri)\n"
        f"registry.load_encoder('models:/{NAME}@champion', tracking_uri=uri)\n"
        f"print(registry.resolve('models:/{NAME}@champion', tracking_uri=uri).version)\n"
    )
    root = Path(registry.__file__).parent.parent.parent
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert (result.stdout, result.stderr) == ("1\n", "")


def test_loading_from_files_needs_no_mlflow(folders: list[Path]) -> None:
    code = (
        "import sys\n"
        "from fbm_dist import registry\n"
        f"registry.load_encoder('{folders[0]}')\n"
        "import json; print(json.dumps(sorted({'mlflow', 'deepspeed', 'sklearn'} & set(sys.modules))))\n"
    )
    root = Path(registry.__file__).parent.parent.parent
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert json.loads(result.stdout) == []


@pytest.mark.slow  # starts a server: a quarter of a minute
def test_round_trip_through_a_server(server: str, folders: list[Path], tmp_path: Path) -> None:
    assert registry.register(NAME, folders[1], tracking_uri=server) == "1"
    loaded = registry.load_encoder(f"models:/{NAME}@champion", tracking_uri=server)
    assert digest(loaded) == digest(registry.load_encoder(folders[1]))
    assert list((tmp_path / "store").rglob("encoder.safetensors")), "the server has the artifacts, not this folder"
    assert not (tmp_path / "mlruns").exists()
