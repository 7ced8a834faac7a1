"""Starting a run: which device and how many workers, the settings of a worker, and the checks beforehand."""

import math
import time
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass, replace
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmc_bench.data.locations import check_present
from mmc_bench.engines import GIGABYTE, Engine, Settings
from mmc_bench.engines.gpu_memory import fraction_for_tensors, shares
from mmc_bench.errors import UserError
from mmc_bench.plugin.in_memory import pickled
from mmc_bench.plugin.versions import OWN_DISTRIBUTION
from mmc_bench.running.cluster import Cluster
from mmc_bench.running.devices import resolve_devices
from mmc_bench.running.fit import check_fit
from mmc_bench.running.forecast import Forecast
from mmc_bench.running.interrupts import interrupted_after, raised_interrupts
from mmc_bench.running.lines import LineDisplay
from mmc_bench.running.observers import Observers
from mmc_bench.running.preview import headline, known_seconds, seconds_of_evaluation
from mmc_bench.running.runner import Missing, check_plugins, find_missing, found_records, run_plan
from mmc_bench.running.session import DEFAULT_SUITE, Session
from mmc_bench.running.summary import Summary
from mmc_bench.running.tuning import about_spaces, expected_cells, save_selections
from mmc_bench.suites.grouped import about_left_out
from mmc_bench.suites.plan import Plan
from mmc_bench.system.processes import available_cores, multiplies_in_bf16, threads_of_environment
from mmc_bench.system.streams import tell

if TYPE_CHECKING:
    from mmc_bench.engines.local import Limits
    from mmc_bench.plugin.registry import Registry

