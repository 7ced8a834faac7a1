"""Lines for people on standard error, and text from anywhere made printable."""

import os
import sys

LONGEST = 1000  # letters of a sentence: what it quotes may come from any file


def printable(text: str) -> str:
    """Return text on one line: unprintable characters, among them those that turn its direction, become ``�``."""
    line = "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return " ".join(line.split())


def sentence(text: object) -> str:
    """Return what an error says as one printable line, the middle of a long one left out."""
    line = printable(str(text))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 300]} … {line[-300:]}"


def tell(message: str) -> None:
    """Print a line on standard error, or nothing where it cannot be written."""
    try:
        print(message, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        drop_unwritable()


def notice(text: object) -> None:
    """Print a notice that stops nothing, as one line on standard error."""
    tell(f"mmc-bench: {sentence(text)}")


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
