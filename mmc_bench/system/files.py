"""Files: read only where they end, written whole or not at all, with checksums of themselves."""

import errno
import hashlib
import os
import re
import shutil
import stat
from pathlib import Path

from mmc_bench.system.processes import ProcessId, tagged, this_process

#: Seconds after which a temporary file of another machine counts as abandoned.
ABANDONED_AFTER = 86_400

MOST_AT_ONCE = 2**16  # bytes

_TEMPORARY = re.compile(r"\..+\+[0-9a-f]{8}\+([^+]+)\.tmp")

_CHECKSUM = re.compile(rb',\n {1,2}"sha256": "([0-9a-f]{64})"')


def read_whole(path: str | Path) -> bytes:
    """Return a file's content; a pipe or a device, which may never end, is refused without waiting for it.

    Raises
    ------
    OSError
        When it cannot be read, or is no regular file.
    """
    # Opening a pipe would wait for its writer. For many small files, this is twice as fast as open().
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        return b"".join(iter(lambda: os.read(file, MOST_AT_ONCE), b""))
    finally:
        os.close(file)


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
    return path.with_name(f".{path.name}+{os.urandom(4).hex()}+{this_process().tag}.tmp")


def is_temporary(name: str) -> bool:
    """Tell whether a file or folder has a name that `temporary_name` gives."""
    return _owner(name) is not None


def _owner(name: str) -> ProcessId | None:
    found = _TEMPORARY.fullmatch(name)
    return tagged(found[1]) if found else None


def sweep(folder: Path) -> None:
    """Remove the files and folders that processes which were killed left half written in a folder."""
    left = [path for path in folder.glob(".*.tmp") if is_temporary(path.name)]
    if not left:
        return
    import tempfile

    with tempfile.TemporaryFile(dir=folder) as probe:
        now = os.fstat(probe.fileno()).st_mtime  # by the clock that the others' times are of
    for path in left:
        owner = _owner(path.name)
        try:
            old = now - path.lstat().st_mtime > ABANDONED_AFTER
            if old or (owner and owner.is_gone):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError:  # gone by now, or not ours to remove
            continue


def with_checksum(text: bytes) -> bytes:
    """Return JSON that is indented by one space, with its SHA-256 as the last member of ``provenance``.

    Provenance may differ between runs, so that what else a record holds is still the same in each. The object
    itself gets the member where it has no provenance. The checksum is that of the text before it was put in.
    """
    start = text.find(b'\n "provenance": {')
    place, indent = (text.index(b"\n }", start), 2) if start >= 0 else (text.rindex(b"\n}"), 1)
    member = b',\n%s"sha256": "%s"' % (b" " * indent, hashlib.sha256(text).hexdigest().encode())
    return text[:place] + member + text[place:]


def is_intact(content: bytes) -> bool | None:
    """Tell whether a file is as `with_checksum` made it; None where it has no checksum."""
    found = _CHECKSUM.match(content, content.rfind(b",", 0, max(0, content.rfind(b'"sha256": "'))))
    if found is None:
        return False if b'"sha256"' in content else None
    digest = hashlib.sha256(content[: found.start()])
    digest.update(content[found.end() :])
    return digest.hexdigest().encode() == found[1]
