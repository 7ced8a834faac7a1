"""What torch, NumPy and Python's random module keep for the whole process; see `mmc_bench.system.process_state`."""

import ctypes
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils import _device
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils._python_dispatch import _pop_mode as _pop_dispatch_mode

from mmc_bench.system.kept_states import UNKNOWN, KeptState, name_alone, silently
from mmc_bench.system.replaced_code import code_of_all, put_code_back, replaced_code

#: Flags of torch, with their values in a fresh process.
FLAGS = {
    "cudnn_enabled": True,
    "cudnn_benchmark": False,
    "cudnn_deterministic": False,
    "mkldnn_enabled": True,
    "mkldnn_deterministic": False,
    "nnpack_enabled": True,
    "cublas_allow_fp16_accumulation": False,
    "math_sdp_allow_fp16_bf16_reduction": False,
    "blas_preferred_backend": UNKNOWN,
    "linalg_preferred_backend": UNKNOWN,
    "warnAlways": False,
}

#: Of cuBLAS, whose getters and setters do not take the same values.
REDUCTIONS = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")

#: Kinds of attention that can be turned off.
ATTENTION = ("flash", "mem_efficient", "math", "cudnn")

#: Devices whose autocast is looked at, with its dtype in a fresh process.
AUTOCAST = {"cpu": torch.bfloat16, "cuda": torch.float16}

#: torch's table of float32 precisions, by library and operation.
OPERATIONS = (("generic", "all"), *((of, op) for of in ("cuda", "mkldnn") for op in ("all", "matmul", "conv", "rnn")))

#: Deterministic algorithms in a fresh process: whether enforced, warned of, and memory filled where they are.
UNFORCED = (False, False, True)

#: NumPy's error state in a fresh process.
FLOAT_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


