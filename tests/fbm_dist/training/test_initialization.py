"""A new run from earlier weights: which names and shapes meet, every kind of source, several ranks, and what is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fbm_dist import registry
from fbm_dist.objectives.classifier.config import ClassifierConfig
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import ClipSpec, InitFrom
from fbm_dist.training.checkpoints.folder import Checkpoints
from fbm_dist.training.distributed import World, start
from fbm_dist.training.game import Game
from fbm_dist.training.initialization import Loaded, encoder_names, grouped, initialize, tensors
from tests.distributed import run_ranks
from tests.runs import make_run
from tests.toys import Duel, Solo, make_clip

ALONE = World(0, 0, 1, 1, torch.device("cpu"))
FBM = FBMConfig(size=64, width=0.05)


def solo(seed: int, width: int = 8) -> Solo:
    torch.manual_seed(seed)
    made = Solo(width=width, norm="batch")
    with torch.no_grad():  # what begins as 0 or 1 everywhere would hide what was not loaded
        for value in tensors(made.trunk.norm).values():
            value.add_(seed)
        made.scale.add_(seed)
    return made


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tensors(module).items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """The names whose values are equal."""
    return sorted(name for name in found if name in expected and torch.equal(found[name], expected[name]))


def write_file(values: dict[str, Tensor], path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(values, path)
    return str(path)


def write_checkpoint(folder: Path, **files: dict[str, Tensor]) -> Path:
    """The part of a checkpoint that others read: weights, and the marker with their checksums."""
    for name, values in files.items():
        write_file(values, folder / f"{name}.safetensors")
    sums = {p.name: (p.stat().st_size, hashlib.sha256(p.read_bytes()).hexdigest()) for p in folder.iterdir()}
    (folder / "complete.json").write_text(json.dumps({"format": 2, "step": 1, "files": sums}))
    return folder


def load(objective: Objective, source: str | Path, **values: object) -> Loaded:
    return initialize(objective, InitFrom.model_validate({"source": str(source), **values}), ALONE)


def test_all_of_the_same_objective_with_its_buffers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there, here = solo(1), solo(2)
    path = write_file(state(there), tmp_path / "weights.safetensors")
    loaded = load(here, path)
    assert same(state(here), state(there)) == sorted(tensors(here))
    assert (len(loaded.names), loaded.num_tensors) == (10, 10)
    assert loaded.values == loaded.num_values == sum(value.numel() for value in tensors(there).values())
    assert loaded.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert loaded.facts()["init_from.loaded"] == "10 of 10 tensors"
    assert capsys.readouterr().out == f"init_from {path}: 10 of 10 tensors (809 of 809 values) loaded\n"


def test_what_does_not_fit_is_told_and_keeps_its_values(tmp_path: Path) -> None:
    there, here = state(solo(1)), solo(2)
    before = state(here)
    there["head.weight"] = torch.zeros(5, 8)
    del there["trunk.norm.weight"], there["trunk.norm.bias"], there["scale"]
    there |= {"old.a": torch.zeros(1), "old.b.c": torch.zeros(1), "lonely": torch.zeros(1)}
    loaded = load(here, write_file(there, tmp_path / "weights.safetensors"))
    kept = ["head.weight", "scale", "trunk.norm.bias", "trunk.norm.weight"]
    assert same(state(here), before) == kept
    assert sorted(set(before) - set(loaded.names)) == kept
    assert "6 of 10 tensors" in loaded.text
    assert "head.weight (shape 12x8 here, 5x8 there)" in loaded.text
    assert "scale (no such name there)" in loaded.text
    assert loaded.text.endswith("left there: head.weight, lonely, old.* (2 tensors)")


def test_names_are_grouped_by_the_shortest_prefix_that_is_theirs_alone() -> None:
    names = {"a.x.1", "a.x.2", "b.1", "b.c.2", "d"}
    assert grouped(names, [*names, "a.y", "e"]) == [("a.x.*", 2), ("b.*", 2), ("d", 1)]


def test_prefixes_choose_and_rename(tmp_path: Path) -> None:
    """Part of a network into another objective: Solo's trunk into a Duel's."""
    there = {name: value for name, value in state(Solo()).items() if name.startswith("trunk.")}
    path = write_file({**there, "head.bias": torch.zeros(3)}, tmp_path / "weights.safetensors")
    here = Duel()
    head = here.get_parameter("model.head.bias").detach().clone()
    rename = {"": "model.", "trunk.": "model.trunk."}
    loaded = load(here, path, rename=rename, only=("model.trunk.",))
    assert sorted(loaded.names) == sorted(f"model.{name}" for name in there)
    assert all(torch.equal(here.get_parameter(f"model.{name}"), value) for name, value in there.items())
    assert torch.equal(here.get_parameter("model.head.bias"), head)
    assert "critic.* (4 tensors, not in init_from.only)" in loaded.text
    assert "left there: head.bias" in loaded.text
    assert "model.head.bias" in load(here, path, rename=rename).names


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"only": ("trunc.",)},
            r"init_from.only: no name here begins with 'trunc.'; names are scale, trunk.conv.weight",
        ),
        ({"rename": {"x.": "y."}}, r"init_from.rename: no name there begins with 'x.'"),
        ({"rename": {"trunk.conv.": "trunk.norm."}}, r"the same name 'trunk.norm.bias'"),
        ({"rename": {"": "z."}}, r"nothing fits; here are scale 12, .*; there are head.bias 12, .* init_from.rename"),
    ],
)
def test_a_mapping_that_leads_nowhere_is_refused(values: dict[str, object], message: str, tmp_path: Path) -> None:
    path = write_file(state(Solo()), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=message):
        load(Solo(), path, **values)


def test_damaged_files_and_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = Path(write_file(state(Solo()) | {"scale": torch.full((12,), torch.nan)}, tmp_path / "a.safetensors"))
    before, here = state(solo(1)), solo(1)
    with pytest.raises(ValueError, match="'scale' has NaN"):
        load(here, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        load(here, path)
    assert same(state(here), before) == sorted(before), "nothing was touched"


def test_a_runs_folder_means_its_newest_whole_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (10, 20, 30):
        write_checkpoint(tmp_path / f"checkpoints/step-{step:08d}", objective=state(solo(step)))
    (tmp_path / "checkpoints/.step-00000040.partial").mkdir()
    here = solo(0)
    load(here, tmp_path)
    assert same(state(here), state(solo(30))) == sorted(state(here))
    newest = tmp_path / "checkpoints/step-00000030/objective.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    load(here, tmp_path)
    assert same(state(here), state(solo(20))) == sorted(state(here))
    assert "step-00000030/objective.safetensors: was changed or cut short" in capsys.readouterr().out
    with pytest.raises(ValueError, match="changed or cut short"):
        load(here, newest.parent)
    assert (tmp_path / "checkpoints/.step-00000040.partial").exists(), "the source may be a run that goes on"


def test_a_checkpoints_average_is_taken_unless_told_otherwise(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "step-00000001", objective=state(solo(1)), ema=state(solo(2)))
    here = solo(0)
    for ema, seed in ((True, 2), (False, 1)):
        loaded = load(here, folder, ema=ema)
        assert same(state(here), state(solo(seed))) == sorted(state(here))
        assert loaded.file.endswith("ema.safetensors") == ema


def test_a_checkpoint_as_the_trainer_writes_it(tmp_path: Path) -> None:
    run = make_run(tmp_path, training={"engine": "torch", "micro_batch": 8, "ema_decay": 0.9})
    world = start(run.training)
    there = solo(1)
    game = Game(run, there, world)
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2, world)
    for step in range(3):
        game.step([make_clip([8 * step + p for p in range(8)])], step, 3, False)
    checkpoints.begin(3, {}, game.part(True), game.assembler())
    checkpoints.close()
    found = []
    for ema in (True, False):
        here = solo(2)
        load(here, tmp_path, ema=ema)
        game.fill_objective(averaged=ema)
        assert same(state(here), state(there)) == sorted(state(here))
        found.append(state(here))
    assert not torch.equal(found[0]["head.weight"], found[1]["head.weight"])


def test_nothing_to_start_from_says_what_would_do(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"models:/NAME@ALIAS, .* a run's folder"):
            load(Solo(), source)
    with pytest.raises(ValueError, match="no model registry"):
        load(Solo(), "models:/x@champion")


@pytest.fixture
def encoder_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "encoder"
    registry.save_encoder(registry.fresh_encoder(FBM, seed=1), FBM, ClipSpec(size=64), folder, {})
    return folder


def test_an_encoder_fits_whatever_objective_holds_its_kind(encoder_folder: Path) -> None:
    """Its own names are those of no objective: they are found through `encoder()`."""
    wanted = state(registry.fresh_encoder(FBM, seed=1))
    for config in (FBM, ClassifierConfig(trunk=FBM, classes=3)):
        for source in (encoder_folder, encoder_folder.parent):
            torch.manual_seed(2)
            objective = config.build()
            untouched = {
                name: v for name, v in state(objective).items() if name not in encoder_names(objective).values()
            }
            loaded = load(objective, source)
            assert same(state(objective.encoder()), wanted) == sorted(wanted)
            assert len(loaded.names) == len(wanted)
            assert same(state(objective), untouched) == sorted(untouched)
    assert "not loaded: model.head.* (2 tensors, no such name there)" in loaded.text


def test_a_changed_encoder_is_refused(encoder_folder: Path) -> None:
    path = encoder_folder / "encoder.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="changed or cut short"):
        load(FBM.build(), encoder_folder)


@contextmanager
def opened(source: str, folder: Path) -> Iterator[Path]:
    assert source == "models:/fbm-encoder@champion"
    yield folder


def start_from(rank: int, source: str, folder: Path) -> tuple[dict[str, Tensor], Loaded]:
    """Rank 1 starts elsewhere, and has no way to the source."""
    world = World(rank, rank, 2, 2, torch.device("cpu"))
    torch.manual_seed(rank)
    objective = solo(rank) if source.endswith(".safetensors") else FBM.build()
    fetch = partial(opened, folder=folder) if rank == 0 else None
    loaded = initialize(objective, InitFrom(source=source), world, fetch)
    return state(objective), loaded


@pytest.mark.distributed
def test_every_rank_gets_what_rank_0_reads(tmp_path: Path, encoder_folder: Path) -> None:
    path = write_file(state(solo(7)), tmp_path / "weights.safetensors")
    for found, loaded in run_ranks(2, start_from, path, encoder_folder):
        assert same(found, state(solo(7))) == sorted(found)
        assert loaded.source == path
    (first, told), (second, _) = run_ranks(2, start_from, "models:/fbm-encoder@champion", encoder_folder)
    alike = set(same(first, second))
    assert set(told.names) <= alike
    assert len(alike) < len(first), "the rest is each rank's own"
    assert told.file == "models:/fbm-encoder@champion"


def fail(rank: int, source: str) -> str:
    with pytest.raises(ValueError, match="init_from") as caught:
        initialize(Solo(), InitFrom(source=source), World(rank, rank, 2, 2, torch.device("cpu")))
    return str(caught.value)


@pytest.mark.distributed
def test_a_source_that_is_not_there_ends_all_ranks_alike(tmp_path: Path) -> None:
    texts = run_ranks(2, fail, str(tmp_path / "nowhere"))
    assert all("nowhere is no file or folder" in text for text in texts)
