"""The whole protocol on two tiny films: tables, files, resume, processes, and what it refuses before it computes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.config import ConfigError, load
from data_tools.unlc import UNLC
from fbm_dist.evaluation import evaluate
from fbm_dist.evaluation.segmentation.config import Segmentation
from fbm_dist.evaluation.segmentation.folders.find import find_sequences
from fbm_dist.evaluation.segmentation.methods import motion
from fbm_dist.evaluation.segmentation.protocol import dealt
from fbm_dist.registry.client import connect
from fbm_dist.schema import Tracking
from fbm_dist.training.distributed import World
from tests.distributed import run_ranks
from tests.fbm_dist.evaluation.segmentation.drawn import scene, write_film

Make = Callable[..., Segmentation]
BASELINES = ["all foreground", "centre box", "residual flow"]


def means(results: Any, table: str, column: str) -> dict[str, float]:
    return {row.name: row.cells[column].value.mean for row in results.table(table).rows if column in row.cells}


@pytest.mark.slow  # every kind of method
def test_end_to_end(
    evaluation: Make, network: Path, fbm_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    wanted = evaluation(
        unlc=UNLC(),
        networks=(network,),
        implicit=(fbm_run,),
        seeds=(0, 1),
        tracking=Tracking(uri=uri, experiment="masks"),
    )
    results = evaluate(wanted)

    random, trained = "implicit tiny-fbm, random weights", "implicit tiny-fbm"
    names = [*BASELINES, random, "uNLC", "network bright", trained]
    table = results.table("sequences")
    assert [row.name for row in table.rows] == names
    assert [subject.name for subject in results.subjects] == names
    assert results.main == trained
    whole = means(results, "sequences", "J mean")
    assert whole["all foreground"] == pytest.approx(16 * 16 / (48 * 64))
    assert whole["network bright"] > 0.7
    assert whole["residual flow"] > whole["centre box"]
    compared = [row.name for row in table.rows if row.cells["J mean"].difference is not None]
    assert compared == [trained], "with the same architecture, paired"
    pooled = {row.name: row for row in results.table("pooled").rows}
    assert pooled["paper: uNLC"].kind == "paper"
    assert pooled["paper: ConvNet"].cells["all frames: IoU"].value.mean == pytest.approx(0.248)
    assert "2-70 % predicted: IoU" not in pooled["all foreground"].cells, "all of its frames are skipped"
    assert results.details["sequences"]["tiny/hike"]["all foreground"]["frames"] == 6

    out = wanted.output
    for name in ("figure.png", "sheet.png"):
        with Image.open(out / name) as picture:
            assert picture.width > 400
    text = (out / "table.md").read_text()
    assert "paper: uNLC†" in text
    assert "as the paper reports it" in text
    assert json.loads((out / "results.json").read_text())["facts"]["config"]["seeds"] == [0, 1]
    assert "2 sequences, 10 annotated frames" in capsys.readouterr().out
    client = connect(uri)
    experiment = client.get_experiment_by_name("masks")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["J_mean.sequences"] == pytest.approx(whole[trained])
    assert run.data.metrics["uNLC/J_mean.sequences"] == pytest.approx(whole["uNLC"])


def test_figures_by_hand(evaluation: Make, films: Path) -> None:
    """The centre box of 48x64 is rows 12-36, columns 16-48; the square is rows 14-30, columns 10 + 2i to 26 + 2i."""
    results = evaluate(evaluation(baselines=("centre",), max_frames=3))
    inside = [16 * (10 + 2 * i) for i in range(3)]  # of 256 pixels of the square; the box has 768
    iou = [hits / (768 + 256 - hits) for hits in inside]
    assert means(results, "sequences", "J mean")["centre box"] == pytest.approx(np.mean(iou))
    assert means(results, "sequences", "recall")["centre box"] == pytest.approx(np.mean(inside) / 256)
    both = results.table("pooled").rows[0].cells
    hits, union = 2 * sum(inside), 2 * sum(1024 - one for one in inside)
    assert both["all frames: IoU"].value.mean == pytest.approx(hits / union)
    assert both["all frames: IoU"].value.low is not None
    assert not any("shorter side" in note for note in results.notes), "nothing here is computed on smaller frames"
    assert results.notes[0] == "The first 3 frames of each sequence."


def test_the_same_command_again_goes_on(evaluation: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped after its first sequence makes the masks of the second alone."""
    wanted = evaluation(unlc=UNLC(), baselines=())
    made: list[int] = []
    real = motion.motion_masks

    def counted(frames: np.ndarray, settings: UNLC) -> np.ndarray:
        if len(made) == 1 and stopping:
            raise KeyboardInterrupt
        made.append(len(frames))
        return real(frames, settings)

    monkeypatch.setattr(motion, "motion_masks", counted)
    stopping = True
    with pytest.raises(KeyboardInterrupt):
        evaluate(wanted)
    stopping = False
    first = evaluate(wanted)
    assert made == [6, 4]
    second = evaluate(wanted)
    assert made == [6, 4]
    assert first.tables == second.tables


