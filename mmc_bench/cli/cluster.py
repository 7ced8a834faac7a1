"""Where cells run: on this machine, or on a Ray cluster, of whose nodes a worker takes a share."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mmc_bench.engines import Engine
from mmc_bench.errors import UserError

if TYPE_CHECKING:
    from mmc_bench.engines.local import Limits

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Cluster:
    """What the options say of the cluster, if one is chosen.

    `cpus` and `gpus` are what a worker takes of its node, each None unless given.
    """

    is_chosen: bool
    address: str | None
    cpus: float | None
    gpus: float | None

    def __post_init__(self) -> None:
        given = {"--address": self.address, "--cpus-per-cell": self.cpus, "--gpus-per-cell": self.gpus}
        for name, value in given.items():
            if value is not None and not self.is_chosen:
                raise UserError(f"{name} is about a Ray cluster: add --engine ray")

    @property
    def threads(self) -> int:
        """CPU threads of a worker: one for each CPU that it takes."""
        return max(1, round(self.cpus or 1))

    @property
    def gpu_share(self) -> float:
        """The part of a GPU's memory that a worker may take."""
        return self.gpus or 1.0

    def device(self, wanted: str) -> str:
        """Return the device of the workers: the GPU where they take one or a part of one, else the CPU.

        Raises
        ------
        UserError
            When something else was asked for.
        """
        device = "cuda" if self.gpus else "cpu"
        if wanted not in ("auto", device):
            hint = "that takes --gpus-per-cell 1, or less" if wanted == "cuda" else "write cpu, cuda or auto"
            raise UserError(f"--device {wanted} cannot be used on a Ray cluster: {hint}")
        return device

    def engine(self, workers: int | None, threads: int, limits: "Limits") -> Engine:
        """Return what runs the jobs there; a worker takes as many CPUs as it has threads unless given.

        Raises
        ------
        UserError
            When Ray is not installed, or no worker is asked for.
        """
        if workers == 0:
            raise UserError("--workers 0 runs everything in this process: leave it out with --engine ray")
        if find_spec("ray") is None:
            raise UserError("--engine ray needs Ray: pip install 'mmc-bench[ray]'")
        from mmc_bench.engines.ray import RayEngine, Share

        share = Share(self.cpus or float(threads), self.gpus or 0.0)
        return RayEngine(workers, share, self.address or os.environ.get("RAY_ADDRESS"), limits)


def cluster_options(command: Command) -> Command:
    """Add ``--engine`` and the options of a `Cluster`, and hand it to the command as ``cluster``."""

    def _with_cluster(engine: str, address: str | None, **options: Any) -> Any:
        cpus, gpus = options.pop("cpus_per_cell"), options.pop("gpus_per_cell")
        return command(cluster=Cluster(engine == "ray", address, cpus, gpus), **options)

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
        type=click.Choice(("local", "ray")),
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
