"""Connectivity-based fine-tuning and its two ablations."""

from collections.abc import Callable
from typing import Any

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1

VARIANTS: dict[str, tuple[dict[str, Any], str]] = {
    "cbft": ({}, "Connectivity-based fine-tuning (Lubana et al., 2023)"),
    "cbft-no-barrier": ({"barrier": False}, "CBFT without its barrier loss (table 3)"),
    "cbft-no-invariance": ({"invariance_weight": 0.0}, "CBFT without its invariance loss (table 3)"),
}


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register CBFT and the ablations of table 3."""
    for name, (defaults, summary) in VARIANTS.items():
        register(
            MethodSpec(
                name=name,
                target=".method:CBFT",
                defaults=defaults,
                needs=frozenset({"cued"}),
                summary=summary,
            )
        )
