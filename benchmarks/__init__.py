"""The benchmark's suites, registered by an entry point like anybody's."""

from collections.abc import Callable
from pathlib import Path

from mmc_bench import hookimpl

mmc_bench_api = 1


@hookimpl
def register_suites(register: Callable[[Path], None]) -> None:
    """Register the suites in this folder."""
    register(Path(__file__).parent / "suites")
