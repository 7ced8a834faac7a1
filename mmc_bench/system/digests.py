"""Digests that identify source: of texts, and of files, each under its name."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from mmc_bench.system.files import read_whole

#: Folders beside packages that hold no source.
BUILT = frozenset({"build", "dist", "node_modules", "venv"})


def digest_of_text(text: str) -> str:
    """Return the first twelve digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def digest_of_files(root: Path, files: Iterable[Path]) -> str:
    """Return a digest of files: their names below `root` and their content, line ends of text normalised."""
    digest = hashlib.sha256()
    for file in files:
        content = read_whole(file)
        if b"\0" not in content:
            content = content.replace(b"\r\n", b"\n")
        digest.update(file.relative_to(root).as_posix().encode(errors="surrogateescape") + b"\0")
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:12]


def files_below(folder: Path) -> list[Path]:
    """Return all files of a folder, sorted, without hidden ones, caches, and what builds and environments leave."""
    found = []
    seen = {os.path.realpath(folder)}
    for here, folders, names in os.walk(folder, followlinks=True):
        places = {name: os.path.realpath(Path(here) / name) for name in folders if not _is_left_out(Path(here) / name)}
        folders[:] = [name for name, place in places.items() if place not in seen]
        seen |= {*places.values()}
        kept = [name for name in names if not name.startswith(".") and not name.endswith((".pyc", ".pyo"))]
        found += [path for name in kept if (path := Path(here) / name).exists()]  # a link may lead nowhere
    return sorted(found)


def _is_left_out(folder: Path) -> bool:
    name = folder.name
    if name == "__pycache__" or name.startswith(".") or name.endswith(".egg-info"):
        return True
    in_package = (folder.parent / "__init__.py").exists()  # whatever its name, part of the package
    return (name in BUILT and not in_package) or (folder / "pyvenv.cfg").exists()
