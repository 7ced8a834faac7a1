"""Two checkpoints, whoever trained them: loaded into a backbone, compared, and recorded."""

from collections.abc import Mapping

import torch
from torch import nn

from mmc_bench.data.splits import ExperimentData
from mmc_bench.errors import UserError
from mmc_bench.landscape.alignment import permutation_groups
from mmc_bench.landscape.measure import path_images
from mmc_bench.results.jobs import Checkpoint, Connection, Pretraining
from mmc_bench.results.records import ConnectionRecord
from mmc_bench.stages.assembly import Assembly
from mmc_bench.stages.connect import compare, path_seeds
from mmc_bench.stages.own_weights import fill
from mmc_bench.stages.provenance import experiment_seeds
from mmc_bench.stages.resources import Resources
from mmc_bench.training import Backbone, NonFiniteLossError, Progress
from mmc_bench.training.precision import arithmetic

Tensors = Mapping[str, torch.Tensor]


def compare_checkpoints(
    connection: Connection, weights: tuple[Tensors, Tensors], resources: Resources
) -> ConnectionRecord:
    """Compare two checkpoints, save the record, and return it.

    Parameters
    ----------
    weights
        The checkpoints' weights by name.

    Raises
    ------
    UserError
        When a checkpoint does not fit the backbone, or leads to a loss that is not finite; or when source changed
        meanwhile.
    """
    experiment, settings = connection.experiment, connection.connect
    seeds = {**experiment_seeds(experiment), **path_seeds(settings, experiment.seed)}
    assembly = Assembly(connection, resources, seeds)
    data = resources.data(experiment)
    first, second = (
        fitted(tensors, checkpoint, experiment, data, resources)
        for tensors, checkpoint in zip(weights, (connection.first, connection.second), strict=True)
    )
    if "permuted" in settings.paths:
        _check_alignable(first, data)
    images = path_images(data, settings)
    assembly.lap("data")
    progress = Progress()
    try:
        with arithmetic(resources.precision, resources.device):
            comparison = compare(first, second, images, settings, resources, experiment.seed, progress)
    except NonFiniteLossError as error:
        raise UserError(f"{connection.first.label} and {connection.second.label}: {error}") from None
    assembly.trained(progress)
    assembly.lap("connect")
    record = assembly.record(
        ConnectionRecord, connection=connection, num_classes=data.num_classes, comparison=comparison
    )
    resources.check_sources(connection)
    resources.store.save_jobless(record)
    return record


def fitted(
    weights: Tensors, checkpoint: Checkpoint, experiment: Pretraining, data: ExperimentData, resources: Resources
) -> Backbone:
    """Return the experiment's backbone with a checkpoint's weights, in eval mode.

    Raises
    ------
    UserError
        When a weight is missing, too many, misshapen or not finite; the message names the first such.
    """
    return fill(resources.model(experiment, data), weights, checkpoint.label, experiment.backbone.name)


def _check_alignable(model: nn.Module, data: ExperimentData) -> None:
    """Refuse before anything is measured what no permuted path leads to."""
    try:
        permutation_groups(model, data.input_shape)
    except UserError as error:
        raise UserError(f"{error}: leave the permuted path out with --paths") from None
