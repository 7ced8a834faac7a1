"""Any network as a backbone: its last linear layer is found, and what it lacks of timm's interface is added."""

from functools import cache
from typing import Any

import torch
from torch import nn

from mmc_bench.errors import UserError
from mmc_bench.training.backbone import Backbone
from mmc_bench.training.evaluate import eval_mode
from mmc_bench.training.interface import INTERFACE, close, running, two_inputs

REQUIRED = "a network must return logits (n, K), the output of an nn.Linear within it, or have timm's interface"


def with_interface(model: nn.Module, num_classes: int, input_shape: tuple[int, ...]) -> Backbone:
    """Return a network with timm's interface; what its class lacks of it is added in place.

    Its last linear layer is the head, and what goes into that are the features. Modules and weights keep their names,
    and `forward` is the network's own. A head of another number of classes is replaced by a random one. Whether the
    parts fit together is for `check_backbone` to say.

    Raises
    ------
    UserError
        When the network does not run, or does not end with a linear layer.
    """
    network: Any = model
    if all(hasattr(type(model), name) for name in INTERFACE):
        return network  # type: ignore[no-any-return]
    network._place_of_head, classes = _head_of(model, input_shape)
    family: Any = type(model)
    network.__class__ = _adapted(family)
    for name, value in (("num_classes", classes), ("num_features", network.get_classifier().in_features)):
        if not hasattr(network, name):
            setattr(network, name, value)
    if classes != num_classes:
        network.reset_classifier(num_classes)
    return network  # type: ignore[no-any-return]


def _head_of(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[str, int]:
    """Return the name of the linear layer whose output is the network's, and the number of classes."""
    calls: list[tuple[str, torch.Tensor]] = []

    def note(name: str) -> Any:
        return lambda module, inputs, output: calls.append((name, output.clone()))

    linear = [(name, module) for name, module in model.named_modules() if name and isinstance(module, nn.Linear)]
    hooks = [module.register_forward_hook(note(name)) for name, module in linear]
    try:
        with eval_mode(model), running(model, input_shape):
            logits = model(two_inputs(model, input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(logits, torch.Tensor):
        raise UserError(f"its output is a {type(logits).__name__}: {REQUIRED}")
    alike = (name for name, output in reversed(calls) if output.shape == logits.shape and close(output, logits))
    if (head := next(alike, None)) is None:
        raise UserError(f"its output is that of no linear layer: {REQUIRED}")
    return head, logits.shape[-1]


class _Halves:
    """What is added to a network's class: its passes up to the last linear layer, and through it."""

    __slots__ = ()

    def forward_features(self: Any, x: torch.Tensor) -> torch.Tensor:
        """Return what the last linear layer sees of images, (n, F)."""
        parent, name = _split(self)
        head, parent._modules[name] = parent._modules[name], nn.Identity()
        try:
            features: torch.Tensor = self.forward(x)
        finally:
            parent._modules[name] = head
        return features

    def forward_head(self: Any, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return the logits (n, K) of features (n, F), or the features themselves."""
        return x if pre_logits else self.get_classifier()(x)

    def get_classifier(self: Any) -> nn.Linear:
        """Return the last linear layer."""
        head: nn.Linear = self.get_submodule(self._place_of_head)
        return head

    def reset_classifier(self: Any, num_classes: int) -> None:
        """Replace the last linear layer by a new random one, and set `num_classes`."""
        parent, name = _split(self)
        old = parent._modules[name]
        like = {"device": old.weight.device, "dtype": old.weight.dtype, "bias": old.bias is not None}
        parent._modules[name] = nn.Linear(old.in_features, num_classes, **like)
        self.num_classes = num_classes


def _split(model: Any) -> tuple[Any, str]:
    """Return the module that holds a network's last linear layer, and the layer's name there."""
    parent, _, name = model._place_of_head.rpartition(".")
    return model.get_submodule(parent), name


@cache
def _adapted(family: Any) -> type:
    """Return a class with what a network's own class lacks."""
    return type(family.__name__, (family, _Halves), {"__module__": family.__module__, "__doc__": family.__doc__})
