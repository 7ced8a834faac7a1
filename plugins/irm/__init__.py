"""Invariant risk minimisation over the cued and the clean set."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 2


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register IRM."""
    register(
        MethodSpec(
            name="irm",
            target=".method:IRM",
            needs=frozenset({"cued"}),
            summary="Invariant risk minimisation, IRMv1, on cued and clean images (Arjovsky et al., 2019)",
        )
    )
