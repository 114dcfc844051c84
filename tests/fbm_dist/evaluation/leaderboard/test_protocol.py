"""The leaderboard: one table, best and chance; what is finished is not run again; what fails does not take the others with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_tools.config import ConfigError, load
from data_tools.dataset import read_manifest
from fbm_dist import evaluation as protocols
from fbm_dist import registry
from fbm_dist.evaluation import evaluate
from fbm_dist.evaluation.leaderboard.config import Leaderboard
from fbm_dist.evaluation.report.results import Results
from fbm_dist.evaluation.report.text import markdown_table, read
from fbm_dist.objectives.fbm.config import FBMConfig
from fbm_dist.registry.client import connect
from fbm_dist.schema import ClipSpec
from tests.datasets import write_dataset
from tests.fbm_dist.evaluation.spelled import spelling

ROOT = Path(__file__).parents[4]
PROBES = {
    "config": str(ROOT / "configs" / "evaluate" / "probes.yaml"),
    "name": "quick",
    "set": {"label": "motion"},
    "columns": ["*.linear.clip"],
}
MATRIX = {"config": str(ROOT / "configs" / "evaluate" / "disentanglement.yaml"), "set": {"leaks": {"object": "motion"}}}
Make = Callable[..., Leaderboard]


@pytest.fixture
def weights(encoder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny encoder that a test may change."""
    return Path(shutil.copytree(encoder, tmp_path / "weights"))


