"""Weights that somebody else trained, in a backbone of ours."""

from collections.abc import Mapping
from pathlib import Path

import torch

from mmc_bench.data.splits import ExperimentData
from mmc_bench.errors import UserError, nearest
from mmc_bench.results.jobs import Pretraining
from mmc_bench.stages.checkpoints import read_own
from mmc_bench.stages.resources import Resources
from mmc_bench.training import Backbone

Tensors = Mapping[str, torch.Tensor]


def own_model(pretraining: Pretraining, data: ExperimentData, resources: Resources) -> Backbone:
    """Return the backbone with the weights of a pretraining's checkpoint, in eval mode.

    Raises
    ------
    UserError
        When the file is not at hand, holds no weights, or these do not fit the backbone.
    """
    own = pretraining.checkpoint
    assert own is not None
    path = resources.checkpoints.get(own.sha256)
    if path is None:
        raise UserError(f"the weights of {own.name} are not in {resources.store.root}: give their file anew")
    model = resources.model(pretraining, data)
    return fill(model, read_own(Path(path), own), own.name, pretraining.backbone.name)


def fill(model: Backbone, weights: Tensors, label: str, backbone: str) -> Backbone:
    """Return a network with these weights, in eval mode.

    Raises
    ------
    UserError
        When a weight is missing, too many, misshapen or not finite; the message names the first such, and the nearest.
    """
    wanted = model.state_dict()
    for name in [*wanted, *weights]:
        if name not in weights:
            raise UserError(f"{label} does not fit {backbone}: it lacks the weight {name!r}: {nearest(name, weights)}")
        if name not in wanted:
            raise UserError(f"{label} does not fit {backbone}, which has no weight {name!r}: {nearest(name, wanted)}")
        shape, other = tuple(weights[name].shape), tuple(wanted[name].shape)
        if shape != other:
            raise UserError(f"{label} does not fit {backbone}: its weight {name!r} has shape {shape}, not {other}")
        if not weights[name].isfinite().all():
            raise UserError(f"{label}: its weight {name!r} is not finite everywhere")
    model.load_state_dict(weights)
    return model.eval()
