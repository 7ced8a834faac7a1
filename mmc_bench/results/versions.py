"""Versions of stages, and the lock that says which source has the numbers of a declared version.

``versions.lock`` lists, for each version, the digests of the source files that are known to give its numbers. Source
whose digest is listed runs under the plain version, ``1``; any other runs under ``1+<digest>``. Edited code therefore
never reuses old results, and an edit that changes no number costs nothing once its digest is listed.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmc_bench.errors import UserError
from mmc_bench.system.digests import digest_of_files, digest_of_text, files_below
from mmc_bench.system.files import read_whole, write_whole
from mmc_bench.system.imported_source import ImportedSource

PACKAGE = Path(__file__).parents[1]
LOCK = PACKAGE / "versions.lock"

#: Digests by kind (``stages``, ``plugins``), name and version.
Lock = dict[str, dict[str, dict[str, list[str]]]]


@dataclass(frozen=True)
class Stage:
    """A stage's version, and the files and folders of this package that its numbers rest on."""

    version: int
    sources: tuple[str, ...]


#: What every stage rests on: the images of the splits, the toolkit that trains and evaluates, and the job that hands
#: models and images from stage to stage.
_COMMON = ("data", "seeds.py", "stages/job.py", "stages/resources.py", "training")

#: What a probe's record rests on; words are made of it afterwards.
_MEASURED = ("attribution", "measure", "reading", "stages")

STAGES = {
    "pretrain": Stage(3, (*_COMMON, "stages/pretrain.py")),
    "fine-tune": Stage(3, (*_COMMON, "stages/finetune.py")),
    "score": Stage(3, (*_COMMON, "stages/score.py", "landscape/effects.py", "landscape/invariance.py")),
    "connect": Stage(3, (*_COMMON, "stages/connect.py", "landscape", "plugin/random_weights.py")),
    "probe": Stage(2, (*_COMMON, *(f"mechanisms/{name}.py" for name in _MEASURED))),
}


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
    return digest_of_files(PACKAGE, files_of_stage(name))


def version_of_stage(name: str) -> str:
    """Return the version that a stage runs under."""
    return locked_version("stages", name, STAGES[name].version, digest_of_stage(name))


@cache
def versions_of_stages(*names: str) -> dict[str, str]:
    """Return the versions that stages run under, by name."""
    return {name: version_of_stage(name) for name in names}


@cache
def core_digest() -> str:
    """Return one digest of all stages; installations that compute the same have the same."""
    return digest_of_text("".join(map(digest_of_stage, STAGES)))


class ChangedCoreError(UserError):
    """The core that this process imports is not the one that its jobs were planned with."""

    def __init__(self) -> None:
        super().__init__("the source of mmc-bench changed during the run: start a new process (or restart the kernel)")


def core_source() -> ImportedSource:
    """Return the source of all stages, with the digest that `versions_of_stages` goes by in this process."""

    def digest() -> str:
        return digest_of_text("".join(digest_of_files(PACKAGE, files_of_stage(name)) for name in STAGES))

    return ImportedSource(core_digest(), [PACKAGE], digest)


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
    return read_lock().get(kind, {}).get(name, {}).get(str(version), [])


@cache
def read_lock() -> Lock:
    """Return the lock: digests by kind, name and version; empty where there is no lock file."""
    try:
        lock: Lock = json.loads(read_whole(LOCK))
    except FileNotFoundError:
        return {}
    return lock


def add_to_lock(kind: str, name: str, version: int, digest: str) -> None:
    """List a digest under a version: a digest a line, sorted, so that two changes merge."""
    lock: Lock = json.loads(read_whole(LOCK)) if LOCK.exists() else {}
    versions = lock.setdefault(kind, {}).setdefault(name, {})
    versions[str(version)] = sorted({*versions.get(str(version), ()), digest})
    write_whole(LOCK, (json.dumps(lock, indent=1, sort_keys=True) + "\n").encode())
    read_lock.cache_clear()
