"""Measuring the paths between two checkpoints, or two models in memory, on an experiment's data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import ValidationError

from mmc_bench.data.locations import check_present
from mmc_bench.errors import FailedError, UserError, nearest
from mmc_bench.results.jobs import Checkpoint, Connection, adapter
from mmc_bench.results.leases import Leases, leased
from mmc_bench.results.metrics import SPLITS
from mmc_bench.results.records import ConnectionRecord
from mmc_bench.results.settings import ConnectSettings, PathName
from mmc_bench.results.versions import versions_of_stages
from mmc_bench.running.devices import resolve_device
from mmc_bench.running.given import several
from mmc_bench.running.launch import Computing, share_cores, worker_settings
from mmc_bench.running.runner import check_plugins
from mmc_bench.running.session import Session
from mmc_bench.stages.checkpoints import Tensors, experiment_suite, locate
from mmc_bench.suites.plan import Plan
from mmc_bench.system.parts import Clock, timed
from mmc_bench.system.process_state import as_if_fresh
from mmc_bench.system.streams import tell
from mmc_bench.system.validation import first_problem

if TYPE_CHECKING:
    from mmc_bench.stages.resources import Resources

PATHS = get_args(PathName)
Measured = TypeVar("Measured")
LONGEST_NAME = 60  # of a file, in the figures' names


@dataclass(frozen=True)
class PathChanges:
    """Settings of the paths that replace an experiment's; None leaves its own."""

    paths: tuple[str, ...] | None = None
    points: int | None = None
    matching: str | None = None
    matching_images: str | None = None
    batchnorm_images: int | None = None
    train_images: int | None = None

    @classmethod
    def of(cls, paths: Any, *others: Any) -> "PathChanges":
        """Return changes with one path, several, or the experiment's.

        Raises
        ------
        UserError
            When a path is unknown.
        """
        return cls(known("path", several(paths), PATHS) or None, *others)

    def applied(self, settings: ConnectSettings) -> ConnectSettings:
        """Return settings with these changes.

        Raises
        ------
        UserError
            When a value is not allowed.
        """
        wanted = {name: value for name, value in vars(self).items() if value is not None}
        try:
            changed: ConnectSettings = adapter(ConnectSettings).validate_python({**vars(settings), **wanted})
        except ValidationError as error:
            raise UserError(f"connect: {first_problem(error)}") from None
        return changed


def known(what: str, words: Sequence[str], allowed: Sequence[str]) -> tuple[str, ...]:
    """Return words, each once.

    Raises
    ------
    UserError
        When one is not allowed, naming the nearest.
    """
    for word in words:
        if word not in allowed:
            raise UserError(f"unknown {what} {word!r}: {nearest(word, allowed)}")
    return tuple(dict.fromkeys(words))


@dataclass(frozen=True)
class Connected:
    """The paths between two models A and B, as they were measured.

    Parameters
    ----------
    record
        All that was measured.
    file
        Where the record is.
    cached
        Whether nothing had to be computed.
    name
        For files of figures.
    """

    record: ConnectionRecord
    file: Path
    cached: bool
    name: str

    def table(self, splits: str | Sequence[str] = SPLITS) -> str:
        """Return what ``mmc-bench connect`` prints, as Markdown."""
        from mmc_bench.report.checkpoint_tables import render

        return render(self.record, known("split", several(splits), SPLITS), "md")

    def plot(self, splits: str | Sequence[str] = SPLITS) -> Any:
        """Return the picture of accuracy and loss along the paths; a notebook shows it."""
        splits = known("split", several(splits), SPLITS)
        from mmc_bench.report.checkpoint_tables import render
        from mmc_bench.report.figures import draw_connection
        from mmc_bench.report.pictures import Picture

        return Picture(self.name, partial(draw_connection, self.record, splits), render(self.record, splits, "csv"))

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        html: str = self.plot()._repr_html_()
        return html


@dataclass(frozen=True)
class End:
    """One of two models to connect: its checkpoint, its weights by name, and a name for files."""

    checkpoint: Checkpoint
    tensors: Tensors
    name: str


