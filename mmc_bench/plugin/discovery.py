"""Where plugins are found: entry points of installed distributions, and folders that the user names."""

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from mmc_bench.errors import UserError
from mmc_bench.plugin.roots import distribution_roots, folder_roots
from mmc_bench.plugin.versions import GROUP
from mmc_bench.system.files import read_whole

FOLDER_PACKAGE = "mmc_bench_folder_plugins"


@dataclass(frozen=True)
class Candidate:
    """A plugin that was found and not yet imported.

    `roots` returns the files and folders that may change under its version, given the loaded plugin; None where none
    may.
    """

    name: str
    distribution: str
    version: str
    origin: str
    load: Callable[[], ModuleType]
    roots: Callable[[ModuleType], list[Path] | None] = lambda module: None


def entry_point_candidates() -> Iterator[Candidate]:
    """Yield the entry points of group ``mmc_bench``, the built-in plugins' among them.

    Entry points are read directly, since pluggy's own loader stops at the first that fails to import and
    skips in silence those that share a name.
    """
    points = sorted(entry_points(group=GROUP), key=lambda point: (point.dist is None, point.name))
    distributions = {id(point.dist): point.dist for point in points if point.dist}
    metadata = {key: found.metadata for key, found in distributions.items()}  # a file is parsed at every access
    for point in points:
        about = metadata.get(id(point.dist), {"Name": "unknown", "Version": "0"})
        roots = partial(distribution_roots, point.dist) if point.dist else lambda module: None
        yield Candidate(point.name, about["Name"], about["Version"], f"entry point {point.value}", point.load, roots)


def folder_candidates(folders: Sequence[str | Path]) -> Iterator[Candidate]:
    """Yield the plugins in `folders`, each once: a folder is a Python file, a package, or a folder of such.

    Raises
    ------
    UserError
        When a folder does not exist or holds no plugin.
    """
    seen = set()
    for folder in map(Path, folders):
        try:
            if not folder.exists():
                raise UserError(f"plugin folder {folder} does not exist")
            alone = folder.is_file() or (folder / "__init__.py").exists()
            paths = [folder] if alone else [path for path in sorted(folder.iterdir()) if _is_plugin(path)]
        except OSError as error:
            raise UserError(f"plugin folder {folder} cannot be read: {error.strerror}") from None
        if not paths:
            raise UserError(f"plugin folder {folder} holds no plugin: a .py file or a folder with __init__.py")
        for path in (path.resolve() for path in paths):
            if path in seen:
                continue
            seen.add(path)
            yield Candidate(path.stem, path.stem, "0", str(path), _folder_loader(path), partial(folder_roots, path))


def configured_folders(explicit: Sequence[str]) -> list[Path]:
    """Return the plugin folders of the command line, ``MMC_BENCH_PLUGINS``, and the nearest pyproject.toml.

    Only the first of the three that says anything about it is asked, except that the command line's folders
    come in addition to the others.
    """
    folders = [Path(folder) for folder in explicit]
    if variable := os.environ.get("MMC_BENCH_PLUGINS"):
        return folders + [Path(folder) for folder in variable.split(os.pathsep) if folder]
    for parent in [Path.cwd(), *Path.cwd().parents]:
        file = parent / "pyproject.toml"
        if file.is_file():
            return folders + [parent / folder for folder in _listed_folders(file)]
    return folders


def _listed_folders(file: Path) -> list[str]:
    import tomllib

    try:
        settings = tomllib.loads(read_whole(file).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    tools = settings.get("tool", {})
    table = tools.get("mmc_bench", {}) if isinstance(tools, dict) else {}
    listed = table.get("plugins", []) if isinstance(table, dict) else None
    if not isinstance(listed, list) or not all(isinstance(folder, str) for folder in listed):
        raise UserError(f'{file}: [tool.mmc_bench] plugins lists folders, as in plugins = ["my_plugins"]')
    return listed


def _is_plugin(path: Path) -> bool:
    if path.name.startswith((".", "_")):
        return False
    return path.suffix == ".py" if path.is_file() else (path / "__init__.py").exists()


def _folder_loader(path: Path) -> Callable[[], ModuleType]:
    # The path is part of the module's name, so that two folders may hold plugins of one name.
    label = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    name = f"{FOLDER_PACKAGE}_{label}_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}"

    def load() -> ModuleType:
        if name in sys.modules:
            return sys.modules[name]
        file = path if path.is_file() else path / "__init__.py"
        search = [str(path)] if path.is_dir() else None
        spec = spec_from_file_location(name, file, submodule_search_locations=search)
        if spec is None or spec.loader is None or not file.is_file():  # reading a pipe would wait for its writer
            raise ImportError(f"{file} is not a Python file")
        module = sys.modules[name] = module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    return load
