"""What is asked of any network, a backbone or what a method returns."""

from collections.abc import Iterable

import torch
from torch import nn

from mmc_bench.testing.checks import Fault
from mmc_bench.training.interface import ROUNDING, logits_in


def first_difference(
    expected: Iterable[tuple[str, torch.Tensor]], found: Iterable[tuple[str, torch.Tensor]]
) -> str | None:
    """Return the name of the first tensor that is not the same to the bit; NaN equals itself."""
    for (name, one), (_, other) in zip(expected, found, strict=True):
        if one.shape != other.shape or not torch.equal(one.nan_to_num(nan=1.25e30), other.nan_to_num(nan=1.25e30)):
            return name
    return None


def check_outputs(model: nn.Module, x: torch.Tensor, num_classes: int) -> None:
    """Run a network in eval and in training mode; eval must be repeatable and change nothing.

    Raises
    ------
    PromiseError
        When an output has another shape than (n, K) or is not finite.
    Fault
        When it differs from call to call.
    """
    with torch.no_grad():
        for training in (False, True):
            before = [(name, value.clone()) for name, value in model.state_dict().items()]
            logits = logits_in(model, x, num_classes, training)
            if not training:
                _check_repeatable(model, x, logits, before)
    model.eval()


def _check_repeatable(
    model: nn.Module, x: torch.Tensor, logits: torch.Tensor, before: list[tuple[str, torch.Tensor]]
) -> None:
    if not torch.equal(model(x), logits):
        raise Fault("in eval mode two calls on the same images differ", "let randomness depend on self.training")
    if changed := first_difference(before, model.state_dict().items()):
        raise Fault(f"a forward pass in eval mode changes {changed!r}", "update statistics in training mode alone")


def check_round_trip(model: nn.Module, fresh: nn.Module, x: torch.Tensor) -> None:
    """Write a network's weights as a run writes them, read them into a fresh network, and compare the outputs.

    Raises
    ------
    Fault
        When they differ: something that decides the output is not in the state_dict.
    """
    from safetensors.torch import load, save

    content = save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()})
    try:
        fresh.load_state_dict(load(content))
    except RuntimeError as error:
        raise Fault(
            f"a fresh network does not take the saved weights: {' '.join(str(error).split())[:200]}",
            "keep the names and shapes of the weights",
        ) from None
    with torch.no_grad():
        there, back = model.eval()(x), fresh.to(x.device).eval()(x)
    gap = (there - back).abs().max().item()
    if not gap <= ROUNDING * there.abs().max().item():
        raise Fault(
            f"reloaded from its state_dict, the model's outputs differ by up to {gap:.3g}",
            "keep everything that decides the output in parameters and registered buffers: a run keeps the "
            "state_dict alone",
        )
