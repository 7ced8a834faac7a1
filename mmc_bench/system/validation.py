"""What pydantic finds wrong, and what it changes in silence, in one sentence; long values are cut."""

import math
import reprlib
from collections.abc import Mapping
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


def changed_kind(given: Any, made: Any, where: str = "") -> str | None:
    """Return the first value that pydantic made into another kind, or let pass as no number; None when there is none.

    Booleans are no numbers, numbers no booleans, and ``"3"`` is text, but pydantic takes each for the other.

    Parameters
    ----------
    given, made
        What was validated, and what came out of it: a model, a dataclass, or containers of such.

    Returns
    -------
    str | None
        ``"lr = True: a number is wanted, not a boolean"``.
    """
    if isinstance(given, Mapping):
        inner = [(name, value, _member(made, name)) for name, value in given.items()]
    elif isinstance(given, (list, tuple)) and isinstance(made, (list, tuple)) and len(given) == len(made):
        inner = [(place, *pair) for place, pair in enumerate(zip(given, made, strict=True))]
    else:
        was, wanted = _kind(given), _kind(made)
        if isinstance(given, float) and not math.isfinite(given):
            return f"{where} = {given}: a finite number is wanted"
        if None in (was, wanted) or was == wanted or (was == "text" and wanted == "a number" and not _numeric(given)):
            return None
        return f"{_cut(where)} = {shortened(given)}: {wanted} is wanted, not {was}"
    problems = (changed_kind(value, other, f"{where}.{name}".lstrip(".")) for name, value, other in inner)
    return next(filter(None, problems), None)


def _member(made: Any, name: Any) -> Any:
    if isinstance(made, Mapping):
        return made.get(name)
    return getattr(made, name, None) if isinstance(name, str) else None


def _kind(value: Any) -> str | None:
    kinds: dict[type, str] = {bool: "a boolean", int: "a number", float: "a number", str: "text"}
    return next((kind for of, kind in kinds.items() if isinstance(value, of)), None)


def _numeric(text: str) -> bool:
    """Tell whether text is a number; other text may be what a plugin's own validator makes a number of."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def shortened(value: Any) -> str:
    """Return the ``repr`` of a value that may be long, or deep, or hold itself."""
    return _Short().repr(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
