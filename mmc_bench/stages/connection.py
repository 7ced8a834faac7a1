"""Two checkpoints, whoever trained them: loaded into a backbone, compared, and recorded."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from mmc_bench.data.splits import ExperimentData
from mmc_bench.errors import UserError
from mmc_bench.landscape.alignment import permutation_groups
from mmc_bench.landscape.compare import ground_of
from mmc_bench.results.jobs import Checkpoint, Connection, Pretraining
from mmc_bench.results.records import ConnectionRecord, Timing
from mmc_bench.stages.connect import compare, path_seeds, plugins_of
from mmc_bench.stages.provenance import experiment_seeds, provenance
from mmc_bench.stages.workshop import Workshop
from mmc_bench.training import Backbone, NonFiniteLossError
from mmc_bench.training.precision import arithmetic


def compare_checkpoints(connection: Connection, contents: tuple[bytes, bytes], workshop: Workshop) -> ConnectionRecord:
    """Compare two checkpoints, save the record, and return it.

    Parameters
    ----------
    contents
        The checkpoints' safetensors files.

    Raises
    ------
    UserError
        When a file is no safetensors file, does not fit the backbone, or leads to a loss that is not finite.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    experiment, settings = connection.experiment, connection.connect
    data = workshop.data(experiment)
    first, second = (
        fitted(content, checkpoint, experiment, data, workshop)
        for content, checkpoint in zip(contents, (connection.first, connection.second), strict=True)
    )
    if "permuted" in settings.paths:
        _check_alignable(first, data)
    seconds = {"data": time.perf_counter() - clock}
    clock = time.perf_counter()
    try:
        with arithmetic(workshop.precision, workshop.device):
            comparison, progress = compare(
                first, second, ground_of(data, settings), settings, workshop, experiment.seed
            )
    except NonFiniteLossError as error:
        raise UserError(f"{connection.first.label} and {connection.second.label}: {error}") from None
    seconds["connect"] = time.perf_counter() - clock
    record = ConnectionRecord(
        key=connection.key,
        connection=connection,
        num_classes=data.num_classes,
        comparison=comparison,
        timing=Timing(
            started=started,
            seconds=seconds,
            images_per_second=progress.images / progress.seconds if progress.seconds else None,
        ),
        provenance=provenance(
            workshop.device,
            workshop.precision,
            workshop.threads,
            plugins_of(experiment),
            {**experiment_seeds(experiment.seed), **path_seeds(connection.connect, experiment.seed)},
        ),
    )
    workshop.store.save_connection(record)
    return record


def fitted(
    content: bytes, checkpoint: Checkpoint, experiment: Pretraining, data: ExperimentData, workshop: Workshop
) -> Backbone:
    """Return the experiment's backbone with a checkpoint's weights, in eval mode.

    Raises
    ------
    UserError
        When the content is no safetensors file, or a weight is missing, too many, misshapen or not finite; the
        message names the first such.
    """
    try:
        weights = load(content)
    except SafetensorError as error:
        raise UserError(f"{checkpoint.label} is no safetensors file ({error})") from None
    model = workshop.model(experiment, data)
    _check_fit(weights, model.state_dict(), checkpoint.label, experiment.backbone.name)
    model.load_state_dict(weights)
    return model.eval()


def _check_fit(
    weights: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], label: str, backbone: str
) -> None:
    for name in [*wanted, *weights]:
        if name not in weights:
            raise UserError(f"{label} does not fit {backbone}: it lacks the weight {name!r}")
        if name not in wanted:
            raise UserError(f"{label} does not fit {backbone}, which has no weight {name!r}")
        shape, other = tuple(weights[name].shape), tuple(wanted[name].shape)
        if shape != other:
            raise UserError(f"{label} does not fit {backbone}: its weight {name!r} has shape {shape}, not {other}")
        if not weights[name].isfinite().all():
            raise UserError(f"{label}: its weight {name!r} is not finite everywhere")


def _check_alignable(model: nn.Module, data: ExperimentData) -> None:
    """Refuse before anything is measured what no permuted path leads to."""
    try:
        permutation_groups(model, data.input_shape)
    except UserError as error:
        raise UserError(f"{error}: leave the permuted path out with --paths") from None
