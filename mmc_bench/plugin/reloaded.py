"""Classes and functions that outlive a reload of their module, whose source is then no longer theirs."""

import inspect
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmc_bench.errors import UserError

#: Members of a class that are compared as they are now, whatever its source says.
PLAIN = (bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, type(None))


class OutdatedError(UserError):
    """A class or function is not what its module has by that name."""


def refuse_outdated(value: Any, home: str) -> None:
    """Refuse a class or function, named in module `home`, in whose place its reloaded module has another one.

    Raises
    ------
    OutdatedError
        When that has other code, defaults or members. One that the same source replaces is no such case.
    """
    value = inspect.unwrap(value)
    if not isinstance(value, (type, types.FunctionType)):
        return
    there = _in_its_module(value)
    if there is value or there.__module__ != value.__module__ or value in getattr(there, "__mro__", ()):
        return
    codes, others = _codes(value), _codes(there)
    if _state(value) == _state(there) or (codes != others and {*codes} <= {*_codes_of_file(value)}):
        return  # it was not edited; or its file gives the name twice
    kind = "class" if isinstance(value, type) else "function"
    again = "import it again" if home in ("__main__", value.__module__) else f"reload module {home}, too"
    raise OutdatedError(
        f"{kind} {value.__qualname__} is from before its module {value.__module__} was reloaded: {again}, "
        "or restart the kernel"
    )


def functions_of(value: Any) -> Iterator[types.FunctionType]:
    """Yield the functions of a class, or a function, without what decorates them."""
    for member in vars(value).values() if isinstance(value, type) else (value,):
        function = member
        for name in ("__func__", "fget", "func"):  # of class and static methods, properties, cached ones
            function = getattr(function, name, function)
        function = inspect.unwrap(function)
        if isinstance(function, types.FunctionType):
            yield function


def _in_its_module(value: Any) -> Any:
    """Return the class or function that has the name of another now; that itself where there is none."""
    there: Any = None if value.__module__ == "__main__" else sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        there = vars(there).get(name) if isinstance(there, (type, types.ModuleType)) else None
    there = inspect.unwrap(there) if callable(there) else None
    return there if isinstance(there, (type, types.FunctionType)) else value


def _codes(value: Any) -> list[types.CodeType]:
    """Return what the functions of a class, or a function, and of classes in it are compiled to."""
    inner = [code for part in _classes_in(value) for code in _codes(part)]
    return [*(function.__code__ for function in functions_of(value)), *inner]


def _state(value: Any) -> Any:
    """Return what tells a class or function from another of its name."""
    defaults = [(function.__defaults__, function.__kwdefaults__) for function in functions_of(value)]
    members = vars(value).items() if isinstance(value, type) else ()
    plain = [(name, member) for name, member in members if isinstance(member, PLAIN) and not name.startswith("__")]
    fields = getattr(value, "model_fields", None)  # of a Config
    return _codes(value), repr([defaults, plain, fields]), [_state(part) for part in _classes_in(value)]


def _classes_in(value: Any) -> list[type]:
    members = vars(value).values() if isinstance(value, type) else ()
    return [
        part for part in members if isinstance(part, type) and part.__qualname__.startswith(f"{value.__qualname__}.")
    ]


def _codes_of_file(value: Any) -> Iterator[types.CodeType]:
    """Yield what the functions in the file of a class or function are compiled to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python gives those of the source when it imports it
        try:
            file = Path(inspect.getsourcefile(value) or "")
            waiting = [compile(file.read_bytes(), file, "exec", dont_inherit=True)]
        except (OSError, TypeError, SyntaxError, ValueError):
            return
    while waiting:
        code = waiting.pop()
        waiting += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
        yield code
