"""The motion-mask network under the trainer: every ZeRO stage is plain torch, a run goes on bit for bit, its encoder goes by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fbm_dist.clip import Clip
from fbm_dist.objectives.motion_mask.config import MotionMaskConfig
from fbm_dist.objectives.motion_mask.objective import MotionMask
from fbm_dist.registry import load_encoder
from fbm_dist.registry.folder import read_description
from fbm_dist.run import pretrain
from fbm_dist.schema import Run
from fbm_dist.training.monitoring.metrics import read_lines
from tests.datasets import write_dataset
from tests.equality import engines_agree, goes_on
from tests.runs import make_run

SIZE = 67
OBJECTIVE = {"family": "motion_mask", "size": SIZE, "width": 0.05}
STEPS = 2
RANKS = 2


def build(norm: Any) -> MotionMask:
    torch.manual_seed(0)
    return MotionMaskConfig(size=SIZE, width=0.05, norm=norm, low_rank=8).build()


@pytest.mark.distributed
@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("norm", ["lrn", "batch"])
def test_every_zero_stage_equals_plain_torch(
    norm: str, micro_batches: int, make_clip: Callable[..., Clip], tmp_path: Path
) -> None:
    steps = [
        [
            [make_clip(3, SIZE, 100 * step + 10 * rank + part, frames=1) for rank in range(RANKS)]
            for part in range(micro_batches)
        ]
        for step in range(STEPS)
    ]
    uncertain = steps[0][0][0].mask  # one rank has no certain pixel in its first micro-batch
    assert uncertain is not None
    uncertain.fill_(0.5)

    def idle(name: str) -> bool:  # a BatchNorm follows
        return norm == "batch" and name.endswith((".convolution.bias", ".linear.bias", "low_rank.bias"))

    optimizer = {"kind": "sgd", "lr": 0.2, "momentum": 0.9, "weight_decay": 0.005}
    engines_agree(tmp_path, lambda: build(norm), steps, idle=idle, optimizer=optimizer)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), clips=10)


def run_of(folder: Path, path: Path, steps: int, clip: dict[str, Any] | None = None, **sections: Any) -> Run:
    """One process; boxes around the masks, true masks for the log; `clip` changes how clips are cut."""
    boxes = {"frames": 1, "size": SIZE, "resize": "box", "mirror": 0.5, "frames_per_shot": 2, "truth": True}
    given: dict[str, Any] = {
        "objective": OBJECTIVE,
        "data": {"path": str(path), "decode": "pyav", "workers": 1, "clip": boxes | (clip or {})},
        "training": {
            "engine": "torch",
            "steps": steps,
            "global_batch": 4,
            "micro_batch": 2,
            "checkpoint_every": 1,
            "picture_every": steps,
            "preflight": "off",
        },
    }
    return make_run(folder, **given | sections)


def test_a_run_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    """With dropout and jittered boxes: two steps, and one that goes on to two."""
    whole = goes_on(tmp_path, lambda folder, steps: run_of(folder, data, steps), ["logistic"])
    last = list(read_lines(whole / "metrics.jsonl"))[-1]
    assert last["loss"] == pytest.approx(32 * last["logistic"], rel=1e-5)
    assert {"iou", "certain", "positive", "iou_truth"} <= set(last)
    assert last["iou_truth_of_masks"] > 0.8, "the stored masks are the true ones, blurred"
    assert (whole / "pictures/masks-00000002.png").is_file()


def test_worse_masks_are_seen_in_the_log(data: Path, tmp_path: Path) -> None:
    """The study of degraded masks: what is learnt from changes, what it is measured against does not."""
    pretrain(run_of(tmp_path / "run", data, 1, {"degrade": {"kind": "truncate", "share": 0.5}}))
    (last,) = read_lines(tmp_path / "run/metrics.jsonl")
    assert last["iou_truth_of_masks"] < 0.65


def test_its_encoder_is_registered_and_loaded_by_name(data: Path, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking = {"mlflow": True, "uri": address, "register_as": "mask", "experiment": "tests"}
    summary = pretrain(run_of(tmp_path / "run", data, steps=1, tracking=tracking))
    assert summary.model_uri == "models:/mask/1"
    described = read_description(tmp_path / "run")
    assert described.objective == MotionMaskConfig.model_validate_json(json.dumps(OBJECTIVE))
    assert described.features == {"conv5": 16, "fc6": 208, "fc7": 208}
    encoder = load_encoder("models:/mask@champion", tracking_uri=address)
    kept = load_file(tmp_path / "run/encoder/encoder.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in encoder.state_dict().items())
    features = encoder(torch.zeros(2, 3, 5, SIZE, SIZE))
    assert {name: value.shape for name, value in features.items()} == {
        "conv5": (2, 16),
        "fc6": (2, 208),
        "fc7": (2, 208),
    }


def test_clips_that_do_not_fit_end_a_run_at_its_start(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.clip\.frames is 16, but the objective's frames is 1"):
        pretrain(run_of(tmp_path / "run", data, 1, {"frames": 16, "frames_per_shot": None}))
    bare = write_dataset(tmp_path / "bare", clips=4, masks=False)
    with pytest.raises(ValueError, match="masks"):
        pretrain(run_of(tmp_path / "bare-run", bare, 1))
