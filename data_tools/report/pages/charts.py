"""Histograms and bars as inline SVG and HTML: what a browser draws without a script."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

import numpy as np

from data_tools.report.distributions import Distribution
from data_tools.report.names import amount, percent, short, shown

BINS, FEWEST = 40, 8  # bars of a histogram
LEFT, TOP, WIDTH, HEIGHT = 44, 32, 312, 110  # of the bars' area, in the drawing's units; the labels stand around it
TAIL = 0.995  # share of the numbers that a histogram must show; a longer tail is told in words


def histogram(
    title: str, unit: str, things: str, spread: Distribution, rules: Mapping[str, float] | None = None, top: float = 0.0
) -> str:
    """A figure: bars, axes with units, the median as a line, `rules` as dashed lines.

    Args:
        title: what is measured; `unit`: of the horizontal axis; `things`: what is counted.
        rules: name -> threshold.
        top: the largest value there can be; 0: as large as they are.
    """
    if not spread.total:
        return f'<figure class="chart"><figcaption><b>{escape(title)}</b></figcaption><p class="none">none</p></figure>'
    edges = _edges(spread, rules or {}, top)
    counts = spread.binned(edges)
    beyond = spread.total - int(counts.sum())
    middle = spread.quantile(0.5)
    words = f"median {short(middle)}, 90 % within {short(spread.quantile(0.05))} to {short(spread.quantile(0.95))}"
    words += f"; {amount(beyond)} beyond {short(float(edges[-1]))}" if beyond else ""
    body = _bars(edges, counts, things, spread.step) + _axes(edges, int(counts.max()), unit, things, spread.step)
    body += _line(edges, middle, "median", "median")
    body += "".join(_line(edges, value, name, "rule") for name, value in (rules or {}).items())
    width, height = LEFT + WIDTH + 12, TOP + HEIGHT + 38
    return (
        f'<figure class="chart"><figcaption><b>{escape(title)}</b><span>{escape(words)}</span></figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(f"{title}: {words}")}">{body}</svg></figure>'
    )


def bars(counts: Mapping[str, int], whole: int, classes: Mapping[str, str] | None = None) -> str:
    """A table: name, bar, count, share of `whole`. `classes` names the style of some bars."""
    longest = max(counts.values(), default=0) or 1
    wide = "bars wide" if any(len(name) > 24 for name in counts) else "bars"
    rows = "".join(
        f"<tr><th><bdi>{escape(shown(name))}</bdi></th>"
        f'<td class="bar"><i class="{(classes or {}).get(name, "")}" style="width:{100 * count / longest:.2f}%"></i></td>'
        f"<td>{amount(count)}</td><td>{percent(count, whole)}</td></tr>"
        for name, count in counts.items()
    )
    return f'<table class="{wide}">{rows}</table>'


def profile(values: tuple[float, ...], keep: tuple[bool, ...]) -> str:
    """The share of foreground in each frame of a clip, frames that the rules leave out in another colour."""
    ceiling, left_out = max(0.05, *values), ' class="out"'
    columns = "".join(
        f'<rect x="{i}" y="{1 - value / ceiling:.4f}" width="1.02" height="{value / ceiling:.4f}"'
        f"{'' if not keep or keep[i] else left_out}/>"
        for i, value in enumerate(values)
    )
    text = f"foreground per frame: {percent(min(values))} to {percent(max(values))}; full height {percent(ceiling)}"
    return (
        f'<svg class="profile" viewBox="0 0 {len(values)} 1" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(text)}"><title>{escape(text)}</title>{columns}</svg>'
    )


def _edges(spread: Distribution, rules: Mapping[str, float], top: float) -> np.ndarray:
    """Edges of `FEWEST` to `BINS` equal bins of whole steps; whole numbers stand in the middle of theirs."""
    low, high, last = (spread.quantile(share) for share in (0.0, TAIL, 1.0))
    high = last if last - low <= 1.1 * (high - low) else high  # the tail is no longer than that
    high = max([high, *(value for value in rules.values() if value <= 2 * high)])
    low = 0.0 if low < 0.5 * high or spread.step < 1 else low
    high = min(high, top) if top else high
    steps = max(1, math.ceil(round((high - low) / spread.step + 1, 6) / BINS))
    width = steps * spread.step
    first = low - spread.step / 2 if spread.step >= 1 else low
    number = max(FEWEST, math.floor(round((high - first) / width, 6)) + 1)
    return first + width * np.arange(number + 1)


def _bars(edges: np.ndarray, counts: np.ndarray, things: str, step: float) -> str:
    tall, wide = max(int(counts.max()), 1), WIDTH / len(counts)
    found = []
    for i, count in enumerate(counts.tolist()):
        if count:
            low, high = (
                edges[i] + (step / 2 if step >= 1 else 0),
                edges[i + 1] - step / 2 if step >= 1 else edges[i + 1],
            )
            span = short(float(low)) if high - low < 1e-9 else f"{short(float(low))} to {short(float(high))}"
            size = max(HEIGHT * count / tall, 0.75)
            found.append(
                f'<rect class="bar" x="{LEFT + i * wide:.2f}" y="{TOP + HEIGHT - size:.2f}" width="{max(wide - 0.75, 0.5):.2f}" '
                f'height="{size:.2f}"><title>{span}: {amount(count)} {escape(things)}</title></rect>'
            )
    return "".join(found)


def _axes(edges: np.ndarray, tall: int, unit: str, things: str, step: float) -> str:
    base = TOP + HEIGHT
    found = [f'<path class="axis" d="M{LEFT} {base}H{LEFT + WIDTH}"/>']
    for value in ticks(float(edges[0]), float(edges[-1])):
        if step >= 1 and value != int(value):  # there is no half frame
            continue
        x = _x(edges, value)
        found.append(f'<path class="axis" d="M{x:.2f} {base}v4"/>')
        found.append(f'<text x="{x:.2f}" y="{base + 15}" text-anchor="middle">{short(value)}</text>')
    for value in (tick for tick in ticks(0, tall, 3) if tick == int(tick)):
        y = base - HEIGHT * value / max(tall, 1)
        found.append(f'<path class="guide" d="M{LEFT} {y:.2f}h{WIDTH}"/>')
        found.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.2f}" text-anchor="end">{compact(value)}</text>')
    found.append(f'<text class="unit" x="{LEFT + WIDTH}" y="{base + 31}" text-anchor="end">{escape(unit)}</text>')
    found.append(f'<text class="unit" x="{LEFT - 6}" y="{TOP - 18}" text-anchor="end">{escape(things)}</text>')
    return "".join(found)


def _line(edges: np.ndarray, value: float, name: str, kind: str) -> str:
    if not edges[0] <= value <= edges[-1]:
        return ""
    x, row = _x(edges, value), 13 if kind == "median" else 26  # their names stand in two rows above the bars
    anchor = "end" if x > LEFT + WIDTH * 0.7 else "start"
    return (
        f'<path class="{kind}" d="M{x:.2f} {TOP - row}V{TOP + HEIGHT}"/>'
        f'<text class="{kind}" x="{x + (-4 if anchor == "end" else 4):.2f}" y="{TOP - row + 9}" '
        f'text-anchor="{anchor}">{escape(name)}</text>'
    )


def _x(edges: np.ndarray, value: float) -> float:
    return LEFT + WIDTH * (value - float(edges[0])) / float(edges[-1] - edges[0])


def ticks(low: float, high: float, number: int = 5) -> list[float]:
    """Round numbers within [low, high], about `number` of them."""
    rough = (high - low) / number
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round((first + i) * step, 9) for i in range(math.floor(high / step + 1e-9) - first + 1)]


def compact(number: float) -> str:
    """A count for an axis: 950, 1.2k, 34M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{short(round(number / size, 1))}{unit}"
    return short(number)
