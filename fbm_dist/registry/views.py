"""Versions for people: the tables of `list`, `show` and `compare`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fbm_dist.registry.catalogue import Entry, Evaluated
from fbm_dist.registry.folder import Description
from fbm_dist.registry.pulled.card import code_of

MOST = 3  # figures of a version that `list` shows
OWN = ("family", "parameters", "sha256", "config_sha256")  # tags that `show` tells elsewhere


def listed(found: Sequence[Entry]) -> tuple[RenderableType, ...]:
    """A line a version."""
    if not found:
        return ("the registry is empty; tracking.register_as=NAME registers the encoder of a run",)
    table = Table(box=None, pad_edge=False)
    for name, style in (
        ("model", ""),
        ("version", ""),
        ("aliases", "green"),
        ("family", ""),
        ("metrics", ""),
        ("age", ""),
    ):
        table.add_column(name, style=style, overflow="fold", justify="right" if name in ("version", "age") else "left")
    for one in found:
        # what was evaluated says more than the losses of training
        names = sorted(one.metrics, key=lambda name: ("loss" in name, name))
        told = [f"{name} {one.metrics[name]:.4g}" for name in names[:MOST]]
        more = [f"and {len(names) - MOST} more"] if len(names) > MOST else []
        cells = (one.name, one.version, ", ".join(one.aliases), one.family, "\n".join([*told, *more]), one.age)
        table.add_row(*(Text(str(cell)) for cell in cells))
    return (table,)


def shown(
    version: Entry, description: Description, tables: Sequence[Evaluated], *, with_tables: bool
) -> tuple[RenderableType, ...]:
    """Everything about a version, in sections."""
    info, objective = description.info, description.objective
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    parts: list[RenderableType] = [Text(f"{version.uri}{aliases}", style="bold")]
    clip = f"{objective.frames} x {objective.size} x {objective.size}"
    facts = {
        "registered": f"{version.as_json()['created']} ({version.age} ago)",
        "run": f"{info.get('run', '?')} (MLflow run {version.run_id})",
        "data digest": info.get("data_digest") or "not recorded",
        "code": code_of(info, version.tags).replace("`", ""),
        "steps, clips": f"{info.get('steps', '?')}, {info.get('clips', '?')}",
        "input": f"float32 (b, 3, {clip.replace(' x ', ', ')}) in {list(description.value_range)}",
        "features": ", ".join(f"{name} {length}" for name, length in description.features.items()),
        "parameters": f"{description.parameters:,}",
        "weights": f"sha256 {description.sha256}",
        "config.json": f"sha256 {version.tags.get('config_sha256', 'not recorded when it was registered')}",
    }
    parts.append(_pairs(facts))
    parts += _section("metrics", {name: f"{value:.6g}" for name, value in version.metrics.items()})
    parts += _section("config", dict(_flat(objective.model_dump(mode="json"))))
    parts += _section("clip", dict(_flat(description.clip.model_dump(mode="json"))))
    protocols = tuple(f"{one.protocol}." for one in tables)
    others = {k: v for k, v in version.tags.items() if k not in OWN and not k.startswith(("metric.", *protocols))}
    parts += _section("tags", others)
    parts += _section("evaluations", {one.protocol: _told(one) for one in tables})
    if with_tables:
        parts += [Text(f"\n{one.table.strip()}") for one in tables if one.table]
    return tuple(parts)


def evaluation_json(found: Evaluated) -> dict[str, Any]:
    """For programs: with results.json as it is."""
    results = json.loads(found.files["results.json"]) if "results.json" in found.files else None
    return {"protocol": found.protocol, "run": found.run_id, "data": found.data, "results": results}


def compared(versions: Sequence[Entry], differing: Sequence[tuple[str, Sequence[Any]]]) -> tuple[RenderableType, ...]:
    """Figures of every version, a column each; then the keys of the configs that differ."""
    names = sorted({name for one in versions for name in one.metrics}, key=lambda name: ("loss" in name, name))
    figures = [(name, [_figure(one.metrics.get(name)) for one in versions]) for name in names]
    data = sorted({key for one in versions for key in one.tags if key.endswith(".data")})
    measured = [(key, [one.tags.get(key, "") for one in versions]) for key in data]
    parts: list[RenderableType] = [_columns("metric", versions, figures)]
    if any(len(set(values)) > 1 for _, values in measured):
        parts += [Text("\nmeasured on different data:"), _columns("data", versions, measured)]
    if differing:
        told = [(key, ["" if value is None else str(value) for value in values]) for key, values in differing]
        parts += [Text(""), _columns("config", versions, told)]
    else:
        parts.append(Text("\nthe configs are equal"))
    return tuple(parts)


def differences(described: Sequence[Description]) -> list[tuple[str, list[Any]]]:
    """Keys of objective, clip and origin whose values are not the same everywhere."""
    flat = []
    for one in described:
        tree = one.model_dump(mode="json")
        info = {key: one.info.get(key) for key in ("data_digest", "steps", "clips", "init_from")}
        flat.append(dict(_flat({"objective": tree["objective"], "clip": tree["clip"], **info})))
    keys = list(dict.fromkeys(key for one in flat for key in one))
    rows = [(key, [one.get(key) for one in flat]) for key in keys]
    return [(key, values) for key, values in rows if any(value != values[0] for value in values)]


def _columns(corner: str, versions: Sequence[Entry], rows: Sequence[tuple[str, Sequence[str]]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(corner, overflow="fold")
    for one in versions:
        head = f"{one.name}/{one.version}" + (f"\n{', '.join(one.aliases)}" if one.aliases else "")
        table.add_column(Text(head), overflow="fold", justify="right")
    for name, values in rows:
        table.add_row(Text(name), *map(Text, values))
    return table


def _section(title: str, values: Mapping[str, Any]) -> list[RenderableType]:
    return [Text(f"\n{title}", style="bold"), _pairs(values)] if values else []


def _pairs(values: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in values.items():
        table.add_row(Text(key), Text(str(value)))
    return table


def _told(one: Evaluated) -> str:
    gone = "" if one.files else "; its tables are not there any more"
    return f"on {one.data or 'unknown data'} (MLflow run {one.run_id}{gone})"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted leaves of a config."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
