"""Identifying a class that no plugin registers: a digest of its source and of what that names."""

import ast
import hashlib
import inspect
import json
import linecache
import sys
import sysconfig
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmc_bench.errors import UserError
from mmc_bench.system.digests import digest_of_text


def digest_of_class(target: type) -> str:
    """Return a digest of a class's source and, recursively, of what that names.

    It covers functions, classes and constants of the class's own module (a notebook's cells are one module), and
    whole files of other modules that are not installed. Installed packages are left out.

    Raises
    ------
    UserError
        When the source of the class, or of what it names, is not available.
    """
    parts: dict[str, str] = {}
    _collect(target, parts)
    return digest_of_text(json.dumps(sorted(parts.items())))


def _collect(value: Any, parts: dict[str, str]) -> None:
    """Add the source of a class or function of one module, and of what it names."""
    label = value.__qualname__
    if label in parts:
        return
    source = parts[label] = _source(value)
    namespace = {**vars(sys.modules[value.__module__]), **_enclosed(value)}
    for name in _names(source):
        if name in namespace and not name.startswith("__"):
            _collect_named(name, inspect.unwrap(namespace[name]), value.__module__, parts)


def _collect_named(name: str, value: Any, module: str, parts: dict[str, str]) -> None:
    if isinstance(value, types.ModuleType):
        _collect_file(value, parts)
    elif isinstance(value, (type, types.FunctionType)):
        if value.__module__ == module:
            _collect(value, parts)
        else:
            _collect_file(sys.modules.get(value.__module__), parts)
    elif not isinstance(value, types.BuiltinFunctionType):
        parts[f"{name} ="] = _constant(name, value)


def _collect_file(module: types.ModuleType | None, parts: dict[str, str]) -> None:
    """Add the file of a module that is not installed, as one beside a script or notebook."""
    file = Path(getattr(module, "__file__", None) or "")
    if module is None or file.suffix != ".py" or module.__name__.partition(".")[0].startswith("mmc_bench"):
        return
    installed = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    if "site-packages" not in file.parts and not any(file.is_relative_to(folder) for folder in installed):
        parts[f"file {module.__name__}"] = file.read_text(encoding="utf-8", errors="replace")


def _constant(name: str, value: Any) -> str:
    """Return a text that identifies a constant: JSON of plain data, else a digest of its pickle."""
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        pass
    import cloudpickle

    try:
        return hashlib.sha256(cloudpickle.dumps(value)).hexdigest()
    except Exception as error:  # whatever the object raises
        raise UserError(f"the global {name!r} has no identity ({error}): define it inside the method") from None


def _names(source: str) -> list[str]:
    tree = ast.parse(textwrap.dedent(source))
    return sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})


def _enclosed(value: Any) -> dict[str, Any]:
    """Return what the functions of a class, or a function, take from a function around them."""
    found: dict[str, Any] = {}
    for function in _functions(value):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            if name != "__class__":
                found[name] = cell.cell_contents
    return found


def _functions(value: Any) -> Iterator[types.FunctionType]:
    for member in vars(value).values() if isinstance(value, type) else (value,):
        function = inspect.unwrap(getattr(member, "__func__", getattr(member, "fget", member)))
        if isinstance(function, types.FunctionType):
            yield function


def _source(value: Any) -> str:
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        pass
    if isinstance(value, type):
        for lines, line in _places(value):
            if found := _class_in(lines, value.__name__, line):
                return found
    raise UserError(
        f"the source of {value.__qualname__} is not available, and so it has no identity: "
        "define it in a file or a notebook cell"
    )


def _places(value: type) -> Iterator[tuple[list[str], int | None]]:
    """Yield lines that may define a class, with the number of one inside it, if it is known; the surest first."""
    for function in _functions(value):
        if function.__qualname__.startswith(f"{value.__qualname__}."):
            yield linecache.getlines(function.__code__.co_filename), function.__code__.co_firstlineno
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    for cell in reversed(shell.user_ns.get("In", []) if shell else []):  # a class without functions names no file
        yield shell.transform_cell(cell).splitlines(keepends=True), None


def _class_in(lines: list[str], name: str, line: int | None) -> str | None:
    """Return the source of the last class of that name, or of the one around a line."""
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:
        return None
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and node.name == name
        and (line is None or node.lineno <= line <= (node.end_lineno or node.lineno))
    ]
    if not found:
        return None
    node = found[-1]
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return textwrap.dedent("".join(lines[first - 1 : node.end_lineno]))
