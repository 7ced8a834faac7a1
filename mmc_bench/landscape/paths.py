"""Paths between two models of one architecture, and scores along them."""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from mmc_bench.data.splits import CuedImages
from mmc_bench.errors import UserError
from mmc_bench.landscape.batchnorm import reestimate_batchnorm
from mmc_bench.results.records import Score
from mmc_bench.training.evaluate import evaluate_sets
from mmc_bench.training.progress import NonFiniteLossError

#: The parameters of γ(t), in the order of ``model.parameters()``.
Path = Callable[[float], Sequence[torch.Tensor]]


def linear_path(start: nn.Module, end: nn.Module) -> Path:
    """Return γ(t) = (1-t)·start + t·end (paper, eq. 1)."""
    first, last = parameters_of(start), parameters_of(end)
    return lambda t: torch._foreach_lerp(first, last, t)


def quadratic_path(start: nn.Module, bend: Sequence[torch.Tensor], end: nn.Module) -> Path:
    """Return γ(t) = (1-t)²·start + 2t(1-t)·bend + t²·end (paper, eq. 1)."""
    first, middle, last = parameters_of(start), list(bend), parameters_of(end)

    def at(t: float) -> Sequence[torch.Tensor]:
        sides = torch._foreach_add(torch._foreach_mul(first, (1 - t) ** 2), last, alpha=t**2)
        return torch._foreach_add(sides, middle, alpha=2 * t * (1 - t))

    return at


def parameters_of(model: nn.Module) -> list[torch.Tensor]:
    """Return a model's parameters, detached."""
    return [parameter.detach() for parameter in model.parameters()]


@torch.no_grad()
def set_parameters(model: nn.Module, values: Sequence[torch.Tensor]) -> None:
    """Give a model these parameters, in place; buffers are left alone."""
    for parameter, value in zip(model.parameters(), values, strict=True):
        parameter.copy_(value)


@torch.no_grad()
def evaluate_path(
    path: Path,
    like: nn.Module,
    sets: Mapping[str, CuedImages],
    batchnorm_images: CuedImages,
    points: int,
    end_scores: tuple[Mapping[str, Score], Mapping[str, Score]],
) -> tuple[list[float], dict[str, list[Score]]]:
    """Score γ(t) at `points` equidistant t in [0, 1].

    For 0 < t < 1 the BatchNorm statistics are re-estimated on cue-free training images, once a point, for all
    sets. At t = 0 and 1 the checkpoints' own statistics count, so their scores are taken over as they are.

    Parameters
    ----------
    like
        A model of the path's architecture; it is left as it is.
    sets
        Image sets by name.
    end_scores
        The scores of the path's ends on these sets.

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
    scores: dict[str, list[Score]] = {name: [end_scores[0][name]] for name in sets}
    between = copy.deepcopy(like)
    for t in ts[1:-1]:
        set_parameters(between, path(t))
        reestimate_batchnorm(between, batchnorm_images)
        try:
            of_point = evaluate_sets(between, sets)
        except NonFiniteLossError as error:
            raise NonFiniteLossError(f"at t = {t:g} of a path, {error}") from None
        for name in sets:
            scores[name].append(of_point[name])
    for name in sets:
        scores[name].append(end_scores[1][name])
    return ts, scores


def check_same_architecture(
    start: nn.Module, end: nn.Module, names: tuple[str, str] = ("first model", "second model")
) -> None:
    """Raise a `UserError` that names the first weight in which two models differ in name or shape."""
    first = {name: tuple(value.shape) for name, value in start.state_dict().items()}
    last = {name: tuple(value.shape) for name, value in end.state_dict().items()}
    for name in [*first, *last]:
        if first.get(name) != last.get(name):
            raise UserError(
                f"the {names[1]}'s weight {name!r} has shape {last.get(name)}, the {names[0]}'s "
                f"{first.get(name)}: both must be of the same architecture"
            )
