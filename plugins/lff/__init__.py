"""Learning from failure: a biased model tells which images are hard."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register LfF."""
    register(
        MethodSpec(
            name="lff",
            target=".method:LearningFromFailure",
            needs=frozenset({"cued"}),
            summary="Learning from failure: a biased model's losses weigh the images (Nam et al., 2020)",
        )
    )
