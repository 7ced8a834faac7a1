"""Identifying a class that no plugin registers: a digest of its source and of what that names."""

import ast
import functools
import hashlib
import inspect
import json
import sys
import types
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmc_bench.errors import UserError
from mmc_bench.plugin.local_modules import LocalModules, is_installed, own_modules, parsed, refuse_outdated
from mmc_bench.plugin.source_text import (
    as_written,
    digest_of_script,
    enclosed,
    functions_of,
    is_lambda,
    names_read,
    names_written,
    source_of,
)
from mmc_bench.plugin.value_graph import Outline, Unordered, ValueReference, digest_in_cycle
from mmc_bench.system.digests import digest_of_text

#: Types whose ``repr`` tells every value from all others.
SIMPLE = (bool, int, float, complex, str, type(None))

#: Members of a class, or of a layer, that count as they are, whatever the source says.
PLAIN = (*SIMPLE, bytes, tuple, list, dict, set, frozenset, type)

#: What `functools.lru_cache` returns.
CACHED = type(functools.lru_cache(len))

#: What a deep copy of a value does not copy.
SHARED = (type, types.FunctionType, types.BuiltinFunctionType, property, CACHED)

#: Names that Python itself gives a value in a module.
OF_PYTHON = frozenset(
    {*vars(types.ModuleType("")), "__annotations__", "__builtins__", "__cached__", "__file__", "__path__"}
)


def identity_of_class(target: Any) -> tuple[str, LocalModules]:
    """Return `identity_of_code` of a class or function that has source.

    Raises
    ------
    UserError
        When its source is not available; and as `identity_of_code`.
    """
    if source_of(target) is None:
        raise UserError(
            f"the source of {target.__qualname__} is not available, and so it has no identity: "
            "define it in a file or a notebook cell"
        )
    return identity_of_code(target)


def address_of(value: Any) -> int:
    """Return where a tensor's numbers lie, which its views share; 0 where that has no address, and of other values."""
    with suppress(AttributeError, NotImplementedError, RuntimeError):  # of a sparse tensor, say
        return int(value.untyped_storage().data_ptr())
    return 0


@dataclass(frozen=True)
class KnownParts:
    """Names of a network's parts: by their identity, and those of tensors by the address of their memory."""

    names: Mapping[int, str] = field(default_factory=dict)
    storages: Mapping[int, str] = field(default_factory=dict)
    parts: Mapping[str, Any] = field(default_factory=dict)  # so that no others get their identity

    @classmethod
    def of(cls, network: Any) -> "KnownParts":
        """Return those of a network's layers, parameters and buffers; the network itself has the empty name."""
        tensors = dict((*network.named_parameters(), *network.named_buffers()))
        storages = {address_of(tensor): name for name, tensor in tensors.items()}
        parts = {**dict(network.named_modules()), **tensors}
        return cls({id(part): name for name, part in parts.items()}, storages, parts)


NO_PARTS = KnownParts()


def identity_of_code(target: Any, known: KnownParts = NO_PARTS) -> tuple[str, LocalModules]:
    """Return a digest of the source of a class or function and, recursively, of what that names; and its modules.

    The digest covers functions, classes and constants of the class's own module (a notebook's cells are one module),
    and whole files of other modules that are not installed. Installed packages are left out. Code without source counts
    as it is compiled. The modules are those whose files decide what it is when it is imported elsewhere: the others,
    its own, of which the file counts alone, and those that its own imports for it, as the one that a constant comes
    from.

    Parameters
    ----------
    known
        As in `identity_of_value`.

    Raises
    ------
    UserError
        When something that it names has no identity, or is from before an edit of its file; and as `identity_of_value`.
    """
    digest, modules = identity_of_value(target.__name__, target, target.__module__, known)
    modules.add_alone(target.__module__)
    home = sys.modules.get(target.__module__)
    if home is not None and target.__module__ != "__main__":
        with suppress(OSError, TypeError):  # a module that code made
            needed = _needed_for(target.__qualname__.partition(".")[0], inspect.getsource(home))
            modules.add_imports(needed, home.__package__)
    return digest, modules


