"""Where decoded images and what else can be made again is kept."""

import os
from pathlib import Path

from mmc_bench.errors import UserError


def cache_root() -> Path:
    """Return the folder for decoded images: ``$MMC_BENCH_CACHE``, or ``~/.cache/mmc-bench``."""
    try:
        return Path(os.environ.get("MMC_BENCH_CACHE") or Path.home() / ".cache" / "mmc-bench")
    except RuntimeError:
        raise UserError("there is no home folder for the cache: set MMC_BENCH_CACHE to a folder") from None
