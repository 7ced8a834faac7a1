"""Files that are read only where they end, written whole or not at all, and digests of source files."""

import errno
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from mmc_bench.processes import tagged, this_process

#: Seconds after which a temporary file of another machine is nobody's any more.
ABANDONED_AFTER = 86_400


def read_whole(path: Path) -> bytes:
    """Return a file's content; a pipe or a device, which may never end, is refused without waiting for it.

    Raises
    ------
    OSError
        When it cannot be read, or is no regular file.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        return file.read()


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # as it is, opening a pipe waits for its writer


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
        digest.update(path.relative_to(root).as_posix().encode(errors="surrogateescape") + b"\0")
        digest.update(read_whole(path).replace(b"\r\n", b"\n") + b"\0")