def identity_of_value(name: str, value: Any, home: str, known: KnownParts = NO_PARTS) -> tuple[str, LocalModules]:
    """Return a digest of any value, and of the code in it, with the modules that this rests on.

    Parameters
    ----------
    name
        What errors call it.
    home
        A module whose code is followed piece by piece, as that of a notebook or script is; of others, whole files
        count.
    known
        Parts of a network, which count by their names alone.

    Raises
    ------
    UserError
        As `identity_of_code`; and when code keeps one of these parts, which would stay the same in a copy.
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

    def __init__(self, home: str, parts: KnownParts) -> None:
        self.modules = LocalModules()
        self._home = home
        self._known: dict[tuple[int, bool], tuple[str, Any]] = {}  # with the values, so that no other gets their number
        self._referring: dict[ValueReference, Outline] = {}
        self._parts = parts
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
        if (part := self._parts.names.get(id(value))) is not None:
            self._refuse_in_code(part)
            return f"known as {part}"
        key = id(value), self._in_code > 0
        if key not in self._known:
            reference = ValueReference(len(self._known))
            self._known[key] = reference, value
            self._in_code += isinstance(value, SHARED)
            outline = Outline.of(self._content(value))
            self._in_code -= isinstance(value, SHARED)
            if outline.refers:
                self._referring[reference] = outline
            else:
                self._known[key] = outline.digest, value
        return self._known[key][0]

    def _refuse_in_code(self, part: str) -> None:
        if self._in_code:  # which no copy changes
            kept = f"its part {part}" if part else "the network itself"
            raise UserError(
                f"code of the network keeps {kept}, which every copy would share: take it from self, "
                "in types.MethodType(function, network) where that is no method"
            )

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
            code = [value.co_code.hex(), value.co_exceptiontable.hex()]
            return ["code", shape, names, code, self.digest(value.co_consts)]
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
        if isinstance(value, weakref.ref):
            return ["weak reference"]  # a recurrent layer's copy refers to the first one's weights
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.jit.ScriptFunction):
            return ["script", digest_of_script(value)]
        if torch is not None and isinstance(value, torch.utils.hooks.RemovableHandle):
            return ["hook"]  # whose number depends on how many there were before
        if kind.__module__ == "torch._ops" and str(value).startswith("aten."):
            return ["operator", str(value)]
        if torch is not None and isinstance(value, torch.Tensor):  # its pickle has addresses
            from mmc_bench.results.weights import checksum_of

            if (address := address_of(value)) and address in self._parts.storages:
                self._refuse_in_code(self._parts.storages[address])
            content = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
            return [self.digest(kind), value.requires_grad, checksum_of({"": content})]
        return self._pickled(value)

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

    def _pickled(self, value: Any) -> list[Any]:
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
        """Return what a class or function is: of an installed one, its name; of followed code, also what it names."""
        refuse_outdated(value, self._home)
        function = value if isinstance(value, types.FunctionType) else None
        module = value.__module__ if function is None else value.__globals__.get("__name__", value.__module__)
        module = module if isinstance(module, str | None) else "builtins"  # of a type that Cython makes
        place = "" if module == self._home else module  # a copy of the module has the same digest
        name = [place, value.__qualname__ if function is None else function.__code__.co_qualname]
        if module != self._home:
            self.modules.add(module or "")
        if self._is_foreign(module):
            inner = [vars(value).get(one) for one in ("__wrapped__", "registry")] if function else []
            return [*name, *(self.digest(one) for one in inner if one is not None)]
        if function is not None:
            name += [self.digest([function.__defaults__, function.__kwdefaults__, vars(function)])]
            name += [self.named(*cell) for cell in enclosed(function)]
        if self._is_followed(module):
            return [*name, *self._written(value, module)]
        if function is None:
            return name
        for read in map(function.__globals__.get, names_read(function)):
            if id(read) in self._parts.names:
                self.digest(read)  # which refuses it
        source = None if is_lambda(function) else source_of(function)  # its file may have several of its name
        return [*name, self.digest(function.__code__) if source is None else source]

    def _is_followed(self, module: str | None) -> bool:
        """Tell whether code of a module is followed piece by piece: of the home, the program, or one that code made."""
        top = sys.modules.get((module or "").partition(".")[0])
        was_imported = any(getattr(top, name, None) is not None for name in ("__file__", "__spec__"))
        return module in (self._home, "__main__") or not was_imported

    def _is_foreign(self, module: str | None) -> bool:
        """Tell whether code of a module counts by its name: it is installed, ours, or built into Python."""
        file = getattr(sys.modules.get(module or ""), "__file__", None)
        own = (module or "").partition(".")[0] in own_modules()
        return not self._is_followed(module) and (own or file is None or is_installed(Path(file)))

    def _written(self, value: Any, module: str) -> list[Any]:
        """Return the source of a class or function, what it names, its base classes, and what its class has by now."""
        source = source_of(value)
        home = sys.modules.get(module)
        self.modules.add_imports(source or "", home.__package__ if home else None)
        namespace = value.__globals__ if isinstance(value, types.FunctionType) else vars(home) if home else {}
        written, around = names_written(value, source or ""), self._in_code
        not_own = {name for name, is_own in written.items() if not is_own}
        read = not_own if isinstance(value, type) else names_read(value)
        content: list[Any] = [source]
        for name in sorted((written.keys() | read) & namespace.keys() - OF_PYTHON):
            self._in_code = around if name in read else 0  # a function keeps no name that is read where it is defined
            content.append([name, self.named(name, namespace[name])])
        self._in_code = around
        if not isinstance(value, type):
            is_told = source is not None and not is_lambda(value)
            return content if is_told else [*content, self.digest(value.__code__)]
        members = []
        for name, member in sorted(vars(value).items()):
            if id(member) in self._parts.names or (isinstance(member, PLAIN) and not name.startswith("__")):
                members.append([name, self.named(f"{value.__qualname__}.{name}", member)])
            functions = dict.fromkeys(map(as_written, functions_of(member)))
            members += [[name, self.named(name, function)] for function in functions]
        return [*content, [self.digest(base) for base in (*value.__mro__[1:-1], type(value))], members]
