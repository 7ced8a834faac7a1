"""Re-estimating BatchNorm statistics of a network that training never visited."""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.data.micro_batches import micro_batches
from mmc_bench.system.devices import in_float64
from mmc_bench.system.parts import part
from mmc_bench.training.evaluate import eval_mode
from mmc_bench.training.graphs import Graphs, Tensors, places_of

#: Micro-batches from which a batch's statistics, too, are gathered in parts: they cost a pass for every layer.
WORTHWHILE_PARTS = 4


def statistics_layers(model: nn.Module) -> list[_BatchNorm]:
    """Return the layers whose running statistics normalise in eval mode."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [layer for layer in layers if layer.track_running_stats]


@part("batchnorm")
@torch.no_grad()
def reestimate_batchnorm(
    model: nn.Module, images: CuedImages, batch_size: int | None = None, graphs: Graphs | None = None
) -> None:
    """Replace the running statistics by sample-weighted averages over `images`, in place.

    torch's own cumulative mode (``momentum=None``) gives every batch one weight; here a batch weighs as much
    as it has images, so that the last, smaller one counts for no more than it holds. A layer that a pass uses
    several times averages over all its uses. Only BatchNorm layers run in training mode. A network without them is
    left as it is, and runs no image. A batch has 250 images, on a GPU 1,000, unless said otherwise; where memory is
    short its statistics are gathered from parts of it.

    Parameters
    ----------
    graphs
        What replays the batches on a GPU; of the network, weights and buffers alone may change between calls.
    """
    batch_size = batch_size or (1000 if images.labels.device.type == "cuda" else 250)
    layers = statistics_layers(model)
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    with eval_mode(model):
        runs_each_once = graphs is not None and _runs_each_once(model, layers, images.batch(slice(2))[0])
        for layer in layers:
            layer.reset_running_stats()
            layer.train()
        batches, seen = (x for x, _ in images.in_order(batch_size) if len(x) > 1), dict.fromkeys(layers, 0)
        if graphs is not None and runs_each_once:
            _average(model, layers, batches, graphs)
        for x in batches:
            weigh = partial(_weigh, seen, len(x))
            if micro_batches() < WORTHWHILE_PARTS:
                with _before_each(layers, weigh):
                    model(x)
            else:
                _update_in_parts(model, layers, x, weigh, micro_batches())
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def _weigh(seen: dict[_BatchNorm, int], count: int, layer: _BatchNorm, *_: object) -> None:
    """Let a layer's next use, of so many images, count for its share of all images that the layer has seen."""
    seen[layer] += count
    layer.momentum = count / seen[layer]


@contextlib.contextmanager
def _before_each(layers: list[_BatchNorm], call: Callable[..., None]) -> Iterator[None]:
    """Call ``call(layer, inputs)`` before each use of a layer."""
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(call).remove)
        yield


def _runs_each_once(model: nn.Module, layers: list[_BatchNorm], x: torch.Tensor) -> bool:
    """Tell whether a pass runs no layer more than once."""
    passed: list[nn.Module] = []
    with _before_each(layers, lambda layer, _: passed.append(layer)):
        model(x)
    return len(passed) == len(set(passed))


def _average(model: nn.Module, layers: list[_BatchNorm], batches: Iterable[torch.Tensor], graphs: Graphs) -> None:
    """Do the same by replaying passes, which leave each batch's own statistics: a momentum is part of what is captured.

    Right only for layers that a pass runs once.
    """
    running = [value for layer in layers for value in (layer.running_mean, layer.running_var) if value is not None]
    averages, seen = [value.clone() for value in running], 0
    for layer in layers:
        layer.momentum = 1.0

    def visit(x: torch.Tensor) -> Tensors:
        model(x)
        return ()

    for x in batches:
        seen += len(x)
        graphs.run(visit, x, places=places_of(model))
        torch._foreach_lerp_(averages, running, len(x) / seen)
    torch._foreach_copy_(running, averages)


class _Reached(Exception):  # noqa: N818  # no error: it ends a pass
    """A part of a batch came to a layer whose statistics are wanted."""


def _update_in_parts(
    model: nn.Module, layers: list[_BatchNorm], x: torch.Tensor, weigh: Callable[..., None], parts: int
) -> None:
    """Update the layers' running statistics as ``model(x)`` does but for rounding, running a part of x at a time.

    One layer is done after the other, as a pass comes to them: all parts are run up to it, normalised by the whole
    batch's statistics in the layers before. Where a pass uses a layer twice, the batch is run whole after all.
    """
    before = {layer: copy.deepcopy(layer.state_dict()) for layer in layers}
    found: dict[_BatchNorm, tuple[torch.Tensor, torch.Tensor]] = {}
    seen: list[tuple[_BatchNorm, int, torch.Tensor, torch.Tensor]] = []
    passed: list[_BatchNorm] = []

    def look(layer: _BatchNorm, inputs: tuple[torch.Tensor]) -> None:
        passed.append(layer)
        if layer not in found:
            values = inputs[0].to(torch.promote_types(inputs[0].dtype, torch.float32))  # (n, C, …)
            variance, mean = torch.var_mean(values, [axis for axis in range(values.ndim) if axis != 1], correction=0)
            seen.append((layer, values.numel() // values.shape[1], in_float64(variance), in_float64(mean)))
            raise _Reached

    with _before_each(layers, look):
        while True:
            seen.clear()
            for part in x.split(-(-len(x) // parts)):
                passed.clear()
                with contextlib.suppress(_Reached):
                    model(part)
            if not seen:
                break
            layer, count = seen[0][0], sum(n for _, n, _, _ in seen)
            mean = torch.stack([n * own for _, n, _, own in seen]).sum(0) / count
            spreads = [n * (variance + (own - mean).square()) for _, n, variance, own in seen]
            variance = torch.stack(spreads).sum(0) / count
            layer.eval().load_state_dict({**before[layer], "running_mean": mean, "running_var": variance})
            found[layer] = mean, variance * count / (count - 1)
    for layer in layers:
        layer.train().load_state_dict(before[layer])
    if len(passed) > len(set(passed)):
        with _before_each(layers, weigh):
            model(x)
        return
    for layer, (mean, variance) in found.items():
        weigh(layer)
        for running, value in ((layer.running_mean, mean), (layer.running_var, variance)):
            running.lerp_(value.to(running), layer.momentum)  # type: ignore[union-attr,arg-type]
