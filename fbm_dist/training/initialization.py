"""init_from: a new run starts from earlier weights, as far as names and shapes fit, and says what was and was not loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fbm_dist.objectives.objective import Objective
from fbm_dist.schema import InitFrom
from fbm_dist.training.distributed import World
from fbm_dist.training.sources import Fetch, Found, found_weights

SHOWN = 6  # entries of each list in a message
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Loaded:
    """What `initialize` did. `names`: the objective's tensors that were loaded; values are single numbers."""

    source: str
    file: str  # where the weights were read
    sha256: str  # of that file
    names: tuple[str, ...]
    num_tensors: int  # of the objective: parameters and buffers
    values: int
    num_values: int
    text: str  # one line for a person

    def facts(self) -> dict[str, str]:
        """For version.json and the tracker's tags."""
        return {
            "init_from.source": self.source,
            "init_from.file": self.file,
            "init_from.sha256": self.sha256,
            "init_from.loaded": f"{len(self.names)} of {self.num_tensors} tensors",
        }


@dataclass(frozen=True)
class Plan:
    """Which tensor there becomes which here, and why the others do not."""

    pairs: dict[str, str]  # name here -> name in the file
    left_here: dict[str, str]  # name here -> why it was not loaded
    left_there: tuple[str, ...]


def initialize(objective: Objective, init: InitFrom, world: World, fetch: Fetch | None = None) -> Loaded:
    """Load weights and buffers from `init.source` into `objective`, whose other tensors keep their values.

    Every rank calls it, on a freshly built objective, when a run starts (not when it goes on from a checkpoint). Rank 0 alone
    reads; the others get the values from it, so the source need not be within their reach.

    Args:
        fetch: opens a models:/ or runs:/ address as a local encoder folder; called on rank 0.
    Raises:
        ValueError: nothing there, damaged, or nothing fits; the same on every rank.
    """
    told: Loaded | None = None
    with world.agreed():
        if world.first:
            with found_weights(init, fetch, world.say) as found:
                told = _load(objective, init, found)
    loaded = world.broadcast(told)
    assert loaded is not None
    targets = tensors(objective)
    for name in loaded.names if world.size > 1 else ():
        value = targets[name].detach().contiguous()
        dist.broadcast(value, src=0)
        with torch.no_grad():
            targets[name].copy_(value)
    world.say(loaded.text)
    return loaded


def tensors(objective: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, each once."""
    kept = set(objective.state_dict())
    buffers = {name: b for name, b in objective.named_buffers() if name in kept}
    return dict(objective.named_parameters()) | buffers


def encoder_names(objective: Objective) -> dict[str, str]:
    """The encoder's own names -> the objective's, for the tensors that they share."""
    ours = {id(value): name for name, value in tensors(objective).items()}
    return {name: ours[id(value)] for name, value in tensors(objective.encoder()).items() if id(value) in ours}


def make_plan(
    here: Mapping[str, Shape], there: Mapping[str, Shape], init: InitFrom, encoder: Mapping[str, str]
) -> Plan:
    """Match the tensors of a file, as renamed, with those `here`: by the objective's names, or by the encoder's if more fit.

    Args:
        encoder: the encoder's names -> those here.
    Raises:
        ValueError: an `only` or `rename` prefix that begins no name, or two tensors that get the same name.
    """
    _check_prefixes("only", init.only, here)
    _check_prefixes("rename", init.rename, there)
    renamed: dict[str, str] = {}
    for name in there:
        new = _rename(name, init.rename)
        if new in renamed:
            raise ValueError(f"init_from.rename gives {renamed[new]!r} and {name!r} the same name {new!r}")
        renamed[new] = name
    candidates = [renamed, {encoder[name]: old for name, old in renamed.items() if name in encoder}]
    fitting = [{n: old for n, old in c.items() if here.get(n) == there[old]} for c in candidates]
    by_encoder = len(fitting[1]) > len(fitting[0])
    names, pairs = candidates[by_encoder], fitting[by_encoder]
    left: dict[str, str] = {}
    for name, shape in here.items():
        if init.only and not name.startswith(init.only):
            left[name] = "not in init_from.only"
            pairs.pop(name, None)
        elif name not in names:
            left[name] = "no such name there"
        elif name not in pairs:
            left[name] = f"shape {_shown(shape)} here, {_shown(there[names[name]])} there"
    used = set(pairs.values())
    return Plan(pairs, left, tuple(name for name in there if name not in used))


def _load(objective: Objective, init: InitFrom, found: Found) -> Loaded:
    """Rank 0's part: read what fits into `objective`."""
    targets = tensors(objective)
    here = {name: tuple(value.shape) for name, value in targets.items()}
    try:
        with safe_open(found.path, framework="pt") as file:
            there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict
            plan = make_plan(here, there, init, encoder_names(objective))
            if not any(len(here[name]) > 1 for name in plan.pairs):  # counters of BatchNorm fit anywhere
                raise ValueError(_nothing_fits(init, here, there))
            values = {name: file.get_tensor(old) for name, old in plan.pairs.items()}
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"init_from {found.path} is no whole safetensors file: {error}; fetch or copy it again"
        ) from None
    for name, value in values.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(
                f"init_from {found.path}: {plan.pairs[name]!r} has NaN or infinite values; take another checkpoint"
            )
    with torch.no_grad():
        for name, value in values.items():
            targets[name].copy_(value)
    return Loaded(
        source=init.source,
        file=found.label,
        sha256=found.sha256,
        names=tuple(values),
        num_tensors=len(targets),
        values=sum(value.numel() for value in values.values()),
        num_values=sum(value.numel() for value in targets.values()),
        text=report(init.source, found.label, plan, targets, there),
    )


