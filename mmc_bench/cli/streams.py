"""Standard streams that are closed, full, or read by nobody any more: none of them may end a run."""

import errno
import io
import os
import sys

import click

from mmc_bench.leaderboard.untrusted import printable

LONGEST = 1000  # letters of a sentence: what it quotes may come from any file


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


def sentence(text: object) -> str:
    """Return what an error says as one printable line, the middle of a long one left out."""
    line = printable(str(text))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 300]} … {line[-300:]}"


def tell(message: str) -> None:
    """Print a line on stderr, or nothing where it cannot be written."""
    try:
        click.echo(message, err=True)
    except (OSError, ValueError):
        drop_unwritable()


def drop_unwritable() -> None:
    """Send what a standard stream cannot write, now and later, nowhere."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is None or stream.closed:
            continue
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def output_problem(error: Exception) -> str | None:
    """Return why standard output takes no more, if the error says so; errors of files carry a name."""
    full = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
    if isinstance(error, OSError) and error.filename is None and error.errno in full:
        return error.strerror
    return None