@pytest.fixture
def board(shards: Path, weights: Path, tmp_path: Path) -> Make:
    """The tiny encoder and random initialisation through two protocols; keywords change it."""

    def make(*, data: Path = shards, **changes: Any) -> Leaderboard:
        tree: dict[str, Any] = {
            "encoders": ["random", str(weights)],
            "protocols": [PROBES, MATRIX],
            "set": {"data": {"path": str(data)}, "split": "k-fold"},
            "seeds": [0],
            "device": "cpu",
            "output": str(tmp_path / "board"),
            "tracking": {"mlflow": False},
        }
        return load(Leaderboard, None, [f"{key}={json.dumps(value)}" for key, value in (tree | changes).items()])

    return make


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the encoders whose features are read, which spell the motion out unless they are random; cleared by tests."""
    names: list[str] = []

    def groups(name: str) -> dict[str, str | None]:
        return {"motion": None if name == "random initialisation" else "motion", "foreground": "object"}

    monkeypatch.setattr("fbm_dist.evaluation.encoders.features.extract", spelling(groups, names))
    return names


def test_one_table_of_all_protocols(board: Make, asked: list[str], weights: Path) -> None:
    wanted = board()
    results = evaluate(wanted)
    assert asked == ["random initialisation", str(weights)] * 2
    (table,) = results.tables
    assert table.columns == (
        "quick: motion: linear.clip",
        "quick: foreground: linear.clip",
        "quick: all: linear.clip",
        "disentanglement: expected groups: summary",
        "disentanglement: separation: summary",
        "disentanglement: leak: object in motion: summary",
    )
    assert [row.name for row in table.rows] == ["random initialisation", str(weights), "chance"]
    best = table.row(str(weights)).cells
    assert best["quick: motion: linear.clip"].value.mean == 1
    assert best["quick: motion: linear.clip"].difference is not None
    assert table.rows[-1].cells["quick: motion: linear.clip"].value.mean == 0.5
    quick = read(wanted.output / "quick" / "results.json")
    assert best["quick: all: linear.clip"] == quick.table("linear.clip").row(str(weights)).cells["all"]
    assert results.main == str(weights)

    random, pretrained, chance = markdown_table(table).splitlines()[2:]
    assert "**100.0 [100,100]" in pretrained.split("|")[2]
    assert "**" not in random.split("|")[2] + chance
    leak = [line.split("|")[7] for line in (random, pretrained)]
    means = [table.row(name).cells[table.columns[5]].value.mean for name in ("random initialisation", str(weights))]
    assert ["**" in cell for cell in leak] == [means[0] <= means[1], means[1] <= means[0]], "the lower is the better"

    page = (wanted.output / "leaderboard.html").read_text()
    for said in (
        "<b>100.0 [100,100]",
        'href="quick/figure.png"',
        'href="disentanglement/figure.png"',
        "chance",
        "motion from",
    ):
        assert said in page
    assert "http" not in page, "the page needs nothing from elsewhere"
    text = (wanted.output / "table.md").read_text()
    assert "quick: Probes of" in text
    assert f"{weights}: 12 of 12 tested films were seen in pretraining." in text
    assert "random initialisation: no pretraining." in text


def test_finished_protocols_are_read_back_until_something_changes(
    board: Make, asked: list[str], weights: Path, tmp_path: Path
) -> None:
    data = write_dataset(tmp_path / "data", clips=12, frames=18, masks=False, truth=False)
    first = evaluate(board(data=data))
    asked.clear()

    again = evaluate(board(data=data))
    assert not asked
    assert again.tables == first.tables
    evaluate(board(data=data, protocols=[{**PROBES, "columns": ["motion.knn.clip"]}, MATRIX]))
    assert not asked, "other columns of the same figures"

    other = {**PROBES, "set": {"label": "motion", "neighbours.k": 3}}
    evaluate(board(data=data, protocols=[other, MATRIX]))
    assert len(asked) == 2, "of the one whose config has changed"
    asked.clear()

    (tmp_path / "board" / "quick" / "results.json").write_text("{}")
    evaluate(board(data=data, protocols=[other, MATRIX]))
    assert len(asked) == 2, "its results are not those that were finished"
    asked.clear()

    config = FBMConfig(size=64, width=0.05)
    shutil.rmtree(weights)
    registry.save_encoder(registry.fresh_encoder(config, seed=8), config, ClipSpec(size=64, mask=False), weights, {})
    evaluate(board(data=data, protocols=[other, MATRIX]))
    assert len(asked) == 4, "other weights in the same place"
    asked.clear()

    write_dataset(data, clips=6, seed=1, frames=18, masks=False, truth=False)
    evaluate(board(data=data, protocols=[other, MATRIX]))
    assert len(asked) == 4, "further clips"

    first_key, second_key, *_ = read_manifest(data)["key"].to_pylist()
    optouts = tmp_path / "optouts.txt"
    given = {"data": {"path": str(data), "filter": {"exclude_keys": str(optouts)}}, "split": "k-fold"}
    for keys in ([first_key], [first_key, second_key]):
        optouts.write_text("\n".join(keys))
        asked.clear()
        evaluate(board(protocols=[other, MATRIX], set=given))
        assert len(asked) == 4, "another list of opted-out clips in the same file"


def test_a_killed_leaderboard_goes_on(board: Make, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(protocols, "evaluate", _failing(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            evaluate(board())
    assert len(asked) == 2
    results = evaluate(board())
    assert len(asked) == 4, "the first protocol's figures were there"
    assert len(results.tables[0].columns) == 6


def _failing(error: BaseException, at: str = "disentanglement") -> Callable[..., Results]:
    """`evaluate`, but for the protocol that raises."""
    whole = protocols.evaluate

    def run(evaluation: Any) -> Results:
        if evaluation.protocol == at:
            raise error
        return whole(evaluation)

    return run


def test_a_protocol_that_fails_leaves_the_others_their_table(
    board: Make, asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {**MATRIX, "name": "bad", "set": {"factors": ["verb"]}}
    wanted = board(protocols=[bad, PROBES])
    for reads in (2, 0):  # the same command again: what is finished is not run, what fails is tried again
        asked.clear()
        with pytest.raises(ValueError, match=r"1 of 2 protocols failed \(bad\); the table .*no label 'verb'") as caught:
            evaluate(wanted)
        assert "\n" not in str(caught.value)
        assert getattr(caught.value, "agreed", False), "all ranks raise it: one speaks"
        assert len(asked) == reads
    assert "bad failed: " in capsys.readouterr().out
    stored = read(tmp_path / "board" / "results.json")
    assert [column.split(":")[0] for column in stored.tables[0].columns] == ["quick"] * 3
    assert stored.details["failed"].keys() == {"bad"}
    assert '<p class="failed">' in (tmp_path / "board" / "leaderboard.html").read_text()
    with pytest.raises(ValueError, match=r"1 of 1 protocols failed \(bad\); the same command"):
        evaluate(board(protocols=[bad]))


def test_a_stop_and_a_fault_of_the_program_end_it(
    board: Make, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = ValueError("interrupted at step 3; the same command goes on")
    stopped.interrupted = True  # type: ignore[attr-defined]
    for error in (stopped, TypeError("a fault")):
        with monkeypatch.context() as patched:
            patched.setattr(protocols, "evaluate", _failing(error, at="probes"))
            with pytest.raises(type(error), match=str(error)):
                evaluate(board())
        assert not asked, "the next protocol was not begun"


def test_columns_that_are_not_there_are_told_with_those_that_are(board: Make, asked: list[str]) -> None:
    wrong = {**PROBES, "columns": ["motion.linear.clip", "wrist.linear.clip"]}
    with pytest.raises(ValueError, match=r"'wrist.linear.clip' is none of its figures: motion.knn.clip, "):
        evaluate(board(protocols=[wrong]))
    asked.clear()
    assert len(evaluate(board(protocols=[PROBES])).tables[0].columns) == 3
    assert not asked, "corrected, it is read back"


@pytest.mark.slow  # a database is made
def test_figures_become_tags_of_the_version(board: Make, asked: list[str], registered: str) -> None:
    tracking = {"uri": registered, "experiment": "boards"}
    uri = "models:/fbm-encoder/1"
    results = evaluate(board(encoders=[uri, "random"], protocols=[PROBES], tracking=tracking))
    assert [row.name for row in results.tables[0].rows] == ["fbm-encoder v1", "random initialisation", "chance"]
    tags = connect(registered).get_model_version("fbm-encoder", "1").tags
    assert tags["leaderboard.quick.motion.linear.clip.scores"] == tags["probes.motion.linear.clip"] == "1.0000"


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"encoders": ["random", "nowhere"]}, ValueError, "no encoder at nowhere"),
        ({"set": {"data.path": "nowhere"}}, ValueError, "quick: nowhere: no such folder"),
        ({"protocols": [MATRIX, {**PROBES, "set": {"label": "verb"}}]}, ValueError, "quick: .*no label 'verb'"),
        ({"set": {}}, ConfigError, r"'data\.path' is missing"),
        ({"set": {"data.path": "x", "wrist": 1}}, ConfigError, "unknown key 'wrist'"),
        ({"protocols": [{"config": "nothing.yaml"}]}, ConfigError, "nothing.yaml: no such config file"),
    ],
)
def test_what_can_be_refused_before_anything_is_computed(
    board: Make, changes: dict[str, Any], error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "evaluate", lambda *_: pytest.fail("computed"))
    from fbm_dist.evaluation.leaderboard.protocol import evaluate as whole

    with pytest.raises(error, match=said) as caught:
        whole(board(**changes))
    assert "\n" not in str(caught.value)


def test_protocols_without_encoders_are_refused(board: Make, tmp_path: Path) -> None:
    for name in ("segmentation", "leaderboard"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"protocol: {name}\n")
        with pytest.raises(ConfigError, match=f"{name} has no rows of encoders"):
            evaluate(board(protocols=[{"config": str(path)}]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoders": []}, "at least 1"),
        ({"encoders": ["random", "random"]}, "name each once"),
        ({"protocols": [PROBES, PROBES]}, "two protocols are called 'quick'"),
        ({"protocols": [{**PROBES, "name": "a/b"}]}, "cannot name a folder"),
        ({"protocols": [{**PROBES, "set": {"encoder": "x"}}]}, "encoder is for the leaderboard itself"),
        ({"set": {"tracking": {"mlflow": True}}}, "tracking.mlflow is for the leaderboard itself"),
    ],
)
def test_configs_that_cannot_be_meant(board: Make, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        board(**changes)


def test_the_config_names_files_that_are_there() -> None:
    config = load(Leaderboard, ROOT / "configs" / "evaluate" / "leaderboard.yaml", ["encoders=[random]"])
    for part in config.protocols:
        assert (ROOT / part.config).is_file()
