"""Modules that code rests on and no installed version stands for: their files, and those of what they import."""

import ast
import hashlib
import inspect
import json
import os
import sys
import sysconfig
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from mmc_bench.errors import UserError
from mmc_bench.plugin.versions import GROUP, OWN_DISTRIBUTION, built_in_source, built_in_version
from mmc_bench.system.digests import digest_of_text, files_below
from mmc_bench.system.files import read_whole
from mmc_bench.system.imported_source import ImportedSource, resolved


def is_installed(place: Path) -> bool:
    """Tell whether a file or folder is Python's own or an installed package's, whose version says what it is."""
    named = not {"site-packages", "dist-packages"}.isdisjoint(place.parts)
    return named or any(place.is_relative_to(folder) for folder in _installed_folders())


@cache
def _installed_folders() -> list[Path]:
    return [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]


def content_of(file: Path) -> bytes:
    """Return a file's content, that of text with plain line ends.

    Raises
    ------
    UserError
        When it cannot be read, as a pipe or a device.
    """
    try:
        content = read_whole(file)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    return content if b"\0" in content else content.replace(b"\r\n", b"\n")


@dataclass(frozen=True)
class ModuleNames:
    """What finds modules in another process: those that count with what they import, and those whose file counts."""

    followed: frozenset[str] = frozenset()
    alone: frozenset[str] = frozenset()

    def __or__(self, other: "ModuleNames") -> "ModuleNames":
        return ModuleNames(self.followed | other.followed, self.alone | other.alone)


class LocalModules:
    """The modules that were found so far.

    Attributes
    ----------
    files
        Their files: a module's own, all of a package, and of a folder without ``__init__.py`` its modules and the data
        that these mention.
    parts
        What they are: pairs of a word with the digest of a file, or with a built-in plugin's version.
    """

    def __init__(self, names: ModuleNames = ModuleNames()) -> None:
        self.files: set[Path] = set()
        self.parts: list[tuple[str, str]] = []
        self._followed: set[str] = set()
        self._alone: set[str] = set()
        self._seen: set[str] = set()
        for name in sorted(names.followed):
            self.add(name)
        for name in sorted(names.alone):
            self.add_alone(name)

    @property
    def names(self) -> ModuleNames:
        """What finds them again."""
        return ModuleNames(frozenset(self._followed), frozenset(self._alone))

    @property
    def digest(self) -> str:
        """The digest of what they are."""
        return digest_of_text(json.dumps(sorted(self.parts)))

    def add(self, name: str) -> None:
        """Add the top-level module of a dotted name, unless it is installed, and what it imports; the core adds none.

        Of our own plugins, the one of that name is added.
        """
        top = name.partition(".")[0]
        if top in own_modules():
            self._add_built_in(name)
        elif top not in self._seen:
            self._seen.add(top)
            for file in _files_of(top):
                self._followed.add(top)
                content = self._add_file(file)
                if file.suffix == ".py":
                    self.add_imports(content)

    def add_alone(self, name: str) -> None:
        """Add the file of a module, unless it is installed, and neither what it imports nor more of its package."""
        origin = Path(_origin_of(name) or "")
        if name != "__main__" and origin.suffix == ".py" and not is_installed(origin):
            self._alone.add(name)
            self._add_file(origin)

    def add_imports(self, source: str | bytes, package: str | None = None) -> None:
        """Add the modules that source imports anywhere; those not imported yet are found and not run.

        Parameters
        ----------
        package
            What relative imports are relative to; without it, they are left out.
        """
        for name in _imported(source, package):
            self.add(name)

    def _add_file(self, file: Path) -> bytes:
        """Add a file, and return its content where it was not added before; a member of a zip file is left out."""
        if file in self.files or not file.exists():
            return b""
        self.files.add(file)
        content = content_of(file)
        self.parts.append(("file", hashlib.sha256(content).hexdigest()))
        return content

    def _add_built_in(self, name: str) -> None:
        for place, plugin in _built_in_plugins().items():
            if f"{name}.".startswith(f"{place}.") and place not in self._followed:
                self._followed.add(place)
                module = import_module(place)
                self.files |= {*files_below(Path(module.__file__ or "").parent)}
                if hasattr(module, "VERSION"):  # it offers more than suites
                    version = built_in_version(plugin, module, built_in_source(module).digest)
                    self.parts.append((f"plugin {plugin}", version))


def source_of_modules(modules: LocalModules, digest: str | None = None) -> ImportedSource:
    """Return the source of modules. `digest` is that from before, where there was one."""
    names = modules.names
    return ImportedSource(digest or modules.digest, modules.files, lambda: LocalModules(names).digest)


def check_loaded_modules(modules: LocalModules) -> None:
    """Check that the files of modules are what they were at the first check since this process imported them.

    Raises
    ------
    UserError
        When one was edited since, or names what another had before that was edited and reloaded: its code is no longer
        that of the files.
    """
    places = {*map(str, modules.files), *map(os.path.realpath, modules.files)}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name == "__main__" or not isinstance(file, str) or places.isdisjoint((file, resolved(file))):
            continue
        _digest_as_imported(module, file)
        for value in list(vars(module).values()):  # those of its own may be left from an earlier text of it
            if getattr(value, "__module__", name) != name:
                refuse_outdated(value, name)


