"""Which values the next trial gets: all of a grid, drawn at random, or chosen by Optuna from what the others gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from fbm_dist.sweeps.config import Sweep
from fbm_dist.sweeps.record import Trial
from fbm_dist.sweeps.search.space import Choice, Drawn, Grid, LogUniform, QUniform, RandInt, Uniform, combinations, draw

STARTUP = 8  # trials that Optuna draws at random before it models them


@runtime_checkable
class Sampler(Protocol):
    """What chooses values. Its whole state is the record of the trials: a killed sweep builds it anew."""

    total: int  # trials

    def ask(self, number: int) -> dict[str, Any]:
        """The values of the new trial `number`."""

    def look(self, number: int) -> dict[str, Any]:
        """Values as trial `number` may get them, for a check beforehand: nothing is remembered."""

    def tell(self, trial: Trial) -> None:
        """A trial has ended."""


class GridSampler:
    """All combinations, the last key fastest."""

    def __init__(self, space: Mapping[str, Any]) -> None:
        self._all = combinations({key: d for key, d in space.items() if isinstance(d, Grid)})
        self.total = len(self._all)

    def ask(self, number: int) -> dict[str, Any]:
        """Combination `number`."""
        return self._all[number]

    look = ask

    def tell(self, trial: Trial) -> None:
        """It makes no difference."""


class RandomSampler:
    """Each trial by itself: the same seed and number give the same values."""

    def __init__(self, space: Mapping[str, Any], trials: int, seed: int) -> None:
        self._space, self._seed, self.total = space, seed, trials

    def ask(self, number: int) -> dict[str, Any]:
        """Values of trial `number`."""
        return draw(self._space, self._seed, number)

    look = ask

    def tell(self, trial: Trial) -> None:
        """It makes no difference."""


class OptunaSampler:
    """Tune's Optuna searcher with a TPE sampler that takes trials under way as bad ones, so that parallel ones differ.

    What ended in earlier sessions is told to it first. Trials that diverged or failed are told as pruned, which TPE takes for worse
    than any that ended; what Optuna calls failed it would leave out of account, and go on where everything diverges.
    """

    def __init__(self, space: Mapping[str, Drawn], trials: int, seed: int, mode: str, known: list[Trial]) -> None:
        """`known`: the trials of earlier sessions.

        Raises:
            ValueError: Optuna is not installed.
        """
        try:
            import optuna
        except ImportError:
            raise ValueError("search=optuna needs Optuna: pip install 'optuna>=4'") from None
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.total = trials
        self._space, self._seed = space, seed
        self._lists = {key: d.choice for key, d in space.items() if isinstance(d, Choice)}
        # another seed for another session: the same one would draw the first values once more
        sampler = optuna.samplers.TPESampler(
            seed=seed + 1_000_003 * len(known), n_startup_trials=STARTUP, constant_liar=True
        )
        distributions = {key: _distribution(optuna.distributions, d) for key, d in space.items()}
        self._search = OptunaSearch(distributions, metric="value", mode=mode, sampler=sampler)
        self._asked: set[int] = set()
        for trial in known:
            if trial.status != "open":
                self.tell(trial)

    def look(self, number: int) -> dict[str, Any]:
        """Anything of the space."""
        return draw(self._space, self._seed, number)

    def ask(self, number: int) -> dict[str, Any]:
        """What Optuna suggests."""
        self._asked.add(number)
        found = self._search.suggest(str(number))
        assert found is not None, "a space was given"
        return {key: self._value(key, value) for key, value in _flat(found).items()}

    def _value(self, key: str, value: Any) -> Any:
        dimension = self._space[key]
        if isinstance(dimension, Choice):
            return dimension.choice[value]
        return value if isinstance(dimension, RandInt) else dimension.rounded(value)

    def tell(self, trial: Trial) -> None:
        """How good its values were."""
        value = trial.metric if trial.status in ("finished", "stopped") else None
        if trial.number in self._asked:
            self._search.on_trial_complete(str(trial.number), None if value is None else {"value": value})
            return
        places = {
            key: list(self._lists[key]).index(value) if key in self._lists else value
            for key, value in trial.values.items()
        }
        self._search.add_evaluated_point(places, 0.0 if value is None else value, pruned=value is None)


def sampler_of(sweep: Sweep, known: list[Trial]) -> Sampler:
    """The sampler that the config names.

    Raises:
        ValueError: Optuna is not installed.
    """
    if sweep.search == "grid":
        return GridSampler(sweep.space)
    assert sweep.trials is not None, "the config says how many"
    if sweep.search == "random":
        return RandomSampler(sweep.space, sweep.trials, sweep.seed)
    space: dict[str, Drawn] = {key: d for key, d in sweep.space.items() if not isinstance(d, Grid)}
    return OptunaSampler(space, sweep.trials, sweep.seed, sweep.metric.mode, known)


def _distribution(of: Any, dimension: Drawn) -> Any:
    """Optuna's own; of a list its places, since Optuna takes no sections as values."""
    if isinstance(dimension, Choice):
        return of.CategoricalDistribution(tuple(range(len(dimension.choice))))
    if isinstance(dimension, Uniform):
        return of.FloatDistribution(*dimension.uniform)
    if isinstance(dimension, LogUniform):
        return of.FloatDistribution(*dimension.loguniform, log=True)
    if isinstance(dimension, QUniform):
        low, _, step = dimension.quniform
        return of.FloatDistribution(low, low + dimension.steps * step, step=step)
    assert isinstance(dimension, RandInt)
    return of.IntDistribution(*dimension.randint)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
