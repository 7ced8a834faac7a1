"""The features of a network's stages, each image's as one vector in which the cue's place can still be told."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from math import isqrt

import torch
from torch import nn
from torch.nn import functional as F

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.results.probes import FEATURES
from mmc_bench.training.backbone import Backbone, features
from mmc_bench.training.evaluate import eval_mode
from mmc_bench.training.precision import full_precision

#: Stages besides the last features; of more, so many evenly spaced ones.
MOST_STAGES = 6

#: Cells of the grid that feature maps are averaged in, along each side: a mean over the whole map loses a cue's place.
GRID = 4

#: Values of one image in one stage; maps of many channels are averaged in fewer cells.
MOST_VALUES = 4096


def stages_of(model: Backbone, images: CuedImages) -> list[str]:
    """Return the names of the modules whose outputs are the stages, in the order in which they run.

    These are what timm lists in ``feature_info``. Of other networks, a stage ends where the next module's maps are of
    another size; where there are no maps of more than one pixel, there is no stage before the last features.
    """
    modules = dict(model.named_modules())
    listed = [info["module"] for info in getattr(model, "feature_info", ())]
    names = listed if listed and modules.keys() >= {*listed} else _last_of_each_size(model, images)
    if len(names) > MOST_STAGES:
        names = [names[place * (len(names) - 1) // (MOST_STAGES - 1)] for place in range(MOST_STAGES)]
    return names


def stage_features(model: Backbone, images: CuedImages, stages: list[str]) -> dict[str, torch.Tensor]:
    """Return the features of a set of images by stage, the last features among them, in eval mode and in float32.

    Returns
    -------
    dict
        float32 of shape (N, D) by stage, on the CPU; D is `MOST_VALUES` at most, but for the last features.
    """
    found: dict[str, list[torch.Tensor]] = {name: [] for name in (*stages, FEATURES)}
    with eval_mode(model), torch.no_grad(), full_precision(images.labels.device):
        for x, _ in images.in_order():
            outputs: dict[str, torch.Tensor] = {}
            with _watched(model, stages, outputs.__setitem__):
                outputs[FEATURES] = features(model, x)
            for name, own in found.items():
                own.append(outputs[name].float().cpu())
    return {name: torch.cat(own) for name, own in found.items()}


@contextmanager
def _watched(model: Backbone, stages: list[str], keep: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Let `keep` have the vectors of each stage whenever the network runs."""

    def watch(name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        return lambda module, inputs, output: keep(name, vectors(output, model))

    handles = [model.get_submodule(name).register_forward_hook(watch(name)) for name in stages]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def vectors(output: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """Return a stage's output as vectors (n, D): averages in the cells of a grid.

    Parameters
    ----------
    output
        Maps (n, C, H, W), or (n, H, W, C) of models whose ``output_fmt`` says so; tokens (n, T, C), on a square grid
        but for the model's ``num_prefix_tokens``; or vectors.
    """
    if output.ndim == 3:
        tokens = output[:, getattr(model, "num_prefix_tokens", 0) :]
        side = isqrt(tokens.shape[1])
        if side**2 != tokens.shape[1]:
            return output.mean(1)
        output = tokens.transpose(1, 2).unflatten(2, (side, side))
    elif output.ndim == 4 and str(getattr(model, "output_fmt", "")).endswith("NHWC"):
        output = output.permute(0, 3, 1, 2)
    if output.ndim != 4:
        return output.flatten(1)
    channels, height, width = output.shape[1:]
    cells = max(1, min(GRID, isqrt(MOST_VALUES // channels)))
    return F.adaptive_avg_pool2d(output, (min(cells, height), min(cells, width))).flatten(1)


def _last_of_each_size(model: Backbone, images: CuedImages) -> list[str]:
    """Return the last module before each change of the maps' size, of those without parts that run once."""
    ran: list[tuple[str, tuple[int, ...]]] = []

    def watch(name: str) -> Callable[[nn.Module, object, object], None]:
        def note(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4 and max(output.shape[2:]) > 1:
                ran.append((name, tuple(output.shape[2:])))

        return note

    leaves = [(name, module) for name, module in model.named_modules() if not [*module.children()]]
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves]
    try:
        with eval_mode(model), torch.no_grad():
            features(model, images.batch(slice(0, 1))[0])
    finally:
        for handle in handles:
            handle.remove()
    names = [name for name, _ in ran]
    once = [(name, size) for name, size in ran if names.count(name) == 1]
    return [[*group][-1][0] for _, group in groupby(once, key=lambda each: each[1])]
