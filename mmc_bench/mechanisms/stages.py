"""The features of a network's stages, each image's as one vector in which the cue's place can still be told."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from math import isqrt

import networkx as nx
import torch
from torch import nn
from torch.autograd.graph import Node
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

    These are what timm lists in ``feature_info``, as far as it puts out one tensor. Of other networks, a stage ends
    where the next module's maps are of another size; where there are no maps of more than one pixel, there is no stage
    before the last features.
    """
    outputs, passed = _outputs(model, images)
    ran = {output.name for output in outputs}
    listed = [info["module"] for info in getattr(model, "feature_info", ())]
    names = [name for name in listed if name in ran] or _last_of_each_size(outputs, passed)
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


#: A tensor within autograd's graph: the step that made it, and which of the step's outputs it is.
_Value = tuple[Node | None, int]


@dataclass(frozen=True)
class _Output:
    """That a module put out one tensor."""

    name: str
    module: nn.Module
    shape: torch.Size
    value: _Value


def _outputs(model: Backbone, images: CuedImages) -> tuple[list[_Output], set[_Value]]:
    """Return what comes out of a network's modules, in this order, and what all of an image passes through."""
    found: list[_Output] = []

    def watch(name: str) -> Callable[[nn.Module, object, object], None]:
        def note(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                found.append(_Output(name, module, output.shape, (output.grad_fn, output.output_nr)))

        return note

    with eval_mode(model), torch.enable_grad(), ExitStack() as stack:
        for name, module in model.named_modules():
            stack.callback(module.register_forward_hook(watch(name)).remove)
        x = images.batch(slice(0, 1))[0].detach().requires_grad_().clone()  # a network may change its input in place
        first, last = x.grad_fn, features(model, x)
    return found, _bottlenecks((first, 0), (last.grad_fn, last.output_nr))


def _bottlenecks(first: _Value, last: _Value) -> set[_Value]:
    """Return the values that are on every way from the first of a computation to its last."""
    ways, reached = nx.DiGraph(), [last]
    ways.add_node(last)
    for value in reached:
        step, _ = value
        for source in step.next_functions if step else ():
            if source not in ways:
                reached.append(source)
            ways.add_edge(value, source)
    before, found = nx.immediate_dominators(ways, last), set()
    while first in before and first != last:
        first = before[first]
        found.add(first)
    return found


def _last_of_each_size(outputs: list[_Output], passed: set[_Value]) -> list[str]:
    """Return the last module before each change of the maps' size, of those that all of an image passes through.

    A branch of a residual block is none of them: the shortcut passes it by.
    """
    maps = [output for output in _maps(outputs) if max(output.shape[2:]) > 1]
    of_sizes = [[*group] for _, group in groupby(maps, key=lambda output: output.shape[2:])]
    lasts = [passing[-1] for group in of_sizes if (passing := [one for one in group if one.value in passed])]
    return [[*group][-1].name for _, group in groupby(lasts, key=lambda output: output.shape[2:])]


def _maps(outputs: list[_Output]) -> list[_Output]:
    """Return the outputs that are maps (n, C, H, W), of modules that run once.

    Where a linear layer works on tokens or on maps with the channels last, these are the outputs of a convolution's
    shape, unless C = H = W, which is a shape of both. A sequence of modules puts out what its last one does, and is
    left out.
    """
    convolved = {output.shape for output in outputs if isinstance(output.module, nn.Conv2d)}
    convolved = {shape for shape in convolved if len({*shape[1:]}) > 1}
    plain = not any(isinstance(output.module, nn.Linear) and len(output.shape) > 2 for output in outputs)
    times = Counter(output.name for output in outputs)
    return [
        output
        for output in outputs
        if len(output.shape) == 4
        and (plain or output.shape in convolved)
        and times[output.name] == 1
        and type(output.module).forward is not nn.Sequential.forward
    ]