def refuse_outdated(value: Any, home: str) -> None:
    """Refuse a class or function, named in module `home`, whose own module's file was edited since the first check.

    Where that module was reloaded meanwhile, it has another one in its place.

    Raises
    ------
    UserError
        When its file was edited.
    """
    value = inspect.unwrap(value) if callable(value) else value
    if not isinstance(value, (type, FunctionType)):
        return
    module = sys.modules.get(value.__module__)
    file = getattr(module, "__file__", None)
    if module is None or not isinstance(file, str) or not Path(file).is_file() or is_installed(Path(file)):
        return
    if _first_digest(value, file) != _digest_as_imported(module, file):
        again = "import it again" if home in ("__main__", value.__module__) else f"reload module {home}, too"
        advice = "start a new process" if value.__module__ == "__main__" else f"{again}, or restart the kernel"
        kind = "class" if isinstance(value, type) else "function"
        raise UserError(f"{kind} {value.__qualname__} is from before an edit of {file}: {advice}")


@cache
def _first_digest(value: Any, file: str) -> str:
    """Return the digest that a file had when a class or function of it was first seen."""
    return _digest_of_file(file)


def _digest_as_imported(module: ModuleType, file: str) -> str:
    """Return the digest of a module's file, but for a script's checked to be what it was when it was imported."""
    digest = _digest_of_file(file)
    # Kept with the module's spec, which is another one once the module is reloaded.
    if module.__spec__ is not None and vars(module.__spec__).setdefault("mmc_bench_text", digest) != digest:
        advice = f"reload module {module.__name__}, or restart the kernel"
        raise UserError(f"{file} was edited since it was imported: {advice}")
    return digest


def _digest_of_file(file: str) -> str:
    return hashlib.sha256(content_of(Path(file))).hexdigest()


@cache
def _built_in_plugins() -> dict[str, str]:
    """Return the names of our own plugins, by their modules."""
    points = [point for point in entry_points(group=GROUP) if point.dist and point.dist.name == OWN_DISTRIBUTION]
    return {point.value: point.name for point in points}


@cache
def own_modules() -> frozenset[str]:
    """Return the top-level modules of the core and of our own plugins."""
    return frozenset({__name__.partition(".")[0], *(place.partition(".")[0] for place in _built_in_plugins())})


def _files_of(top: str) -> Iterator[Path]:
    """Yield the files of a top-level module that is not installed."""
    spec, origin = _spec_of(top), _origin_of(top)
    if origin is None and spec is not None:
        folders = [Path(place) for place in spec.submodule_search_locations or () if not is_installed(Path(place))]
        yield from files_of_namespace(folders)
    elif origin and (file := Path(origin)).is_file() and not is_installed(file):  # source, or compiled
        yield from files_below(file.parent) if spec and spec.submodule_search_locations else [file]


def _origin_of(name: str) -> str | None:
    spec = _spec_of(name)
    return spec.origin if spec else getattr(sys.modules.get(name), "__file__", None)


def _spec_of(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except (ImportError, ValueError):  # ValueError: a module without a spec, as a script is
        return None


def files_of_namespace(folders: Iterable[Path]) -> list[Path]:
    """Return the modules in a folder without ``__init__.py``, which may hold much else, and the data they mention."""
    files = [file for folder in folders for file in files_below(folder)]
    code = [file for file in files if file.suffix == ".py"]
    return [*code, *mentioned_in(code, [file for file in files if file.suffix != ".py"])]


def mentioned_in(code: Iterable[Path], files: Iterable[Path]) -> list[Path]:
    """Return the files whose name or suffix ends a text in code, as ``"table.json"`` and ``"*.json"`` do."""
    text = b"\n".join(read_whole(file) for file in code if file.suffix == ".py")
    return [file for file in files if any(end in text for end in _ends(file))]


def _ends(file: Path) -> list[bytes]:
    """Return what ends a text that names a file, or all of its suffix."""
    return [os.fsencode(word) + quote for word in (file.suffix or file.name, file.name) for quote in (b'"', b"'")]


def _imported(source: str | bytes, package: str | None) -> set[str]:
    """Return the dotted names that source imports, but for ``__main__``."""
    names: set[str] = set()
    for node in ast.walk(parsed(source) or ast.Module([], [])):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            with suppress(ImportError):  # more dots than the package has parents
                module = resolve_name("." * node.level + (node.module or ""), package)
                names |= {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.partition(".")[0] != "__main__"}


def parsed(source: str | bytes) -> ast.Module | None:
    """Return the syntax tree of source, or of a file; None of a piece of an expression, as that of a lambda may be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python gives those of the source when it imports it
        try:
            return ast.parse(dedented(source) if isinstance(source, str) else source)
        except (SyntaxError, ValueError):  # ValueError: of a null byte
            return None


def dedented(source: str) -> str:
    """Return source that may stand alone, although a text in it may begin at the margin."""
    source = textwrap.dedent(source)
    return f"if True:\n{source}" if source[:1] in " \t" else source
