"""Risk extrapolation over the cued and the clean set."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 2


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register V-REx."""
    register(
        MethodSpec(
            name="vrex",
            target=".method:VREx",
            needs=frozenset({"cued"}),
            summary="Variance risk extrapolation on cued and clean images (Krueger et al., 2021)",
        )
    )
