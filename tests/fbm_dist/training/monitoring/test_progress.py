"""The bar on a terminal: place, time left and speed stay in sight, however many figures a model has."""

from __future__ import annotations

import io
import re

import pytest

from fbm_dist.training.monitoring.progress import Console, figures


class Screen(io.StringIO):
    """A terminal that keeps what is written."""

    def isatty(self) -> bool:
        return True


METRICS = {
    **{f"reconstruction_of_part_{i}": 0.123456 for i in range(12)},
    "loss": 0.5,
    "lr": 1e-3,
    "grad_norm": 1.0,
    "clips_per_second": 35.12,
    "data_wait": 0.03,
    "validation/loss": 0.75,
    "probe/motion_knn": 0.625,
    "system/memory": 5.0,
}


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_bar_shows_place_time_and_speed_at_any_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    with Console(100, 10, terminal=screen) as console:
        console.advance(40)
        console.show(40, METRICS)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    last = plain.replace("\r", "\n").rstrip().splitlines()[-1]
    assert "40/100" in last
    assert "35.1 clips/s" in last
    assert len(last) <= width
    assert re.search(r"-?\d*:?[-\d]+:[-\d]+", last)  # time left
    assert "step 40: validation/loss 0.75  probe/motion_knn 0.625" in plain


def test_plain_lines_have_all(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(100, 0)
    console.show(50, METRICS)
    told = capsys.readouterr().out
    assert told.startswith("step 50/100  ")
    assert "validation/loss 0.75" in told
    assert "system/" not in told
    assert "lr 1.0e-03" in figures(METRICS)
