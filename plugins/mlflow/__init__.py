"""A run in MLflow."""

from collections.abc import Callable

from mmc_bench import ObserverSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_observers(register: Callable[[ObserverSpec], None]) -> None:
    """Register the observer."""
    register(
        ObserverSpec(
            name="mlflow",
            target=".observer:MLflow",
            summary="An MLflow run for every cell, where $MLFLOW_TRACKING_URI says",
            packages=dict.fromkeys(("mlflow", "sqlalchemy", "alembic"), "mmc-bench[mlflow]"),
        )
    )
