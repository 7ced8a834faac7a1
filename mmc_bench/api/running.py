"""Running suites."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmc_bench.running.cluster import cluster_of
from mmc_bench.running.devices import device_words
from mmc_bench.running.display import Progress, display_of
from mmc_bench.running.given import AnySuite, GivenAxes, GivenSettings, with_trials
from mmc_bench.running.launch import Computing, run_session
from mmc_bench.running.outcome import Results
from mmc_bench.running.preview import Preview, preview
from mmc_bench.running.session import Session

if TYPE_CHECKING:
    import torch


def run(
    suite: AnySuite = "quick",
    *,
    methods: Any = (),
    datasets: Any = (),
    backbones: Any = (),
    cue_rates: Any = (),
    seeds: Any = (),
    tune: int | None = None,
    set: GivenSettings = (),
    axes: GivenAxes = (),
    checkpoint: "str | Path | torch.nn.Module | Mapping[str, Any] | None" = None,
    start: "str | Path | torch.nn.Module | Mapping[str, Any] | None" = None,
    data: Mapping[str, str | Path] | None = None,
    results: str | Path | None = None,
    plugins_dir: Any = (),
    observe: Any = (),
    shard: str | tuple[int, int] | None = None,
    download: bool = True,
    device: str | Sequence[str] = "auto",
    precision: str = "auto",
    deterministic: bool = False,
    workers: int | None = None,
    threads: int | None = None,
    keep_weights: bool = False,
    keep_predictions: bool = False,
    retry_failed: bool = False,
    fail_fast: bool = False,
    time_limit: float | None = None,
    cell_timeout: float | None = None,
    cell_memory: float | None = None,
    image_memory: float | None = None,
    engine: str = "local",
    address: str | None = None,
    cpus_per_cell: float | None = None,
    gpus_per_cell: float | None = None,
    profile: bool = False,
    progress: Progress = None,
) -> Results:
    """Run a suite: pretrain, fine-tune, score and connect; what has a record already is not run again.

    Parameters
    ----------
    suite : str, pathlib.Path, mapping or Suite
        A suite's name, the path of its YAML file, or its content.
    methods, datasets, backbones, cue_rates, seeds
        One or several, in place of the suite's. Methods are names, globs, classes with ``fine_tune(task)``, or objects
        of such classes. A class is called by its attribute ``name``, or by its own name in kebab case; its attribute
        ``needs`` declares its data, as in `MethodSpec`. Its version is a digest of its source and of what that names.
        Backbones are names, globs, ``torch.nn.Module`` classes, or functions that return a network; each is given
        ``num_classes`` and ``input_shape`` where it takes them, and called and versioned as a method is.
    tune : int
        Try each method with so many sets of parameters, on other seeds and images, and run it with the best by each
        rule, besides the published ones.
    set : mapping or iterable of str
        Settings to override: ``{"pretrain.epochs": 5, "mine.lr": 0.02}``, or ``["mine.lr=0.02"]``.
    axes : mapping or iterable of str
        Settings that take several values, in every combination: ``{"data.clean_images": [100, 300]}``, or
        ``["data.clean_images=100,300"]``. They replace the suite's axes of the same keys.
    checkpoint : str, pathlib.Path, torch.nn.Module or mapping
        Weights to start from instead of pretraining: a file, ``"NAME=FILE"``, a network, ``{"NAME": network}``, or a
        ``state_dict``; these three are saved in the results folder. One backbone of the same architecture must be
        given; without it, a network is its own.
    start : str, pathlib.Path, torch.nn.Module or mapping
        Weights that pretrainings begin with, given in the same ways. A last layer of another number of classes is
        replaced by a random one.
    data : mapping
        Folders of images by source: ``{"cifar10": "images/"}``.
    results : str or pathlib.Path
        Results folder; by default ``$MMC_BENCH_RESULTS``, or ``results``.
    plugins_dir
        Folders or files with more plugins.
    observe
        Names of observers of the run.
    shard : str or tuple of int
        Only this part of the suite: ``"3/8"`` or ``(3, 8)``.
    download : bool
        Whether missing images may be downloaded.
    device : str or sequence of str
        ``auto`` is every CUDA GPU that torch sees, else Apple's GPU, else the CPU. Or ``cpu``, ``cuda`` (the first
        GPU), ``cuda:1``, ``mps``, or several GPUs: ``"cuda:0,cuda:2"`` or ``["cuda:0", "cuda:2"]``.
    precision : {"auto", "fp32", "bf16"}
        Arithmetic; ``auto`` is bf16 where the hardware gains from it.
    deterministic : bool
        Use deterministic algorithms alone, so that a GPU repeats itself; slower.
    workers : int
        Worker processes; 0 runs everything in this one, on one device. By default there is one for each GPU, or they
        fill the cores, or the cluster.
    threads : int
        CPU threads of a worker: by default the suite's number, or else the worker's share of the cores, at most
        OMP_NUM_THREADS; on a cluster, `cpus_per_cell`.
    keep_weights, retry_failed, fail_fast : bool
        Keep the fine-tuned weights; run only what failed before; stop at the first failure.
    keep_predictions : bool
        Keep what each model predicts on each test image, for `Results.predictions` and the measures made of them. What
        lacks its predictions is scored again, a cell without kept weights after it is fine-tuned again.
    time_limit, cell_timeout : float
        Minutes after which the run stops, or a cell fails.
    cell_memory : float
        GB of memory above which a cell fails.
    image_memory : float
        GB that decoded images, and rendered splits, may take; more stays in a file, or is rendered batch by batch.
    engine : {"local", "ray"}
        Where cells run: on this machine, or on a Ray cluster.
    address, cpus_per_cell, gpus_per_cell
        The Ray cluster, and what a worker takes of its node.
    profile : bool
        Measure which share of the device pretrainings use, and print the seconds of what ran by their parts.
    progress : None, False or callable
        By default a bar in a notebook, live bars on a terminal, lines elsewhere. False shows nothing; a function, such
        as ``print``, gets each line.

    Returns
    -------
    Results
        What the suite has by now. Failed cells raise nothing: see `Results.failures`.

    Raises
    ------
    UserError
        When a name or value is not allowed, a package is lacking, or the results folder cannot be written.
    KeyboardInterrupt
        When the run is interrupted; its workers have ended, and what is finished is kept.

    Examples
    --------
    >>> import mmc_bench
    >>> class Unchanged:
    ...     def fine_tune(self, task):
    ...         return task.model
    >>> small = {"pretrain.epochs": 1, "connect.points": 2}
    >>> results = mmc_bench.run("quick", methods=[Unchanged], seeds=[0], set=small)
    >>> results.to_frame()[["seed", "method"]]
       seed     method
    0     0  unchanged
    """
    started = time.monotonic()
    lists = {"methods": methods, "datasets": datasets, "backbones": backbones, "cue_rates": cue_rates, "seeds": seeds}
    session = Session.of(
        *(suite, lists, with_trials(set, tune), data, results, plugins_dir, observe, shard),
        axes=axes,
        checkpoint=checkpoint,
        start=start,
    )
    computing = Computing(
        download=download,
        device=device_words(device),
        precision=precision,
        deterministic=deterministic,
        workers=workers,
        threads=threads,
        keep_weights=keep_weights,
        keep_predictions=keep_predictions,
        retry_failed=retry_failed,
        fail_fast=fail_fast,
        time_limit=time_limit,
        cell_timeout=cell_timeout,
        cell_memory=cell_memory,
        image_memory=image_memory,
        profile=profile,
        cluster=cluster_of(engine, address, cpus_per_cell, gpus_per_cell),
    )
    display = display_of(session.plan.suite.name, progress)
    summary = run_session(session, computing, display)
    display.close(summary, session.store.root)
    if profile:
        print(summary.profile)
    if summary.interrupted and not (time_limit and time.monotonic() - started >= 60 * time_limit):
        raise KeyboardInterrupt
    return Results(session, summary)


def dry_run(
    suite: AnySuite = "quick",
    *,
    methods: Any = (),
    datasets: Any = (),
    backbones: Any = (),
    cue_rates: Any = (),
    seeds: Any = (),
    tune: int | None = None,
    set: GivenSettings = (),
    axes: GivenAxes = (),
    checkpoint: "str | Path | torch.nn.Module | Mapping[str, Any] | None" = None,
    start: "str | Path | torch.nn.Module | Mapping[str, Any] | None" = None,
    data: Mapping[str, str | Path] | None = None,
    results: str | Path | None = None,
    plugins_dir: Any = (),
    observe: Any = (),
    shard: str | tuple[int, int] | None = None,
    keep_predictions: bool = False,
    retry_failed: bool = False,
) -> Preview:
    """Say what `run` would do with the same arguments, without doing it.

    Parameters
    ----------
    suite, methods, datasets, backbones, cue_rates, seeds, tune, set, axes, checkpoint, start, data, results
        As for `run`.
    plugins_dir, observe, shard
        As for `run`.
    keep_predictions, retry_failed
        As for `run`.

    Returns
    -------
    Preview
        Prints as a summary; ``to_frame()`` has the state of every pretraining and cell, ``seconds`` the estimated work.

    Raises
    ------
    UserError
        When a name or value is not allowed.

    Examples
    --------
    >>> import mmc_bench
    >>> class Unchanged:
    ...     def fine_tune(self, task):
    ...         return task.model
    >>> frame = mmc_bench.dry_run("quick", methods=[Unchanged], seeds=[7]).to_frame()
    >>> frame[["kind", "state"]]
              kind   state
    0  pretraining  to run
    1         cell  to run
    """
    lists = {"methods": methods, "datasets": datasets, "backbones": backbones, "cue_rates": cue_rates, "seeds": seeds}
    settings = with_trials(set, tune)
    session = Session.of(
        *(suite, lists, settings, data, results, plugins_dir, observe, shard),
        axes=axes,
        checkpoint=checkpoint,
        start=start,
    )
    return preview(session, retry_failed, keep_predictions)
