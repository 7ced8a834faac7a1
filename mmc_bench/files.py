"""Files that are written whole or not at all, and digests of source files."""

import hashlib
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from mmc_bench.processes import tagged, this_process

#: Seconds after which a temporary file of another machine is nobody's any more.
ABANDONED_AFTER = 86_400


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, whatever happens meanwhile.

    It is written beside its place, flushed to the disk, and renamed.

    Raises
    ------
    OSError
        When it cannot be written; nothing is left behind.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_name(path: Path) -> Path:
    """Return a name of this process's own beside `path`, that `sweep` recognises."""
    return path.with_name(f".{path.name}+{secrets.token_hex(4)}+{this_process().tag}.tmp")


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left half written in a folder."""
    for path in folder.glob(".*.tmp"):
        owner = tagged(path.name.removesuffix(".tmp").rpartition("+")[2])
        try:
            old = time.time() - path.stat().st_mtime > ABANDONED_AFTER
            if old or (owner and owner.is_gone):
                path.unlink()
        except OSError:  # gone by now, or not ours to remove
            continue


def add_sources(digest: "hashlib._Hash", root: Path, paths: Iterable[Path]) -> None:
    """Add source files to a digest: their names below `root`, and their text with line ends normalised."""
    for path in paths:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
