"""What devices differ in: float64, the layout of images, random numbers, waiting for them, their caches."""

from contextlib import AbstractContextManager

import torch

#: What torch calls Apple's GPU, which has no float64.
APPLE = "mps"


def float64_device(device: torch.device) -> torch.device:
    """Return the device itself, or the CPU where it has no float64."""
    return torch.device("cpu") if device.type == APPLE else device


def in_float64(values: torch.Tensor) -> torch.Tensor:
    """Return values in float64: on their device, or on the CPU where it has none."""
    return values.to(float64_device(values.device)).double()


def widest_float(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on a device that has no float64."""
    return torch.float32 if device.type == APPLE else torch.float64


def image_layout(device: torch.device) -> torch.memory_format:
    """Return the memory format in which networks run: channels_last, which is fastest.

    On Apple's GPU, BatchNorm's gradients are wrong there in several versions of torch (pytorch#175189).
    """
    return torch.contiguous_format if device.type == APPLE else torch.channels_last


def own_chance(device: torch.device) -> AbstractContextManager[None]:
    """Return a context after which torch's global generators, the CPU's and this device's, are as before."""
    if device.type in ("cuda", "mps"):
        return torch.random.fork_rng([device], device_type=device.type)
    return torch.random.fork_rng([])


def state_of_chance(device: torch.device) -> list[torch.Tensor]:
    """Return the states of these generators."""
    own = [torch.get_device_module(device).get_rng_state(device)] if device.type in ("cuda", "mps") else []
    return [torch.get_rng_state(), *own]


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == APPLE:
        torch.mps.synchronize()


def empty_caches() -> None:
    """Give back the memory that torch keeps on GPUs for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
