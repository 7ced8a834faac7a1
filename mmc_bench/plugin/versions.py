"""The version that a registered plugin runs under. It is a part of every key, so that other source has other results.

A built-in plugin declares ``VERSION``, and ``versions.lock`` says which source has its numbers. An installed wheel is
its distribution's version. Where source can be edited, in an editable install or a plugin folder, a digest of all files
of the distribution's packages is added: helpers, data files and sibling packages among them.
"""

import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution
from pathlib import Path
from types import ModuleType

from mmc_bench.results.versions import locked_version
from mmc_bench.system.digests import digest_of_files, digest_of_text, files_below
from mmc_bench.system.files import read_whole
from mmc_bench.system.imported_source import ImportedSource

#: The distribution whose plugins declare versions that the lock proves.
OWN_DISTRIBUTION = "mmc-bench"

#: Modules that lie beside packages and are no part of them.
PROJECT_FILES = frozenset({"setup.py", "conftest.py", "noxfile.py", "tasks.py"})


def built_in_source(module: ModuleType) -> ImportedSource:
    """Return the source of a built-in plugin: its folder's files."""
    folder = Path(module.__file__ or "").parent

    def digest() -> str:
        return digest_of_files(folder, files_below(folder))

    return ImportedSource(digest(), [folder], digest)


def built_in_version(name: str, module: ModuleType, digest: str) -> str:
    """Return the version that a built-in plugin runs under, by the digest of its folder's files."""
    return locked_version("plugins", name, module.VERSION, digest)


def editable_source(
    module: ModuleType, roots: Callable[[ModuleType], list[Path] | None], targets: Iterable[str]
) -> ImportedSource | None:
    """Return the source of a plugin that can be edited: `roots`, which are None where it cannot, and its targets."""

    def places() -> list[Path] | None:
        found = roots(module)
        return None if found is None else _with_targets(module, found, targets)

    found = places()
    if found is None:
        return None
    return ImportedSource(_digest_of_roots(found), found, lambda: _digest_of_roots(places() or []))


def _with_targets(module: ModuleType, roots: Iterable[Path], targets: Iterable[str]) -> list[Path]:
    """Return files and folders, and what lies outside them among targets.

    Parameters
    ----------
    targets
        Each as ``"module:Class"``. Nothing is imported; a module that is not found adds nothing.
    """
    roots = sorted({root.resolve() for root in roots})
    for target in sorted(set(targets)):
        spec = _target_spec(module, target.partition(":")[0])
        if spec is not None and spec.origin and Path(spec.origin).is_file():
            origin = Path(spec.origin).resolve()
            if not any(origin == root or origin.is_relative_to(root) for root in roots):
                roots.append(origin.parent if spec.parent else origin)
    return roots


def _digest_of_roots(roots: Sequence[Path]) -> str:
    """Return the digest of files, and of all files of folders."""
    digest = "".join(digest_of_files(root.parent, files_below(root) if root.is_dir() else [root]) for root in roots)
    return digest if len(roots) == 1 else digest_of_text(digest)


def check_loaded(module: ModuleType, digest: str) -> None:
    """Check that a plugin's files are those that this process loaded it from.

    Raises
    ------
    RuntimeError
        When their digest is another one: the plugin's code is no longer theirs.
    """
    # Kept with the module's spec, which is another one once the module is reloaded.
    if vars(module.__spec__).setdefault("mmc_bench_digest", digest) != digest:
        raise RuntimeError(
            "its files changed since this process loaded it: start a new process (or restart the kernel)"
        )


def folder_roots(path: Path, module: ModuleType) -> list[Path]:
    """Return what a folder plugin may rest on: its package; or its one file, and the helpers and data beside it.

    Helpers begin with an underscore. Data are files whose name or suffix ends a text in the code, as ``"table.json"``
    and ``"*.json"`` do; a log that a run is written to is none.
    """
    if path.is_dir():
        return [path]
    beside = [entry for entry in path.parent.iterdir() if not entry.name.startswith((".", "__"))]
    helpers = [entry for entry in beside if entry.name.startswith("_")]
    code = [path, *(file for one in helpers for file in ([one] if one.is_file() else files_below(one)))]
    text = b"\n".join(read_whole(file) for file in code if file.suffix == ".py")
    others = [entry for entry in beside if entry.is_file() and entry.suffix not in (".py", ".pyc")]
    data = [entry for entry in others if any(end in text for end in _ends(entry))]
    return [path, *helpers, *data]


def _ends(file: Path) -> list[bytes]:
    """Return what ends a text that names a file, or all of its suffix."""
    return [os.fsencode(word) + quote for word in (file.suffix or file.name, file.name) for quote in (b'"', b"'")]


def editable_roots(distribution: Distribution, module: ModuleType) -> list[Path] | None:
    """Return the packages and modules of an editable install, or None where a distribution is installed as a wheel."""
    if not _is_editable(distribution):
        return None
    top = _location(module.__name__.partition(".")[0])
    listed = (distribution.read_text("top_level.txt") or "").split()
    found = [place for name in listed if (place := _location(name)) is not None]
    if top is not None and not found:  # not every build tool writes top_level.txt
        found = [path for path in top.parent.iterdir() if _is_importable(path)]
    return sorted({*found, *([top] if top is not None else [])})


@cache
def _is_editable(distribution: Distribution) -> bool:
    try:
        installed = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return False
    if installed.get("dir_info", {}).get("editable"):
        return True
    # A folder on the import path that has metadata, but no list of installed files.
    place = Path(str(distribution.locate_file(""))).name
    return place not in ("site-packages", "dist-packages") and not distribution.read_text("RECORD")


def _is_importable(path: Path) -> bool:
    if path.name in PROJECT_FILES or not re.fullmatch(r"[A-Za-z_]\w*(\.py)?", path.name):
        return False
    return path.suffix == ".py" if path.is_file() else (path / "__init__.py").is_file()


def _location(name: str) -> Path | None:
    """Return the folder of a top-level package, or the file of a module."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin or spec.origin in ("built-in", "frozen"):
        return None
    return Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)


def _target_spec(home: ModuleType, name: str) -> ModuleSpec | None:
    """Find a target's module as the import system would, without importing its parents: they may be heavy."""
    if not name.strip("."):
        return None
    try:
        package = home.__name__ if hasattr(home, "__path__") else home.__package__
        top, *below = importlib.util.resolve_name(name, package).split(".")
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # no such parent; or a module without a spec, as __main__
        return None
    for part in below:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", list(spec.submodule_search_locations))
    return spec
