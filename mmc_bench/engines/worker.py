"""One worker: does job after job with resources that it opens once. Errors of any kind are caught here alone."""

import gc
import re
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mmc_bench.engines import OnEvent, Outcome, Settings, store_of
from mmc_bench.engines.gpu_memory import keep_to_share
from mmc_bench.errors import UserError, message_of
from mmc_bench.results import records
from mmc_bench.results.canonical import canonical_json
from mmc_bench.results.codec import DiskError
from mmc_bench.results.jobs import Cell, Job, Trial, references_of
from mmc_bench.results.outages import PASSING
from mmc_bench.results.records import Failure
from mmc_bench.results.store import LostWeightsError, UnwritableError
from mmc_bench.results.versions import ChangedCoreError
from mmc_bench.system.allocator import return_freed_memory
from mmc_bench.system.determinism import compute_deterministically, refused_operation
from mmc_bench.system.parts import Clock, part, timed
from mmc_bench.system.process_state import ProcessState, kept
from mmc_bench.system.streams import tell
from mmc_bench.system.validation import first_problem

if TYPE_CHECKING:
    from mmc_bench.plugin.registry import Registry
    from mmc_bench.stages.resources import Resources


#: What cloudpickle calls the file of every function that it carries.
PICKLED = "<dynamic-code>"


class Worker:
    """Does jobs in this process, with resources that are opened by the first.

    Parameters
    ----------
    registry
        The plugins found by this process, with the caller's in-memory methods; without it, plugins are searched for.
    """

    def __init__(self, settings: Settings, registry: "Registry | None" = None) -> None:
        self._settings, self._registry = settings, registry
        self._resources: Resources | None = None
        self._state: ProcessState | None = None
        self._micro_batches: dict[str, int] = {}

    def attempt(self, job: Job, on_event: OnEvent) -> Outcome:
        """Do a job; an error becomes a failure in the outcome.

        Before it, this process is what it was before the first; what its plugins changed is reported as a note.
        """

        def report(event: dict[str, Any]) -> None:
            on_event(job, event)

        self._put_back("something besides the jobs", report)
        with timed(Clock()) as clock:
            outcome = self._attempt(job, report, clock)
        plugins = ", ".join(f"{kind} {plugin.name}" for kind, plugin in references_of(job))
        if outcome.lost_device:  # neither can anything be put back there
            return outcome
        return replace(outcome, spoilt=self._put_back(f"one of {plugins}", report))

    def _put_back(self, who: str, report: Callable[[dict[str, Any]], None]) -> bool:
        """Put back what was changed of the process, and return whether some of it cannot be."""
        if self._state is None:
            return False
        changes = self._state.put_back()
        if sentence := changes.by(who):
            report({"note": sentence})
        if changes.lasting:
            self._state = ProcessState.now().but_for_chance()
        return bool(changes.lasting)

    def _attempt(self, job: Job, report: Callable[[dict[str, Any]], None], clock: Clock) -> Outcome:
        """Do a job.

        When memory runs out, the job is done again from its start with batches in twice as many parts, and so are,
        at once, the jobs that differ from it in the seed alone.
        """
        with part("start-up"):
            from mmc_bench.stages.job import do_job
            from mmc_bench.training.memory import MOST_MICRO_BATCHES, free_frames, is_out_of_memory, sparing_memory

        started = datetime.now(UTC)
        alike = _but_for_the_seed(job)
        while True:
            parts = self._micro_batches.get(alike, 1)
            try:
                if self._resources is None:
                    with part("start-up"):
                        self._resources = open_resources(self._settings, self._registry)
                        self._state = ProcessState.now().but_for_chance()
                self._resources.note = lambda sentence: report({"note": sentence})
                self._resources.seed_everything("job", 0)  # whatever the last one left
                report({"stage": "fine-tune" if isinstance(job, Cell | Trial) else "pretrain"})
                with sparing_memory(parts):
                    return Outcome(job, record=do_job(job, self._resources, report))
            except (Exception, SystemExit) as error:
                out_of_memory = is_out_of_memory(error)
                text = _sentence(error) if parts == 1 else _sentence_after_retries(error, parts, out_of_memory)
                ended = Outcome(
                    job,
                    failure=Failure.of(job, text, started, traceback.format_exc()),
                    stops=str(error) if _stops_the_run(error) else None,
                    lost_models=(error.pretraining,) if isinstance(error, LostWeightsError) else (),
                    lost_device=not out_of_memory and device_is_lost(self._settings.device),
                )
                free_frames(error)
            if not out_of_memory or parts >= MOST_MICRO_BATCHES:
                return ended
            self._micro_batches[alike] = 2 * parts
            make_room(self._resources)
            clock.rest("other")
            report({"note": f"memory ran out; it is tried again in {2 * parts} micro-batches"})


