"""The version of the core that decides results: part of every key."""

import hashlib
from functools import cache
from pathlib import Path

from mmc_bench import __version__

#: The folders and files of this package whose code a result depends on.
DECISIVE = ("data", "landscape", "stages", "training", "seeds.py")


@cache
def core_version() -> str:
    """Return the version with a digest of the decisive source files, line ends normalised.

    A changed core thus never shows an old core's results as its own.
    """
    root = Path(__file__).parent
    files = [
        file for name in DECISIVE for file in ([root / name] if name.endswith(".py") else (root / name).rglob("*.py"))
    ]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0")
        digest.update(file.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return f"{__version__}+{digest.hexdigest()[:12]}"
