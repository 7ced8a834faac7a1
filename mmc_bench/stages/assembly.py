"""Records put together: what was measured, how long it took, and what made it."""

import time
from datetime import UTC, datetime
from typing import Any, TypeVar

import torch

from mmc_bench.results.jobs import Connection, Job
from mmc_bench.results.records import AnyRecord, ConnectionRecord, Provenance, Timing, WeightsOrigin
from mmc_bench.stages.provenance import provenance_of
from mmc_bench.stages.resources import Resources
from mmc_bench.training import Progress

OneRecord = TypeVar("OneRecord", bound=AnyRecord | ConnectionRecord)


class Assembly:
    """The record of one job in the making: its clock, and what was trained for it.

    Parameters
    ----------
    seeds
        The seeds that its numbers follow from, by what they are for.
    """

    def __init__(self, job: Job | Connection, resources: Resources, seeds: dict[str, int]) -> None:
        self._job, self._resources, self._seeds = job, resources, seeds
        self._started, self._last = datetime.now(UTC), time.perf_counter()
        self._seconds: dict[str, float] = {}
        self._images_per_second: float | None = None
        self._training: Provenance | None = None

    def lap(self, stage: str, of_which: dict[str, float] | None = None) -> None:
        """Count the time since the last lap as a stage's, the device's queued work included.

        Parameters
        ----------
        of_which
            Seconds of that time which are counted under other names.
        """
        if self._resources.device.type == "cuda":
            torch.cuda.synchronize(self._resources.device)
        now = time.perf_counter()
        others = of_which or {}
        self._seconds |= others | {stage: now - self._last - sum(others.values())}
        self._last = now

    def trained(self, progress: Progress) -> None:
        """Note the throughput of a training."""
        self._images_per_second = progress.images / progress.seconds if progress.seconds else None

    def kept(self, origin: WeightsOrigin) -> None:
        """Note that weights were kept from another run: its times of training count."""
        self._seconds = {**origin.seconds, **self._seconds}
        self._images_per_second = origin.images_per_second
        self._training = origin.provenance

    def origin(self, **content: Any) -> WeightsOrigin:
        """Return how the weights that were just trained were made."""
        return WeightsOrigin(
            seconds=self._seconds, images_per_second=self._images_per_second, provenance=self._provenance(), **content
        )

    def record(self, schema: type[OneRecord], **content: Any) -> OneRecord:
        """Return the record with this content, its timing and its provenance."""
        return schema(
            key=self._job.key,
            timing=Timing(started=self._started, seconds=self._seconds, images_per_second=self._images_per_second),
            provenance=self._provenance().model_copy(update={"training": self._training}),
            **content,
        )

    def _provenance(self) -> Provenance:
        return provenance_of(self._job, self._resources, self._seeds)
