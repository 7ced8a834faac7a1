"""What the hardware reaches, and a training step of ResNet-18 in several ways beside it."""

import statistics
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.utils import counters
from torch.nn import functional as F

from mmc_bench.stages.hardware import matrix_product_peak, training_flop
from mmc_bench.training import cross_entropy
from mmc_bench.training.backbone import logits
from mmc_bench.training.compiled import compiled
from mmc_bench.training.precision import arithmetic, prepare_device, resolve_precision

from ..speed.cases import Bench

Keep = Callable[[str, Any], None]
Once = Callable[[], Any]

#: ResNet-18's convolutions at 32x32: channels in and out, kernel, stride, side, and how often each occurs.
CONVOLUTIONS = [(3, 64, 3, 1, 32, 1), (64, 64, 3, 1, 32, 4)]
for _channels, _side in ((64, 32), (128, 16), (256, 8)):
    CONVOLUTIONS += [
        (_channels, 2 * _channels, 3, 2, _side, 1),
        (_channels, 2 * _channels, 1, 2, _side, 1),
        (2 * _channels, 2 * _channels, 3, 1, _side // 2, 3),
    ]


def milliseconds(device: torch.device, once: Once, calls: int = 10, rounds: int = 3) -> float:
    """Return how long a call takes, in the median of some rounds of calls, after two to warm up."""
    once(), once()
    found = []
    for _ in range(rounds):
        _wait(device)
        start = time.perf_counter()
        for _ in range(calls):
            once()
        _wait(device)
        found.append(1e3 * (time.perf_counter() - start) / calls)
    return statistics.median(found)


def ceilings(device: torch.device, tiny: bool, keep: Keep) -> None:
    """Measure a matrix product, a copy, and ResNet-18's convolutions alone, the sum of which no design outruns."""
    precision = resolve_precision("auto", device)
    prepare_device(precision, device)
    with arithmetic(precision, device):
        peak = matrix_product_peak(device, 0.1 if tiny else 1.0)
    x, y = torch.ones(2, 2**20 if tiny else 2**28, device=device)
    copy = 2 * x.nbytes / milliseconds(device, lambda: y.copy_(x), 5) / 1e6
    keep("matrix product", {"precision": precision, "tflops": peak / 1e12, "copy_gb_per_second": copy})
    for batch in (2,) if tiny else (128, 256, 512):
        rows = [_convolution(device, precision, batch, shape, tiny) for shape in CONVOLUTIONS]
        total, flop = sum(row["ms"] for row in rows), sum(row["flop"] for row in rows)
        share = flop / total * 1e3 / peak
        images = batch / total * 1e3
        keep(f"convolutions, batch {batch}", {"ms": total, "share": share, "images_per_second": images, "rows": rows})


def _convolution(
    device: torch.device, precision: str, batch: int, shape: tuple[int, ...], tiny: bool
) -> dict[str, Any]:
    """Return the time and the operations of a convolution forward and backward, as often as it occurs."""
    channels, out, kernel, stride, side, times = shape
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def random(*size: int) -> torch.Tensor:
        return torch.randn(*size, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)

    x, weight = random(batch, channels, side, side), random(out, channels, kernel, kernel)
    gradient = random(batch, out, side // stride, side // stride)

    def backward(mask: list[bool]) -> Once:
        padding = [kernel // 2] * 2
        rest = (None, [stride] * 2, padding, [1, 1], False, [0, 0], 1, mask)
        return lambda: torch.ops.aten.convolution_backward(gradient, x, weight, *rest)

    parts: dict[str, Once] = {"forward": lambda: F.conv2d(x, weight, stride=stride, padding=kernel // 2)}
    if channels > 3:  # nothing asks for the gradient of the images
        parts["of images"] = backward([True, False, False])
    parts["of weights"] = backward([False, True, False])
    ms = {name: milliseconds(device, part, 1 if tiny else 10, 1 if tiny else 3) for name, part in parts.items()}
    one = 2 * batch * (side // stride) ** 2 * channels * out * kernel**2
    tflops = {name: one / value / 1e9 for name, value in ms.items()}
    return {"shape": shape, "ms": times * sum(ms.values()), "flop": times * len(parts) * one, "tflops": tflops}


def step(device: torch.device, tiny: bool, keep: Keep) -> None:
    """Time a training step of ResNet-18 eagerly, compiled as a long training is, and whole in one CUDA graph."""
    precision = resolve_precision("auto", device)
    prepare_device(precision, device)
    bench = Bench(device, precision)
    backbone = "resnet8" if tiny else "resnet18"
    model, images = bench.ours(bench.network(backbone)), bench.images(2)[0]
    flop = training_flop(model, *images.batch(slice(None))) / 2

    def tell(name: str, batch: int, once: Callable[[], Once]) -> None:
        try:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            start = time.perf_counter()
            run = once()
            run(), run(), run()
            _wait(device)
            first = time.perf_counter() - start
            ms = milliseconds(device, run, 2 if tiny else 20)
            images_per_second = batch / ms * 1e3
            share = images_per_second * flop / peak
            row = {"ms": ms, "images_per_second": images_per_second, "share": share, "first_steps_s": first}
            if device.type == "cuda":
                row["peak_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
            row["graphs_so_far"] = counters["stats"]["unique_graphs"]  # another model of the same needs no other
            row["cuda_graph_skips_so_far"] = counters["inductor"]["cudagraph_skips"]
            keep(f"{name}, batch {batch}", row)
        except Exception as error:  # the other ways are tried all the same
            traceback.print_exc()
            keep(f"{name}, batch {batch}", {"error": f"{type(error).__name__}: {error}"})

    with arithmetic(precision, device):
        peak = matrix_product_peak(device, 0.1 if tiny else 1.0)
        for batch in (2,) if tiny else (8, 128, 256, 512):  # at 8, the time is the host's
            tell("eager", batch, lambda batch=batch: _eager(bench, backbone, batch, logits))  # type: ignore[misc]
        if device.type != "cuda":
            return
        tell("compiled", 256, lambda: _eager(bench, backbone, 256, compiled(logits)))
        tell("compiled, a second model", 256, lambda: _eager(bench, backbone, 256, compiled(logits)))
        tell("compiled, fused SGD", 256, lambda: _eager(bench, backbone, 256, compiled(logits), fused=True))
        kernels = torch.compile(logits, dynamic=False)  # Inductor's kernels without graphs of its own
        tell("one graph, eager kernels", 256, lambda: _graphed(bench, backbone, 256, logits))
        for batch in (256, 128, 512):
            name = "one graph, compiled kernels"
            tell(name, batch, lambda batch=batch: _graphed(bench, backbone, batch, kernels))  # type: ignore[misc]
        for models in (2, 4):
            name = f"one graph, compiled kernels, {models} models of 128 on streams"
            tell(name, 128 * models, lambda models=models: _streams(bench, backbone, models, kernels))  # type: ignore[misc]


def _eager(
    bench: Bench, backbone: str, batch: int, forward: Callable[..., torch.Tensor], fused: bool | None = None
) -> Once:
    images, model = bench.images(batch)[0], bench.ours(bench.network(backbone)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=fused)
    rows = torch.arange(batch, device=bench.device)

    def once() -> None:
        if bench.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        x, y = images.batch(rows)
        loss = cross_entropy(forward(model, x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return once


def _graphed(bench: Bench, backbone: str, batch: int, forward: Callable[..., torch.Tensor]) -> Once:
    """Return the replay of a step, from the rows to the update, that is captured in one graph."""
    images, model = bench.images(batch)[0], bench.ours(bench.network(backbone)).train()
    rate = torch.tensor(0.01, device=bench.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4, fused=True)
    rows = torch.arange(batch, device=bench.device)

    def once() -> None:
        x, y = images.batch(rows)
        cross_entropy(forward(model, x), y).backward()
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(4):
            optimizer.zero_grad(set_to_none=True)
            once()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        once()

    def replay() -> None:
        graph.replay()
        assert rows is not None and images is not None  # what the graph reads stays as long as it does

    return replay


def _streams(bench: Bench, backbone: str, models: int, forward: Callable[..., torch.Tensor]) -> Once:
    """Return a step of so many models side by side, each a graph on a stream of its own."""
    steps = [(_graphed(bench, backbone, 128, forward), torch.cuda.Stream()) for _ in range(models)]

    def once() -> None:
        for replay, stream in steps:
            with torch.cuda.stream(stream):
                replay()

    return once


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
