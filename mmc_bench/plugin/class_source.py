"""Identifying a class that no plugin registers: a digest of its source and of what that names."""

import ast
import dis
import functools
import hashlib
import inspect
import json
import linecache
import symtable
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmc_bench.errors import UserError
from mmc_bench.plugin.local_modules import LocalModules, dedented, is_installed, own_modules, parsed, refuse_outdated
from mmc_bench.plugin.value_graph import Unordered, ValueReference, digest_in_cycle, digest_of_content, has_reference
from mmc_bench.system.digests import digest_of_text

#: Types whose ``repr`` tells every value from all others.
SIMPLE = (bool, int, float, complex, str, type(None))

#: Members of a class, or of a layer, that count as they are, whatever the source says.
PLAIN = (*SIMPLE, bytes, tuple, list, dict, set, frozenset, type)

#: What copies of a value share.
SHARED = (type, types.FunctionType, types.BuiltinFunctionType)

#: Where properties, class and static methods, cached ones and the like keep their functions.
HELD = ("__func__", "fget", "fset", "fdel", "func", "__wrapped__")

#: Names that Python itself gives a value in a module.
OF_PYTHON = frozenset(
    {*vars(types.ModuleType("")), "__annotations__", "__builtins__", "__cached__", "__file__", "__path__"}
)

#: Instructions that read a name of a module.
LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})


def identity_of_class(target: Any) -> tuple[str, LocalModules]:
    """Return `identity_of_code` of a class or function that has source.

    Raises
    ------
    UserError
        When its source is not available; and as `identity_of_code`.
    """
    if _source_of(target) is None:
        raise UserError(
            f"the source of {target.__qualname__} is not available, and so it has no identity: "
            "define it in a file or a notebook cell"
        )
    return identity_of_code(target)


def identity_of_code(target: Any) -> tuple[str, LocalModules]:
    """Return a digest of the source of a class or function and, recursively, of what that names; and its modules.

    The digest covers functions, classes and constants of the class's own module (a notebook's cells are one module),
    and whole files of other modules that are not installed. Installed packages are left out. Code without source counts
    as it is compiled. The modules are those whose files decide what it is when it is imported elsewhere: the others,
    its own, of which the file counts alone, and those that its own imports for it, as the one that a constant comes
    from.

    Raises
    ------
    UserError
        When something that it names has no identity, or is from before an edit of its file.
    """
    digest, modules = identity_of_value(target.__name__, target, target.__module__)
    modules.add_alone(target.__module__)
    home = sys.modules.get(target.__module__)
    if home is not None and target.__module__ != "__main__":
        with suppress(OSError, TypeError):  # a module that code made
            needed = _needed_for(target.__qualname__.partition(".")[0], inspect.getsource(home))
            modules.add_imports(needed, home.__package__)
    return digest, modules


def identity_of_value(name: str, value: Any, home: str, known: Mapping[str, Any] = {}) -> tuple[str, LocalModules]:
    """Return a digest of any value, and of the code in it, with the modules that this rests on.

    Parameters
    ----------
    name
        What errors call it.
    home
        The module whose code is followed piece by piece; of others, whole files count.
    known
        Parts of a network, which count by their names alone.

    Raises
    ------
    UserError
        As `identity_of_code`; and when a function has one of these parts, which would stay the same in a copy.
    """
    values = _Values(home, known)
    digest = values.settled(name, value)
    return digest_of_text(json.dumps([digest, sorted(values.modules.parts)])), values.modules


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


