"""Standard streams that are closed, full or no longer read: none of them may end a run."""

import errno
import io
import os
import sys


def open_closed_streams() -> None:
    """Give a closed standard stream a place that takes everything; workers inherit it."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):  # in order: opening takes the lowest number
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(nowhere, True)
            setattr(sys, name, os.fdopen(nowhere, "w" if descriptor else "r", encoding="utf-8"))


def accept_any_text() -> None:
    """Let standard output show what its encoding lacks as an escape; names of files may be no text at all."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def output_problem(error: Exception) -> str | None:
    """Return why standard output takes no more, if the error says so; errors of files carry a name."""
    full = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
    if isinstance(error, OSError) and error.filename is None and error.errno in full:
        return error.strerror
    return None
