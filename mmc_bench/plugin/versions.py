"""The version that a registered plugin runs under. It is a part of every key, so that other source has other results.

A built-in plugin declares ``VERSION``, and ``versions.lock`` says which source has its numbers. A distribution from an
index has its own version. Where one version may have other source, a digest is added: of the installed files of what
comes from a folder, an archive or a repository, and of all files of an editable install's packages or a plugin folder,
helpers and data among them.
"""

import importlib.util
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from mmc_bench.results.versions import locked_version
from mmc_bench.system.digests import digest_of_files, digest_of_text, files_below
from mmc_bench.system.imported_source import ImportedSource

#: The entry points of plugins.
GROUP = "mmc_bench"

#: The distribution whose plugins declare versions that the lock proves.
OWN_DISTRIBUTION = "mmc-bench"


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

    Raises
    ------
    RuntimeError
        When there are no files and folders.
    """
    given = {root.resolve() for root in roots}
    roots = sorted(root for root in given if given.isdisjoint(root.parents))
    if not roots:
        raise RuntimeError("none of its files is found, and so it has no version")
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
    """Check that a plugin's files are those that this process loaded its module, and those below that, from.

    Raises
    ------
    RuntimeError
        When their digest was another one when one of these was first looked at: its code is no longer theirs.
    """
    mark = f"mmc_bench_digest of {module.__name__}"  # a plugin may lie in another one
    below = f"{module.__name__}."
    alike = _names_by_top(tuple(sys.modules)).get(below.partition(".")[0], ())
    for name in [name for name in alike if name == module.__name__ or name.startswith(below)]:
        spec = getattr(sys.modules.get(name), "__spec__", None)
        # Kept with a module's spec, which is another one once the module is reloaded.
        if spec is not None and vars(spec).setdefault(mark, digest) != digest:
            raise RuntimeError(
                "its files changed since this process loaded it: start a new process (or restart the kernel)"
            )


@lru_cache(maxsize=1)
def _names_by_top(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the names of modules by that of their top-level one: a process that has torch imports thousands."""
    found = defaultdict(list)
    for name in names:
        found[name.partition(".")[0]].append(name)
    return dict(found)


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
