"""The errors that are a user's to mend: each carries one clear sentence and its exit code."""

from collections.abc import Iterable

LONGEST_LIST = 10


class UserError(Exception):
    """Something the user gave or has cannot be used; the message is one sentence that says what to do.

    Examples
    --------
    >>> import mmc_bench
    >>> try:
    ...     mmc_bench.dry_run("quik")
    ... except mmc_bench.UserError as error:
    ...     print(error)
    unknown suite 'quik': did you mean quick?, or the path of a .yaml file
    """

    exit_code = 4


class NothingSelectedError(UserError):
    """The selection holds no cell."""

    exit_code = 5


class PromiseError(UserError):
    """A plugin's model breaks a promise.

    Parameters
    ----------
    problem
        What is wrong, with the value.
    remedy
        How to mend it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}: {remedy}")
        self.problem, self.remedy = problem, remedy


class FailedError(UserError):
    """What was asked for was tried and failed, as a cell may."""

    exit_code = 1


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a clause that names the known words nearest to `name`, case aside, or the first ten when none is near.

    Returns
    -------
    str
        For example ``"did you mean epochs?"`` or ``"known: epochs, lr"``.
    """
    from difflib import get_close_matches

    words = sorted(set(known))
    in_lower_case = {word.lower(): word for word in words}
    close = get_close_matches(name.lower(), in_lower_case, n=3, cutoff=0.55)
    if close:
        return f"did you mean {' or '.join(in_lower_case[word] for word in close)}?"
    if not words:
        return "none is known"
    more = len(words) - LONGEST_LIST
    return f"known: {', '.join(words[:LONGEST_LIST])}" + (f", … ({more} more)" if more > 0 else "")


def message_of(error: BaseException) -> str:
    """Return what an error of a plugin says, on one line; it may be empty."""
    try:
        if isinstance(error, SystemExit):
            return f"the plugin called sys.exit({'' if error.code is None else repr(error.code)})"
        return " ".join(str(error).split())
    except Exception:  # an error of the plugin's own may be unable to say what it is
        return ""
