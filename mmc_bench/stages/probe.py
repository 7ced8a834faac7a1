"""Probing one model, whoever trained it: loaded into a backbone, measured, and recorded."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from mmc_bench.errors import UserError
from mmc_bench.mechanisms.measure import measure_hold
from mmc_bench.results.jobs import Probe
from mmc_bench.results.probes import ProbeRecord
from mmc_bench.stages.assembly import Assembly
from mmc_bench.stages.own_weights import fill
from mmc_bench.stages.provenance import experiment_seeds
from mmc_bench.stages.resources import Resources
from mmc_bench.training import NonFiniteLossError


def probe_weights(probe: Probe, weights: Mapping[str, torch.Tensor], resources: Resources) -> ProbeRecord:
    """Measure what a model has left of the cue, save the record, and return it.

    Parameters
    ----------
    weights
        The model's weights by name.

    Raises
    ------
    UserError
        When they do not fit the backbone, or lead to a loss that is not finite; or when source changed meanwhile.
    """
    resources = replace(resources, precision="fp32")
    experiment = probe.experiment
    assembly = Assembly(probe, resources, experiment_seeds(experiment))
    data = resources.data(experiment)
    model = fill(resources.model(experiment, data), weights, probe.model.label, experiment.backbone.name)
    assembly.lap("data")
    try:
        hold = measure_hold(model, data)
    except NonFiniteLossError as error:
        raise UserError(f"{probe.model.label}: {error}") from None
    assembly.lap("probe")
    record = assembly.record(ProbeRecord, probe=probe, hold=hold)
    resources.check_sources(probe)
    resources.store.save_jobless(record)
    return record
