"""The memory of a GPU that several workers share: each keeps to its part, so that none starves another."""

from collections.abc import Sequence

from mmc_bench.engines import GIGABYTE
from mmc_bench.errors import UserError

#: Bytes that a process takes of a GPU besides its tensors, for its CUDA context: about so many.
CONTEXT = GIGABYTE

#: Bytes for tensors without which a worker does not start.
LEAST = GIGABYTE


def shares(devices: Sequence[str], workers: int) -> dict[str, float]:
    """Return the part of each device that one of its workers gets, where they are spread evenly in this order."""
    return {device: 1 / len(range(place, workers, len(devices))) for place, device in enumerate(devices[:workers])}


def fraction_for_tensors(device: str, share: float) -> float:
    """Return the part of a GPU's memory that a worker's tensors may take: its share, less a CUDA context.

    Raises
    ------
    UserError
        When too little is left.
    """
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    left = share * total - CONTEXT
    if left < LEAST:
        raise UserError(
            f"{device} has {total / GIGABYTE:.1f} GB: a share of {share:.2g} leaves a worker less than "
            f"{LEAST / GIGABYTE:g} GB besides its CUDA context: let fewer workers share a GPU"
        )
    return left / total


def keep_to_share(device: str, share: float) -> None:
    """Let this process, a worker on a CUDA GPU, use that one and no more than its share of the memory.

    Work that names no GPU goes to this one, too: on another it would take a CUDA context.

    Raises
    ------
    UserError
        When too little memory is left.
    """
    import torch

    if torch.device(device).index is not None:
        torch.cuda.set_device(device)
    if share < 1:
        torch.cuda.set_per_process_memory_fraction(fraction_for_tensors(device, share))
