"""One worker: opens its workshop once, then does job after job. The one place where any error is caught."""

import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmc_bench.cells import Cell, Job
from mmc_bench.engines import Listener, Outcome, Settings
from mmc_bench.errors import UserError, message_of
from mmc_bench.records import Failure
from mmc_bench.store import LostWeightsError, Store, UnwritableError

if TYPE_CHECKING:
    from mmc_bench.stages.workshop import Workshop


class Worker:
    """Does jobs in this process.

    Parameters
    ----------
    settings
        Where results, plugins and images are, and how to compute.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workshop: Workshop | None = None

    def attempt(self, job: Job, listener: Listener) -> Outcome:
        """Do a job; an error becomes a failure in the outcome."""
        from mmc_bench.stages.cell import do_job

        started = datetime.now(UTC)

        def report(event: dict[str, Any]) -> None:
            listener(job, event)

        report({"stage": "fine-tune" if isinstance(job, Cell) else "pretrain"})
        try:
            if self._workshop is None:
                self._workshop = open_workshop(self._settings)
            return Outcome(job, record=do_job(job, self._workshop, report))
        except (Exception, SystemExit) as error:
            failure = Failure(
                key=job.key,
                label=job.label,
                error=_sentence(error),
                traceback=traceback.format_exc(),
                started=started,
            )
            return Outcome(
                job,
                failure=failure,
                unwritable=str(error) if isinstance(error, UnwritableError) else None,
                lost_models=(error.pretraining,) if isinstance(error, LostWeightsError) else (),
            )


def open_workshop(settings: Settings) -> "Workshop":
    """Import torch and the plugins, set the threads, and keep to the share of the GPU."""
    import torch

    from mmc_bench.data.sources import Sources
    from mmc_bench.registry import Registry
    from mmc_bench.stages.workshop import Workshop
    from mmc_bench.training.precision import prepare_device, resolve_precision

    torch.set_num_threads(settings.threads)
    if settings.gpu_share < 1:
        torch.cuda.set_per_process_memory_fraction(settings.gpu_share)
    precision = resolve_precision(settings.precision, settings.device)
    prepare_device(precision, settings.device)
    return Workshop(
        registry=Registry.discover(settings.plugin_folders),
        store=Store(settings.results),
        sources=Sources(dict(settings.data_folders), settings.download),
        device=torch.device(settings.device),
        threads=settings.threads,
        precision=precision,
        keep_weights=settings.keep_weights,
    )


def _sentence(error: BaseException) -> str:
    """Return an error as one line; a plugin's own error with its type and place."""
    if isinstance(error, UserError):
        return str(error)
    text = message_of(error)[:500]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"
