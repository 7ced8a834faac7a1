"""The options that say where cells run."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from mmc_bench.running.cluster import ENGINES, cluster_of

Command = TypeVar("Command", bound=Callable[..., Any])


def cluster_options(command: Command) -> Command:
    """Add ``--engine`` and the options of a cluster, and hand it to the command as ``cluster``."""

    def _with_cluster(engine: str, address: str | None, **options: Any) -> Any:
        cpus, gpus = options.pop("cpus_per_cell"), options.pop("gpus_per_cell")
        return command(cluster=cluster_of(engine, address, cpus, gpus), **options)

    _with_cluster.__doc__ = command.__doc__
    _with_cluster.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed(_OPTIONS):
        _with_cluster = option(_with_cluster)
    return _with_cluster  # type: ignore[return-value]


_OPTIONS: list[Callable[[Any], Any]] = [
    click.option(
        "--engine",
        default="local",
        show_default=True,
        type=click.Choice(ENGINES),
        help="Where cells run: on this machine, or on a Ray cluster.",
    ),
    click.option(
        "--address",
        metavar="HOST:PORT",
        help="The Ray cluster; auto is one that this machine is part of.  "
        "[default: $RAY_ADDRESS, or one started here for the run]",
    ),
    click.option(
        "--cpus-per-cell",
        type=click.FloatRange(min=0, min_open=True),
        metavar="N",
        help="CPUs that a worker takes of a Ray node.  [default: its threads]",
    ),
    click.option(
        "--gpus-per-cell",
        type=click.FloatRange(min=0, max=1),
        metavar="N",
        help="GPUs that a worker takes of a Ray node: 0.25 lets four share one, and its memory.  [default: 0]",
    ),
]
