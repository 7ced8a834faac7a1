"""Auditing a backbone on images of one's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmc_bench.running.cluster import cluster_of
from mmc_bench.running.devices import device_words
from mmc_bench.running.display import Progress, display_of
from mmc_bench.running.given import AnySuite, GivenAxes, GivenSettings
from mmc_bench.running.launch import Computing
from mmc_bench.running.session import Session

if TYPE_CHECKING:
    import torch

    from mmc_bench.auditing.report import Audited


def audit(
    backbone: Any = None,
    *,
    data: Mapping[str, str | Path] | None = None,
    out: str | Path = "audit",
    probe: bool = True,
    suite: AnySuite | None = None,
    methods: Any = (),
    datasets: Any = (),
    cue_rate: float | None = None,
    seeds: Any = (),
    set: GivenSettings = (),
    axes: GivenAxes = (),
    start: "str | Path | torch.nn.Module | Mapping[str, Any] | None" = None,
    results: str | Path | None = None,
    plugins_dir: Any = (),
    observe: Any = (),
    download: bool = True,
    device: str | Sequence[str] = "auto",
    precision: str = "auto",
    deterministic: bool = False,
    workers: int | None = None,
    threads: int | None = None,
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
    progress: Progress = None,
) -> "Audited":
    """Plant cues in images, train a backbone on them, repair it, and report what is picked up, and what removes it.

    What has a record already is not run again.

    Parameters
    ----------
    backbone : str, torch.nn.Module class or function
        Its name, or what makes it, as for `run`; the suite's unless given.
    data : mapping
        Folders of images by source: ``{"images": "my-images/"}``, with ``train/<class>/`` and ``test/<class>/``.
    out : str or pathlib.Path
        Folder of the report, ``audit.html`` and ``audit.json``.
    probe : bool
        Whether to say of each repaired network what became of the cue; the weights of all are kept for it.
    suite : str, pathlib.Path, mapping or Suite
        By default ``audit``, which fits two CPU cores; ``audit-full`` takes all images. A suite of an audit has one
        axis of numbers, how strong the cues of its datasets are.
    methods, datasets, cue_rate, seeds, set, axes
        In place of the suite's, as for `run`; there is one cue rate.
    start : str, pathlib.Path, torch.nn.Module or mapping
        Weights that all trainings begin with, as for `run`: what would a model of one's own pick up?
    results, plugins_dir, observe, download, device, precision, deterministic, workers, threads, keep_predictions
        As for `run`.
    retry_failed, fail_fast, time_limit, cell_timeout, cell_memory, image_memory
        As for `run`.
    engine, address, cpus_per_cell, gpus_per_cell, progress
        As for `run`.

    Returns
    -------
    Audited
        Prints the answer. ``report`` has all numbers, ``page`` and ``numbers`` are the files. Where a run was stopped,
        the report is of what had finished.

    Raises
    ------
    UserError
        When images are not given, too few or unreadable, a name or value is not allowed, the report cannot be written,
        or nothing has finished.
    KeyboardInterrupt
        When it is interrupted before a network is trained; its workers have ended, and what is finished is kept.

    Examples
    --------
    >>> from itertools import product
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> import mmc_bench
    >>> for part, name, level in product(("train", "test"), ("dark", "light"), range(12)):
    ...     folder = Path("my-images", part, name)
    ...     folder.mkdir(parents=True, exist_ok=True)
    ...     Image.new("RGB", (16, 16), (level + 200 * (name == "light"),) * 3).save(folder / f"{level}.png")
    >>> class Unchanged:
    ...     def fine_tune(self, task):
    ...         return task.model
    >>> small = {"pretrain.epochs": 1, "connect.points": 2}
    >>> strong = {"images-*.relative_strength": [1.0]}
    >>> given = {"data": {"images": "my-images"}, "datasets": "images-p*", "methods": [Unchanged]}
    >>> audited = mmc_bench.audit(**given, set=small, axes=strong, results="audited")
    >>> audited.report.cues[0].name, audited.report.images.classes, audited.page.name
    ('patch', 2, 'audit.html')
    """
    from mmc_bench.auditing.plan import AuditSession
    from mmc_bench.auditing.report import audit as run_audit

    rates = [] if cue_rate is None else [cue_rate]
    lists = {"methods": methods, "datasets": datasets, "backbones": backbone, "cue_rates": rates, "seeds": seeds}
    given = Session.of(suite, lists, set, data, results, plugins_dir, observe, axes=axes, start=start)
    session = AuditSession.auditing(given)
    computing = Computing(
        download=download,
        device=device_words(device),
        precision=precision,
        deterministic=deterministic,
        workers=workers,
        threads=threads,
        keep_predictions=keep_predictions,
        retry_failed=retry_failed,
        fail_fast=fail_fast,
        time_limit=time_limit,
        cell_timeout=cell_timeout,
        cell_memory=cell_memory,
        image_memory=image_memory,
        cluster=cluster_of(engine, address, cpus_per_cell, gpus_per_cell),
    )
    display = display_of(session.plan.suite.name, progress)
    audited = run_audit(session, computing, display, Path(out), probe, progress)
    display.close(audited.summary, session.store.root)
    return audited
