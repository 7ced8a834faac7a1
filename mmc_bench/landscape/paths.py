"""Paths between two models of one architecture, and scores along them."""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.landscape.batchnorm import reestimate_batchnorm, statistics_layers
from mmc_bench.results.metrics import Score
from mmc_bench.training.evaluate import evaluate_sets
from mmc_bench.training.graphs import graphs_on
from mmc_bench.training.interpolation import bent, interpolated
from mmc_bench.training.progress import NonFiniteLossError, Progress

#: The parameters of γ(t), in the order of ``model.parameters()``.
Path = Callable[[float | torch.Tensor], Sequence[torch.Tensor]]


def linear_path(start: nn.Module, end: nn.Module) -> Path:
    """Return γ(t) = (1-t)·start + t·end (paper, eq. 1)."""
    first, last = parameters_of(start), parameters_of(end)
    return lambda t: interpolated(first, last, t)


def quadratic_path(start: nn.Module, bend: Sequence[torch.Tensor], end: nn.Module) -> Path:
    """Return γ(t) = (1-t)²·start + 2t(1-t)·bend + t²·end (paper, eq. 1)."""
    first, middle, last = parameters_of(start), list(bend), parameters_of(end)
    return lambda t: bent(first, middle, last, t)


def parameters_of(model: nn.Module) -> list[torch.Tensor]:
    """Return a model's parameters, detached."""
    return [parameter.detach() for parameter in model.parameters()]


@torch.no_grad()
def set_parameters(model: nn.Module, values: Sequence[torch.Tensor]) -> None:
    """Give a model these parameters, in place; buffers are left alone."""
    for parameter, value in zip(model.parameters(), values, strict=True):
        parameter.copy_(value)


def end_scores(
    model: nn.Module, sets: Mapping[str, CuedImages], batchnorm_images: CuedImages, own: Mapping[str, Score]
) -> dict[str, Score]:
    """Return the scores of a path's end: a model after its BatchNorm statistics were re-estimated; it is left as it is.

    Parameters
    ----------
    own
        Known scores of the model as it is, which are those of a network without such statistics.

    Raises
    ------
    NonFiniteLossError
        When a loss is NaN or infinite; the message names the set.
    """
    if not statistics_layers(model):
        return {**evaluate_sets(model, {name: one for name, one in sets.items() if name not in own}), **own}
    end = copy.deepcopy(model)
    reestimate_batchnorm(end, batchnorm_images)
    return evaluate_sets(end, sets)


@torch.no_grad()
def evaluate_path(
    path: Path,
    like: nn.Module,
    sets: Mapping[str, CuedImages],
    batchnorm_images: CuedImages,
    points: int,
    ends: tuple[Mapping[str, Score], Mapping[str, Score]],
    progress: Progress | None = None,
    start: nn.Module | None = None,
) -> tuple[list[float], dict[str, list[Score]]]:
    """Score γ(t) at `points` equidistant t in [0, 1].

    At every t the BatchNorm statistics are re-estimated on cue-free training images, once for all sets. Since the
    ends are the same for all paths between two models, their scores are given.

    Parameters
    ----------
    like
        The model at the path's end; it is left as it is.
    sets
        Image sets by name.
    ends
        What `end_scores` returns for the path's ends.
    progress
        Is told what came of CUDA graphs, by which a GPU passes batches through the network.
    start
        The model at t = 0. Buffers that are not re-estimated, as running statistics of other layers than BatchNorm,
        lie on the straight line from its values to those of `like`.

    Returns
    -------
    tuple
        The values of t, and for each set its scores along them.

    Raises
    ------
    NonFiniteLossError
        When a loss on the path is NaN or infinite; the message names t and the set.
    """
    ts = [index / (points - 1) for index in range(points)]
    scores: dict[str, list[Score]] = {name: [ends[0][name]] for name in sets}
    between, graphs = copy.deepcopy(like), graphs_on(batchnorm_images.labels.device)
    moving = [] if start is None else _other_buffers(between, start, like)
    for t in ts[1:-1]:
        set_parameters(between, path(t))
        for buffer, first, last in moving:
            buffer.copy_(torch.lerp(first, last, t))
        reestimate_batchnorm(between, batchnorm_images, graphs=graphs)
        try:
            of_point = evaluate_sets(between, sets, graphs=graphs)
        except NonFiniteLossError as error:
            raise NonFiniteLossError(f"at t = {t:g} of a path, {error}") from None
        for name in sets:
            scores[name].append(of_point[name])
    for name in sets:
        scores[name].append(ends[1][name])
    if graphs and progress:
        progress.replayed(graphs)
    return ts, scores


def _other_buffers(
    model: nn.Module, start: nn.Module, end: nn.Module
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Return the buffers of a model that differ between two ends, with these values, but for BatchNorm's statistics."""
    replaced = {id(buffer) for layer in statistics_layers(model) for buffer in layer.buffers(recurse=False)}
    first, last = dict(start.named_buffers()), dict(end.named_buffers())
    return [
        (buffer, first[name], last[name])
        for name, buffer in model.named_buffers()
        if buffer.is_floating_point()
        and id(buffer) not in replaced
        and name in first  # one that a pass makes may not be there yet
        and not torch.equal(first[name], last[name])
    ]
