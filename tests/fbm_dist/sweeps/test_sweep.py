"""A sweep on a real local Ray: what ends well, what ends badly, what ends early, and what goes on. The runs are a stand-in's."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from data_tools.config import ConfigError
from fbm_dist.sweeps.conduct import conduct
from fbm_dist.sweeps.record import Record, Trial
from tests.fbm_dist.sweeps.conftest import Make

pytestmark = [pytest.mark.usefixtures("ray", "stand_in"), pytest.mark.distributed]


def trials(folder: Path) -> list[Trial]:
    return Record.open(folder / "sweep", "min").trials


def starts(trial: Trial) -> int:
    path = Path(trial.folder) / "starts.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_grid_is_run_in_full_and_told_in_tables_a_figure_and_a_config(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = make("{optimizer.lr: {grid: [1e-3, 1e-2]}, optimizer.kind: {grid: [adam, sgd]}}", "search=grid")
    assert conduct(sweep) == 0
    found = trials(tmp_path)
    assert [t.values for t in found] == [
        {"optimizer.lr": lr, "optimizer.kind": kind} for lr in (1e-3, 1e-2) for kind in ("adam", "sgd")
    ]
    assert [t.status for t in found] == ["finished"] * 4
    assert [t.metric for t in found] == pytest.approx([1.125, 1.125, 0.125, 0.125])
    table = (tmp_path / "sweep/table.md").read_text()
    assert table.index("| **0002** | **0.01** | **adam** |") < table.index("| 0003 |") < table.index("| 0000 |")
    rows = list(csv.DictReader((tmp_path / "sweep/table.csv").open()))
    assert [(row["trial"], row["optimizer.lr"], row["status"]) for row in rows][2] == ("2", "0.01", "finished")
    assert (tmp_path / "sweep/figure.png").stat().st_size > 10_000
    assert "kind=adam" in (tmp_path / "sweep/figure.svg").read_text().replace("<!-- ", "").replace(" -->", "")
    told = capsys.readouterr().out
    assert "best: trial 0002, loss 0.125 with lr=0.01 kind=adam" in told
    assert f"python launch/pretrain.py {tmp_path / 'sweep/best.yaml'}" in told
    assert not (tmp_path / "sweep/ray").exists(), "what Tune wrote is of no use any more"
    assert conduct(sweep) == 0, "again: nothing to do, the same is told"
    assert "best: trial 0002" in capsys.readouterr().out
    assert [starts(t) for t in trials(tmp_path)] == [1] * 4


def test_random_values_depend_on_the_seed_alone_and_more_trials_go_on(make: Make, tmp_path: Path) -> None:
    space = "{optimizer.lr: {loguniform: [1e-4, 1]}}"
    assert conduct(make(space, "trials=2", "training.steps=2")) == 0
    first = trials(tmp_path)
    assert conduct(make(space, "trials=4", "training.steps=2", "retries=1", "parallel=1")) == 0
    assert trials(tmp_path)[:2] == first, "what is finished stays"
    assert conduct(make(space, "trials=4", "training.steps=2", output="other/sweep")) == 0
    assert [t.values for t in trials(tmp_path / "other")] == [t.values for t in trials(tmp_path)]
    with pytest.raises(ValueError, match=r"holds a sweep with training.steps=2, not 3; set it back"):
        conduct(make(space, "trials=4", "training.steps=3"))
    with pytest.raises(ValueError, match=r"holds a sweep with seed=0, not 1"):
        conduct(make(space, "trials=4", "training.steps=2", "seed=1"))


def test_trials_that_end_badly_are_told_and_the_sweep_goes_on(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed once, killed always, diverged, an error, and values that make no run."""
    seeds = "{run.seed: {grid: [13, 14, 15, 17, 1]}, data.clip.frames: {grid: [16, 8]}}"
    sweep = make(seeds, "search=grid", "retries=1")
    assert conduct(sweep) == 0
    found = {(t.values["run.seed"], t.values["data.clip.frames"]): t for t in trials(tmp_path)}
    once, always, diverged, failed, good = (found[seed, 16] for seed in (13, 14, 15, 17, 1))
    assert (once.status, once.starts, starts(once), once.step) == ("finished", 2, 2, 8)
    assert "goes on from step 2" in (Path(once.folder) / "log.txt").read_text()
    assert always.status == "failed"
    assert starts(always) >= 2, "and more where Ray lost the worker as well"
    assert always.reason == "its process was killed by SIGKILL (out of memory?), 2 times"
    assert (diverged.status, starts(diverged)) == ("diverged", 1)
    assert diverged.reason.startswith("step 4: 3 updates in a row were skipped (3 x gradient not finite)")
    assert (failed.status, failed.reason, starts(failed)) == ("failed", "no disk like this one", 1)
    assert good.status == "finished"
    impossible = [t for (_, frames), t in found.items() if frames == 8]
    assert {t.status for t in impossible} == {"impossible"}
    assert "frames" in impossible[0].reason
    assert not Path(impossible[0].folder).exists()
    told = capsys.readouterr().out
    assert "5 of 10 combinations of values make no run; the first:" in told
    assert "10 trials: " in told
    assert "no disk like this one" in (tmp_path / "sweep/table.md").read_text()
    (Path(failed.folder) / "starts.txt").unlink()
    assert conduct(make(seeds, "search=grid", "retries=0", "rerun_failed=true")) == 0
    assert starts(failed) == 1, "asked for, it is tried again"
    assert starts(good) == 1, "and no other"


