"""Loading weights trained outside mmc-bench into a backbone: as its model, or for a pretraining to begin with."""

from collections.abc import Mapping
from pathlib import Path

import torch

from mmc_bench.data.splits import ExperimentData
from mmc_bench.errors import UserError, message_of, nearest
from mmc_bench.results.jobs import Pretraining
from mmc_bench.stages.checkpoints import read_own
from mmc_bench.stages.resources import Report, Resources
from mmc_bench.training import Backbone

Tensors = Mapping[str, torch.Tensor]


def first_model(pretraining: Pretraining, data: ExperimentData, resources: Resources, report: Report) -> Backbone:
    """Return the network of a pretraining before its first step: as its backbone makes it, or with the user's weights.

    Of weights that it starts from, a last layer of another number of classes is left out, and that is reported. A
    network with the user's weights is in eval mode.

    Raises
    ------
    UserError
        When the weights' file is not at hand, holds none, or these do not fit the backbone.
    """
    own = pretraining.checkpoint or pretraining.start
    if own is None:
        return resources.model(pretraining, data)
    path = resources.checkpoints.get(own.sha256)
    if path is None:
        raise UserError(f"the weights of {own.name} are not in {resources.store.root}: give their file anew")
    model = resources.model(pretraining, data)
    weights = _without_prefix(read_own(Path(path), own), model.state_dict())
    head = _head_for(model, weights)
    if head:
        classes = f"{own.name} has {len(weights[min(head)])} classes, the dataset {data.num_classes}"
        if pretraining.start is None:
            raise UserError(f"{classes}: --start-from, or start= in Python, begins a pretraining with its other layers")
        report({"note": f"{classes}: its last layer is new"})
    return fill(model, {**weights, **head}, own.name, pretraining.backbone.name)


def _head_for(model: Backbone, weights: Tensors) -> Tensors:
    """Return a network's last layer where that of the weights differs in the number of classes alone, or nothing."""
    own = {id(weight) for weight in model.get_classifier().parameters()}
    head = {name: weight.detach() for name, weight in model.named_parameters() if id(weight) in own}
    found = [weights[name] for name in head if name in weights and weights[name].ndim]
    if not head or [weight.shape[1:] for weight in found] != [weight.shape[1:] for weight in head.values()]:
        return {}
    numbers = {len(weight) for weight in found}
    return head if len(numbers) == 1 and numbers != {len(weight) for weight in head.values()} else {}


def fill(model: Backbone, weights: Tensors, label: str, backbone: str) -> Backbone:
    """Return a network with these weights, in eval mode.

    Raises
    ------
    UserError
        When a weight is missing, too many, misshapen or not finite; the message names the first such, and the nearest.
    """
    wanted = model.state_dict()
    weights = _without_prefix(weights, wanted)
    tracked = {name for name in wanted if name.endswith(".num_batches_tracked")}  # older files lack them
    for name in [*wanted, *weights]:
        if name not in weights:
            if name in tracked:
                continue
            raise UserError(f"{label} does not fit {backbone}: it lacks the weight {name!r}: {nearest(name, weights)}")
        if name not in wanted:
            raise UserError(f"{label} does not fit {backbone}, which has no weight {name!r}: {nearest(name, wanted)}")
        shape, other = tuple(weights[name].shape), tuple(wanted[name].shape)
        if shape != other:
            raise UserError(f"{label} does not fit {backbone}: its weight {name!r} has shape {shape}, not {other}")
        _check_values(weights[name], wanted[name].dtype, f"{label}: its weight {name!r}")
    model.load_state_dict({**{name: wanted[name] for name in tracked}, **weights})
    return model.eval()


def _without_prefix(weights: Tensors, wanted: Tensors) -> Tensors:
    """Return weights without what wrappers (data-parallel, compiled, Lightning's) put before all their names."""
    while weights and not weights.keys() & wanted.keys():
        prefixes = {name.partition(".")[0] + "." for name in weights}
        if len(prefixes) != 1 or not all("." in name for name in weights):
            break
        prefix = prefixes.pop()
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _check_values(weight: torch.Tensor, dtype: torch.dtype, whose: str) -> None:
    """Refuse what a network's own type cannot hold."""
    try:
        finite = bool(weight.to(dtype).isfinite().all())
    except (RuntimeError, NotImplementedError) as error:  # of types that few operations know
        why = message_of(error)[:100]
        raise UserError(f"{whose} is of a type that cannot be used, {weight.dtype}: {why}") from None
    if not finite:
        raise UserError(f"{whose} is not finite everywhere")