def test_several_data_sets(evaluation: Make, films: Path, tmp_path: Path) -> None:
    write_film(tmp_path / "others/swim", 2)
    results = evaluate(evaluation(data=(films, tmp_path / "others"), shown=0))
    table = results.table("data")
    assert table.columns == ("tiny", "others")
    assert table.footer == {"tiny": "2", "others": "1"}
    assert results.title == "Segmentation: tiny, others"
    assert set(results.details["sequences"]) == {"tiny/hike", "tiny/surf", "others/swim"}
    assert not (tmp_path / "out/sheet.png").exists()


def test_a_single_sequence_has_no_interval(evaluation: Make) -> None:
    results = evaluate(evaluation(sequences=("surf",), working_side=40))
    assert "Residual flow: frames of 40 pixels at most (shorter side)." in results.notes
    for table in results.tables:
        assert all(cell.value.low is None for row in table.rows for cell in row.cells.values())


def both(rank: int, wanted: Segmentation) -> Any:
    return evaluate(wanted)


@pytest.mark.distributed
def test_processes_share_the_sequences(evaluation: Make, tmp_path: Path) -> None:
    alone = evaluate(evaluation())
    first, second = run_ranks(2, both, evaluation(output=tmp_path / "two"))
    assert first.tables == second.tables == alone.tables
    assert first.facts["processes"] == 2


def test_an_error_of_one_process_is_told_by_all(evaluation: Make, tmp_path: Path) -> None:
    masks = write_film(tmp_path / "broken/one", 2)
    assert len(masks) == 2
    (tmp_path / "broken/one/frames/00001.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"one/frames/00001.png is no readable picture"):
        evaluate(evaluation(data=(tmp_path / "broken",)))


def test_long_sequences_are_dealt_first(films: Path, tmp_path: Path) -> None:
    for name, frames in (("a", 1), ("b", 3), ("c", 2), ("d", 4)):
        write_film(tmp_path / name, frames)
    found = find_sequences([tmp_path])
    shares = [[one.name for one in dealt(found, World(rank, rank, 2, 2, torch.device("cpu")))] for rank in (0, 1)]
    assert shares == [["d", "c"], ["b", "a"]]


def test_configs(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("protocol: segmentation\n")
    one = load(Segmentation, path, ["data=DAVIS", "unlc=paper", "networks=net.pt2"])
    assert (one.data, one.networks, one.unlc) == ((Path("DAVIS"),), (Path("net.pt2"),), UNLC.paper())
    assert one.side == 480
    assert load(Segmentation, path, ["data=DAVIS"]).side == 240
    assert load(Segmentation, path, ["data=DAVIS", "unlc=paper", "working_side=100"]).side == 100
    several = load(Segmentation, path, ["data=[A,B]", "unlc={working_side: 160, motion: {baselines: [1, 2]}}"])
    assert several.data == (Path("A"), Path("B"))
    assert several.unlc is not None
    assert several.unlc.motion.baselines == (1, 2)
    for given, said in (
        ([], "'data' is missing"),
        (["data=[]"], "data is empty; give the folder of a data set"),
        (["data=A", "unlc=null", "baselines=[]"], "nothing to measure"),
        (["data=A", "skip.low=0.8"], "skip.low 0.8 must be below skip.high 0.7"),
    ):
        with pytest.raises(ConfigError, match=said):
            load(Segmentation, path, given)


def test_two_of_one_name(evaluation: Make, network: Path, tmp_path: Path) -> None:
    other = tmp_path / "bright.pt2"
    other.write_bytes(network.read_bytes())
    with pytest.raises(ValueError, match="two of networks and implicit are called network bright"):
        evaluate(evaluation(networks=(network, other)))


def test_scenes_move() -> None:
    """What the other tests rest on."""
    (first, before), (second, after) = scene(0), scene(1)
    assert (first != second).any()
    assert before.sum() == after.sum() == 256
    assert (before != after).any()
