"""The source of classes and functions, and the names that their code takes from its module."""

import ast
import copy
import dis
import functools
import hashlib
import inspect
import io
import linecache
import re
import symtable
import sys
import textwrap
import types
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from mmc_bench.plugin.local_modules import dedented, parsed

#: Where properties, class and static methods, cached ones and the like keep their functions.
HELD = ("__func__", "fget", "fset", "fdel", "func", "__wrapped__")

#: Instructions that read a name of a module.
LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})


def is_lambda(value: Any) -> bool:
    """Tell whether a value is a lambda, whose source is whole lines, with other code, whatever its name is by now."""
    return isinstance(value, types.FunctionType) and value.__code__.co_name == "<lambda>"


def functions_of(member: Any) -> Iterator[types.FunctionType]:
    """Yield a function, or those of a property, a class or static method and the like."""
    for one in (member, *(getattr(member, name, None) for name in HELD)):
        if isinstance(one, types.FunctionType):
            yield one


def names_read(function: types.FunctionType) -> set[str]:
    """Return the names that a function takes from its module whenever it runs."""
    names: set[str] = set()
    codes = [function.__code__]
    for code in codes:  # grows meanwhile
        names |= {step.argval for step in dis.get_instructions(code) if step.opname in LOADS}
        codes += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
    return names


def names_written(value: Any, source: str) -> dict[str, bool]:
    """Return the names of its module that the source of a class or function has anywhere; of a lambda, none.

    Each is told to be the code's own where a class's body gives it a value, too. Names in decorators, defaults and
    annotations, and in a class's body, are read once, where it is defined.
    """
    if is_lambda(value):
        return {}
    nodes = [*ast.walk(parsed(source) or ast.Module([], []))]
    added = {ast.unparse(node.target) for node in nodes if isinstance(node, ast.AugAssign)}
    try:
        scopes = [symtable.symtable(dedented(source), "", "exec")]
    except (SyntaxError, ValueError):  # of a class that sets a name of the function around it
        return {node.id: False for node in nodes if isinstance(node, ast.Name)}
    names: dict[str, bool] = {}
    for scope in scopes:  # grows meanwhile
        scopes += scope.get_children()
        for symbol in scope.get_symbols():
            name, is_function = symbol.get_name(), scope.get_type() == "function"
            if (symbol.is_referenced() or name in added) and (symbol.is_global() or not is_function):
                is_own = scope.get_type() == "class" and symbol.is_assigned() and not symbol.is_declared_global()
                names[name] = names.get(name, True) and is_own
    return names


def digest_of_script(value: Any) -> str:
    """Return a digest of a function or network that TorchScript made: code, settings and constants, not its weights.

    Of one that torch cannot save, since it calls Python, the forward pass alone counts.
    """
    import torch

    saved = io.BytesIO()
    if not isinstance(value, torch.jit.ScriptFunction):
        value = copy.deepcopy(value).eval()
        for weight in value.parameters():
            weight.detach_()
        with suppress(NotImplementedError):  # of weights on the device meta, which have no numbers
            value.cpu().float()
        for weight in value.parameters():
            weight.data = weight.data.contiguous()
    try:
        torch.jit.save(value, saved)
    except RuntimeError:  # "Could not export Python function call"
        parts = [re.sub(r" # \S+:\d+:\d+$", "", str(value.inlined_graph), flags=re.MULTILINE).encode()]
    else:
        with zipfile.ZipFile(saved) as archive:
            names = [name for name in archive.namelist() if re.search(r"/(data\.pkl|constants.*|code/.*\.py)$", name)]
            parts = [archive.read(name) for name in names]
    parts = sorted(re.sub(rb"\.___torch_mangle_\d+", b"", part) for part in parts)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def as_written(function: Any) -> Any:
    """Return a function without what torch wraps around it, as it does with an optimiser's step at the first use."""
    while isinstance(function, types.FunctionType) and hasattr(function, "__wrapped__"):
        if not function.__globals__.get("__name__", "").startswith("torch."):
            break
        function = function.__wrapped__
    return function


def enclosed(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a function takes from one around it, by name."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        if name != "__class__":
            with suppress(ValueError):  # it has no value yet
                yield name, cell.cell_contents


def source_of(value: Any) -> str | None:
    """Return the source of a class or function, or None where it is not available."""
    if isinstance(value, type):
        for lines, line in _places(value):
            if found := _class_in(lines, value.__name__, line):
                return found
    with suppress(OSError, TypeError):
        return inspect.getsource(getattr(value, "__code__", value))  # of a function, it would be what that wraps
    return None


def _places(value: type) -> Iterator[tuple[list[str], int | None]]:
    """Yield lines that may define a class, with the number of one inside it, if it is known; the surest first."""
    for function in [function for member in [*vars(value).values()] for function in functions_of(member)]:
        code = inspect.unwrap(function).__code__
        if code.co_qualname.startswith(f"{value.__qualname__}."):
            linecache.checkcache(code.co_filename)
            yield linecache.getlines(code.co_filename), code.co_firstlineno
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    for cell in reversed(shell.user_ns.get("In", []) if shell else []):  # a class without functions names no file
        yield shell.transform_cell(cell).splitlines(keepends=True), None


@functools.lru_cache(maxsize=16)
def _classes_in(source: str) -> list[ast.ClassDef]:
    return [node for node in ast.walk(parsed(source) or ast.Module([], [])) if isinstance(node, ast.ClassDef)]


def _class_in(lines: list[str], name: str, line: int | None) -> str | None:
    """Return the source of the last class of that name, or of the one around a line."""
    found = [
        node
        for node in _classes_in("".join(lines))
        if node.name == name and (line is None or node.lineno <= line <= (node.end_lineno or node.lineno))
    ]
    if not found:
        return None
    node = found[-1]
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return textwrap.dedent("".join(lines[first - 1 : node.end_lineno]))
