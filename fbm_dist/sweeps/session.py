"""One session of a sweep: Ray Tune over the trials that are left, on this machine or a cluster."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, no_type_check

from data_tools.execution.cluster import connect, own_paths
from fbm_dist.schema import Run
from fbm_dist.sweeps.config import Sweep
from fbm_dist.sweeps.search.searcher import Conductor, State

SESSION = "ray"  # what Tune writes, for as long as it runs
TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # metrics.jsonl of each run has it all
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # not every line has the metric
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours has the trials save themselves
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # results.json is what a sweep goes on from
    "RAY_AIR_NEW_OUTPUT": "0",  # the old one can be silenced
    "RAY_USAGE_STATS_ENABLED": "0",
}


def run_trials(sweep: Sweep, base: Run, conductor: Conductor, state: State) -> None:
    """Ray Tune over what is left, until it is done or `state` says stop.

    Raises:
        ValueError: there is no Ray, or no node that a trial fits on.
    """
    os.environ |= {key: os.environ.get(key, value) for key, value in TUNE.items()}
    os.environ.setdefault("TUNE_FORCE_TRIAL_CLEANUP_S", str(int(2 * sweep.resources.grace + 60)))
    import ray

    here = not ray.is_initialized()
    if here:
        connect(ray, sweep.ray.address, None)
    for name in ("ray.tune", "ray.air", "ray.train"):  # they tell of a lost worker by tracebacks
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        check_room(sweep, ray.nodes())
        with heeding(state):  # after Ray, which takes signals for itself
            _tune(sweep, base, conductor, state)
        wait_for_trials([Path(trial.folder) for trial in conductor.record.trials if trial.status == "open"], sweep)
    finally:
        if here:
            ray.shutdown()


def _tune(sweep: Sweep, base: Run, conductor: Conductor, state: State) -> None:
    from ray import tune

    from fbm_dist.sweeps.search.early import early_of
    from fbm_dist.sweeps.search.searcher import Losses, Stop

    resources = sweep.resources
    bundle = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
    ended = [(f"earlier-{t.number}", Path(t.folder)) for t in conductor.record.ended() if t.status != "impossible"]
    scheduler = early_of(sweep, base.training.steps, ended)
    session = conductor.runs.folder / SESSION
    shutil.rmtree(session, ignore_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(envoy(own_paths()), tune.PlacementGroupFactory([bundle])),
        tune_config=tune.TuneConfig(
            search_alg=conductor,
            scheduler=scheduler,
            num_samples=conductor.left,
            max_concurrent_trials=sweep.parallel,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=str(int(time.time())),
            storage_path=str(session),
            stop=Stop(state),
            callbacks=[Losses(conductor)],
            failure_config=tune.FailureConfig(max_failures=sweep.retries),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(session, ignore_errors=True)


@no_type_check  # the tests' checks of shapes cannot be pickled
def envoy(paths: list[str]) -> type[Any]:
    """What Tune places on a node: a class that travels whole, and finds this very package there, whatever is installed.

    Args:
        paths: where the sweep's process imports from.
    """
    from ray import tune

    class Envoy(tune.Trainable):
        """One trial: passes on what its `fbm_dist.sweeps.trial.worker.Worker` has to say."""

        def setup(self, config: dict[str, Any]) -> None:
            import sys

            self.worker: Any = None
            sys.path[:0] = [path for path in paths if path not in sys.path]
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            """The next trial: a worker is used again, since a new one takes seconds."""
            self.cleanup()
            self.wrong = ""
            try:
                from fbm_dist.sweeps.trial.worker import Order, Worker

                self.worker = Worker(Order(**new_config["order"]))
            except (ImportError, OSError) as error:
                self.wrong = f"{type(error).__name__} on this node: {error}"
            return True

        def step(self) -> dict[str, Any]:
            if self.worker is None:
                return {"done": True, "status": "failed", "reason": self.wrong}
            found: dict[str, Any] = self.worker.news()
            return found

        def cleanup(self) -> None:
            if self.worker is not None:
                self.worker.stop()
                self.worker = None

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """The run folder has all that is needed."""

        def load_checkpoint(self, checkpoint: Any) -> None:
            """The run folder has all that is needed."""

    return Envoy


def check_room(sweep: Sweep, nodes: list[dict[str, Any]]) -> None:
    """A trial must fit on one node.

    Raises:
        ValueError: there is no such node.
    """
    wanted = {"CPU": sweep.resources.cpus} | ({"GPU": sweep.resources.gpus} if sweep.resources.gpus else {})
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if any(all(has.get(name, 0.0) >= amount for name, amount in wanted.items()) for has in alive):
        return
    asked = " and ".join(f"{amount:g} {name}" for name, amount in wanted.items())
    has = "; ".join(", ".join(f"{node.get(name, 0):g} {name}" for name in wanted) for node in alive)
    raise ValueError(f"a trial takes {asked} of one node, and the nodes have {has}: lower resources.cpus or .gpus")


def wait_for_trials(folders: list[Path], sweep: Sweep) -> None:
    """Until what was stopped has saved itself, as its lock tells."""
    deadline = time.monotonic() + 2 * sweep.resources.grace
    for folder in folders:
        path = folder / "running.lock"
        while path.exists() and time.monotonic() < deadline:
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.1)
                except OSError:
                    break


@contextmanager
def heeding(state: State) -> Iterator[None]:
    """The first signal has the trials save themselves and the sweep end; Ctrl-C once more ends at once."""

    def heard(number: int, frame: FrameType | None) -> None:
        state.stopping, state.signal = True, number
        with suppress(OSError):
            os.write(2, b"stopping: trials save themselves; Ctrl-C once more ends at once\n")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                stack.callback(signal.signal, number, signal.signal(number, heard))
        yield
