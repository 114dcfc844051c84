"""Validation: which clips, the figures for any number of ranks, what it must not disturb, and when it ends a run."""

from __future__ import annotations

import json
import math
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from fbm_dist.clip import Clip
from fbm_dist.data.index.index import Index
from fbm_dist.data.index.selection import select
from fbm_dist.data.loader import Loader, read_once
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.fbm.objective import FBM
from fbm_dist.objectives.objective import Loss
from fbm_dist.schema import Data, Filter, Portion, Run, Validation
from fbm_dist.training.distributed import World, start
from fbm_dist.training.monitoring.validation import (
    EarlyStopping,
    check_validation,
    training_filter,
    validation_check,
    validation_data,
)
from tests.datasets import write_dataset
from tests.distributed import run_ranks
from tests.grouped import write_clips
from tests.runs import make_run
from tests.toys import Duel, Solo

ALONE = World(0, 0, 1, 1, torch.device("cpu"))
GROUPS = [f"film-{number // 2}" for number in range(26)]
CLIP = {"frames": 4, "size": 16, "mask": False}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("films") / "data", GROUPS, codec="vp9", splits=("train", "val"))


def run_of(path: Path, precision: str = "fp32", players: int = 1, **validation: Any) -> Run:
    validation = {"hold_out": 0.6, **validation}
    training = {"micro_batch": 4, "precision": precision}
    data = {
        "path": str(path),
        "clip": CLIP,
        "decode": "pyav",
    }  # a process that measures for itself may find another decoder faster
    return make_run(path.parent / "run", data=data, training=training, validation=validation)


class Contrast(Solo):
    """Its loss compares each clip with its neighbour in the batch, as FBM's coherency does, and draws random numbers."""

    def forward(self, player: str, clip: Clip) -> Loss:
        features = self.features(clip)["all"]
        apart = (features - features.roll(1, 0)).square().sum()
        noise = (features * 0 + torch.rand(len(clip), 1)).mean()
        half = torch.tensor(float(features.dtype == torch.bfloat16))
        return Loss(features.float().mean(), {"apart": apart.detach(), "noise": noise.detach(), "half": half})


def build(kind: type[Solo] = Solo) -> Solo:
    torch.manual_seed(0)
    return kind().eval()


def rows(data: Data) -> list[int]:
    return select(Index.open(data.path), data.filter, data.clip).kept.tolist()  # type: ignore[no-any-return]


def look(rank: int, run: Run, kind: type[Solo]) -> dict[str, float]:
    return validation_check(run).look(build(kind), start(run.training))


def test_training_leaves_out_what_validates(films: Path) -> None:
    run = run_of(films, filter=None)
    assert run.validation is not None
    training, held = training_filter(run.data, run.validation), validation_data(run.data, run.validation)
    kept, seen = rows(training), rows(held)
    assert sorted(kept + seen) == list(range(26))
    assert not {GROUPS[row] for row in kept} & {GROUPS[row] for row in seen}
    assert training_filter(training, run.validation) == training
    assert validation_data(training, run.validation) == held
    assert training_filter(run.data, None) == run.data
    check_validation(run)


def test_data_sets_mixed_in_leave_the_same_groups_out(films: Path) -> None:
    run = run_of(films)
    mixed = run.data.model_copy(update={"mix": (Portion(path=films, weight=2.0),)})
    training = training_filter(mixed, run.validation)
    held = set(rows(validation_data(mixed, run.validation)))  # type: ignore[arg-type]
    with Loader(training, seed=0, global_batch=4, micro_batch=4) as loader:
        assert loader.num_clips == 2 * len(rows(training))
        read = {key for clip in islice(loader, 20) for key in clip.key}
    index = Index.open(films)
    assert held
    assert not read & {index.key(row) for row in held}
    leak = mixed.model_copy(update={"filter": Filter(split="train"), "mix": (Portion(path=films),)})
    with pytest.raises(ValueError, match=r"validation clips are trained on as well: .* data.mix"):
        check_validation(
            run.model_copy(update={"data": leak, "validation": Validation(hold_out=0, filter=Filter(split="val"))})
        )


