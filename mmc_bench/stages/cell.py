"""The four stages in their order, and the record they leave."""

import time
from datetime import UTC, datetime

import torch

from mmc_bench.landscape.barriers import invariances
from mmc_bench.results.jobs import Cell, Job, Pretraining
from mmc_bench.results.records import AnyRecord, CellRecord, Timing
from mmc_bench.stages.connect import compare_pair, connect
from mmc_bench.stages.finetune import fine_tune
from mmc_bench.stages.pretrain import pretrain
from mmc_bench.stages.provenance import experiment_seeds, provenance
from mmc_bench.stages.score import score
from mmc_bench.stages.workshop import Report, Workshop
from mmc_bench.training.precision import arithmetic


def do_job(job: Job, workshop: Workshop, report: Report) -> AnyRecord:
    """Do a job and return its record. Whoever calls has the job's lease."""
    if isinstance(job, Pretraining):
        return pretrain(job, workshop, report)
    return _do_cell(job, workshop, report) if isinstance(job, Cell) else compare_pair(job, workshop, report)


def _do_cell(cell: Cell, workshop: Workshop, report: Report) -> CellRecord:
    started, clock = datetime.now(UTC), _Clock(workshop.device)
    data = workshop.data(cell.pretraining)
    pretrained, before = workshop.pretrained(cell.pretraining, data)
    clock.lap("data")
    with arithmetic(workshop.precision, workshop.device):
        report({"stage": "fine-tune"})
        fine_tuned, parameters, progress, seed = fine_tune(cell, pretrained, data, workshop, report)
        clock.lap("fine_tune")
        report({"stage": "score"})
        metrics = score(fine_tuned, data, data.clean)
        clock.lap("score")
        report({"stage": "connect"})
        paths = connect(cell, pretrained, fine_tuned, data, (before.metrics, metrics), workshop)
        clock.lap("connect")
    made = workshop.store.done(cell)
    if isinstance(made, CellRecord):  # by another run, while this one slept and lost its lease
        return made
    weights = workshop.store.save_weights(cell, fine_tuned.state_dict()) if workshop.keep_weights else None
    record = CellRecord(
        key=cell.key,
        cell=cell,
        pretraining_key=cell.pretraining.key,
        pretrained_sha256=before.weights_sha256,
        num_classes=data.num_classes,
        parameters=parameters,
        metrics=metrics,
        paths=paths,
        invariance=invariances({name: getattr(metrics, name) for name in data.splits}),
        timing=Timing(
            started=started,
            seconds=clock.seconds,
            images_per_second=progress.images / progress.seconds if progress.seconds else None,
        ),
        provenance=provenance(
            workshop.device,
            workshop.precision,
            workshop.threads,
            [cell.pretraining.dataset, cell.pretraining.backbone, cell.method],
            {**experiment_seeds(cell.pretraining.seed), "fine-tuning": seed},
        ),
        weights_sha256=weights,
    )
    workshop.store.save(record)
    return record


class _Clock:
    """Seconds of each stage, the device's queued work included."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now