class _Values:
    """Digests of values of any type, in which the code that they hold is followed.

    Two values have the same digest where they are of the same types, in the same order, with equal content; a set has
    no order. What installed code wraps counts, and that code by its name alone.
    """

    def __init__(self, home: str, known: Mapping[str, Any] = {}) -> None:
        self.modules = LocalModules()
        self._home = home
        self._known: dict[tuple[int, bool], tuple[str, Any]] = {}  # with the values, so that no other gets their number
        self._referring: dict[ValueReference, list[Any]] = {}
        self._named = {id(value): name for name, value in known.items()}
        self._in_code = 0

    def settled(self, name: str, value: Any) -> str:
        """Return the digest of what a name stands for; raises `UserError` where it has none. Called once."""
        digest = self.named(name, value)
        return digest_in_cycle(digest, self._referring) if isinstance(digest, ValueReference) else digest

    def named(self, name: str, value: Any) -> str:
        """Return `digest` of what a name stands for; raises `UserError` where it has none."""
        try:
            return self.digest(value)
        except UserError:
            raise
        except Exception as error:  # whatever the object raises
            raise UserError(
                f"{name!r} has no identity ({error}): define it inside a method, or keep plain data, functions and "
                "classes in it"
            ) from None

    def digest(self, value: Any) -> str:
        """Return what tells a value from others: a digest, the text of what is simple, or a reference."""
        if type(value) in SIMPLE:
            return f"{type(value).__name__} {value!r}"
        if id(value) in self._named:
            if self._in_code:  # which no copy changes
                part = self._named[id(value)] or "the network itself"
                raise UserError(
                    f"a function that the network holds keeps {part}, which every copy of the network would share: "
                    "take it from self, in types.MethodType(function, network)"
                )
            return f"known as {self._named[id(value)]}"
        key = id(value), self._in_code > 0
        if key not in self._known:
            reference = ValueReference(len(self._known))
            self._known[key] = reference, value
            self._in_code += isinstance(value, SHARED)
            content = self._content(value)
            self._in_code -= isinstance(value, SHARED)
            if has_reference(content):
                self._referring[reference] = content
            else:
                self._known[key] = digest_of_content(content), value
        return self._known[key][0]

    def _content(self, value: Any) -> list[Any]:
        kind = type(value)
        if isinstance(value, (type, types.FunctionType)):
            return self._code(value)
        if isinstance(value, types.ModuleType):
            self.modules.add(value.__name__)
            return ["module", value.__name__]
        if self._is_function_of_module(value):
            self.modules.add(value.__module__ or "")
            return ["function", str(value.__module__), value.__qualname__]
        if isinstance(value, types.BuiltinFunctionType):
            return ["method", value.__qualname__, self.digest(value.__self__)]
        if isinstance(value, types.CodeType):
            shape = [value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags]
            names = [value.co_name, value.co_names, value.co_varnames, value.co_cellvars, value.co_freevars]
            return ["code", shape, names, value.co_code.hex(), self.digest(value.co_consts)]
        if kind is bytes:
            return ["bytes", hashlib.sha256(value).hexdigest()]
        if kind in (list, tuple):
            return [kind.__name__, *map(self.digest, value)]
        if kind is dict:
            return ["dict", *([self.digest(key), self.digest(item)] for key, item in value.items())]
        if isinstance(value, (set, frozenset)):  # whose own order differs between processes
            items = Unordered(map(self.digest, value))
            return [self.digest(kind), items, self.digest(getattr(value, "__dict__", None))]
        if place := self._place_of(value):
            self.modules.add(kind.__module__)
            return ["object", kind.__module__, place]
        wrapped = getattr(value, "__dict__", {}).get("__wrapped__")
        if wrapped is not None and self._is_foreign(kind.__module__) and kind is not functools.partial:
            return [kind.__qualname__, self.digest(wrapped)]
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):  # its pickle has addresses
            from mmc_bench.results.weights import checksum_of

            content = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
            return [self.digest(kind), value.requires_grad, checksum_of({"": content})]
        return self._parts(value)

    def _is_function_of_module(self, value: Any) -> bool:
        """Tell whether a module has it as a function: one that is built in, or a method, as ``random.shuffle``."""
        if not isinstance(value, (types.BuiltinFunctionType, types.MethodType)):
            return False
        owner = value.__self__
        if owner is None or isinstance(owner, types.ModuleType):
            return True
        module = type(owner).__module__
        return vars(sys.modules.get(module, object)).get(value.__name__) is value and self._is_foreign(module)

    def _place_of(self, value: Any) -> str | None:
        """Return the name of what installed code has once in the module of its class, as ``os.environ``."""
        module = type(value).__module__
        owned = vars(sys.modules.get(module, object)) if module != "builtins" and self._is_foreign(module) else {}
        return next((name for name, one in owned.items() if one is value), None)

    def _parts(self, value: Any) -> list[Any]:
        """Return what any other object is made of, as a pickle has it."""
        import cloudpickle

        kind = type(value)
        reduce = cloudpickle.Pickler.dispatch_table.get(kind)
        # To a type variable, cloudpickle gives a random number.
        parts = reduce(value) if reduce and kind.__module__ != "typing" else value.__reduce_ex__(4)
        if isinstance(parts, str):  # the name of what its module has once
            return [self.digest(kind), str(getattr(value, "__module__", "")), parts]
        # Its function, arguments and state; items and pairs, which are iterators; a function that sets the state.
        return [self.digest(part if index not in (3, 4) else [*(part or ())]) for index, part in enumerate(parts)]

    def _code(self, value: Any) -> list[Any]:
        """Return what a class or function is: of an installed one, its name; of another module's, what it encloses."""
        refuse_outdated(value, self._home)
        function = value if isinstance(value, types.FunctionType) else None
        module = value.__module__ if function is None else value.__globals__.get("__name__", value.__module__)
        place = "" if module == self._home else module  # a copy of the module has the same digest
        name = [place, value.__qualname__ if function is None else function.__code__.co_qualname]
        if module != self._home:
            self.modules.add(module or "")
        if self._is_foreign(module):
            inner = [vars(value).get(one) for one in ("__wrapped__", "registry")] if function else []
            return [*name, *(self.digest(one) for one in inner if one is not None)]
        if function is not None:
            name += [self.digest([function.__defaults__, function.__kwdefaults__, vars(function)])]
            name += [self.named(*cell) for cell in _enclosed(function)]
        return [*name, *self._written(value, module)] if self._is_followed(module) else name

    def _is_followed(self, module: str | None) -> bool:
        """Tell whether code of a module is followed piece by piece: the home's, and a notebook's, which has no file."""
        top = sys.modules.get((module or "").partition(".")[0])
        return module == self._home or getattr(top, "__file__", None) is getattr(top, "__spec__", None) is None

    def _is_foreign(self, module: str | None) -> bool:
        """Tell whether code of a module counts by its name: it is installed, ours, or has no file."""
        file = getattr(sys.modules.get(module or ""), "__file__", None)
        own = (module or "").partition(".")[0] in own_modules()
        return not self._is_followed(module) and (own or file is None or is_installed(Path(file)))

    def _written(self, value: Any, module: str) -> list[Any]:
        """Return the source of a class or function, what it names, its base classes, and what its class has by now."""
        source = _source_of(value)
        home = sys.modules.get(module)
        self.modules.add_imports(source or "", home.__package__ if home else None)
        namespace = value.__globals__ if isinstance(value, types.FunctionType) else vars(home) if home else {}
        used = [name for name in _names(value, source or "") if name in namespace and name not in OF_PYTHON]
        content: list[Any] = [source, [[name, self.named(name, namespace[name])] for name in used]]
        if not isinstance(value, type):
            is_told = source is not None and value.__name__ != "<lambda>"  # of which a line may hold several
            return content if is_told else [*content, self.digest(value.__code__)]
        members = []
        for name, member in sorted(vars(value).items()):
            if isinstance(member, PLAIN) and not name.startswith("__"):
                members.append([name, self.named(f"{value.__qualname__}.{name}", member)])
            functions = dict.fromkeys(map(_as_written, functions_of(member)))
            members += [[name, self.named(name, function)] for function in functions]
        return [*content, [self.digest(base) for base in value.__mro__[1:-1]], members]


