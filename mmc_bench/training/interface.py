"""Whether a backbone's parts fit together: its logits in both modes, and its two halves."""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from mmc_bench.errors import PromiseError, UserError, message_of
from mmc_bench.system.devices import image_layout, own_chance
from mmc_bench.training.backbone import Backbone
from mmc_bench.training.precision import full_precision

#: The parts that make a forward pass.
PARTS = ("forward_features", "forward_head", "get_classifier")

#: The methods of timm's interface.
INTERFACE = (*PARTS, "reset_classifier")

#: Of one network's outputs by two ways, relative to the largest output.
ROUNDING = 1e-4


def check_backbone(model: Backbone, num_classes: int, input_shape: tuple[int, ...]) -> None:
    """Run a copy of a backbone on two images, and see that its parts fit together.

    The model itself, its statistics and the global generators are left as they are.

    Raises
    ------
    UserError
        When it does not run, its logits are not (n, K) and finite, or `check_halves` finds fault.
    """
    x = two_inputs(model, input_shape)
    with running(model, input_shape):
        trial = copy.deepcopy(model)
        for training in (True, False):
            logits_in(trial, x, num_classes, training)
        check_halves(trial, x)


def two_inputs(model: nn.Module, input_shape: tuple[int, ...]) -> torch.Tensor:
    """Return two images of noise (2, …) where a network is; the same ones every time."""
    device = _device_of(model)
    x = torch.rand(2, *input_shape, generator=torch.Generator().manual_seed(0)).to(device) * 2 - 1
    return x.contiguous(memory_format=image_layout(device)) if x.ndim == 4 else x


@contextmanager
def running(model: nn.Module, input_shape: tuple[int, ...]) -> Iterator[None]:
    """Try a network without gradients, in full precision; the global generators are left as they are.

    Raises
    ------
    UserError
        When it does not run.
    """
    device = _device_of(model)
    try:
        with _own_randomness(device), torch.no_grad(), full_precision(device):
            yield
    except UserError:
        raise
    except Exception as error:  # whatever a plugin's network may raise; memory that ran out is found by its cause
        problem = f"{type(error).__name__}: {message_of(error)[:300]}"
        raise UserError(f"it does not run on two inputs of shape {input_shape}: {problem}") from error


def _device_of(model: nn.Module) -> torch.device:
    return next((value.device for value in model.state_dict().values()), torch.device("cpu"))


def check_strides(model: Backbone, input_shape: tuple[int, ...]) -> None:
    """Refuse a network that strides over feature maps of one pixel, whose gradients oneDNN gets wrong in bfloat16.

    Seen with torch 2.14 on a CPU: the weights of a convolution with padding get what was in memory before.

    Raises
    ------
    UserError
        When it does; the message names the convolution.
    """
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda module, inputs: found.append(name) if max(inputs[0].shape[2:]) == 1 else None

    trial = copy.deepcopy(model).eval()
    for name, module in trial.named_modules():
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1:
            module.register_forward_pre_hook(look(name))
    device = _device_of(model)
    with _own_randomness(device), torch.no_grad():
        trial(torch.zeros(1, *input_shape, device=device))
    if found:
        raise UserError(
            f"its convolution {found[0]} strides over feature maps of one pixel, whose gradients a CPU gets wrong in "
            "bfloat16: use larger images, another stem, or --precision fp32"
        )


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Give the global generators back as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with own_chance(device):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def logits_in(model: nn.Module, x: torch.Tensor, num_classes: int, training: bool) -> torch.Tensor:
    """Put a network into training or eval mode, and return its logits (n, K).

    Raises
    ------
    PromiseError
        When a part stays out of the mode, or what comes out has another shape or is not finite.
    """
    mode = "training" if training else "eval"
    model.train(training)
    stuck = [name for name, module in model.named_modules() if module.training is not training]
    if stuck:
        raise PromiseError(f"{stuck[0] or 'the model'} stays out of {mode} mode", "leave nn.Module.train as it is")
    logits = model(x)
    if not isinstance(logits, torch.Tensor):
        raise PromiseError(f"in {mode} mode the output is a {type(logits).__name__}", "return logits (n, K)")
    if tuple(logits.shape) != (len(x), num_classes):
        raise PromiseError(
            f"in {mode} mode the output has shape {tuple(logits.shape)}, not {(len(x), num_classes)}",
            "return logits (n, K)",
        )
    if not (logits.is_floating_point() and logits.isfinite().all()):
        raise PromiseError(f"in {mode} mode the output is not finite", "look for a division by 0 or a log of 0")
    return logits


def require(model: nn.Module, members: Sequence[str]) -> None:
    """Raise a `PromiseError` that names the members which a network lacks."""
    if missing := [name for name in members if not hasattr(model, name)]:
        raise PromiseError(
            f"the network has no {', '.join(missing)}", "give it timm's interface, as plugins/README.md lists it"
        )


def check_halves(model: Backbone, x: torch.Tensor) -> int:
    """See that the logits of a network in eval mode are its classifier's, of its features (n, F); return F.

    Raises
    ------
    PromiseError
        When they do not.
    """
    require(model, PARTS)
    classifier = model.get_classifier()
    if not isinstance(classifier, nn.Module):
        raise PromiseError(f"get_classifier() gives a {type(classifier).__name__}", "return the last linear layer")
    maps = model.forward_features(x)
    features = model.forward_head(maps, pre_logits=True)
    if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != len(x):
        given = f"shape {tuple(features.shape)}" if isinstance(features, torch.Tensor) else type(features).__name__
        raise PromiseError(f"pre_logits=True gives {given}", "pool and flatten features to (n, F)")
    width: int = getattr(classifier, "in_features", features.shape[1])
    if width != features.shape[1]:
        raise PromiseError(
            f"pre_logits=True gives {features.shape[1]} features, the classifier takes {width}", "return those"
        )
    logits = model(x)
    steps = {
        "forward_head(forward_features(x))": model.forward_head(maps),
        "get_classifier()(forward_head(forward_features(x), pre_logits=True))": classifier(features),
    }
    for step, value in steps.items():
        if value.shape != logits.shape or not close(value, logits):
            raise PromiseError(f"{step} is not forward(x)", "let forward be these steps and nothing else")
    return width


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether outputs differ by rounding alone."""
    return bool((one - other).abs().max() <= ROUNDING * other.abs().max().clamp_min(1e-30))
