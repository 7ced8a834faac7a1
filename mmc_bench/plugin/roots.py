"""Which files a plugin's version follows: those of a folder plugin, and of a distribution that may change by itself."""

import importlib.util
import json
import re
from functools import cache
from importlib.metadata import Distribution
from pathlib import Path
from types import ModuleType

from mmc_bench.plugin.local_modules import mentioned_in
from mmc_bench.system.digests import files_below

#: Modules that lie beside packages and are no part of them.
PROJECT_FILES = frozenset({"setup.py", "conftest.py", "noxfile.py", "tasks.py"})


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
    others = [entry for entry in beside if entry.is_file() and entry.suffix not in (".py", ".pyc")]
    return [path, *helpers, *mentioned_in(code, others)]


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
