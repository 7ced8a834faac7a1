"""Everything that the command line does, from Python: ``import mmc_bench`` gives these functions."""

from mmc_bench.api.auditing import audit
from mmc_bench.api.developing import connect, gallery, probe, score, task
from mmc_bench.api.reading import list, load, plot
from mmc_bench.api.running import dry_run, run

__all__ = ["audit", "connect", "dry_run", "gallery", "list", "load", "plot", "probe", "run", "score", "task"]
