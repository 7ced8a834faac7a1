"""Which files a plugin's version follows: those of a folder plugin, and of a distribution that may change by itself."""

import importlib.util
import json
import re
from functools import cache
from importlib.metadata import Distribution
from pathlib import Path
from types import ModuleType
from typing import Any

from mmc_bench.plugin.local_modules import files_of_namespace, is_installed, mentioned_in
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


def distribution_roots(distribution: Distribution, module: ModuleType) -> list[Path] | None:
    """Return what may change while a distribution keeps its version, given the module of its hooks.

    It is the packages and modules of an editable install, the files that were installed from a folder, an archive or a
    repository, and None where an index has the distribution. Of folders without ``__init__.py``, that of the hooks
    counts, with its modules and the data that these mention.
    """
    if not _is_editable(distribution):
        return _installed_files(distribution) if _installed_from(distribution) else None
    home = Path(module.__file__ or "")
    top = module.__name__.partition(".")[0]
    own = _locations(top)
    listed = (distribution.read_text("top_level.txt") or "").split()
    if listed:  # folders of results and data among them
        found = [place for name in listed for place in _locations(name) if not _is_namespace(place)]
    else:  # not every build tool writes top_level.txt
        found = [path for place in own for path in place.parent.iterdir() if _is_importable(path)]
    if any(map(_is_namespace, own)):
        own = files_of_namespace(own)
    return [*found, *own, home.parent if hasattr(module, "__path__") else home]


def _installed_files(distribution: Distribution) -> list[Path]:
    """Return the files that a distribution has among modules, but for its metadata and compiled code."""
    files = [
        file for file in distribution.files or () if file.suffix not in (".pyc", ".pyo") and ".." not in file.parts
    ]
    places = [Path(str(file.locate())) for file in files if not file.parts[0].endswith((".dist-info", ".data"))]
    return [place for place in places if place.is_file()]


@cache
def _installed_from(distribution: Distribution) -> dict[str, Any]:
    """Return where a distribution was installed from; nothing where an index has it (PEP 610)."""
    try:
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    return origin if isinstance(origin, dict) else {}


@cache
def _is_editable(distribution: Distribution) -> bool:
    if _installed_from(distribution).get("dir_info", {}).get("editable"):
        return True
    # A folder on the import path that has metadata, but no list of installed files.
    place = Path(str(distribution.locate_file(""))).name
    return place not in ("site-packages", "dist-packages") and not distribution.read_text("RECORD")


def _is_importable(path: Path) -> bool:
    if path.name in PROJECT_FILES or not re.fullmatch(r"[A-Za-z_]\w*(\.py)?", path.name):
        return False
    return path.suffix == ".py" if path.is_file() else (path / "__init__.py").is_file()


def _is_namespace(place: Path) -> bool:
    return place.is_dir() and not (place / "__init__.py").is_file()


def _locations(name: str) -> list[Path]:
    """Return the folder of a top-level package, the file of a module, or the folders of a package without a file."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return []
    if spec is None or spec.origin in ("built-in", "frozen"):
        return []
    if spec.origin:
        return [Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)]
    places = map(Path, spec.submodule_search_locations or ())
    return [place for place in places if place.is_dir() and not is_installed(place)]
