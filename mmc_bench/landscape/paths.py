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
) -> tuple[list[float], dict[str, list[Score]]]:
    """Score γ(t) at `points` equidistant t in [0, 1].

    At every t the BatchNorm statistics are re-estimated on cue-free training images, once for all sets. Since the
    ends are the same for all paths between two models, their scores are given.

    Parameters
    ----------
    like
        A model of the path's architecture; it is left as it is.
    sets
        Image sets by name.
    ends
        What `end_scores` returns for the path's ends.
    progress
        Is told what came of CUDA graphs, by which a GPU passes batches through the network.

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
    for t in ts[1:-1]:
        set_parameters(between, path(t))
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
