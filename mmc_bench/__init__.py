"""mmc-bench: measure how well a fine-tuning method removes a network's reliance on a spurious cue.

This module is what a plugin author imports; importing it loads no torch.
"""

from typing import TYPE_CHECKING, Any

from mmc_bench.errors import UserError
from mmc_bench.plugin.hookspecs import hookimpl
from mmc_bench.plugin.specs import BackboneSpec, DatasetSpec, MethodSpec, ObserverSpec

if TYPE_CHECKING:
    from mmc_bench.plugin.parameters import BaseConfig

__version__ = "0.1.0"

__all__ = [
    "BackboneSpec",
    "BaseConfig",
    "DatasetSpec",
    "MethodSpec",
    "ObserverSpec",
    "UserError",
    "__version__",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name == "BaseConfig":  # pydantic takes longer to import than all the rest: only those who need it pay
        from mmc_bench.plugin.parameters import BaseConfig

        return BaseConfig
    raise AttributeError(f"module 'mmc_bench' has no attribute {name!r}")
