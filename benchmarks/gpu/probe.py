"""``python -m benchmarks.gpu.probe NAME``: one of the check's measurements."""

import hashlib
import importlib.metadata
import json
import os
import platform
import runpy
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from packaging.requirements import Requirement

from mmc_bench.plugin.registry import Registry
from mmc_bench.stages.provenance import device_name
from mmc_bench.training import Training
from mmc_bench.training.precision import allow_tf32, arithmetic, prepare_device, resolve_precision

from ..speed import cases
from ..speed.cases import Bench
from ..speed.place import current, there, write_json
from . import kernels
from .repairs import method_of, replays, task_of
from .steps import read_json

#: Notes what was found under a name; a mapping with an ``error`` is a failure.
Keep = Callable[[str, Any], None]

#: A suite whose jobs are small, but of a network and batches that a gigabyte does not hold.
SUITE = """
datasets: [digits-box]
backbones: [{backbone}]
methods: [llr, ft-small]
cue_rates: [0.9]
seeds: [0]
threads: 1
data: {{pretrain_images: {images}}}
pretrain: {{epochs: 1, batch_size: {batch_size}, curve_images: 100}}
connect: {{points: 3, batchnorm_images: 50}}
"""

#: A method that reads past the end of a tensor, which a GPU answers with an assert that ends its process's context.
WRONG = '''
import torch

from mmc_bench import BaseConfig, MethodSpec, hookimpl

mmc_bench_api = 1


class Wrong:
    class Config(BaseConfig):
        """Nothing to choose."""

    config: Config

    def fine_tune(self, task):
        task.clean.labels[torch.full((4,), 10**6, device=task.device)].sum().item()
        return task.model


@hookimpl
def register_methods(register):
    register(MethodSpec(name="a-wrong-one", target=":Wrong", summary="reads past the end"))
'''


#: DFR's solver asks after each of its Newton steps which problems are solved.
WAITS_BY_DESIGN = ("dfr",)


@click.command()
@click.argument("name")
@click.option("--device", default="cuda", show_default=True, callback=there)
@click.option("--tiny", is_flag=True, help="As small as can be.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write what is found here too.")
def main(name: str, device: str, tiny: bool, file: Path | None) -> None:
    """Measure one thing; what it finds is written as it comes, and the exit code is 1 where a part of it fails."""
    place, found = current(device), dict[str, Any]()

    def keep(key: str, value: Any) -> None:
        found[key] = value
        click.echo(f"{key}: {json.dumps(value)}")
        if file:
            write_json(file, found)

    measures: dict[str, Callable[[torch.device, bool, Keep], None]] = {
        "machine": machine,
        "ceilings": kernels.ceilings,
        "step": kernels.step,
        "parity": parity,
        "waits": waits,
        "replays": lambda device, tiny, keep: replays(bench_on(device), tiny, keep),
        "poisoned": poisoned,
        "memory": memory,
        "twice": twice,
        "deterministic": deterministic,
    }
    if name not in measures:
        raise click.BadParameter(f"{name!r} is none of {', '.join(measures)}")
    measures[name](place, tiny, keep)
    sys.exit(any(isinstance(value, dict) and "error" in value for value in found.values()))


