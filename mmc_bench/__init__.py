"""mmc-bench: measure how well a fine-tuning method removes a network's reliance on a spurious cue.

What `mmc_bench.api` offers, and what a plugin author imports. Importing this module loads no torch, pandas or pydantic.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmc_bench.errors import UserError
from mmc_bench.plugin.hookspecs import hookimpl
from mmc_bench.plugin.specs import BackboneSpec, DatasetSpec, MethodSpec, ObserverSpec

if TYPE_CHECKING:
    from mmc_bench.api import audit, connect, dry_run, gallery, list, load, plot, probe, run, score, task
    from mmc_bench.plugin.parameters import BaseConfig
    from mmc_bench.plugin.search import Choice, LogUniform, Uniform
    from mmc_bench.running.outcome import Results

__version__ = "0.1.0"

__all__ = [
    "BackboneSpec",
    "BaseConfig",
    "Choice",
    "DatasetSpec",
    "LogUniform",
    "MethodSpec",
    "ObserverSpec",
    "Results",
    "Uniform",
    "UserError",
    "__version__",
    "audit",
    "connect",
    "dry_run",
    "gallery",
    "hookimpl",
    "list",
    "load",
    "plot",
    "probe",
    "run",
    "score",
    "task",
]

#: What takes long to import, and where it is: only those who use it pay.
_LAZY = {
    **dict.fromkeys(
        ("audit", "connect", "dry_run", "gallery", "list", "load", "plot", "probe", "run", "score", "task"),
        "mmc_bench.api",
    ),
    "BaseConfig": "mmc_bench.plugin.parameters",
    **dict.fromkeys(("Choice", "LogUniform", "Uniform"), "mmc_bench.plugin.search"),
    "Results": "mmc_bench.running.outcome",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mmc_bench' has no attribute {name!r}")


def __dir__() -> Sequence[str]:
    return sorted({*globals(), *_LAZY})
