"""A run as a file of JSON objects, one a line."""

from collections.abc import Callable

from mmc_bench import ObserverSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_observers(register: Callable[[ObserverSpec], None]) -> None:
    """Register the observer."""
    register(
        ObserverSpec(
            name="event-log",
            target=".observer:EventLog",
            summary="All that happens, as JSON objects, one a line, in RESULTS/events/",
        )
    )
