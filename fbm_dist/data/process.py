"""What a reader process is: how long it lives, which signals are none of its business, what it does with memory. Imports no torch."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from contextlib import suppress

STOPS = (signal.SIGTERM, signal.SIGUSR1)  # what asks a trainer to stop
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def live_and_die_with_the_parent() -> None:
    """In a reader process: signals are the trainer's affair, and a trainer that was killed leaves no reader behind.

    Slurm and DeepSpeed's `launch` signal every process of a job; a reader that obeyed would take away the trainer's last step.
    Its own SIGTERM, by which DALI ends readers, is told apart by its sender. `STOPS` came blocked from the parent (decoding/graph.py).
    """
    parent = multiprocessing.parent_process()
    if parent is None or threading.current_thread() is not threading.main_thread():
        return
    _keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        parent.join()
        os._exit(1)  # the main thread may wait for work that nobody sends any more

    def obey() -> None:
        while True:
            told = signal.sigwaitinfo(STOPS)
            if told.si_signo == signal.SIGTERM and told.si_pid == parent.pid:
                os._exit(1)

    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    for work in (wait, obey):
        threading.Thread(target=work, daemon=True).start()


def _keep_freed_memory() -> None:
    """Pictures of a megabyte come and go: glibc would give each back to the kernel and have the next one's pages cleared again.

    That costs a reader 4 % of its time. What it holds is bounded by a batch.
    """
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
