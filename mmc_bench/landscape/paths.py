"""The linear path between two models of one architecture, and what the splits see along it."""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from mmc_bench.data.splits import CuedImages
from mmc_bench.errors import UserError
from mmc_bench.landscape.batchnorm import reestimate_batchnorm
from mmc_bench.records import Score
from mmc_bench.training.evaluate import evaluate


def evaluate_linear_path(
    start: nn.Module,
    end: nn.Module,
    splits: Mapping[str, CuedImages],
    batchnorm_images: CuedImages,
    points: int,
    end_scores: tuple[Mapping[str, Score], Mapping[str, Score]],
) -> tuple[list[float], dict[str, list[Score]]]:
    """Score γ(t) = (1-t)·start + t·end at `points` equidistant t in [0, 1].

    For 0 < t < 1 the BatchNorm statistics are re-estimated on cue-free training images, once a point, for all
    splits. At t = 0 and 1 the checkpoints' own statistics count, so their scores are taken over as they are.

    Parameters
    ----------
    splits
        The test splits by name.
    end_scores
        The scores of `start` and `end` on these splits.

    Returns
    -------
    tuple
        The values of t, and for each split its scores along them.
    """
    check_same_architecture(start, end)
    ts = [index / (points - 1) for index in range(points)]
    scores: dict[str, list[Score]] = {name: [end_scores[0][name]] for name in splits}
    between = copy.deepcopy(end)
    for t in ts[1:-1]:
        interpolate(between, start, end, t)
        reestimate_batchnorm(between, batchnorm_images)
        for name, split in splits.items():
            scores[name].append(evaluate(between, split))
    for name in splits:
        scores[name].append(end_scores[1][name])
    return ts, scores


@torch.no_grad()
def interpolate(between: nn.Module, start: nn.Module, end: nn.Module, t: float) -> None:
    """Set the parameters of `between` to (1-t)·start + t·end, in place; buffers are left alone."""
    for target, first, last in zip(between.parameters(), start.parameters(), end.parameters(), strict=True):
        torch.lerp(first, last, t, out=target.data)


def check_same_architecture(start: nn.Module, end: nn.Module) -> None:
    """Raise a `UserError` that names the first weight in which two models differ in name or shape."""
    first = {name: tuple(value.shape) for name, value in start.state_dict().items()}
    last = {name: tuple(value.shape) for name, value in end.state_dict().items()}
    for name in [*first, *last]:
        if first.get(name) != last.get(name):
            raise UserError(
                f"the fine-tuned model's weight {name!r} has shape {last.get(name)}, the pretrained one's "
                f"{first.get(name)}: a method must return a model of the same architecture"
            )
