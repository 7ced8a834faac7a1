"""Connectivity-based fine-tuning and its two ablations."""

from collections.abc import Callable
from typing import Any

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 2

VARIANTS: dict[str, tuple[dict[str, Any], str]] = {
    "cbft": ({}, "Connectivity-based fine-tuning (Lubana et al., 2023)"),
    "cbft-no-barrier": ({"barrier": False}, "CBFT without its barrier loss (table 3)"),
    "cbft-no-invariance": ({"invariance_weight": 0.0}, "CBFT without its invariance loss (table 3)"),
}


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register CBFT, the ablations of table 3, and CBFT with images cued at the pretraining's rate."""
    for name, (defaults, summary) in VARIANTS.items():
        register(
            MethodSpec(
                name=name,
                target=".method:CBFTWithoutInvariance" if "invariance_weight" in defaults else ".method:CBFT",
                defaults=defaults,
                needs=frozenset({"fully-cued"}),
                summary=summary,
            )
        )
    register(
        MethodSpec(
            name="cbft-partly-cued",
            target=".method:PartlyCuedCBFT",
            needs=frozenset({"cued"}),
            summary="CBFT whose cued images are cued at the pretraining's rate",
        )
    )
