"""The errors that are a user's to mend: each carries one clear sentence and its exit code."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user gave or has cannot be used; the message is one sentence that says what to do."""

    exit_code = 4


class NothingSelectedError(UserError):
    """The selection holds no cell."""

    exit_code = 5


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a clause that names the known words nearest to `name`, or all of them when none is near.

    Returns
    -------
    str
        For example ``"did you mean epochs?"`` or ``"known: epochs, lr"``.
    """
    words = sorted(set(known))
    close = get_close_matches(name, words, n=3, cutoff=0.55)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(words)}" if words else "none is known"
