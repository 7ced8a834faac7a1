"""Developing a method on what it gets: a task, the scores of a model, the paths between two."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmc_bench.errors import UserError
from mmc_bench.running.devices import device_words
from mmc_bench.running.display import Progress, display_of
from mmc_bench.running.given import AnySuite, GivenAxes, GivenSettings, with_trials
from mmc_bench.running.launch import Computing
from mmc_bench.running.session import Session

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from mmc_bench.report.pictures import Picture
    from mmc_bench.running.connecting import Connected
    from mmc_bench.running.interactive import InteractiveTask
    from mmc_bench.running.probing import Probed


def task(
    dataset: str | None = None,
    backbone: Any = None,
    cue_rate: float | None = None,
    seed: int = 0,
    *,
    suite: AnySuite = "quick",
    needs: str | Iterable[str] | None = None,
    set: GivenSettings = (),
    checkpoint: "str | Path | nn.Module | Mapping[str, Any] | None" = None,
    data: Mapping[str, str | Path] | None = None,
    results: str | Path | None = None,
    plugins_dir: Any = (),
    download: bool = True,
    device: str | Sequence[str] = "auto",
    precision: str = "auto",
    threads: int | None = None,
    progress: Progress = None,
) -> "InteractiveTask":
    """Return what a method gets, to develop it on; the model is pretrained in this process unless it is at hand.

    Parameters
    ----------
    dataset, backbone, cue_rate, seed
        The experiment; what is not given is the suite's.
    suite
        Where its recipe and sizes come from: with the same suite, `run` uses the same pretrained model. `set` chooses a
        point of its axes.
    needs
        What the method may touch beyond the clean and validation images, as in `MethodSpec`; everything unless given.
    set, checkpoint, data, results, plugins_dir, download, device, precision, threads, progress
        As for `run`.

    Returns
    -------
    InteractiveTask
        A `Task`. Fine-tuning changes its model: ``task.fresh()`` is a new one. What a method does with it computes in
        float32, as a run with ``precision="fp32"`` does.

    Raises
    ------
    UserError
        When a name or value is not allowed, or pretraining fails.

    Examples
    --------
    >>> import mmc_bench
    >>> task = mmc_bench.task(seed=0, set={"pretrain.epochs": 1})
    >>> len(task.clean), len(task.validation), task.num_classes
    (150, 150, 10)
    >>> images, labels = task.clean.batch(slice(2))
    >>> images.shape
    torch.Size([2, 3, 16, 16])
    """
    from mmc_bench.running.interactive import open_task

    lists = {"datasets": dataset, "backbones": backbone, "cue_rates": cue_rate, "seeds": seed}
    session = Session.of(suite, lists, set, data, results, plugins_dir, checkpoint=checkpoint).without_axes
    computing = Computing(download=download, device=device_words(device), precision=precision, threads=threads)
    return open_task(session, computing, display_of(session.plan.suite.name, progress), needs)


def score(model: "nn.Module", task: "InteractiveTask") -> "pd.Series[float]":
    """Score a model on the four splits of a task.

    Parameters
    ----------
    model : torch.nn.Module
        Any model of the task's images (N, C, H, W) that returns logits (N, K), on the task's device.
    task : InteractiveTask
        From `mmc_bench.task`.

    Returns
    -------
    pandas.Series
        Accuracies (fractions) ``NC``, ``C``, ``RC``, ``RI`` and ``worst_split``, and ``cue_reliance``. Where images
        come in groups, ``worst_group``, ``mean``, ``aligned`` and ``conflicting``. Where they have a second cue, also
        the accuracies on its further test sets, and ``other_reliance_NC`` and ``other_reliance_C``.

    Raises
    ------
    UserError
        When either is something else, or the model's loss is not finite.

    Examples
    --------
    >>> import mmc_bench
    >>> task = mmc_bench.task(seed=0, set={"pretrain.epochs": 1})
    >>> scores = mmc_bench.score(task.pretrained, task)
    >>> list(scores.index)
    ['NC', 'C', 'RC', 'RI', 'worst_split', 'cue_reliance']
    """
    import pandas as pd

    from mmc_bench.running.interactive import scores_of_model

    return pd.Series(scores_of_model(model, task), name="score")


def connect(
    a: "nn.Module | str",
    b: "nn.Module | str",
    task: "InteractiveTask | None" = None,
    *,
    dataset: str | None = None,
    backbone: str | None = None,
    cue_rate: float | None = None,
    seed: int | None = None,
    paths: Any = None,
    points: int | None = None,
    matching: str | None = None,
    matching_images: str | None = None,
    batchnorm_images: int | None = None,
    train_images: int | None = None,
    set: GivenSettings = (),
    data: Mapping[str, str | Path] | None = None,
    results: str | Path | None = None,
    plugins_dir: Any = (),
    download: bool = True,
    device: str | Sequence[str] = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> "Connected":
    """Measure the paths between two models, and say by what mechanisms they work. The answer is kept as a record.

    Parameters
    ----------
    a, b : torch.nn.Module or str
        Models of the task's architecture; or keys of records (six digits do), records' files, ``.safetensors`` files.
    task : InteractiveTask
        The data; without it, the experiment of the records or of the four arguments below.
    dataset, backbone, cue_rate, seed
        The data and architecture, where there is no task.
    paths
        One or several of ``linear``, ``permuted``, ``quadratic``, ``quadratic-nc``; the first two unless given.
    points, matching, matching_images, batchnorm_images, train_images
        Settings of the paths, as in a suite's ``connect``.
    set, data, results, plugins_dir, download, device, precision, threads
        As for `run`, where there is no task.

    Returns
    -------
    Connected
        Prints as the command's tables; a notebook shows the curves. ``record`` has everything.

    Raises
    ------
    UserError
        When weights do not fit the architecture, or a name or value is not allowed.

    Examples
    --------
    >>> import mmc_bench
    >>> task = mmc_bench.task(seed=0, set={"pretrain.epochs": 1})
    >>> connected = mmc_bench.connect(task.pretrained, task.fresh().model, task, paths="linear", points=2)
    >>> connected.record.comparison.paths["linear"].test.t
    (0.0, 1.0)
    """
    from mmc_bench.running.connecting import PathChanges, connect_ends

    changes = PathChanges.of(paths, points, matching, matching_images, batchnorm_images, train_images)
    if task is not None:
        from mmc_bench.running.interactive import connect_on

        return connect_on(task, (a, b), changes)
    session = Session.of(None, {"cue_rates": cue_rate, "seeds": seed}, set, data, results, plugins_dir)
    computing = Computing(download=download, device=device_words(device), precision=precision, threads=threads)
    return connect_ends(session, (a, b), dataset, backbone, changes, computing)


def probe(
    models: "nn.Module | Mapping[str, nn.Module] | None" = None,
    task: "InteractiveTask | None" = None,
    *,
    suite: AnySuite | None = None,
    methods: Any = (),
    datasets: Any = (),
    backbones: Any = (),
    cue_rates: Any = (),
    seeds: Any = (),
    tune: int | None = None,
    set: GivenSettings = (),
    axes: GivenAxes = (),
    checkpoint: "str | Path | nn.Module | Mapping[str, Any] | None" = None,
    start: "str | Path | nn.Module | Mapping[str, Any] | None" = None,
    data: Mapping[str, str | Path] | None = None,
    results: str | Path | None = None,
    plugins_dir: Any = (),
    download: bool = True,
    device: str | Sequence[str] = "auto",
    precision: str = "auto",
    threads: int | None = None,
    progress: Progress = None,
) -> "Probed":
    """Say of models what became of the cue in them: removed, hidden, unlinked or kept; it is kept as records.

    Each is compared with the pretrained model θ_C that it was repaired from, and with a model θ_NC that was pretrained
    without the cue, which is trained now unless it is at hand.

    Parameters
    ----------
    models : torch.nn.Module or mapping of str to torch.nn.Module
        Models of the task's architecture, by name; without a task, the models of all selected cells that keep weights.
    task : InteractiveTask
        From `mmc_bench.task`: the data, and θ_C.
    suite, methods, datasets, backbones, cue_rates, seeds, tune, set, axes, checkpoint, start
        Which cells, as for `run`, where there is no task; without a suite, settings and axes, all that the lists
        select. They must have been run with ``keep_weights``; of networks that no plugin registers, give the class or
        the network again.
    data, results, plugins_dir, download, device, precision, threads, progress
        As for `run`, where there is no task. Probes themselves compute in float32.

    Returns
    -------
    Probed
        Prints as a table; a notebook shows a picture, too.

    Raises
    ------
    UserError
        When no selected cell keeps its weights, images come in groups and have no counterfactuals, or a model is none
        of the task's architecture.

    Examples
    --------
    >>> import mmc_bench
    >>> task = mmc_bench.task(seed=0, set={"pretrain.epochs": 1})
    >>> probed = mmc_bench.probe({"unchanged": task.fresh().model}, task)
    >>> probed.to_frame()["method"].tolist()
    ['pretrained', 'cue-free', 'unchanged']
    """
    if task is not None:
        from mmc_bench.running.interactive import probe_on

        return probe_on(task, models)
    if models is not None:
        raise UserError("models in memory need the task that they are of: mmc_bench.probe(model, task)")
    from mmc_bench.running.probing import probe_cells

    lists = {"methods": methods, "datasets": datasets, "backbones": backbones, "cue_rates": cue_rates, "seeds": seeds}
    settings = with_trials(set, tune)
    session = Session.of(
        suite, lists, settings, data, results, plugins_dir, axes=axes, checkpoint=checkpoint, start=start
    )
    computing = Computing(download=download, device=device_words(device), precision=precision, threads=threads)
    return probe_cells(session, computing, progress)


def gallery(task: "InteractiveTask") -> "Picture":
    """Draw test images of each class (ten at most) on the four splits of a task: what the cue looks like.

    Parameters
    ----------
    task : InteractiveTask
        From `mmc_bench.task`.

    Returns
    -------
    Picture
        A notebook shows it; it has a ``figure`` (matplotlib), and ``save(folder, ["png"])`` writes it.

    Raises
    ------
    UserError
        When the dataset's inputs are no images of one or three channels.

    Examples
    --------
    >>> import mmc_bench
    >>> task = mmc_bench.task(seed=0, set={"pretrain.epochs": 1})
    >>> mmc_bench.gallery(task).name.startswith("images-")
    True
    """
    from mmc_bench.running.interactive import picture_of, the_experiment

    experiment = the_experiment(task)
    return picture_of(experiment.pretraining, experiment.resources)
