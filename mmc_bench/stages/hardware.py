"""What a device can do, and what a training asks of it: operations of an image, and those of a matrix product."""

import time
from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmc_bench.system.devices import synchronise
from mmc_bench.training.evaluate import eval_mode
from mmc_bench.training.precision import cross_entropy


def training_flop(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    """Count the operations of convolutions and matrix products, forward and backward; the model is left as it is."""
    with eval_mode(model), FlopCounterMode(display=False) as counter:  # the running statistics stay
        cross_entropy(model(x), y).backward()
    model.zero_grad(set_to_none=True)
    return int(counter.get_total_flops())


@cache
def peak_of_worker(device: torch.device, precision: str) -> float:
    """Return what `matrix_product_peak` measures, once in this process for each arithmetic, which must be in force."""
    return matrix_product_peak(device)


def matrix_product_peak(device: torch.device, seconds: float = 0.3) -> float:
    """Return the most operations a second of a square matrix product, in the arithmetic and the threads in force.

    It is the best of all products that fit into the time, and of at least two.
    """
    side = 8192 if device.type == "cuda" else 1024
    own = torch.Generator(device=device).manual_seed(0)  # others' random numbers stay what they are
    a, b = (torch.randn(side, side, device=device, generator=own) for _ in range(2))
    if torch.is_autocast_enabled(device.type):
        a, b = a.to(torch.get_autocast_dtype(device.type)), b.to(torch.get_autocast_dtype(device.type))
    best, rounds, begin = float("inf"), 0, time.perf_counter()
    while rounds < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        for _ in range(5 if device.type == "cuda" else 1):
            a @ b
        synchronise(device)
        elapsed = (time.perf_counter() - start) / (5 if device.type == "cuda" else 1)
        best, rounds = min(best, elapsed) if rounds else best, rounds + 1  # the first one warms up
    return 2 * side**3 / best
