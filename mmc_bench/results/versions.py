"""Versions of what decides results: a declared integer for each stage and built-in plugin, and the lock that proves it.

``versions.lock`` lists, for each version, the digests of the source files that are known to give its numbers. Source
whose digest is listed runs under the plain version, ``1``; any other runs under ``1+<digest>``. Edited code therefore
never reuses old results, and an edit that changes no number costs nothing once its digest is listed.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmc_bench.system.files import read_whole

PACKAGE = Path(__file__).parents[1]
LOCK = PACKAGE / "versions.lock"

#: What is never part of a source.
CACHES = frozenset({"__pycache__", "build", "dist", "node_modules", "venv"})


@dataclass(frozen=True)
class Stage:
    """A stage's version, and the files and folders of this package that its numbers rest on."""

    version: int
    sources: tuple[str, ...]


#: What every stage rests on: the images of the splits, and the job that hands them from stage to stage.
_COMMON = ("data", "seeds.py", "stages/job.py", "stages/resources.py", "training/evaluate.py", "training/precision.py")

STAGES = {
    "pretrain": Stage(1, (*_COMMON, "stages/pretrain.py", "stages/score.py", "training")),
    "fine-tune": Stage(1, (*_COMMON, "stages/finetune.py", "stages/score.py", "training")),
    "score": Stage(1, (*_COMMON, "landscape/invariance.py", "stages/score.py")),
    "connect": Stage(1, (*_COMMON, "landscape", "stages/connect.py", "training")),
}


def files_below(folder: Path) -> list[Path]:
    """Return all files of a folder, without caches and hidden ones, sorted."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in CACHES or path.name.endswith((".pyc", ".egg-info")):
            continue
        found += files_below(path) if path.is_dir() else [path]
    return found


def digest_of(root: Path, files: Iterable[Path]) -> str:
    """Return a digest of files: their names below `root` and their content, line ends of text normalised."""
    digest = hashlib.sha256()
    for file in files:
        content = read_whole(file)
        if b"\0" not in content:
            content = content.replace(b"\r\n", b"\n")
        digest.update(file.relative_to(root).as_posix().encode(errors="surrogateescape") + b"\0")
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:12]


def files_of_stage(name: str) -> list[Path]:
    """Return the files that a stage rests on, sorted."""
    files: set[Path] = set()
    for source in STAGES[name].sources:
        path = PACKAGE / source
        files |= {file for file in files_below(path) if file.suffix == ".py"} if path.is_dir() else {path}
    return sorted(files)


@cache
def digest_of_stage(name: str) -> str:
    """Return the digest of a stage's source."""
    return digest_of(PACKAGE, files_of_stage(name))


def version_of_stage(name: str) -> str:
    """Return the version that a stage runs under."""
    return locked_version("stages", name, STAGES[name].version, digest_of_stage(name))


@cache
def versions_of_stages(*names: str) -> dict[str, str]:
    """Return the versions that stages run under, by name."""
    return {name: version_of_stage(name) for name in names}


@cache
def core_digest() -> str:
    """Return one digest of all stages, by which two installations are told apart."""
    return hashlib.sha256("".join(map(digest_of_stage, STAGES)).encode()).hexdigest()[:12]


def locked_version(kind: str, name: str, version: int, digest: str) -> str:
    """Return ``"1"`` where the lock lists this source under the version, else ``"1+<digest>"``.

    Parameters
    ----------
    kind
        ``"stages"`` or ``"plugins"``.
    """
    return str(version) if digest in known_digests(kind, name, version) else f"{version}+{digest}"


def known_digests(kind: str, name: str, version: int) -> list[str]:
    """Return the digests that the lock lists for a version."""
    listed: list[str] = read_lock().get(kind, {}).get(name, {}).get(str(version), [])
    return listed


@cache
def read_lock() -> dict[str, dict[str, dict[str, list[str]]]]:
    """Return the lock: digests by kind, name and version; empty where there is no lock file."""
    try:
        content: dict[str, dict[str, dict[str, list[str]]]] = json.loads(read_whole(LOCK))
    except FileNotFoundError:
        return {}
    return content
