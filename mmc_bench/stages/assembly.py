"""Records put together: what was measured, how long it took, and what made it."""

import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import torch

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.results.jobs import Connection, Job, Probe
from mmc_bench.results.making import Budget, Compilation, Provenance, Timing
from mmc_bench.results.probes import ProbeRecord
from mmc_bench.results.records import AnyRecord, ConnectionRecord, WeightsOrigin
from mmc_bench.stages.hardware import peak_of_worker, training_flop
from mmc_bench.stages.provenance import provenance_of
from mmc_bench.stages.resources import Resources
from mmc_bench.system.devices import synchronise
from mmc_bench.system.parts import Clock, part, running_clock
from mmc_bench.training import Backbone, Progress

#: The part of a job that a stage's time counts for, but for what counts for parts within it.
PART_OF = {
    "data": "data",
    "pretrain": "training",
    "fine_tune": "training",
    "score": "scoring",
    "connect": "paths",
    "probe": "scoring",
}

OneRecord = TypeVar("OneRecord", bound=AnyRecord | ConnectionRecord | ProbeRecord)


class Assembly:
    """The record of one job in the making: its clock, and what was trained for it.

    Parameters
    ----------
    seeds
        The seeds that its numbers follow from, by what they are for.

    Attributes
    ----------
    budget
        What the training looked at and computed, where that is known.
    """

    def __init__(self, job: Job | Connection | Probe, resources: Resources, seeds: dict[str, int]) -> None:
        self._job, self._resources, self._seeds = job, resources, seeds
        self._started, self._last = datetime.now(UTC), time.perf_counter()
        self._clock = running_clock() or Clock()
        self._seconds: dict[str, float] = {}
        self._images_per_second: float | None = None
        self._compilation: Compilation | None = None
        self._training: Provenance | None = None
        self.budget: Budget | None = None
        self._profile: dict[str, float] = {}

    def lap(self, stage: str, of_which: dict[str, float] | None = None) -> None:
        """Count the time since the last lap as a stage's, the device's queued work included.

        Parameters
        ----------
        of_which
            Seconds of that time which are counted under other names.
        """
        synchronise(self._resources.device)
        now = time.perf_counter()
        others = of_which or {}
        self._seconds |= others | {stage: now - self._last - sum(others.values())}
        self._last = now
        self._clock.rest(PART_OF[stage])

    def trained(self, progress: Progress, budget: Budget | None = None) -> None:
        """Note the throughput and the budget of a training, and what became of compiling it."""
        self.budget = budget
        found = progress.compiler
        if found.compiled or found.why_not:
            self._compilation = Compilation(compiled=found.compiled, seconds=found.seconds, why_not=found.why_not)
        self.replayed(progress)
        self._images_per_second = progress.images / progress.seconds if progress.seconds else None

    def replayed(self, progress: Progress) -> None:
        """Note what became of CUDA graphs."""
        if progress.is_replayed or progress.why_not_replayed:
            so_far = self._compilation or Compilation()
            graphs = so_far.graphs or progress.is_replayed
            why_not = so_far.why_no_graphs or progress.why_not_replayed
            self._compilation = so_far.model_copy(update={"graphs": graphs, "why_no_graphs": why_not})

    def profile(self, model: Backbone, images: CuedImages) -> None:
        """Note what an image of the training asks of the device, and what that can do, if the run is to be profiled.

        The training must run one forward and one backward pass an image: a method may run more, or fewer.
        """
        resources = self._resources
        if not resources.profile:
            return
        start = time.perf_counter()
        with part("profiling"), suppress(torch.OutOfMemoryError):  # it costs the job nothing but a figure
            x, y = images.batch(slice(0, 2))
            if flop := training_flop(model, x, y):
                self._profile = {
                    "gflop_per_image": flop / len(y) / 1e9,
                    "peak_gflops": peak_of_worker(resources.device, resources.precision) / 1e9,
                }
        self._last += time.perf_counter() - start  # no stage took it

    def kept(self, origin: WeightsOrigin) -> None:
        """Note that weights were kept from another run: its times and budget of training count."""
        self.budget = origin.budget
        self._seconds = {**origin.seconds, **self._seconds}
        self._images_per_second, self._compilation = origin.images_per_second, origin.compilation
        self._training = origin.provenance

    def origin(self, **content: Any) -> WeightsOrigin:
        """Return how the weights that were just trained were made."""
        return WeightsOrigin(
            seconds=self._seconds,
            images_per_second=self._images_per_second,
            compilation=self._compilation,
            budget=self.budget,
            provenance=self._provenance(),
            **content,
        )

    def record(self, schema: type[OneRecord], **content: Any) -> OneRecord:
        """Return the record with this content, its timing and its provenance."""
        self._clock.rest("other")
        timing = Timing(
            started=self._started,
            seconds=self._seconds,
            images_per_second=self._images_per_second,
            compilation=self._compilation,
            parts=self._clock.seconds,
            **self._profile,
        )
        return schema(
            key=self._job.key,
            timing=timing,
            provenance=self._provenance().model_copy(update={"training": self._training}),
            **content,
        )

    def _provenance(self) -> Provenance:
        return provenance_of(self._job, self._resources, self._seeds)
