"""FBM against its critics under the trainer: every ZeRO stage is plain torch, and a run goes on bit for bit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.objective import Objective
from fbm_dist.run import pretrain
from fbm_dist.schema import Run
from fbm_dist.training.engines.turn import turn
from tests.datasets import write_dataset
from tests.equality import LAST, engines_agree, goes_on
from tests.runs import make_run

GAME: dict[str, Any] = {
    "family": "fbm",
    "size": 64,
    "width": 0.05,
    "trimap": {"low": 0.4, "high": 0.7},
    "random_frame": "kernels",
    "kernel_decoder": "factorised",
    "kernel_rank": 2,
    "scene_share": 0.5,
    "object_share": 0.5,
    "scene_critic": {"weight": 1.0, "pairs": "transplanted", "hidden": 16},
    "frame_critic": {"weight": 0.1},
}
GOLDEN = Path(__file__).parents[3] / "golden" / "fbm_game_loss.json"
RANKS = 2
PLAYERS = ("critic", "model")


def build() -> Objective:
    torch.manual_seed(0)
    return FBMConfig.model_validate(GAME).build()


@pytest.mark.distributed
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_every_zero_stage_equals_plain_torch(micro_batches: int, make_clip: Any, tmp_path: Path) -> None:
    """Two players; the bias of the frame critic's score has no gradient: its hinges are all active, as many of each sign."""
    seen = [[make_clip(3, seed=10 * m + rank) for rank in range(RANKS)] for m in range(micro_batches)]
    sections = {
        "optimizer": {"kind": "sgd", "lr": 0.5, "weight_decay": 0.002},
        "players": {"critic": {"optimizer": {"kind": "sgd", "lr": 0.2}}},
    }
    engines_agree(tmp_path, build, [seen], idle=lambda name: name.endswith("layers.6.bias"), **sections)


def test_the_curves_of_both_players_are_the_stored_ones(make_clip: Any) -> None:
    """Three steps at a fixed seed, but for the accuracy, which jumps.

    REGENERATE_GOLDEN=1 pytest tests/fbm_dist/objectives/fbm/test_game.py writes them anew.
    """
    objective = build().train()
    optimizers = {player: torch.optim.Adam(getattr(objective, player).parameters(), lr=1e-4) for player in PLAYERS}
    steps = []
    for step in range(3):
        figures = {}
        for player, optimizer in optimizers.items():
            with turn(objective, player):
                loss = objective(player, make_clip(4, seed=step))
                loss.total.backward()
            optimizer.step()
            optimizer.zero_grad()
            terms = {"total": loss.total, **loss.terms}
            figures |= {f"{player}/{name}": term.item() for name, term in terms.items() if name != "scene_accuracy"}
        steps.append(figures)
    if os.environ.get("REGENERATE_GOLDEN"):
        made_by = "REGENERATE_GOLDEN=1 pytest tests/fbm_dist/objectives/fbm/test_game.py"
        GOLDEN.write_text(json.dumps({"made_by": made_by, "objective": GAME, "steps": steps}, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert golden["objective"] == GAME
    assert len(golden["steps"]) == len(steps)
    for now, stored in zip(steps, golden["steps"], strict=True):
        assert now == pytest.approx(stored, rel=2e-3, abs=2e-4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), clips=8)


def game_run(folder: Path, data: Path, steps: int, micro: int) -> Run:
    """One process; the critic has an optimizer of its own; everything that draws or remembers is on."""
    return make_run(
        folder,
        objective=GAME,
        data={"path": str(data), "clip": {"size": 64, "mirror": 0.5, "reverse": 0.5}},
        players={"critic": {"optimizer": {"lr": 2e-3, "betas": [0.5, 0.999]}}},
        training={
            "engine": "torch",
            "steps": steps,
            "global_batch": 4,
            "micro_batch": micro,
            "checkpoint_every": 1,
            "picture_every": steps,
            "preflight": "off",
            "ema_decay": 0.9,
        },
    )


def test_a_game_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    """Two steps, and one that goes on to two: weights, both players' curves, and the critic that is in the checkpoint alone."""
    names = ("critic/scene_critic", "critic/frame_critic", "model/rec_random_foreground", "model/scene_confusion")
    whole = goes_on(tmp_path, lambda folder, steps: game_run(folder, data, steps, micro=2), names)
    kept = load_file(whole / LAST)
    assert any(key.startswith("critic.scene.") for key in kept)
    assert any(key.startswith("critic.frames.") for key in kept)
    assert (whole / "pictures/frames-00000002.png").is_file()


def test_the_kept_encoder_is_that_of_the_plain_family(data: Path, tmp_path: Path) -> None:
    pretrain(game_run(tmp_path, data, steps=1, micro=4))
    kept = load_file(tmp_path / "encoder/encoder.safetensors")
    plain = FBMConfig(size=64, width=0.05).build_encoder()
    plain.load_state_dict(kept)
    assert set(plain.state_dict()) == set(kept)
