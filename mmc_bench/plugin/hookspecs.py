"""The hooks a plugin may implement (pluggy, project name ``mmc_bench``)."""

from collections.abc import Callable
from pathlib import Path

import pluggy

from mmc_bench.plugin.specs import BackboneSpec, DatasetSpec, MethodSpec, ObserverSpec

PROJECT = "mmc_bench"
API_VERSION = 1

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    """Call ``register`` once for every dataset the plugin offers."""


@hookspec
def register_backbones(register: Callable[[BackboneSpec], None]) -> None:
    """Call ``register`` once for every backbone the plugin offers."""


@hookspec
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Call ``register`` once for every method the plugin offers."""


@hookspec
def register_observers(register: Callable[[ObserverSpec], None]) -> None:
    """Call ``register`` once for every observer that may be chosen with ``mmc-bench run --observe``."""


@hookspec
def register_suites(register: Callable[[Path], None]) -> None:
    """Call ``register`` with the path of every suite file, or folder of suite files, the plugin ships."""


@hookspec
def register_published(register: Callable[[Path], None]) -> None:
    """Call ``register`` with the path of every CSV of published accuracies, or folder of such, the plugin ships.

    ``mmc-bench table --against NAME`` compares records with the CSV of that name; `mmc_bench.report.published`
    says what its columns are, and what claims may stand beside it. The path of a YAML file registers claims,
    for example on paths between models: `mmc_bench.report.claims`.
    """
