"""Group distributionally robust optimisation over labels with and without their cue."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 2


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register group DRO."""
    register(
        MethodSpec(
            name="groupdro",
            target=".method:GroupDRO",
            needs=frozenset({"cued", "environments"}),
            summary="Group DRO over (label, environment) groups, online weights (Sagawa et al., 2020)",
        )
    )
