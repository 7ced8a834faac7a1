"""Deterministic algorithms: holding torch to them, so that a GPU repeats itself, and naming what has none."""

import os
import re

#: What cuBLAS may take as workspaces to repeat itself (NVIDIA, cuBLAS documentation, "Results reproducibility").
WORKSPACES = (":4096:8", ":16:8")

#: How torch refuses an operation.
REFUSAL = re.compile(r"(\S+) does not have a deterministic implementation, but you set")


def compute_deterministically() -> None:
    """Hold torch to deterministic algorithms in this process, where CUDA must not have started.

    cuDNN then chooses its algorithms without measuring them, and cuBLAS has workspaces of a fixed size.
    """
    import torch

    if os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in WORKSPACES:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = WORKSPACES[0]
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def refused_operation(error: BaseException) -> str | None:
    """Return the operation without a deterministic form that an error is about, where torch is held to such forms."""
    import torch

    found = REFUSAL.match(str(error)) if isinstance(error, RuntimeError) else None
    return found[1] if found and torch.are_deterministic_algorithms_enabled() else None
