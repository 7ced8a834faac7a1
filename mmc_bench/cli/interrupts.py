"""Ctrl-C: leaves at once while the program starts, and ends a run in good order."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

EXIT_INTERRUPTED = 2


def leave_when_interrupted() -> None:
    """Let Ctrl-C end the process at once. An exception would not do: importing torch may swallow it."""
    signal.signal(signal.SIGINT, _leave)


@contextlib.contextmanager
def raised_interrupts() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise KeyboardInterrupt meanwhile, so that a run can stop its workers."""
    before = {number: signal.signal(number, _raise) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interrupted_after(minutes: float | None, since: float) -> Iterator[None]:
    """Do as Ctrl-C does once so many minutes have passed since that reading of ``time.monotonic``."""
    if minutes is None:
        yield
        return
    main = threading.main_thread().ident or 0
    timer = threading.Timer(since + 60 * minutes - time.monotonic(), signal.pthread_kill, (main, signal.SIGINT))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _leave(signum: int, frame: object) -> NoReturn:
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # RuntimeError: interrupted while it wrote
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, b"mmc-bench: interrupted\n")
    os._exit(EXIT_INTERRUPTED)


def _raise(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
