"""What pydantic finds wrong, in one sentence; long values are cut."""

import reprlib
from typing import Any

from pydantic import ValidationError

#: Letters of a value, or of where it stands, in a message.
LONGEST = 300


class _Short(reprlib.Repr):
    """Shows the beginning and the end of what is long, and the outer levels of what is deep."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = LONGEST
        self.maxlevel = 4


def first_problem(error: ValidationError) -> str:
    """Return the first of pydantic's complaints as ``"where = value: what is wrong"``, long values cut."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "value"
    what = problem["msg"].removeprefix("Value error, ")
    return f"{_cut(where)} = {shortened(problem['input'])}: {_cut(what)}"


def shortened(value: Any) -> str:
    """Return the ``repr`` of a value that may be long, or deep, or hold itself."""
    return _Short().repr(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