def machine(device: torch.device, tiny: bool, keep: Keep) -> None:
    """Name the device, its driver and the versions of what is installed."""
    keep("device", device_name(device))
    keep("system", [platform.system(), platform.machine(), f"{os.cpu_count()} cores", platform.python_version()])
    keep("torch", f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    if device.type == "cuda" and shutil.which("nvidia-smi"):
        fields = "name,driver_version,memory.total,clocks.max.sm,power.limit"
        words = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        keep("driver", subprocess.run(words, capture_output=True, text=True).stdout.strip())
    keep("compilers", [name for name in ("gcc", "cc", "nvcc") if shutil.which(name)])
    lines = importlib.metadata.requires("mmc-bench") or []
    wanted = [one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate({"extra": ""})]
    versions = {name: _version(name) for name in ("mmc-bench", "triton", *(one.name for one in wanted))}
    keep("packages", versions)
    wrong = [str(one) for one in wanted if not _meets(versions[one.name], one)]
    keep("requirements", {"error": "missing or too old", "which": wrong} if wrong else "met")


def _meets(version: str | None, requirement: Requirement) -> bool:
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def parity(device: torch.device, tiny: bool, keep: Keep) -> None:
    """Compare ours with the plain loops, as the speed measurements do before they count."""
    bench = bench_on(device)
    checks = cases.parity(bench, *(("resnet8", 4) if tiny else ("resnet18", 32)))
    good = checks["fp32_output"] <= cases.FP32_OUTPUT and checks.get("bf16_loss", 0.0) <= cases.BF16_LOSS
    keep("parity", checks if good else {**checks, "error": "not the same numbers"})
    if device.type == "cuda":
        keep("what TF32 changes of logits", _change_by_tf32(bench, "resnet8" if tiny else "resnet18"))


def _change_by_tf32(bench: Bench, backbone: str) -> float:
    """Return the largest difference of logits with TF32 from those without, relative to the largest logit."""
    model, (x, _), found = bench.ours(bench.network(backbone)).eval(), bench.images(32)[0].batch(slice(None)), []
    for allowed in (False, True):
        allow_tf32(allowed)
        with torch.inference_mode():
            found.append(model(x))
    prepare_device(bench.precision, bench.device)
    return float((found[1] - found[0]).abs().max() / found[0].abs().max())


def waits(device: torch.device, tiny: bool, keep: Keep) -> None:
    """Fine-tune with every method in short, and count what makes the host wait; one more for each step is a fault.

    Tensors of two devices in one operation end a method with an error. Only CUDA tells of waits.
    """
    bench, images = bench_on(device), (12, 24) if tiny else (24, 96)
    steps_more = 2 * (images[1] - images[0]) // 12  # two epochs of a third of the images, in batches of 4
    for offer in bench.registry.offers("method"):
        name = offer.spec.name
        try:
            seen = [_waits_of(bench, offer, n) for n in images]
        except Exception as error:  # the other methods are checked all the same
            traceback.print_exc()
            keep(name, {"error": f"{type(error).__name__}: {error}"})
            continue
        waits = name not in WAITS_BY_DESIGN and seen[1] - seen[0] >= steps_more
        keep(name, {"waits": seen, **({"error": "its steps wait for the device"} if waits else {})})


def _waits_of(bench: Bench, offer: Any, n: int) -> int:
    method, task = method_of(offer, batch_size=4, epochs=2), task_of(bench, offer, n)
    on_gpu = bench.device.type == "cuda"
    with warnings.catch_warnings(record=True) as caught, arithmetic(bench.precision, bench.device):
        warnings.simplefilter("always")
        if on_gpu:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            method.fine_tune(task)
        finally:
            if on_gpu:
                torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def poisoned(device: torch.device, tiny: bool, keep: Keep) -> None:
    """Run a method that is wrong before two that are right, whose records must be there after all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "plugins").mkdir()
        (folder / "plugins" / "wrong.py").write_text(WRONG, encoding="utf-8")
        words = ("--methods", "a-wrong-one,llr,ft-small", "--plugins-dir", str(folder / "plugins"))
        workers = ("--workers", "0" if device.type == "cpu" else "1")
        code = _run(folder, device, *_suite(folder, "resnet8", 100, 50), *words, *workers)
        files = (folder / "results" / "cells").glob("*.json")
        records = sum("error" not in json.loads(file.read_text(encoding="utf-8")) for file in files)
    keep("exit code", code)
    keep("cells", records if records == 2 else {"records": records, "error": "the jobs after it have no records"})


def memory(device: torch.device, tiny: bool, keep: Keep) -> None:
    """Run ResNet-18 with batches of 512 in a gigabyte of the GPU; a CPU has no such limit."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, 1e9 / total), device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = ("resnet8", 100, 50) if tiny else ("resnet18", 1000, 512)
        code = _run(folder, device, *_suite(folder, *sizes), "--workers", "0")
        files = [file for kind in ("pretrained", "cells") for file in (folder / "results" / kind).glob("*.json")]
        provenance = [json.loads(file.read_text(encoding="utf-8")).get("provenance", {}) for file in files]
    parts = [one.get("micro_batches", 1) for one in provenance]
    enough = device.type == "cuda" and not tiny and max(parts, default=1) == 1
    keep("micro-batches", {"parts": parts, "error": "memory never ran out"} if enough else parts)
    keep("exit code", code if not code else {"code": code, "error": "the run failed"})


def twice(device: torch.device, tiny: bool, keep: Keep) -> None:
    """Train the same network twice in each arithmetic, and compare the weights to the bit."""
    precisions = ("fp32",) if device.type == "cpu" else ("bf16", "fp32")
    for precision in precisions:
        for deterministic in (False, True):
            bench = bench_on(device, precision)
            torch.backends.cudnn.benchmark = not deterministic
            torch.backends.cudnn.deterministic = deterministic
            digests = [_digest_of_training(bench, tiny) for _ in range(2)]
            keep(f"{precision}, cuDNN {'deterministic' if deterministic else 'as it comes'}", len(set(digests)) == 1)


def deterministic(device: torch.device, tiny: bool, keep: Keep) -> None:
    """Run every method twice with ``--deterministic``, and compare the records; name what has no such form."""
    offers = Registry.discover().offers("method")
    methods = "ft-small" if tiny else ",".join(offer.spec.name for offer in offers)
    workers = ("--workers", "0" if device.type == "cpu" else "4")
    found: list[dict[str, Any]] = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            words = ("--deterministic", "--methods", methods, *workers)
            code = _run(folder, device, *_suite(folder, "resnet8", 100, 50), *words)
            found.append({file.name: read_json(file) for file in (folder / "results" / "cells").glob("*.json")})
        failed = {record["label"]: record["error"] for record in found[-1].values() if "error" in record}
        wrong = {"code": code, "error": "the run failed", "failures": failed}
        keep(f"exit code {len(found)}", wrong if code or failed else 0)
    numbers = [{key: _numbers(record) for key, record in records.items()} for records in found]
    others = [found[0][key] for key in numbers[0] if numbers[0][key] != numbers[1].get(key)]
    names = sorted(record.get("label") or record["cell"]["method"]["name"] for record in others)
    keep("same numbers", {"error": "not the same", "methods": names} if names else len(numbers[0]))


def _numbers(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a record says that does not depend on when it was made."""
    return {name: value for name, value in record.items() if name not in ("timing", "provenance", "started", "sha256")}


def _digest_of_training(bench: Bench, tiny: bool) -> str:
    model, batch_size = bench.ours(bench.network("resnet8" if tiny else "resnet18")), 4 if tiny else 256
    with arithmetic(bench.precision, bench.device):
        training: Training[Any] = bench.training(model, bench.images(8 * batch_size)[0], 2, batch_size)
        training.fit()
    weights = [value.detach().float().cpu().numpy().tobytes() for value in model.state_dict().values()]
    return hashlib.sha256(b"".join(weights)).hexdigest()


def bench_on(device: torch.device, precision: str = "auto") -> Bench:
    """Return images and networks on a device that is prepared as a worker prepares it."""
    precision = resolve_precision(precision, device)
    prepare_device(precision, device)
    return Bench(device, precision)


def _suite(folder: Path, backbone: str, images: int, batch_size: int) -> Sequence[str]:
    text = SUITE.format(backbone=backbone, images=images, batch_size=batch_size)
    (folder / "small.yaml").write_text(text, encoding="utf-8")
    return "--suite", str(folder / "small.yaml")


def _run(folder: Path, device: torch.device, *words: str) -> int:
    """Run ``mmc-bench run`` in this process; return its exit code."""
    sys.argv = ["mmc-bench", "run", "--device", str(device), "--results", str(folder / "results"), *words]
    try:
        runpy.run_module("mmc_bench", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    main()
