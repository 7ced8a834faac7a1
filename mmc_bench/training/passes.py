"""Counting what a training computes: optimiser steps, and passes of images through networks.

A forward hook on one module of a network counts passes; it is a plain function, so that copies of the network are
counted, too, and can be pickled. It does nothing but while a `mmc_bench.system.tally.Tally` runs.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from mmc_bench.system.devices import own_chance
from mmc_bench.system.tally import Tally, running_tally, tallied
from mmc_bench.training.backbone import Backbone


@contextmanager
def counting() -> Iterator[Tally]:
    """Count the images, optimiser steps and passes of a block; passes are those of networks in `counted_passes`."""
    tally = Tally()

    def count_step(*_: object) -> None:
        tally.optimiser_steps += 1

    handle = register_optimizer_step_post_hook(count_step)
    try:
        with tallied(tally):
            yield tally
    finally:
        handle.remove()


def note_pass(outputs: object) -> None:
    """Count one pass of a batch: forward now, backward whenever a gradient comes to its outputs (n, …)."""
    tally = running_tally()
    if tally is None or not isinstance(outputs, torch.Tensor) or not outputs.ndim:
        return
    images = len(outputs)
    tally.forward_passes += images

    def count_backward(_: torch.Tensor) -> None:
        tally.backward_passes += images

    if outputs.requires_grad:
        outputs.register_hook(count_backward)


def _count_pass(module: nn.Module, inputs: tuple[Any, ...], outputs: object) -> None:
    if not torch.compiler.is_compiling():  # who calls compiled code counts
        note_pass(outputs)


@contextmanager
def counted_passes(place: str, *models: nn.Module) -> Iterator[None]:
    """Count the passes through these networks, and through copies made in the block, where `place_of_passes` says."""
    for model in models:
        model.get_submodule(place).register_forward_hook(_count_pass)
    try:
        yield
    finally:
        for model in models:
            take_off_hooks(model)


def take_off_hooks(model: nn.Module) -> None:
    """Take the hooks of `counted_passes` off a network, or off a copy of one, and whatever wraps it."""
    for module in model.modules():
        for key in [key for key, hook in module._forward_hooks.items() if hook is _count_pass]:
            del module._forward_hooks[key]


@torch.no_grad()
def place_of_passes(model: Backbone, x: torch.Tensor) -> str:
    """Return the name of a module that every pass goes through once, whether it ends with the features or the logits.

    It is the last that `forward_features` ends with whose outputs are (n, …). Where there is none, it is the network
    itself, and passes through half of it are not counted.

    Parameters
    ----------
    x
        Some images, (n, …). A copy of the network runs on them in eval mode.
    """
    trial = copy.deepcopy(model).eval()
    ended: list[str] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], outputs: object) -> None:
            per_image = isinstance(outputs, torch.Tensor) and outputs.ndim and len(outputs) == len(x)
            ended.append(name if per_image else "")

        return hook

    for name, module in trial.named_modules():
        if name:
            module.register_forward_hook(note(name))
    with own_chance(x.device):
        trial.forward_features(x)
        of_features = ended.copy()
        ended.clear()
        trial(x)
    return next((n for n in reversed(of_features) if n and of_features.count(n) == ended.count(n) == 1), "")
