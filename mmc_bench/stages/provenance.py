"""What made a record: versions, commit, machine, precision, seeds."""

import platform
import re
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from mmc_bench.data.micro_batches import micro_batches
from mmc_bench.results.jobs import Connection, Job, Pretraining, Probe, references_of
from mmc_bench.results.making import Cuda, Provenance
from mmc_bench.results.versions import PACKAGE, digest_of_stage
from mmc_bench.seeds import DRAWS, derive_seed
from mmc_bench.stages.resources import Resources
from mmc_bench.system.processes import cpu_info
from mmc_bench.system.torch_state import float32_precision
from mmc_bench.training.compiled import compiling_is_on

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pillow")

#: Where Linux says which of NVIDIA's kernel modules it has.
DRIVER = Path("/proc/driver/nvidia/version")


def provenance_of(job: Job | Connection | Probe, resources: Resources, seeds: dict[str, int]) -> Provenance:
    """Return the provenance of a record made now, by this process."""
    commit, dirty = git_state()
    references = references_of(job)
    sources = {f"stage {name}": digest_of_stage(name) for name in job.versions}
    for kind, plugin in references:
        digest = resources.offer(kind, plugin).digest
        if digest is not None:
            sources[f"plugin {kind} {plugin.distribution}:{plugin.name}"] = digest
    return Provenance(
        mmc_bench=version("mmc-bench"),
        python=platform.python_version(),
        packages=_package_versions(),
        plugins={f"{plugin.distribution}:{plugin.name}": plugin.version for _, plugin in references},
        git_commit=commit,
        git_dirty=dirty,
        platform=f"{platform.system()} {platform.machine()}",
        device=device_name(resources.device),
        precision=resources.precision,
        threads=resources.threads,
        micro_batches=micro_batches(),
        seeds=dict(seeds),
        sources=sources,
        deterministic=torch.are_deterministic_algorithms_enabled(),
        cuda=_cuda() if resources.device.type == "cuda" else None,
    )


def _cuda() -> Cuda:
    cudnn, compiles, tf32 = torch.backends.cudnn.version(), compiling_is_on(), float32_precision()
    return Cuda(
        runtime=torch.version.cuda,
        driver=_driver(),
        cudnn=None if cudnn is None else str(cudnn),
        matmul_tf32=tf32["cuda"],
        cudnn_tf32=tf32["cudnn"],
        cudnn_benchmark=torch.backends.cudnn.benchmark,
        cudnn_deterministic=torch.backends.cudnn.deterministic,
        compiling=compiles,
        graphs=compiles and not _graph_skips(),
    )


def _graph_skips() -> int:
    """Return how much of what this process compiled is not replayed as CUDA graphs."""
    from torch._dynamo.utils import counters

    return counters["inductor"]["cudagraph_skips"]


@cache
def _driver() -> str | None:
    """Return the version of NVIDIA's kernel module, where the system says it."""
    try:
        found = re.search(r"\s(\d{3,}\.[\d.]+)\s", DRIVER.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[1] if found else None


def experiment_seeds(experiment: Pretraining) -> dict[str, int]:
    """Return an experiment's seeds: its own, and those derived from it and its data seed."""
    draws = {what: derive_seed(what, experiment.data_seed) for what in DRAWS}
    trainings = ("pretraining",) if experiment.recipe.augment == "none" else ("pretraining", "augmentation")
    return {"experiment": experiment.seed, **draws} | {what: derive_seed(what, experiment.seed) for what in trainings}


@cache
def _package_versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


@cache
def git_state() -> tuple[str | None, bool | None]:
    """Return the commit and dirty flag, at the first call, of the checkout that mmc_bench runs from, if it does."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PACKAGE.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # An installed copy may lie inside an unrelated repository.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != PACKAGE.parent.resolve():
            return None, None
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "mmc_bench", "plugins"))
    except (OSError, subprocess.SubprocessError):
        return None, None


@cache
def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the processor with the instructions that torch uses of it.

    Processors of one name can differ in their instructions, which decide how sums are rounded.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    return f"cpu ({', '.join(filter(None, [cpu_info('model name'), torch.backends.cpu.get_cpu_capability()]))})"
