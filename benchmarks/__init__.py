"""The benchmark's suites and the paper's tables and claims, registered by an entry point as any plugin's are."""

from collections.abc import Callable
from pathlib import Path

from mmc_bench import hookimpl

mmc_bench_api = 1


@hookimpl
def register_suites(register: Callable[[Path], None]) -> None:
    """Register the suites in this folder."""
    register(Path(__file__).parent / "suites")


@hookimpl
def register_published(register: Callable[[Path], None]) -> None:
    """Register the paper's tables, and what it says of its Figures 4 and 5."""
    for file in ("table1.csv", "table3.csv", "table4.csv", "fig4.yaml", "fig5.yaml"):
        register(Path(__file__).parent / "published" / file)
