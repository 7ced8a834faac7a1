"""When memory runs out: what the error looks like, and how the same update is computed in less.

Where each image has its own share in the loss, a batch is cut into micro-batches whose gradients add up. BatchNorm
couples the images of a batch, and so may a method's loss: there the batch stays whole, and what the backward pass
needs waits outside the device's memory, for a GPU in the host's, for a CPU in a temporary file. That is the same
update to the bit, as far as the device repeats itself, and takes the memory of some layers instead of that of all.
"""

import copy
import errno
import tempfile
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedRandom

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from mmc_bench.data.micro_batches import cut_into
from mmc_bench.errors import message_of
from mmc_bench.system.devices import own_chance, state_of_chance
from mmc_bench.training.precision import cross_entropy

#: Micro-batches of the last attempt.
MOST_MICRO_BATCHES = 16

#: Bytes below which a tensor stays where it is: moving it costs more than it frees.
SMALL = 2**16

#: Images that tell whether a network couples them.
PROBED_IMAGES = 8

# What allocators and the libraries behind torch say; none but torch's own has an error type for it.
SIGNS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "_status_alloc_failed",
    "_status_not_initialized",  # cuBLAS and cuDNN, whose handles need memory of their own
    "host_allocation_failed",
    "std::bad_alloc",
    "unable to find an engine to execute",  # cuDNN, which lacks its workspace
    "could not create a primitive",  # oneDNN
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error, or one that it came from, says that memory ran out."""
    return any(
        isinstance(cause, (MemoryError, torch.OutOfMemoryError))
        or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM)
        or (isinstance(cause, RuntimeError) and any(sign in str(cause).lower() for sign in SIGNS))
        for cause in _causes(error)
    )


def out_of_memory(error: BaseException, parts: int) -> str:
    """Return the sentence about memory that ran out for good."""
    reason = message_of(error)[:200] or type(error).__name__
    return (
        f"out of memory, even with batches in {parts} parts ({reason}): "
        "use fewer workers, a smaller backbone or a smaller batch_size"
    )


def free_frames(error: BaseException) -> None:
    """Free what the functions held through which an error came, even where a reference to the error is left."""
    for cause in _causes(error):
        traceback.clear_frames(cause.__traceback__)


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and those that it came from."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and cause not in causes:
        causes.append(cause)
    return causes


@contextmanager
def sparing_memory(parts: int) -> Iterator[None]:
    """Compute batches in so many parts for a while, and keep what backward passes need outside the device's memory.

    With one part everything is as it is without.
    """
    if parts == 1:
        yield
        return
    with tempfile.TemporaryFile() as file, cut_into(parts):
        pack = Outside(file).pack
        with saved_tensors_hooks(pack, lambda kept: kept()):
            yield


class Outside:
    """Takes tensors out of their device's memory; those of a CPU go to a file, used anew once all are gone."""

    def __init__(self, file: BufferedRandom) -> None:
        self._file = file
        self._kept = self._end = 0

    def pack(self, tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Return what brings back a tensor; weights, which stay in memory anyhow, and small ones are not moved."""
        tensor, is_weight = tensor.detach(), isinstance(tensor, nn.Parameter)
        if is_weight or tensor.nbytes < SMALL or tensor.layout != torch.strided:
            return lambda: tensor
        if tensor.device.type != "cpu":
            device, on_host = tensor.device, tensor.cpu()
            return lambda: on_host.to(device)
        return self._to_file(tensor)

    def _to_file(self, tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        # The same strides come back, so that the same kernels run; a view with gaps or overlaps loses these.
        if torch.empty_like(tensor, device="meta").stride() != tensor.stride():
            tensor = tensor.contiguous()
        size, stride, dtype, place = tensor.shape, tensor.stride(), tensor.dtype, self._end
        self._file.seek(place)
        self._file.write(_bytes_of(tensor).numpy().data)
        self._end += tensor.nbytes
        self._kept += 1

        def bring_back() -> torch.Tensor:
            back = torch.empty_strided(size, stride, dtype=dtype)
            self._file.seek(place)
            self._file.readinto(_bytes_of(back).numpy().data)
            return back

        weakref.finalize(bring_back, self._forget)
        return bring_back

    def _forget(self) -> None:
        self._kept -= 1
        if not self._kept:
            self._end = 0


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor without gaps, in the order in which they lie in memory."""
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def backward_in_parts(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, parts: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the gradient of the mean cross-entropy over a batch to the weights', a micro-batch at a time.

    Right only for networks that do not couple images; see `couples_images`.

    Returns
    -------
    tuple
        The loss, a scalar, and the logits (n, K), both detached.
    """
    losses, logits = [], []
    with saved_tensors_hooks(lambda tensor: tensor.detach(), lambda kept: kept):  # so little may stay on the device
        for x_part, y_part in zip(x.split(-(-len(x) // parts)), y.split(-(-len(y) // parts)), strict=True):
            outputs = model(x_part)
            loss = cross_entropy(outputs, y_part) * (len(y_part) / len(y))
            loss.backward()
            losses.append(loss.detach())
            logits.append(outputs.detach())
    return torch.stack(losses).sum(), torch.cat(logits)


@torch.no_grad()
def couples_images(model: nn.Module, x: torch.Tensor) -> bool:
    """Tell whether cutting a batch in parts would change what `model` computes in training mode.

    So it is where an image's outputs depend on the others of its batch, or on chance (dropout would draw other
    numbers), or where a pass changes the network's buffers (running statistics would be updated more often). A copy
    of the network is run on these images (n, …), n ≥ 2, and on the first half of them beside others.
    """
    model = copy.deepcopy(model).train()
    buffers = [buffer.clone() for buffer in model.buffers()]
    half = len(x) // 2
    with own_chance(x.device):
        chance = state_of_chance(x.device)
        alone, beside_others = model(x)[:half], model(torch.cat([x[:half], x[half:] + 1]))[:half]
        unchanged = (
            torch.equal(alone, beside_others),
            all(map(torch.equal, chance, state_of_chance(x.device))),
            all(map(torch.equal, buffers, model.buffers())),
        )
    return not all(unchanged)
