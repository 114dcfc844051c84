"""A run's segmenter as a file: it gives what the objective gives, is the same file every time, and is refused where it cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data_tools.segmenter import network_masks, with_segmenter
from fbm_dist.config import load
from fbm_dist.objectives.motion_mask.objective import MotionMask
from fbm_dist.registry.segmenter import ABOUT, ALONE, export_segmenter, main
from fbm_dist.run import pretrain
from fbm_dist.schema import InitFrom, Run
from fbm_dist.training.initialization import initialize
from tests.datasets import write_dataset
from tests.films import settings
from tests.runs import make_run

SIZE = 67


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of one step."""
    root = tmp_path_factory.mktemp("motion_mask")
    data = write_dataset(root / "shards", clips=4)
    made = make_run(
        root / "tiny",
        objective={"family": "motion_mask", "size": SIZE, "width": 0.05, "norm": "batch"},
        data={
            "path": str(data),
            "decode": "pyav",
            "workers": 1,
            "clip": {"frames": 1, "size": SIZE, "resize": "box"},
        },
        training={"engine": "torch", "steps": 1, "global_batch": 4, "micro_batch": 4, "preflight": "off"},
    )
    pretrain(made)
    return made.run.folder


def test_the_file_gives_what_the_objective_gives(run: Path, tmp_path: Path) -> None:
    digest = export_segmenter(run, tmp_path / "new" / "tiny.pt2")
    assert digest == export_segmenter(run, tmp_path / "again.pt2"), "the same weights, the same file"
    assert not list(tmp_path.rglob("*.tmp"))
    said = {ABOUT: ""}
    torch.export.load(str(tmp_path / "again.pt2"), extra_files=said)
    about = json.loads(said[ABOUT])
    assert (about["run"], about["size"], about["objective"]["family"]) == ("tiny", SIZE, "motion_mask")

    objective = load(Run, run / "config.yaml").objective.build()
    assert isinstance(objective, MotionMask)
    initialize(objective, InitFrom(source=str(run)), ALONE)
    frames = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    known = with_segmenter(
        settings(tmp_path, tmp_path / "out", "masks.kind=network", f"masks.network={tmp_path / 'again.pt2'}")
    )
    assert known.masks.network_sha256 == digest
    found = np.stack(network_masks(list(frames), known.masks))
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)[:, :, None] / 127.5 - 1
    np.testing.assert_allclose(found, objective.segment(video)[:, 0], atol=1e-4)
    assert found.std() > 0


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tiny.pt2"
    assert main([str(run), str(file)]) == 0
    assert f"{file}: sha256 " in capsys.readouterr().out
    assert main([str(tmp_path / "nowhere"), str(file)]) == 1
    assert "there is no config.yaml; give a run's folder" in capsys.readouterr().err
    assert main([str(run), str(tmp_path / "tiny.onnx")]) == 1
    assert "ends in .pt2" in capsys.readouterr().err


def test_what_cannot_be_exported(run: Path, tmp_path: Path) -> None:
    def of(family: str) -> Path:
        folder = tmp_path / family
        folder.mkdir()
        text = (run / "config.yaml").read_text()
        start, end = text.index("objective:"), text.index("data:")
        (folder / "config.yaml").write_text(
            text[:start] + f"objective: {{family: {family}, size: 64, width: 0.05}}\n" + text[end:]
        )
        return folder

    with pytest.raises(ValueError, match="autoencoder, is no segmenter; give a run of motion_mask"):
        export_segmenter(of("autoencoder"), tmp_path / "x.pt2")
    with pytest.raises(ValueError, match="fbm segments clips of 16 frames, and a segmenter's file is shown one"):
        export_segmenter(of("fbm"), tmp_path / "x.pt2")
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(run / "config.yaml", bare)
    shutil.copytree(run / "encoder", bare / "encoder")  # its checkpoints were cleared away
    with pytest.raises(ValueError, match=r"of the \d+ tensors; give a run's folder, with its checkpoints"):
        export_segmenter(bare, tmp_path / "x.pt2")
    assert not (tmp_path / "x.pt2").exists()