def torch_states() -> tuple[KeptState, ...]:
    """Return what they keep, in the order in which it is to be put back."""
    print_options = vars(torch._tensor_str.PRINT_OPTS)
    off = tuple((False, dtype) for dtype in AUTOCAST.values())
    return (
        KeptState("the code of others", code_of_all, put_code_back, replaced_code, compares_itself=True),
        KeptState("torch's inference mode", torch.is_inference_mode_enabled, _set_inference_mode, usual=False),
        KeptState("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled, usual=True),
        KeptState("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype, usual=torch.float32),
        KeptState("torch's default device", _function_modes, _set_function_modes, _of_modes, ((), None, None)),
        KeptState("torch's dispatch modes", _get_current_dispatch_mode_stack, _pop_dispatch_modes, name_alone),
        KeptState("torch's autocast", _autocast, _set_autocast, name_alone, (off, True, 0)),
        KeptState("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
        KeptState("torch's number of inter-op threads", torch.get_num_interop_threads, lambda before: None),
        KeptState("torch's deterministic algorithms", _deterministic, _set_deterministic, name_alone, UNFORCED),
        KeptState("torch's treatment of denormal numbers", _flushes, torch.set_flush_denormal, name_alone, False),
        KeptState("torch's anomaly detection", _anomaly, _set_anomaly, name_alone, (False, True)),
        KeptState("torch's precision of float32", float32_precision, set_float32_precision, _of_precision),
        *(_attribute(torch.backends.cuda.matmul, name, True) for name in REDUCTIONS),
        *(_pair(name, torch._C, f"_get_{name}", f"_set_{name}", usual) for name, usual in FLAGS.items()),
        *(_pair(f"{name} attention", torch.backends.cuda, f"{name}_sdp_enabled", f"enable_{name}_sdp", True)
          for name in ATTENTION),
        KeptState("hooks on all modules or optimisers", _hooks, _set_hooks, name_alone),
        KeptState("hooks on saved tensors", _saved_hooks, _pop_saved_hooks, name_alone),
        KeptState("the GPU in use", _gpu, torch.cuda.set_device),
        KeptState("torch's print options", lambda: dict(print_options), print_options.update, name_alone),
        KeptState("NumPy's error state", np.geterr, lambda before: np.seterr(**before), name_alone, FLOAT_ERRORS),
        KeptState("NumPy's print options", np.get_printoptions, lambda was: np.set_printoptions(**was), name_alone),
        KeptState("Python's generator", random.getstate, random.setstate, silently),
        KeptState("NumPy's generator", np.random.get_state, np.random.set_state, silently),
        KeptState("torch's generators", _chance, _set_chance, silently),
    )  # fmt: skip


def _attribute(owner: Any, name: str, usual: Any) -> KeptState:
    """Return a flag that is an attribute."""
    return KeptState(
        f"torch's {name}", lambda: getattr(owner, name), lambda value: setattr(owner, name, value), usual=usual
    )


def _pair(name: str, owner: Any, getter: str, setter: str, usual: Any) -> KeptState:
    """Return a flag that has a getter and a setter; one that this torch lacks has no value."""
    read: Callable[[], Any] = getattr(owner, getter, lambda: UNKNOWN)
    return KeptState(f"torch's {name}", read, getattr(owner, setter, lambda value: None), usual=usual)


def _set_inference_mode(before: bool) -> None:
    """Set the mode for good.

    torch sets it by a guard that restores the earlier mode when it is freed; the extra reference keeps it alive.
    """
    guard = torch._C._InferenceMode(before)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(guard))


def _function_modes() -> tuple[Any, ...]:
    device = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return tuple(_get_current_function_mode_stack()), device, _device.CURRENT_DEVICE


def _set_function_modes(before: tuple[Any, ...]) -> None:
    modes, torch._GLOBAL_DEVICE_CONTEXT.device_context, _device.CURRENT_DEVICE = before
    for _ in _get_current_function_mode_stack():
        _pop_mode()
    for mode in modes:
        _push_mode(mode)


def _of_modes(name: str, before: tuple[Any, ...], after: tuple[Any, ...]) -> str | None:
    if before == after:
        return None
    devices = [mode.device for mode in after[0] if isinstance(mode, _device.DeviceContext)]
    was = [mode.device for mode in before[0] if isinstance(mode, _device.DeviceContext)]
    return "torch's function modes" if devices == was else f"{name} to {devices[-1] if devices else 'cpu'}"


def _pop_dispatch_modes(before: list[Any]) -> None:
    while len(_get_current_dispatch_mode_stack()) > len(before):
        _pop_dispatch_mode()


def _autocast() -> tuple[Any, ...]:
    depth = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    kinds = tuple((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in AUTOCAST)
    return kinds, torch.is_autocast_cache_enabled(), depth


def _set_autocast(before: tuple[Any, ...]) -> None:
    kinds, caches, depth = before
    for kind, (enabled, dtype) in zip(AUTOCAST, kinds, strict=True):
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)
    torch.set_autocast_cache_enabled(caches)
    torch.clear_autocast_cache()
    for _ in range(depth, _autocast()[2]):
        torch.autocast_decrement_nesting()
    for _ in range(_autocast()[2], depth):
        torch.autocast_increment_nesting()


def _deterministic() -> tuple[bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )


def _set_deterministic(before: tuple[bool, bool, bool]) -> None:
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    torch.utils.deterministic.fill_uninitialized_memory = before[2]  # type: ignore[attr-defined]


def _flushes() -> bool:
    """Return whether numbers that are too small for full precision are 0; torch does not say."""
    return not (torch.tensor(1e-310, dtype=torch.float64, device="cpu") * 1).view(torch.int64).item()


def _anomaly() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _set_anomaly(before: tuple[bool, bool]) -> None:
    torch._C.set_anomaly_enabled(*before)  # `torch.autograd.set_detect_anomaly` warns


def float32_precision() -> dict[Any, Any]:
    """Return how torch computes in float32: its newer table, by library and operation, and the flags from before it.

    A flag that contradicts the table is None.
    """
    getter = getattr(torch._C, "_get_fp32_precision_getter", None)
    found: dict[Any, Any] = {key: getter(*key) for key in OPERATIONS} if getter else {}
    older = {
        "matmul": torch.get_float32_matmul_precision,
        "cuda": torch._C._get_cublas_allow_tf32,
        "cudnn": torch._C._get_cudnn_allow_tf32,
    }
    for name, read in older.items():
        found[name] = None
        with suppress(RuntimeError):  # the two tables contradict each other
            found[name] = read()
    return found


def set_float32_precision(before: dict[Any, Any]) -> None:
    """Put back what `float32_precision` returned."""
    if before["matmul"] is not None:
        torch.set_float32_matmul_precision(before["matmul"])
    if before["cuda"] is not None:
        torch._C._set_cublas_allow_tf32(before["cuda"])
    if before["cudnn"] is not None:
        torch._C._set_cudnn_allow_tf32(before["cudnn"])
    for key in OPERATIONS:
        if key in before:
            torch._C._set_fp32_precision_setter(*key, before[key])


def _of_precision(name: str, before: dict[Any, Any], after: dict[Any, Any]) -> str | None:
    """Describe a change; "none" and "ieee" are the same, and setting the older flags turns one into the other."""
    alike = {"none": "ieee"}
    same = all(alike.get(before[key], before[key]) == alike.get(value, value) for key, value in after.items())
    return None if same else name


def _hooks() -> dict[tuple[str, str], Any]:
    found = {(of.__name__, name): value for of in (modules, optimizers) for name, value in vars(of).items()
             if name.startswith("_global_")}  # fmt: skip
    return {key: dict(value) if isinstance(value, dict) else value for key, value in found.items()}


def _set_hooks(before: dict[tuple[str, str], Any]) -> None:
    for of in (modules, optimizers):
        for (owner, name), value in before.items():
            if owner == of.__name__ and isinstance(value, dict):
                vars(of)[name].clear()
                vars(of)[name].update(value)
            elif owner == of.__name__:
                setattr(of, name, value)


def _saved_hooks() -> Any:
    return torch._C._autograd._top_saved_tensors_default_hooks(True)


def _pop_saved_hooks(before: Any) -> None:
    while (hooks := _saved_hooks()) is not None and hooks != before:
        torch._C._autograd._pop_saved_tensors_default_hooks()


def _gpu() -> int:
    """Return the current GPU, which is the first until CUDA is in use: that it came into use is no change."""
    return torch.cuda.current_device() if torch.cuda.is_initialized() else 0


def _chance() -> tuple[torch.Tensor, list[torch.Tensor] | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None


def _set_chance(before: tuple[torch.Tensor, list[torch.Tensor] | None]) -> None:
    torch.set_rng_state(before[0])
    if before[1] is not None:
        torch.cuda.set_rng_state_all(before[1])