def report(source: str, label: str, plan: Plan, targets: Mapping[str, Tensor], there: Iterable[str]) -> str:
    """What was loaded, what not and why, what was left there; tensors grouped by prefix so that it stays one line."""
    loaded, total = (sum(targets[n].numel() for n in names) for names in (plan.pairs, targets))
    where = source if label == source else f"{source} ({label})"
    parts = [
        f"init_from {where}: {len(plan.pairs)} of {len(targets)} tensors ({_big(loaded)} of {_big(total)} values) loaded"
    ]
    reasons = dict.fromkeys(plan.left_here.values())
    entries: list[tuple[int, str]] = []
    for reason in reasons:
        names = {name for name, why in plan.left_here.items() if why == reason}
        entries += [(number, _counted(group, number, reason)) for group, number in grouped(names, targets)]
    if entries:
        entries.sort(key=lambda entry: -entry[0])  # the largest groups are shown
        parts.append("not loaded: " + _some([text for _, text in entries]))
    if plan.left_there:
        left = [_counted(group, number) for group, number in grouped(set(plan.left_there), there)]
        parts.append("left there: " + _some(left))
    return "; ".join(parts)


def grouped(names: set[str], everything: Iterable[str]) -> list[tuple[str, int]]:
    """`names` as (prefix.*, number), by the shortest prefixes that no other name of `everything` has; single ones in full."""
    others = {p for name in everything if name not in names for p in _prefixes(name)}
    counts: dict[str, list[str]] = {}
    for name in sorted(names):
        prefix = next((p for p in _prefixes(name) if p not in others), name)
        counts.setdefault(prefix, []).append(name)
    return [(f"{p}*" if len(held) > 1 else held[0], len(held)) for p, held in counts.items()]


def _prefixes(name: str) -> list[str]:
    return [name[: dot.end()] for dot in re.finditer(r"\.", name)]


def _rename(name: str, rules: Mapping[str, str]) -> str:
    """By the longest prefix that `name` begins with."""
    old = max((prefix for prefix in rules if name.startswith(prefix)), key=len, default=None)
    return name if old is None else rules[old] + name[len(old) :]


def _check_prefixes(key: str, prefixes: Iterable[str], names: Iterable[str]) -> None:
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            side = "here" if key == "only" else "there"
            raise ValueError(f"init_from.{key}: no name {side} begins with {prefix!r}; names are {_some(list(names))}")


def _nothing_fits(init: InitFrom, here: Mapping[str, Shape], there: Mapping[str, Shape]) -> str:
    ours, theirs = (_some([f"{name} {_shown(shape)}" for name, shape in side.items()]) for side in (here, there))
    return (
        f"init_from {init.source}: nothing fits; here are {ours}; there are {theirs}; map prefixes by init_from.rename"
    )


def _counted(group: str, number: int, reason: str = "") -> str:
    told = [f"{number} tensors"] * (number > 1) + [reason] * bool(reason)
    return f"{group} ({', '.join(told)})" if told else group


def _some(texts: list[str]) -> str:
    return ", ".join(texts[:SHOWN]) + (f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else "")


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _big(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 1_000_000 else f"{number:,}"