def test_a_filter_alone_decides_where_nothing_is_held_out(films: Path) -> None:
    run = run_of(films, hold_out=0, filter={"split": "val"})
    assert run.validation is not None
    assert training_filter(run.data, run.validation) == run.data
    assert rows(validation_data(run.data, run.validation)) == list(range(1, 26, 2))
    with pytest.raises(ValueError, match="13 of 13 validation clips are trained on as well"):
        check_validation(run)
    apart = run.model_copy(update={"data": run.data.model_copy(update={"filter": Filter(split="train")})})
    check_validation(apart)


def test_a_filter_and_a_share_hold_together(films: Path) -> None:
    validation = Validation(hold_out=0.6, filter=Filter(split="val"))
    chosen = validation_data(Data(path=films), validation).filter
    assert chosen == Filter(split="val", hold_out=0.6, held_out=True)


@pytest.mark.parametrize(
    ("validation", "chosen", "told"),
    [
        ({"hold_out": 0}, {}, r"validation\.hold_out is 0 and there is no validation\.filter"),
        ({"hold_out": 0.1}, {"hold_out": 0.2}, r"data\.filter and validation\.hold_out both hold out"),
        ({"filter": {"hold_out": 0.2}}, {}, r"validation\.filter and validation\.hold_out both hold out"),
        ({"hold_out": 1e-9}, {}, r"validation: .*holds out none of the groups"),
    ],
)
def test_what_cannot_be_validated_is_refused_at_the_start(
    films: Path, validation: dict[str, Any], chosen: dict[str, Any], told: str
) -> None:
    run = run_of(films, **validation)
    data = run.data.model_copy(update={"filter": Filter.model_validate(chosen)})
    with pytest.raises(ValueError, match=told):
        check_validation(run.model_copy(update={"data": data}))


def test_players_have_losses_of_their_own(films: Path) -> None:
    run = run_of(films, max_clips=4)
    with pytest.raises(ValueError, match=r"give critic/loss or model/loss"):
        check_validation(run, Duel.players)
    figures = validation_check(run).look(Duel().eval(), ALONE)
    names = {"critic/loss", "critic/scene", "model/loss", "model/colour", "model/confusion"}
    assert set(figures) == {f"validation/{name}" for name in names}


def test_the_figures_are_the_mean_over_the_clips(films: Path) -> None:
    run, objective = run_of(films), build()
    assert run.validation is not None
    clips = list(read_once(validation_data(run.data, run.validation), batch=1))
    losses = [objective("model", clip).total.item() for clip in clips]
    assert len(clips) % 4, "the last batch is a smaller one"
    figures = validation_check(run).look(objective, ALONE)
    assert set(figures) == {"validation/loss", "validation/error"}
    assert math.isclose(figures["validation/loss"], sum(losses) / len(losses), rel_tol=1e-5)


@pytest.mark.distributed
@pytest.mark.parametrize("limit", [None, 3])  # 3 clips are one batch: the other rank has none
def test_two_ranks_find_what_one_does(films: Path, limit: int | None) -> None:
    run = run_of(films, max_clips=limit)
    alone = validation_check(run).look(build(Contrast), ALONE)
    first, second = run_ranks(2, look, run, Contrast)
    assert first == second
    for name in ("validation/loss", "validation/apart"):
        assert math.isclose(first[name], alone[name], rel_tol=1e-6), name


class Fails(Solo):
    def forward(self, player: str, clip: Clip) -> Loss:
        if torch.distributed.get_rank() == 1:
            raise ValueError("this clip is not to my taste")
        return super().forward(player, clip)


def failing_look(rank: int, run: Run) -> str:
    with pytest.raises(ValueError, match="not to my taste") as error:
        look(rank, run, Fails)
    return str(error.value)


