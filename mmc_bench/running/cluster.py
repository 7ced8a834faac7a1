"""Where cells run: on this machine, or on a Ray cluster, of whose nodes a worker takes a share."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mmc_bench.engines import Engine
from mmc_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from mmc_bench.engines.local import Limits


ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Cluster:
    """What the options say of the cluster, if one is chosen.

    `cpus` and `gpus` are what a worker takes of its node, each None unless given.
    """

    is_chosen: bool = False
    address: str | None = None
    cpus: float | None = None
    gpus: float | None = None

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
            When Ray is not installed, no worker is asked for, or nothing answers at the address.
        """
        if workers == 0:
            raise UserError("--workers 0 runs everything in this process: leave it out with --engine ray")
        if find_spec("ray") is None:
            raise UserError("--engine ray needs Ray: pip install 'mmc-bench[ray]'")
        from mmc_bench.engines.ray import RayEngine, Share

        share = Share(self.cpus or float(threads), self.gpus or 0.0)
        return RayEngine(workers, share, self.address or os.environ.get("RAY_ADDRESS"), limits)


def cluster_of(engine: str, address: str | None, cpus: float | None, gpus: float | None) -> Cluster:
    """Return the cluster that an engine's name and its options describe.

    Raises
    ------
    UserError
        When there is no such engine, or a share is not allowed.
    """
    if engine not in ENGINES:
        raise UserError(f"unknown engine {engine!r}: {nearest(engine, ENGINES)}")
    if (cpus is not None and cpus <= 0) or (gpus is not None and not 0 <= gpus <= 1):
        raise UserError("cpus_per_cell must be above 0, and gpus_per_cell from 0 to 1")
    return Cluster(engine == "ray", address, cpus, gpus)
