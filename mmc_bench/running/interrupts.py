"""Ctrl-C, SIGTERM and a time limit: each ends a run in good order."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

from mmc_bench.errors import UserError


@contextlib.contextmanager
def raised_interrupts() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise KeyboardInterrupt meanwhile, so that a run can stop its workers.

    Only the main thread can be interrupted; another one runs on as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _raise) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: set by something that is not Python


@contextlib.contextmanager
def interrupted_after(minutes: float | None, since: float) -> Iterator[None]:
    """Do as Ctrl-C does once so many minutes have passed since that reading of ``time.monotonic``."""
    if minutes is None:
        yield
        return
    main = threading.main_thread().ident or 0
    if threading.get_ident() != main:
        raise UserError("a time limit interrupts the main thread: run there")
    left = min(since + 60 * minutes - time.monotonic(), threading.TIMEOUT_MAX)  # three centuries
    timer = threading.Timer(left, signal.pthread_kill, (main, signal.SIGINT))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _raise(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
