"""Identifying a class that no plugin registers: a digest of its source and of what that names."""

import ast
import functools
import hashlib
import inspect
import json
import linecache
import sys
import textwrap
import types
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import is_dataclass
from typing import Any

from mmc_bench.errors import UserError
from mmc_bench.plugin.local_modules import LocalModules, parsed
from mmc_bench.plugin.reloaded import PLAIN, functions_of, refuse_outdated
from mmc_bench.system.digests import digest_of_text


def identity_of_class(target: Any) -> tuple[str, LocalModules]:
    """Return a digest of the source of a class or function and, recursively, of what that names; and its modules.

    The digest covers functions, classes and constants of the class's own module (a notebook's cells are one module),
    and whole files of other modules that are not installed. Installed packages are left out. The modules are those
    whose files decide what it is when it is imported elsewhere: the others, its own, of which the file counts alone,
    and those that its own imports for it, as the one that a constant comes from.

    Raises
    ------
    UserError
        When the source of the class, or of what it names, is not available, or no longer theirs since a reload.
    """
    source = _Source()
    source.add(target.__name__, target, target.__module__)
    digest = digest_of_text(json.dumps(sorted([*source.parts, *source.modules.parts])))
    source.modules.add_alone(target.__module__)
    home = sys.modules[target.__module__]
    if target.__module__ != "__main__":
        with suppress(OSError, TypeError):  # a module that code made
            needed = _needed_for(target.__qualname__.partition(".")[0], inspect.getsource(home))
            source.modules.add_imports(needed, home.__package__)
    return digest, source.modules


def _needed_for(name: str, source: str) -> str:
    """Return the statements of a module that give a name its value, directly or through other names; else all."""
    statements = [(part, *_bound_and_used(part)) for part in (parsed(source) or ast.Module([], [])).body]
    if not any(name in bound for _, bound, _ in statements):
        return source
    names, size = {"*", name}, 0
    while size < len(names):
        size = len(names)
        names.update(*(used for _, bound, used in statements if bound & names))
    return ast.unparse(ast.Module([part for part, bound, _ in statements if bound & names], []))


def _bound_and_used(statement: ast.stmt) -> tuple[set[str], set[str]]:
    """Return the names that a statement may give a value, and all that it mentions."""
    nodes = [*ast.walk(statement)]
    imported = {(one.asname or one.name).partition(".")[0] for one in nodes if isinstance(one, ast.alias)}
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}, used
    if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}, used
    defined = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return imported | used | defined, used


class _Source:
    """The parts of a class's source that were found so far: names with texts."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, str]] = []
        self.modules = LocalModules()
        self._seen: dict[int, Any] = {}  # with the objects, so that no other gets their number

    def add(self, name: str, value: Any, module: str) -> None:
        """Add what a name stands for in a module: a class, function, module, or any other object."""
        if id(value) in self._seen or isinstance(value, types.BuiltinFunctionType):
            return
        self._seen[id(value)] = value
        if isinstance(value, types.ModuleType):
            self.modules.add(value.__name__)
        elif isinstance(value, functools.partial):
            self.add(name, inspect.unwrap(value.func), module)
            self.parts.append((f"{name} =", constant(name, (value.args, value.keywords))))
        elif not isinstance(value, (type, types.FunctionType)):
            self.add(type(value).__name__, type(value), module)
            if type(value).__module__ != "typing":
                self.parts.append((f"{name} =", constant(name, value)))
        else:
            refuse_outdated(value, module)
            if value.__module__ != module:
                self.modules.add(value.__module__ or "")
            else:
                self._add_code(value)

    def _add_code(self, value: Any) -> None:
        """Add a class or function, what its code names, its base classes, and what its class has by now."""
        source = _source(value)
        self.parts.append((value.__qualname__, source))
        module = value.__module__
        self.modules.add_imports(source, sys.modules[module].__package__)
        namespace = {**vars(sys.modules[module]), **_enclosed(value)}
        for name in _names(value, source):
            if name in namespace and not name.startswith("__"):
                self.add(name, inspect.unwrap(namespace[name]), module)
        if isinstance(value, type):
            for base in value.__mro__[1:-1]:
                self.add(base.__name__, base, module)
            for function in _written(value):
                self.add(function.__qualname__, function, module)
            for name, member in vars(value).items():
                if isinstance(member, PLAIN) and not name.startswith("__"):
                    self.parts.append((f"{value.__qualname__}.{name} =", constant(name, member)))


def constant(name: str, value: Any) -> str:
    """Return a text that identifies a constant: JSON of plain data, else a digest of its pickle."""
    try:
        return json.dumps(value, sort_keys=True, default=_listed)
    except (TypeError, ValueError):
        pass
    import cloudpickle

    try:
        return hashlib.sha256(cloudpickle.dumps(value)).hexdigest()
    except Exception as error:  # whatever the object raises
        raise UserError(f"the global {name!r} has no identity ({error}): define it inside the method") from None


def compiled(target: type) -> str:
    """Return a text that identifies a class without source: its name, and what its functions are compiled to."""
    parts = []
    codes = [function.__code__ for function in functions_of(target)]
    while codes:
        code = codes.pop()
        codes += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
        plain = [value for value in code.co_consts if not isinstance(value, types.CodeType)]
        constants = [sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value) for value in plain]
        parts.append([code.co_name, code.co_code.hex(), code.co_names, constants])
    return json.dumps([target.__module__, target.__qualname__, parts])


def _listed(value: Any) -> list[str]:
    """Return a set as a list; its own order differs between processes."""
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    raise TypeError


def _written(value: Any) -> Iterator[types.FunctionType]:
    """Yield the functions of a class, or a function, but for those that a dataclass makes from its source."""
    for function in functions_of(value):
        if not (is_dataclass(value) and function.__code__.co_filename == "<string>"):
            yield function


def _names(value: Any, source: str) -> list[str]:
    """Return the names that the code of a class or function uses."""
    tree = parsed(source)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} if tree else set()
    codes = [function.__code__ for function in _written(value)]
    while codes:
        code = codes.pop()
        names |= {*code.co_names, *code.co_freevars}
        codes += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
    return sorted(names)


def _enclosed(value: Any) -> dict[str, Any]:
    """Return what the functions of a class, or a function, take from a function around them."""
    found: dict[str, Any] = {}
    for function in _written(value):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            if name != "__class__":
                found[name] = cell.cell_contents
    return found


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
    for function in functions_of(value):
        if function.__qualname__.startswith(f"{value.__qualname__}."):
            yield linecache.getlines(function.__code__.co_filename), function.__code__.co_firstlineno
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    for cell in reversed(shell.user_ns.get("In", []) if shell else []):  # a class without functions names no file
        yield shell.transform_cell(cell).splitlines(keepends=True), None


def _class_in(lines: list[str], name: str, line: int | None) -> str | None:
    """Return the source of the last class of that name, or of the one around a line."""
    found = [
        node
        for node in ast.walk(parsed("".join(lines)) or ast.Module([], []))
        if isinstance(node, ast.ClassDef)
        and node.name == name
        and (line is None or node.lineno <= line <= (node.end_lineno or node.lineno))
    ]
    if not found:
        return None
    node = found[-1]
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return textwrap.dedent("".join(lines[first - 1 : node.end_lineno]))
