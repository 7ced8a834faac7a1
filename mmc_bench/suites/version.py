"""The version of the core that decides results: part of every key."""

import hashlib
from functools import cache
from pathlib import Path

from mmc_bench import __version__
from mmc_bench.system.files import add_sources

#: The folders and files of this package whose code a result depends on.
DECISIVE = ("data", "landscape", "stages", "training", "seeds.py")


@cache
def core_version() -> str:
    """Return the version with a digest of the decisive source files, line ends normalised.

    A changed core thus never shows an old core's results as its own.
    """
    root = Path(__file__).parents[1]
    files = [
        file for name in DECISIVE for file in ([root / name] if name.endswith(".py") else (root / name).rglob("*.py"))
    ]
    digest = hashlib.sha256()
    add_sources(digest, root, sorted(files))
    return f"{__version__}+{digest.hexdigest()[:12]}"
