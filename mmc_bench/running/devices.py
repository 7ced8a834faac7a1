"""Which devices a run computes on: what is asked for, and what is there."""

import re
from collections.abc import Sequence

from mmc_bench.errors import UserError
from mmc_bench.system.processes import may_have_gpu

#: A CUDA GPU by its index among those that torch sees; without one, the first.
GPU = re.compile(r"cuda(?::(0|[1-9][0-9]*))?")


def device_words(devices: str | Sequence[str]) -> str:
    """Return devices, in a list or as they are written after ``--device``, as one string.

    Raises
    ------
    UserError
        When they are neither.
    """
    if isinstance(devices, str):
        return devices
    if not isinstance(devices, Sequence):
        raise UserError(f"device {devices!r} is neither a name, such as auto, cpu or cuda:1, nor a list of names")
    return ",".join(map(str, devices))


def resolve_devices(wanted: str) -> tuple[str, ...]:
    """Return the devices to compute on.

    ``auto`` is every CUDA GPU that torch sees; where there is none Apple's GPU; where there is none the CPU. One GPU is
    ``cuda``, several are ``cuda:0``, ``cuda:1``, …

    Parameters
    ----------
    wanted
        ``auto``, one device, or several CUDA GPUs separated by commas.

    Raises
    ------
    UserError
        When a device is none of these, it is not there, or is named twice, or other devices are mixed.
    """
    names = [name.strip() for name in wanted.split(",")]
    if names == ["cpu"] or (names == ["auto"] and not may_have_gpu()):
        return ("cpu",)
    if names == ["auto"]:
        return _all_there()
    if len(names) > 1:
        return _several(wanted, names)
    if GPU.fullmatch(names[0]):
        _check_gpu(names[0])
    else:
        _check_other(names[0])
    return (names[0],)


def resolve_device(wanted: str) -> str:
    """Return the one device that this process computes on: the first of `resolve_devices`."""
    return resolve_devices(wanted)[0]


def _all_there() -> tuple[str, ...]:
    import torch

    count = _gpus()
    if count > 1:
        return tuple(f"cuda:{index}" for index in range(count))
    if count:
        return ("cuda",)
    return ("mps",) if torch.backends.mps.is_available() else ("cpu",)


def _several(wanted: str, names: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for name in names:
        match = GPU.fullmatch(name)
        if match is None:
            raise UserError(f"device {wanted}: {name!r} is no CUDA GPU: a list names these alone, as cuda:0,cuda:2")
        gpu = f"cuda:{match[1] or 0}"
        if gpu in found:
            raise UserError(f"device {wanted}: {gpu} is there twice: name each GPU once")
        found.append(gpu)
    for name in found:
        _check_gpu(name)
    return tuple(found)


def _gpus() -> int:
    """Return how many CUDA GPUs torch sees, among those of ``CUDA_VISIBLE_DEVICES`` alone where that is set."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _check_gpu(name: str) -> None:
    """Check that a GPU is there; a tensor on it would keep some of its memory for as long as this process lives."""
    count = _gpus()
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        there = "no CUDA GPU" if not count else "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise UserError(f"device {name} cannot be used (torch sees {there}): use cpu or auto")


def _check_other(name: str) -> None:
    import torch

    if name not in ("mps", "mps:0"):
        raise UserError(f"device {name} cannot be used: write auto, cpu, cuda, cuda:1, … or mps")
    if not torch.backends.mps.is_available():
        raise UserError(f"device {name} cannot be used (torch sees no GPU of Apple's): use cpu or auto")