def functions_of(member: Any) -> Iterator[types.FunctionType]:
    """Yield a function, or those of a property, a class or static method and the like."""
    for one in (member, *(getattr(member, name, None) for name in HELD)):
        if isinstance(one, types.FunctionType):
            yield one


def _as_written(function: Any) -> Any:
    """Return a function without what torch wraps around it, as it does with an optimiser's step at the first use."""
    while isinstance(function, types.FunctionType) and hasattr(function, "__wrapped__"):
        if not function.__globals__.get("__name__", "").startswith("torch."):
            break
        function = function.__wrapped__
    return function


def _names(value: Any, source: str) -> list[str]:
    """Return the names that the code of a class or function takes from its module."""
    names: set[str] = set()
    codes = [value.__code__] if isinstance(value, types.FunctionType) else []
    for code in codes:  # grows meanwhile
        names |= {step.argval for step in dis.get_instructions(code) if step.opname in LOADS}
        codes += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
    if value.__name__ == "<lambda>":  # whose source is whole lines, with other code
        return sorted(names)
    nodes = [*ast.walk(parsed(source) or ast.Module([], []))]
    added = {ast.unparse(node.target) for node in nodes if isinstance(node, ast.AugAssign)}
    try:
        scopes = [symtable.symtable(dedented(source), "", "exec")]
    except (SyntaxError, ValueError):  # of a class that sets a name of the function around it
        return sorted(names | {node.id for node in nodes if isinstance(node, ast.Name)})
    for scope in scopes:  # grows meanwhile
        scopes += scope.get_children()
    return sorted(names | {
        symbol.get_name()
        for scope in scopes
        for symbol in scope.get_symbols()
        if (symbol.is_referenced() or symbol.get_name() in added)
        and (symbol.is_global() or scope.get_type() != "function")
    })  # fmt: skip


def _enclosed(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a function takes from one around it, by name."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        if name != "__class__":
            with suppress(ValueError):  # it has no value yet
                yield name, cell.cell_contents


def _source_of(value: Any) -> str | None:
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
