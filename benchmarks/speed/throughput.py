"""How much of the hardware a pretraining uses: images and operations a second, and the share of the peak."""

import statistics
from dataclasses import asdict
from typing import Any

from torch._dynamo.utils import counters

from mmc_bench.stages.hardware import matrix_product_peak, training_flop
from mmc_bench.training import Progress, Training
from mmc_bench.training.precision import arithmetic

from .cases import Bench

BACKBONES = ("resnet18", "vgg13")


def throughput(
    bench: Bench,
    backbone: str,
    batch_size: int | None = None,
    steps: int | None = None,
    epochs: int | None = None,
) -> dict[str, Any]:
    """Measure pretraining on random cued images of 3x32x32, epoch by epoch; the first, which compiles, is left out.

    Parameters
    ----------
    batch_size, steps, epochs
        Steps are those of an epoch. The defaults are 256, 100 and 25 on a GPU, long enough to be compiled, and 8, 2
        and 2 on a CPU.

    Returns
    -------
    dict
        ``images_per_second`` (median, minimum and maximum over the epochs), ``gflop_per_image`` of a forward and
        backward pass, ``tflops``, ``peak_tflops`` of a matrix product in the same precision, ``share`` of it,
        ``seconds`` of all epochs but the first, and ``warm_up_seconds`` of that, with those of compiling.
        ``compilation``: what came of it (`mmc_bench.training.compiled.Compiler`). ``compiled_graphs`` is 0 where
        nothing was compiled; ``cuda_graph_skips`` counts what was compiled but is not replayed as a CUDA graph.
    """
    usual = (256, 100, 25) if bench.device.type == "cuda" else (8, 2, 2)
    batch_size, steps, epochs = batch_size or usual[0], steps or usual[1], epochs or usual[2]
    counters.clear()
    images, _ = bench.images(steps * batch_size)
    model = bench.ours(bench.network(backbone))
    flop = training_flop(model, *images.batch(slice(0, 2))) / 2
    rates: list[float] = []

    def note(event: dict[str, Any]) -> None:
        if "images_per_second" in event:  # an epoch's: others tell of compiling
            rates.append(event["images_per_second"])

    progress = Progress(note)
    with arithmetic(bench.precision, bench.device):
        peak = matrix_product_peak(bench.device, 2.0 if bench.device.type == "cuda" else 0.3)
        Training(
            model,
            images,
            lr=0.01,
            epochs=epochs,
            batch_size=batch_size,
            generator=bench.generator(),
            progress=progress,
        ).fit()
    rate = statistics.median(rates[1:])
    return {
        "backbone": backbone,
        "batch_size": batch_size,
        "images_per_second": {"min": min(rates[1:]), "median": rate, "max": max(rates[1:])},
        "gflop_per_image": flop / 1e9,
        "tflops": rate * flop / 1e12,
        "peak_tflops": peak / 1e12,
        "share": rate * flop / peak,
        "seconds": steps * batch_size * sum(1 / rate for rate in rates[1:]),
        "warm_up_seconds": steps * batch_size / rates[0] + progress.compiler.seconds,
        "compilation": asdict(progress.compiler),
        "compiled_graphs": counters["stats"]["unique_graphs"],
        "cuda_graph_skips": counters["inductor"]["cudagraph_skips"],
    }