def test_asha_ends_bad_trials_early_and_remembers_them(make: Make, tmp_path: Path) -> None:
    space = "{optimizer.lr: {grid: [1e-2, 1e-4, 1e-1, 1]}}"
    asha = [
        "search=grid",
        "asha={grace: 4, reduction: 2}",
        "training.steps=16",
        "parallel=1",
        "training.hang_timeout=500",
    ]
    assert conduct(make(space, *asha)) == 0
    good, *bad = trials(tmp_path)
    assert (good.status, good.step) == ("finished", 16)
    assert [t.status for t in bad] == ["stopped"] * 3
    assert all(4 <= t.step < 16 for t in bad), [t.step for t in bad]
    assert bad[0].reason == f"by ASHA after step {bad[0].step}"
    assert not (Path(bad[0].folder) / "finished.json").exists()
    # The same trials, of which the good one ended in an earlier session: it still sets the mark.
    record = Record.open(tmp_path / "sweep", "min")
    record.trials = record.trials[:1]
    record.write()
    for trial in bad:
        shutil.rmtree(trial.folder)
    assert conduct(make(space, *asha)) == 0
    assert [t.status for t in trials(tmp_path)] == ["finished", *["stopped"] * 3]
    assert starts(good) == 1


def test_optuna_goes_on_with_what_it_knows(make: Make, tmp_path: Path) -> None:
    space = "{optimizer.lr: {loguniform: [1e-5, 1]}, optimizer.kind: {choice: [adam, sgd]}}"
    assert conduct(make(space, "search=optuna", "trials=2", "training.steps=1")) == 0
    first = trials(tmp_path)
    assert conduct(make(space, "search=optuna", "trials=4", "training.steps=1")) == 0
    found = trials(tmp_path)
    assert found[:2] == first
    assert len({t.values["optimizer.lr"] for t in found}) == 4, "no value of the first session is drawn again"


def test_a_sweep_in_which_nothing_can_succeed_ends_at_once(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'optimizer.rl'; the nearest valid key is 'optimizer.lr'"):
        conduct(make("{optimizer.rl: {uniform: [0, 1]}}", "trials=3"))
    with pytest.raises(ConfigError, match=r"unknown key 'training.step'; the nearest valid key is 'training.steps'"):
        conduct(make("{optimizer.lr: {uniform: [0.1, 1]}}", "trials=3", "training.step=3"))
    with pytest.raises(ConfigError, match=r"metric.name=validation/loss: the run has no validation section"):
        conduct(make("{optimizer.lr: {uniform: [0.1, 1]}}", "trials=3", "metric.name=validation/loss"))
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        conduct(make("{optimizer.lr: {uniform: [0.1, 1]}}", "trials=3", "data.path=nowhere"))
    with pytest.raises(ValueError, match=r"a trial takes 64 CPU of one node, and the nodes have 2 CPU"):
        conduct(make("{optimizer.lr: {uniform: [0.1, 1]}}", "trials=3", "resources.cpus=64"))
    assert not (tmp_path / "sweep/trials").exists()
    misnamed = make("{optimizer.lr: {uniform: [0.1, 1]}}", "trials=3", "metric.name=los")
    with pytest.raises(ValueError, match=r"metric.name=los: the run logs no such number; the nearest is 'loss'"):
        conduct(misnamed)
    assert all(t.status == "open" for t in trials(tmp_path))
    hopeless = make("{run.seed: {choice: [17]}}", "trials=20", output="hopeless/sweep")
    with pytest.raises(ValueError, match=r"the first 5 trials have all failed; the last: no disk like this one"):
        conduct(hopeless)


def test_checkpoints_of_the_beaten_are_dropped_if_asked(make: Make, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"sweep/trials/{number:04d}/checkpoints").mkdir(parents=True)
    space = "{optimizer.lr: {grid: [1e-3, 1e-2, 1e-1]}}"
    assert conduct(make(space, "search=grid", "training.steps=1", "checkpoints=drop")) == 0
    assert [p.parent.name for p in (tmp_path / "sweep/trials").glob("*/checkpoints")] == ["0001"]


def test_the_record_is_checked(make: Make, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/results.json").write_text(json.dumps({"trials": 3}))
    with pytest.raises(ValueError, match=r"results.json is damaged"):
        conduct(make("{optimizer.lr: {uniform: [0.1, 1]}}", "trials=3"))
