"""Compiling the forward and backward pass of a long training on a GPU: once an architecture, not once a model."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from mmc_bench.data.micro_batches import micro_batches
from mmc_bench.errors import message_of
from mmc_bench.training.memory import is_out_of_memory

#: Steps from which a compilation, of about half a minute, is worth its time.
WORTHWHILE_STEPS = 2000

#: Variants of a function, by architecture, sizes and mode, that a process keeps compiled; torch's own limit is 8.
MOST_VARIANTS = 64

#: A function of a network and images (n, …).
Forward = Callable[[Any, torch.Tensor], torch.Tensor]


class UncompiledError(Exception):
    """A function could not be compiled; the message says why, as a clause."""


@dataclass
class Compiler:
    """Runs compiled code, and keeps what came of it in the trainings that share a `mmc_bench.training.Progress`.

    Attributes
    ----------
    compiled
        Whether compiled code ran.
    seconds
        Time of the calls that compiled, or tried to.
    why_not
        Why a training, the first of those that did, ran without; None where compiling is out of the question, as on a
        CPU.
    """

    compiled: bool = False
    seconds: float = 0.0
    why_not: str | None = None

    def run(
        self, compile_: Callable[[Forward], Forward], forward: Forward, model: Any, x: torch.Tensor
    ) -> torch.Tensor:
        """Return what the compiled function returns for a network and its images.

        Raises
        ------
        UncompiledError
            When it cannot be compiled. Nothing has been computed by then: the network is what it was.
        """
        start, graphs = time.perf_counter(), _compiled_graphs()
        failed = False
        try:
            with _failing_loudly():
                outputs = compile_(forward)(model, x)
        except Exception as error:
            failed = True
            if is_out_of_memory(error):
                raise
            raise UncompiledError(reason_of(error)) from error
        finally:
            if failed or graphs != _compiled_graphs():
                self.seconds += time.perf_counter() - start
        self.compiled = True
        return outputs

    def runs_without(self, reason: str | None) -> None:
        """Note that a training runs without compiled code, and why, where it might have."""
        self.why_not = self.why_not or reason


def is_worth_compiling(device: torch.device | str, steps: int) -> bool:
    """Tell whether a training of so many steps gains from compiled code; where memory is short, none does."""
    return torch.device(device).type == "cuda" and why_uncompiled(device, steps) is None


def why_uncompiled(device: torch.device | str, steps: int) -> str | None:
    """Return why a training of so many steps on a GPU is not compiled; None where it is, and on other devices."""
    if torch.device(device).type != "cuda":
        return None
    if not compiling_is_on():
        return "the environment turns compiling off"
    if micro_batches() > 1:
        return "memory ran out before"
    if steps < WORTHWHILE_STEPS:
        return f"fewer than {WORTHWHILE_STEPS} steps are not worth the time of compiling"
    return None


def compiling_is_on() -> bool:
    """Tell whether torch compiles at all: ``TORCHDYNAMO_DISABLE=1`` and ``TORCH_COMPILE_DISABLE=1`` turn it off."""
    return "1" not in (os.environ.get("TORCHDYNAMO_DISABLE"), os.environ.get("TORCH_COMPILE_DISABLE"))


def compiled(forward: Forward) -> Forward:
    """Return the compiled function, one for the whole process, for batches of equal size.

    TorchInductor fuses what lies between the convolutions, and replays forward and backward pass as CUDA graphs:
    call ``torch.compiler.cudagraph_mark_step_begin()`` before each step, after which the last step's outputs may be
    overwritten. On a CPU it gains nothing. Weights enter the compiled code as inputs, so all models of an
    architecture share it; it is kept on disk besides (``TORCHINDUCTOR_CACHE_DIR``), for other processes and later
    runs. Under deterministic algorithms it is compiled without measuring which kernels are fastest.
    """
    return _compiled(forward, torch.are_deterministic_algorithms_enabled())


def fused(forward: Forward) -> Forward:
    """Return the same but without CUDA graphs, for steps that are captured as a whole (`mmc_bench.training.graphs`)."""
    return _fused(forward, torch.are_deterministic_algorithms_enabled())


@cache
def _compiled(forward: Forward, deterministic: bool) -> Forward:
    if not deterministic:
        return torch.compile(forward, mode="reduce-overhead", dynamic=False)
    return torch.compile(forward, options={"triton.cudagraphs": True} | _repeatable(), dynamic=False)


@cache
def _fused(forward: Forward, deterministic: bool) -> Forward:
    return torch.compile(forward, options=_repeatable() if deterministic else None, dynamic=False)


def _repeatable() -> dict[str, Any]:
    return {"deterministic": True} if "deterministic" in torch._inductor.list_options() else {}


@contextmanager
def _failing_loudly() -> Iterator[None]:
    """Let torch raise where it would silently go on uncompiled, and compile the backward pass with the forward pass.

    These settings hold inside the block alone: code of others compiles as it wants to.
    """
    with ExitStack() as stack:
        for settings in _settings():
            stack.enter_context(settings)
        yield


@cache
def _settings() -> tuple[Any, ...]:
    from torch._functorch import config as autograd

    dynamo: Any = torch._dynamo.config
    wanted: dict[str, Any] = {"suppress_errors": False}
    # The second of two names is that of torch 2.6.
    for names, value in (
        (("recompile_limit", "cache_size_limit"), MOST_VARIANTS),
        (("fail_on_recompile_limit_hit", "fail_on_cache_limit_hit"), True),
    ):
        wanted |= dict.fromkeys([name for name in names if hasattr(dynamo, name)][:1], value)
    patches = [dynamo.patch(wanted)]
    if hasattr(autograd, "force_non_lazy_backward_lowering"):  # else it is compiled in the first backward pass
        patches.append(autograd.patch(force_non_lazy_backward_lowering=True))
    return tuple(patches)


def _compiled_graphs() -> int:
    """Return how many graphs this process has compiled."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def reason_of(error: Exception) -> str:
    """Return why compiling or capturing failed, as a clause; torch wraps the error of a compiler in one of its own."""
    if "LimitHit" in type(error).__name__:
        return f"this process compiled {MOST_VARIANTS} variants of the same function before"
    inner = getattr(error, "inner_exception", None) or error
    said = message_of(Exception(str(inner).strip().partition("\n")[0]))[:200].rstrip(".")
    return f"{type(inner).__name__}: {said}" if said else type(inner).__name__