@pytest.mark.distributed
def test_an_error_of_one_rank_is_told_on_all(films: Path) -> None:
    assert run_ranks(2, failing_look, run_of(films, max_clips=8)) == [
        "rank 1: this clip is not to my taste",
        "this clip is not to my taste",
    ]


def test_random_numbers_repeat_and_those_of_training_stay(films: Path) -> None:
    check, objective = validation_check(run_of(films, max_clips=8)), build(Contrast)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = check.look(objective, ALONE)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert check.look(objective, ALONE) == first
    assert all(parameter.grad is None for parameter in objective.parameters())


def test_the_forward_is_in_the_precision_of_the_run(films: Path) -> None:
    for precision, half in (("fp32", 0.0), ("bf16", 1.0)):
        run = run_of(films, precision, max_clips=2)
        assert validation_check(run).look(HalfNorm().eval(), ALONE)["validation/half"] == half


class HalfNorm(Contrast):
    """Features straight from the convolution, which autocast makes bf16."""

    def features(self, clip: Clip) -> dict[str, torch.Tensor]:
        return {"all": F.relu(self.trunk.conv(clip.video)).mean(dim=(2, 3, 4))}


def test_a_batch_of_one_clip_has_finite_losses_under_fbm(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "data", clips=3, frames=16)
    clip = {"frames": 16, "size": 64}
    run = make_run(
        tmp_path / "run",
        data={"path": str(path), "clip": clip},
        training={"micro_batch": 2},
        validation={"hold_out": 0, "filter": {}},
    )
    config = FBMConfig.model_validate({"size": 64, "width": 0.0625, "coherency": {"weight": 1.0}})
    figures = validation_check(run).look(FBM(config).eval(), ALONE)
    assert {"validation/loss", "validation/coherency", "validation/rec_last_foreground"} <= set(figures)
    assert all(math.isfinite(value) for value in figures.values())


def loss(value: float) -> dict[str, float]:
    return {"loss": 9.0, "validation/loss": value, "validation/feature": 1 / value}


def test_early_stopping_counts_and_remembers_through_json() -> None:
    settings = Validation(patience=2, min_improvement=0.1)
    stopping = EarlyStopping(settings)
    assert not stopping.due({"loss": 1.0, "probe/all_knn": 0.5})
    told = []
    for step, value in enumerate((1.0, 0.95, 0.8, float("nan")), 1):
        assert stopping.due(loss(value))
        told.append((stopping.see(step, loss(value)), stopping.improved, stopping.bad))
        again = EarlyStopping(settings)
        again.restore(json.loads(json.dumps(stopping.state(), allow_nan=False)))
        assert not again.improved
        stopping = again
    assert told == [(False, True, 0), (False, False, 1), (False, True, 0), (False, False, 1)]
    assert (stopping.best, stopping.best_step) == (0.8, 3)
    assert stopping.see(5, loss(float("inf")))
    assert stopping.stopped
    assert not stopping.improved


def test_early_stopping_without_a_first_figure_or_patience() -> None:
    stopping = EarlyStopping(Validation())
    assert [stopping.see(step, loss(float("nan"))) for step in range(1, 9)] == [False] * 8
    assert (stopping.bad, stopping.best) == (8, None)
    state = json.loads(json.dumps(stopping.state(), allow_nan=False))
    assert state == {"best": None, "best_step": None, "bad": 8, "metric": "loss"}
    assert EarlyStopping(Validation()).restore(state)
    other = EarlyStopping(Validation(metric="feature"))
    assert not other.restore(state)  # another measure: its best begins anew
    assert other.bad == 0
    stopping.see(9, loss(3.0))
    assert stopping.improved


def test_the_metric_may_be_a_term_and_must_be_there() -> None:
    for metric in ("feature", "validation/feature"):
        stopping = EarlyStopping(Validation(metric=metric))
        stopping.see(1, loss(4.0))
        assert stopping.best == 0.25
    with pytest.raises(ValueError, match=r"metric=rec: validation gives no such figure; choose of feature, loss"):
        EarlyStopping(Validation(metric="rec")).see(1, loss(4.0))
