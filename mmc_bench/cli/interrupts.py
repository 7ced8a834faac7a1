"""Ctrl-C while the program starts: it leaves at once."""

import contextlib
import os
import signal
import sys
from typing import NoReturn

EXIT_INTERRUPTED = 2


def leave_when_interrupted() -> None:
    """Let Ctrl-C end the process at once. An exception would not do: importing torch may swallow it."""
    signal.signal(signal.SIGINT, _leave)


def _leave(signum: int, frame: object) -> NoReturn:
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # RuntimeError: interrupted while it wrote
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, b"mmc-bench: interrupted\n")
    os._exit(EXIT_INTERRUPTED)
