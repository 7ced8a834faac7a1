"""A stand-in for Apple's GPU: tensors that say they are on a device ``apple``, computed on the CPU under its rules.

It refuses what that device refuses: float64, operations whose tensors lie on two devices, and operations that are
declared missing. BatchNorm's gradients are wrong there for channels_last images, and copies that nobody waits for may
be of other memory: both are refused too.

torch lets nobody else be ``mps``, but has a place for devices that are written in Python. One that is registered after
the first backward pass of a process has none: what trains needs a process of its own.
"""

from contextlib import contextmanager
from functools import cache

import pytest
import torch
from torch import nn
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map_only

NAME = "apple"
CPU = torch.device("cpu")

#: Operations whose tensors may lie on two devices; those of indexing take indices of the CPU.
BETWEEN_DEVICES = [getattr(torch.ops.aten, name) for name in ("copy_", "_to_copy", "index", "index_put_")]


class _Module:
    """What torch asks of a device's module. Outside of `pretended_gpu`, there is no such device for other tests."""

    is_pretended = False

    def is_available(self):
        return self.is_pretended

    def is_initialized(self):
        return True

    def is_autocast_available(self):
        return True

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]

    def _is_in_bad_fork(self):
        return False

    def _lazy_init(self):
        pass

    def manual_seed_all(self, seed):
        pass

    def device_count(self):
        return int(self.is_pretended)

    def current_device(self):
        return 0


@cache
def register():
    """Make the device known to torch, for as long as this process lives."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch knows no devices that are written in Python")
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())


class Pretended(torch.Tensor):
    """A tensor on the device, which keeps its values in `inner`, on the CPU."""

    @staticmethod
    def __new__(cls, inner):
        """Wrap a tensor of the CPU."""
        refuse_float64(inner)
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=f"{NAME}:0"
        )

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        """Name it: reading its values would go through the device."""
        return f"Pretended({tuple(self.shape)}, {self.dtype})"

    def tolist(self):
        """Return its values, which torch refuses for tensors of other classes."""
        return self.inner.tolist()

    def data_ptr(self):
        """Return where its values lie."""
        return self.inner.data_ptr()

    def __deepcopy__(self, memo):
        """Return a copy; torch's own looks at the memory of the wrapper."""
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        if isinstance(self, nn.Parameter):
            copied = nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Compute on the CPU."""
        return computed(func, args, kwargs or {})


def refuse_float64(tensor):
    """Raise what torch raises."""
    if tensor.dtype == torch.float64:
        raise TypeError(
            "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
            "Please use float32 instead."
        )


def computed(func, args, kwargs, missing=()):
    """Return what an operation returns on its device."""
    tensors = []
    tree_map_only(torch.Tensor, tensors.append, (args, kwargs))
    there = any(isinstance(tensor, Pretended) for tensor in tensors)
    wanted = kwargs.get("device")
    place = torch.device(wanted or (NAME if there else CPU))
    packet = func.overloadpacket
    if place.type == NAME and str(func) in missing:
        raise NotImplementedError(
            f"The operator '{str(func).replace('.', '::', 1).removesuffix('.default')}' is not currently implemented "
            "for the MPS device. As a temporary fix, you can set the environment variable "
            "`PYTORCH_ENABLE_MPS_FALLBACK=1` to use the CPU as a fallback for this op."
        )
    if place.type == NAME and kwargs.get("non_blocking"):
        raise RuntimeError("copies to MPS that nobody waits for may be of other memory (pytorch#189690)")
    if there and packet not in BETWEEN_DEVICES:
        if any(not isinstance(tensor, Pretended) and tensor.ndim for tensor in tensors):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, apple:0 and cpu were found")
        if packet is torch.ops.aten.convolution and tensors[0].ndim == 4 and not tensors[0].is_contiguous():
            raise RuntimeError("BatchNorm's gradients are wrong for channels_last images on MPS (pytorch#175189)")
    inner_args, inner_kwargs = tree_map_only(Pretended, lambda tensor: tensor.inner, (args, kwargs))
    if wanted is not None:
        inner_kwargs = {**inner_kwargs, "device": CPU}
    outputs = func(*inner_args, **inner_kwargs)
    if packet is torch.ops.aten.copy_:
        return args[0]
    if place.type == "cpu":
        return outputs
    return return_and_correct_aliasing(func, args, kwargs, tree_map_only(torch.Tensor, Pretended, outputs))


def _tensor(*args, make=torch.tensor, device=None, **kwargs):
    """Do as `torch.tensor`, which makes its tensors below the operations that can be computed elsewhere."""
    return make(*args, **kwargs).to(device or CPU)


class _Generator(torch.Generator):
    """A generator, of the CPU where it is to be one of the device, which is computed there."""

    def __new__(cls, device=CPU):
        """Make it."""
        return super().__new__(cls, CPU if torch.device(device).type == NAME else device)


@contextmanager
def pretended_gpu(*missing):
    """Let ``device="apple"`` make such tensors; operations such as ``aten.cumsum.default`` may be missing there."""
    register()
    with pytest.MonkeyPatch.context() as patch, _Computes(missing):
        patch.setattr(torch, "tensor", _tensor)
        patch.setattr(torch, "Generator", _Generator)
        # Such tensors cannot be put into others.
        patch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
        patch.setattr(_Module, "is_pretended", True)
        yield


class _Computes(TorchDispatchMode):
    """Computes what names the device, or has a tensor on it."""

    def __init__(self, missing):
        super().__init__()
        self.missing = missing

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Compute on the CPU."""
        return computed(func, args, kwargs or {}, self.missing)