#: No cluster: this machine.
LOCAL = Cluster()
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Computing:
    """How a run computes; no part of what its results are.

    Parameters
    ----------
    device
        ``auto``, one device, or several CUDA GPUs separated by commas: see `resolve_devices`.
    deterministic
        Hold torch to algorithms that repeat themselves on a GPU, too.
    workers
        Worker processes; 0 runs everything in this one, None is one a GPU, or fills the cores, or the Ray cluster.
    threads
        CPU threads of a worker. None is the suite's number, or else a worker's share of the cores, at most
        OMP_NUM_THREADS; on a cluster, one for each CPU that it takes.
    time_limit, cell_timeout
        In minutes.
    cell_memory, image_memory
        In GB: what a cell may take, and what decoded images, and a dataset's rendered splits, may take of it.
    profile
        Measure what pretrainings use of the device, and show the seconds of the jobs by their parts.
    """

    download: bool = True
    device: str = "auto"
    precision: str = "auto"
    deterministic: bool = False
    workers: int | None = None
    threads: int | None = None
    keep_weights: bool = False
    keep_predictions: bool = False
    retry_failed: bool = False
    fail_fast: bool = False
    time_limit: float | None = None
    cell_timeout: float | None = None
    cell_memory: float | None = None
    image_memory: float | None = None
    profile: bool = False
    cluster: Cluster = LOCAL

    def __post_init__(self) -> None:
        for name, smallest in (("workers", 0), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < smallest):
                raise UserError(f"{name} = {value!r}: must be a whole number, {smallest} or more")
        for name in ("time_limit", "cell_timeout", "cell_memory", "image_memory"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value < math.inf):
                raise UserError(f"{name} = {value!r}: must be a finite number above 0")
        if self.precision not in PRECISIONS:
            raise UserError(f"unknown precision {self.precision!r}: write {', '.join(PRECISIONS)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def run_session(session: Session, computing: Computing, display: LineDisplay) -> Summary:
    """Run what a session's plan still needs, and return how it went.

    Raises
    ------
    UserError
        When something that can be checked beforehand is wrong; nothing has run by then.
    """
    started = time.monotonic()
    plan, _ = session.current_plan, session.observers
    missing = find_missing(plan, session.store, computing.retry_failed, computing.keep_predictions)
    if computing.keep_weights or computing.precision != "auto" or computing.deterministic:
        _report_cached(session, computing)
    session.store.sweep()
    if not missing.jobs:
        save_selections(plan, session.store)
        return Summary.before(plan, missing.found)
    with chdir(Path.cwd()):  # an observer may go elsewhere: paths stay those that the caller gave
        return _run_missing(session, plan, missing, started, computing, display)


def _run_missing(
    session: Session, plan: Plan, missing: Missing, started: float, computing: Computing, display: LineDisplay
) -> Summary:
    """Check what can be checked beforehand, then run. A time limit counts from `started`."""
    cluster = computing.cluster
    session.store.check_writable()
    save_selections(plan, session.store)
    check_present(session.data, session.wanted_sources(plan.suite.datasets), computing.download)
    check_plugins(plan, session.set_plugins)
    observers = Observers.of(session.observers)
    workers, threads, limits = computing.workers, computing.threads or plan.suite.threads, _limits(computing)
    devices: tuple[str, ...]
    if cluster.is_chosen:
        devices, threads = (cluster.device(computing.device),), threads or cluster.threads
        engine = cluster.engine(workers, threads, limits)
    elif computing.device != "auto":
        resolve_devices(computing.device)
    display.announce(headline(plan, missing))  # what comes next may import torch
    for words in filter(None, (about_left_out([offer for offer, _ in plan.offers]), about_spaces(plan))):
        display.announce(words)
    # Tests see to what the default suite gives our own methods: checking it would import torch before the workers do.
    check_plugins(plan, trusted=OWN_DISTRIBUTION if session.suite in (None, DEFAULT_SUITE) else None)
    if not cluster.is_chosen:
        devices = resolve_devices(computing.device)
        workers, threads = share_cores(devices, workers, threads)
        devices = devices[: max(1, workers)]
        _check_memory(devices, workers)
        engine = _local_engine(workers, limits, devices, session.registry)
    check_fit(session, missing.jobs, computing.download)  # what is wrong is said once, and not by every worker
    settings = worker_settings(session, replace(computing, device=devices[0], threads=threads))
    if workers or cluster.is_chosen:
        settings = replace(settings, in_memory=pickled(session.registry))
    display.announce(_place(settings, workers, cluster, devices))
    known, expected = known_seconds(plan, session.store, missing), expected_cells(plan, missing.jobs)
    evaluation = seconds_of_evaluation(plan, session.store, missing)
    forecast = Forecast(missing.jobs, workers, known, expected=expected, evaluation=evaluation)
    with raised_interrupts(), interrupted_after(computing.time_limit, started), display:
        return run_plan(plan, missing, engine, settings, observers, display, computing.fail_fast, forecast)


def worker_settings(session: Session, computing: Computing) -> Settings:
    """Return the settings of a worker in this process; the device is a resolved one."""
    return Settings(
        results=str(session.store.root.resolve()),
        plugin_folders=tuple(str(Path(folder).resolve()) for folder in session.plugin_folders),
        data_folders=tuple((name, str(Path(folder).resolve())) for name, folder in session.data.items()),
        download=computing.download,
        device=computing.device,
        precision=computing.precision,
        deterministic=computing.deterministic,
        threads=computing.threads or 1,
        gpu_share=computing.cluster.gpu_share,
        image_memory=None if computing.image_memory is None else round(computing.image_memory * GIGABYTE),
        keep_weights=computing.keep_weights,
        keep_predictions=computing.keep_predictions,
        profile=computing.profile,
        checkpoints=tuple(session.own_files.items()),
    )


def _place(settings: Settings, workers: int | None, cluster: Cluster, devices: Sequence[str]) -> str:
    """Return where and how a run computes, in words.

    Raises
    ------
    UserError
        When a device does not compute in the precision.
    """
    threads = "1 thread" if settings.threads == 1 else f"{settings.threads} threads"
    who = "this process with" if workers == 0 else "1 worker of" if workers == 1 else f"{workers or 'all'} workers of"
    if cluster.is_chosen:
        precision = "its machine's precision" if settings.precision == "auto" else settings.precision
    else:
        precision = " or ".join(sorted({_precision_of(settings.precision, device) for device in devices}))
    if settings.deterministic:
        precision += ", deterministically"
    where = devices[0] if len(devices) == 1 else f"{len(devices)} GPUs ({', '.join(devices)})"
    return f"{who} {threads} on {where} in {precision}; records go to {settings.results}"


def _precision_of(precision: str, device: str) -> str:
    """Return the precision that this one is on a device of this machine; for a CPU, without importing torch."""
    if device == "cpu":
        return precision if precision != "auto" else "bf16" if multiplies_in_bf16() else "fp32"
    from mmc_bench.training.precision import resolve_precision

    return resolve_precision(precision, device)


def _check_memory(devices: Sequence[str], workers: int) -> None:
    """Check that every GPU has memory enough for its workers."""
    for device, share in shares(devices, workers).items():
        if device.startswith("cuda") and share < 1:
            fraction_for_tensors(device, share)


def _limits(computing: Computing) -> "Limits":
    from mmc_bench.engines.local import Limits

    minutes, gigabytes = computing.cell_timeout, computing.cell_memory
    return Limits(60 * minutes if minutes else None, round(gigabytes * GIGABYTE) if gigabytes else None)


def _local_engine(workers: int | None, limits: "Limits", devices: Sequence[str], registry: "Registry") -> Engine:
    """Return what runs the jobs on this machine."""
    from mmc_bench.engines.local import InProcessEngine, Limits, LocalEngine

    if workers:
        return LocalEngine(workers, limits, devices)
    if limits != Limits():
        raise UserError("cell_timeout and cell_memory stop a worker process: they need 1 worker or more")
    import_module("mmc_bench.stages.job")  # imports torch, which may swallow what Ctrl-C raises later
    return InProcessEngine(registry)


def _report_cached(session: Session, computing: Computing) -> None:
    """Warn of finished cells that lack the weights, the precision or the determinism asked for."""
    records, _ = found_records(session.current_plan, session.store)
    without = sum(record.weights_sha256 is None for record in records)
    if computing.keep_weights and without:
        which = "1 cached cell keeps no weights: delete its record to make it again"
        if without > 1:
            which = f"{without} cached cells keep no weights: delete their records to make them again"
        tell(f"mmc-bench: {which}")
    others = sum(record.provenance.precision != computing.precision for record in records)
    if computing.precision != "auto" and others:
        tell(
            f"mmc-bench: {others} cached cells were not computed in {computing.precision}; "
            "another results folder makes them anew"
        )
    chancy = sum(not record.provenance.deterministic for record in records)
    if computing.deterministic and chancy:
        tell(
            f"mmc-bench: {chancy} cached cells were computed without --deterministic; "
            "another results folder makes them anew"
        )


def share_cores(devices: Sequence[str], workers: int | None, threads: int | None) -> tuple[int, int]:
    """Return the number of workers and the threads of each: one worker a GPU, or so many that they fill the cores.

    Without `threads`, they share the cores out, but none has more threads than OMP_NUM_THREADS says.
    """
    cores, most = available_cores(), threads or threads_of_environment()
    if workers is None:
        workers = len(devices) if most is None or devices[0] != "cpu" else max(1, cores // most)
    share = max(1, cores // max(1, workers))
    return workers, threads or min(most or share, share)
