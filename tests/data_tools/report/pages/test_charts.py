"""Histograms show every number, or say how many they do not show; axes have round numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from data_tools.report.distributions import Distribution
from data_tools.report.pages.charts import bars, compact, histogram, ticks


def drawn(step: float, *numbers: float, **more: object) -> str:
    spread = Distribution(step)
    spread.add(np.array(numbers))
    return histogram("Length", "frames", "clips", spread, **more)  # type: ignore[arg-type]


def shown(text: str) -> dict[str, int]:
    """What the bars say: their span and count."""
    return {span: int(count.replace(",", "")) for span, count in re.findall(r"<title>([^:]+): ([\d,]+) clips", text)}


def test_whole_numbers_have_bars_of_their_own() -> None:
    assert shown(drawn(1, 16, 16, 20, 64)) == {"16 to 17": 2, "20 to 21": 1, "64 to 65": 1}, "or a few together"
    assert shown(drawn(1, 1, 1, 2)) == {"1": 2, "2": 1}


def test_a_long_tail_is_told() -> None:
    text = drawn(1, *[1] * 500, 10_000)
    assert sum(shown(text).values()) == 500
    assert "1 beyond" in text


@pytest.mark.parametrize("numbers", [(0.5,), (0.0, 0.0), tuple(np.linspace(0, 1, 777)), (0.001, 0.999)])
def test_every_share_is_in_a_bar(numbers: tuple[float, ...]) -> None:
    assert sum(shown(drawn(0.001, *numbers, top=1.0)).values()) == len(numbers)


def test_rules_near_the_numbers_are_marked() -> None:
    text = drawn(0.001, 0.01, 0.02, 0.05, rules={"small": 0.02, "large": 0.9})
    assert "small</text>" in text
    assert "large</text>" not in text, "that would squeeze all numbers into a corner"


def test_nothing_is_drawn_of_nothing() -> None:
    assert "<svg" not in drawn(1)


def test_ticks_are_round_and_within() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0.5, 64.5) == [20, 40, 60]
    assert ticks(0, 3, 3) == [0, 1, 2, 3]
    assert [compact(n) for n in (950, 1200, 34_000_000)] == ["950", "1.2k", "34M"]


def test_bars_are_as_long_as_their_counts_and_escaped() -> None:
    text = bars({"<b>": 4, "a\n": 1}, 10)
    assert re.findall(r"width:([\d.]+)%", text) == ["100.00", "25.00"]
    assert "&lt;b&gt;" in text
    assert "a\\n" in text
    assert "40 %" in text
