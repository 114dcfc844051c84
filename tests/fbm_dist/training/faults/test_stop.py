"""Which signals ask for a stop, and that nothing else of them is changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from fbm_dist.training.faults.stop import StopRequest, listening


@pytest.fixture(autouse=True)
def not_ignored() -> Iterator[None]:
    """What is started in the background of a script, or under nohup, ignores these."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT])
def test_a_signal_asks_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as request:
        assert not request.asked
        os.kill(os.getpid(), number)
        assert request.asked
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with StopRequest() as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert "once more ends at once" in capfd.readouterr().err


def test_a_closed_terminal_is_no_stop_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not request.asked
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_listens_to_nothing() -> None:
    """A sweep's trial may run in one: Python allows it no handlers."""
    found: list[bool] = []

    def run() -> None:
        with listening(600.0) as request:
            found.append(request.asked)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


def test_listening_needs_no_torch() -> None:
    """A door listens before it loads what takes seconds."""
    text = "import sys, fbm_dist.training.faults.stop; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 0