def connect_ends(
    session: Session,
    texts: Sequence[Any],
    dataset: str | None,
    backbone: str | None,
    changes: PathChanges,
    computing: Computing,
) -> Connected:
    """Return the paths between what two keys, records' files or safetensors files point at.

    Raises
    ------
    UserError
        When a text points at no weights, it is not known what they are of, or they do not fit.
    """
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"{type(text).__name__} is no key or file: a model in memory needs the task that it is of")
    sources = [locate(text, session.store) for text in texts]
    for setting in session.settings:
        if setting.section == "pretrain":
            raise UserError(f"{setting}: connect pretrains nothing; set connect.…, data.… or PLUGIN.parameter")
    plan = session.plan_of(experiment_suite(sources, dataset, backbone))
    if len(plan.pretrainings) != 1:
        raise UserError(f"dataset and backbone select {len(plan.pretrainings)} experiments: name one of each")
    ends = [End(*source.read(), source.name[:LONGEST_NAME]) for source in sources]
    return measure(session, plan, ends, changes, computing)


def measure(session: Session, plan: Plan, ends: Sequence[End], changes: PathChanges, computing: Computing) -> Connected:
    """Return the paths between two models: of a record at hand, or measured now.

    Parameters
    ----------
    changes
        Settings of the paths that replace the plan's.

    Raises
    ------
    UserError
        When the weights do not fit the backbone, or images are missing.
    """
    if plan.pretrainings[0].cue_rate is None:
        name = plan.pretrainings[0].dataset.name
        raise UserError(f"{name} has groups and no counterfactuals, which two models are compared on")
    settings = changes.applied(plan.suite.connect)
    first, second = (end.checkpoint for end in ends)
    connection = Connection(
        versions=versions_of_stages("connect"),
        first=first,
        second=second,
        experiment=plan.pretrainings[0],
        connect=settings,
    )
    record = session.store.find_jobless(connection)
    cached = record is not None
    if record is None:
        record = _measured(session, plan, connection, (ends[0].tensors, ends[1].tensors), computing)
    else:  # the same weights may have other names by now
        record = record.model_copy(update={"connection": connection})
        if computing.precision not in ("auto", record.provenance.precision):
            tell(f"the record at hand is in {record.provenance.precision}: remove it to have it measured again")
    name = f"connect-{'-'.join(end.name for end in ends)}-{record.key[:8]}"
    return Connected(record, session.store.file_of(connection), cached, name)


def _measured(
    session: Session, plan: Plan, connection: Connection, weights: tuple[Tensors, Tensors], computing: Computing
) -> ConnectionRecord:
    """Check what can be checked beforehand, then measure."""
    session.store.check_writable()
    check_present(session.data, session.wanted_sources(plan.suite.datasets), computing.download)
    check_plugins(plan)
    device = resolve_device(computing.device)
    _, threads = share_cores((device,), 1, computing.threads or plan.suite.threads)
    settings = worker_settings(session, replace(computing, device=device, threads=threads))
    from mmc_bench.engines.worker import open_resources
    from mmc_bench.stages.checkpoint_pairs import compare_checkpoints

    wanted = connection.connect
    label = f"{connection.first.label} – {connection.second.label}"
    with timed(Clock()), as_if_fresh(), Leases(session.store.locks) as leases, leased(leases, connection.key, label):
        resources = open_resources(settings, session.registry)
        where = f"on {device} in {resources.precision}"
        tell(f"measuring {', '.join(wanted.paths)} at {wanted.points} points {where}")
        found = resources.store.find_jobless(connection)
        return found or with_retries(lambda: compare_checkpoints(connection, weights, resources), resources)


def with_retries(measure: Callable[[], Measured], resources: "Resources") -> Measured:
    """Measure; whenever memory runs out, try again with batches in twice as many parts.

    Raises
    ------
    FailedError
        When memory runs out with batches in the most parts, too.
    """
    from mmc_bench.engines.worker import make_room
    from mmc_bench.training import memory

    parts = 1
    while True:
        try:
            with memory.sparing_memory(parts):
                return measure()
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            memory.free_frames(error)
            if parts >= memory.MOST_MICRO_BATCHES:
                raise FailedError(memory.out_of_memory(error, parts)) from None
        parts *= 2
        make_room(resources)
        tell(f"memory ran out; it is tried again in {parts} micro-batches")