def _stops_the_run(error: BaseException) -> bool:
    """Tell whether other jobs would meet the same error: in this process's code, or on a disk that stays away."""
    is_away = isinstance(error, DiskError) and error.errno in PASSING
    return is_away or isinstance(error, UnwritableError | ChangedCoreError)


def device_is_lost(device: str) -> bool:
    """Tell whether a GPU answers this process no longer, as after a device-side assert: every later call fails too."""
    if not device.startswith("cuda"):
        return False
    import torch

    try:
        torch.cuda.synchronize(device)
    except Exception:  # whatever the driver says
        return True
    return False


def missing_on_device(error: BaseException) -> str | None:
    """Return a clause about what Apple's GPU lacks, and what to do, where that is what an error of torch is about."""
    text = message_of(error)
    if "float64" in text and "MPS" in text:
        return "Apple's GPU has no float64: compute in float32 there, or run with --device cpu"
    if not isinstance(error, NotImplementedError) or "MPS" not in text:
        return None
    operation = re.search(r"aten::[\w.]+", text)
    return (
        f"torch has no {operation[0] if operation else 'such operation'} on Apple's GPU: "
        "set PYTORCH_ENABLE_MPS_FALLBACK=1, which computes it on the CPU, or run with --device cpu"
    )


def make_room(resources: "Resources | None") -> None:
    """Free what a failed attempt left, and images that can be loaded again."""
    import torch

    from mmc_bench.system.devices import empty_caches

    if resources is not None:
        resources.forget()
    if torch.cuda.is_available():
        torch.compiler.reset()  # compiled code, and the pool of its CUDA graphs, hold memory of their own
    gc.collect()
    empty_caches()
    return_freed_memory()


def open_resources(settings: Settings, registry: "Registry | None" = None) -> "Resources":
    """Import torch and the plugins, set the threads, and keep to the share of the GPU.

    A registry that is at hand is used as it is.
    """
    import torch

    from mmc_bench.data.sources import Sources
    from mmc_bench.data.stored import IMAGE_MEMORY
    from mmc_bench.plugin.in_memory import unpickled
    from mmc_bench.plugin.registry import Registry
    from mmc_bench.stages.provenance import git_state
    from mmc_bench.stages.resources import Resources
    from mmc_bench.training.precision import prepare_device, resolve_precision

    torch.set_num_threads(settings.threads)
    if settings.deterministic:
        compute_deterministically()  # before CUDA starts
    device = torch.device(settings.device)
    if device.type == "cuda":
        keep_to_share(settings.device, settings.gpu_share)
    precision = resolve_precision(settings.precision, settings.device)
    prepare_device(precision, settings.device)
    if registry is None:
        registry = Registry.discover(settings.plugin_folders)
        with kept("a method or backbone of the caller's program", tell):
            for offer in unpickled(settings.in_memory):
                registry.add(offer)
    git_state()  # of what is imported here, and not of what it is when the first record is made
    memory = IMAGE_MEMORY if settings.image_memory is None else settings.image_memory
    return Resources(
        registry=registry,
        store=store_of(settings),
        sources=Sources(dict(settings.data_folders), settings.download, memory=memory),
        device=device,
        threads=settings.threads,
        precision=precision,
        keep_weights=settings.keep_weights,
        profile=settings.profile,
        checkpoints=dict(settings.checkpoints),
    )


def _but_for_the_seed(job: Job) -> str:
    """Return what a job has in common with those that need as much memory."""
    content = job.content()
    for experiment in (content, *content.values()):
        if isinstance(experiment, dict):
            experiment.pop("seed", None)
    return canonical_json(content)


def _sentence_after_retries(error: BaseException, parts: int, ran_out: bool) -> str:
    from mmc_bench.training.memory import out_of_memory

    if ran_out:
        return out_of_memory(error, parts)
    return f"{_sentence(error)} (after memory had run out, with batches in {parts} parts)"


def _sentence(error: BaseException) -> str:
    """Return an error as one line; a plugin's own error with its type and place."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ValidationError) and error.title in vars(records):  # a figure that no stage foresaw
        return f"the result is no valid record: {error.title}: {first_problem(error)}"
    text = missing_on_device(error) or message_of(error)[:500]
    place = ""
    if frames := traceback.extract_tb(error.__traceback__):
        file, line = Path(frames[-1].filename).name, frames[-1].lineno
        place = f" (line {line} of its file or cell)" if file == PICKLED else f" ({file}, line {line})"
    if operation := refused_operation(error):
        return f"{operation} has no deterministic form: run without --deterministic{place}"
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"
