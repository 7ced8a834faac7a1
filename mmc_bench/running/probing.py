"""What became of the cue in the models of cells whose weights are kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from mmc_bench.data.locations import check_present
from mmc_bench.errors import FailedError, NothingSelectedError, UserError
from mmc_bench.mechanisms.verdicts import way_back
from mmc_bench.plugin.in_memory import in_memory_offers
from mmc_bench.report.probed import ProbedModel, settings_of
from mmc_bench.report.rows import cell_names
from mmc_bench.results.jobs import Checkpoint, Pretraining, Probe
from mmc_bench.results.leases import Leases, leased
from mmc_bench.results.probes import Hold, ProbeRecord
from mmc_bench.results.records import CellRecord, PretrainRecord
from mmc_bench.results.versions import versions_of_stages
from mmc_bench.running.connecting import with_retries
from mmc_bench.running.devices import resolve_device
from mmc_bench.running.display import Progress, display_of
from mmc_bench.running.launch import Computing, run_session, share_cores, worker_settings
from mmc_bench.running.outcome import PrintedTable, check_format
from mmc_bench.running.probeable import about_no_cell, file_of_start, probeable
from mmc_bench.running.runner import check_plugins
from mmc_bench.running.selection import refuse_only_groups, selected_records
from mmc_bench.running.session import Session
from mmc_bench.stages.checkpoints import Source, Tensors, qualified
from mmc_bench.suites.plan import Plan
from mmc_bench.suites.suite import Suite
from mmc_bench.system.parts import Clock, timed
from mmc_bench.system.process_state import as_if_fresh

if TYPE_CHECKING:
    import pandas as pd

    from mmc_bench.report.pictures import Pictures
    from mmc_bench.stages.resources import Resources


@dataclass(frozen=True)
class Probed:
    """What became of the cue in several models, and in their references.

    Attributes
    ----------
    models : tuple of ProbedModel
        Each with its measurements, those of θ_C and θ_NC, and a ``verdict`` (``word``, ``left``).
    computed : int
        How many models were measured now; the others had a record.
    folder : pathlib.Path
        The results folder, whose ``probes/`` has the records.
    """

    models: tuple[ProbedModel, ...]
    computed: int
    folder: Path

    def to_frame(self) -> "pd.DataFrame":
        """Return a pandas frame with a row for each model, after those of its θ_C and θ_NC.

        Returns
        -------
        pandas.DataFrame
            Columns ``dataset``, ``backbone``, ``cue_rate``, ``seed``, ``method`` (``pretrained`` is θ_C, ``cue-free``
            θ_NC); ``read``, the accuracy (a fraction) of a linear probe for the cue on the features that the last layer
            sees, ``read_STAGE`` on those of earlier stages, and the ``chance`` of it; ``left``, what is left of
            θ_C's readability; ``attribution`` and ``cue_pixels`` (fractions); ``flips`` (a fraction); ``barrier``
            (nats); the ``word``.
        """
        import pandas as pd

        from mmc_bench.report.probed import frame_rows

        return pd.DataFrame(frame_rows(self.models))

    def table(self, format: str = "md") -> PrintedTable:
        """Return the table that the command line prints: a row a method, mean ± standard deviation over seeds.

        Parameters
        ----------
        format : {"md", "csv", "json", "latex", "html"}
            How it is printed.

        Returns
        -------
        PrintedTable
            Text; a notebook shows it as HTML.

        Raises
        ------
        UserError
            When the format is unknown.
        """
        from mmc_bench.report.probe_tables import render

        check_format(format)
        return PrintedTable.of(render(self.models, format), render(self.models, "html"))

    def plot(self) -> "Pictures":
        """Return a picture for each setting: how well the cue is read by stage, a panel a method.

        Returns
        -------
        Pictures
            A notebook shows them; each has a ``figure`` (matplotlib), and ``save(folder)`` writes PNG, SVG and CSV.
        """
        from mmc_bench.report.figures import file_names
        from mmc_bench.report.pictures import Picture, Pictures
        from mmc_bench.report.probe_figures import draw_probed
        from mmc_bench.report.probe_tables import render

        settings = {one.key: one for one in settings_of(self.models)}
        names = file_names({key: "-".join(("probe", *one.title)) for key, one in settings.items()})
        return Pictures(
            Picture(names[key], partial(draw_probed, one), render(one.models, "csv")) for key, one in settings.items()
        )

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return "\n".join((self.table()._repr_html_(), self.plot()._repr_html_()))


def probe_cells(session: Session, computing: Computing, progress: Progress = None) -> Probed:
    """Return what became of the cue in the models of all selected cells whose weights are kept.

    Raises
    ------
    UserError
        When no cell is selected, or none keeps its weights; when a reference cannot be pretrained.
    """
    refuse_only_groups(session, "a probe")
    cells, models = selected_records(session)
    if not cells:
        raise NothingSelectedError(about_no_cell(session))
    kept = probeable(session, [cell for cell in cells if cell.cell.pretraining.cue_rate is not None])
    names = {key: method for key, (_, method) in cell_names(kept).items()}
    kept.sort(key=lambda cell: (*cell.cell.pretraining.place, cell.cell.pretraining.seed, names[cell.key]))
    at_hand = {record.key: record for record in models}
    starts = {cell.key: _start_of(cell, at_hand) for cell in kept}
    prober = Prober(session, computing, progress)
    prober.prepare([*{start.key: start.pretraining for start in starts.values()}.values()])
    probed = []
    for cell in kept:
        start = starts[cell.key]
        own = partial(prober.hold_of_record, start.pretraining)
        holds = own(cell), own(start), prober.cue_free(start.pretraining)
        probed.append(ProbedModel(names[cell.key], start.pretraining, *holds, *way_back(cell.paths["linear"].test)))
    return Probed(tuple(probed), prober.computed, session.store.root)


def _start_of(cell: CellRecord, at_hand: Mapping[str, PretrainRecord]) -> PretrainRecord:
    """Return the record of the pretrained model that a cell was repaired from."""
    start = at_hand.get(cell.pretraining_key)
    if start is None or start.weights_sha256 != cell.pretrained_sha256:
        raise UserError(f"the pretrained model of {cell.cell.label} is not the one at hand: run its suite again")
    return start


class Prober:
    """Measures models one after another. Data and networks are loaded when the first of them has no record.

    Attributes
    ----------
    computed
        How many models were measured, and not read back.
    """

    def __init__(self, session: Session, computing: Computing, progress: Progress = None) -> None:
        self._recipe = session.plan.suite.pretrain if session.has_suite else None
        self._given = session
        own = in_memory_offers(session.registry)
        self._session = replace(
            session, settings=(), axes={}, shard=None, observe=(), selection={}, checkpoint=None, start=None, offers=own
        )
        self._store, self._computing, self._progress = session.store, computing, progress
        self._plans: list[Plan] = []
        self._planned: dict[str, Pretraining] = {}
        self._cue_free: dict[str, Pretraining] = {}
        self.computed = 0

    def prepare(self, experiments: Sequence[Pretraining]) -> None:
        """Pretrain θ_NC of these experiments where it is not at hand; those of one setting together.

        Raises
        ------
        UserError
            When one cannot be pretrained, or was made with other images than those at hand.
        """
        settings: dict[str, list[Pretraining]] = {}
        for experiment in experiments:
            settings.setdefault(experiment.with_changes(seed=0).key, []).append(experiment)
        for alike in settings.values():
            session = self._session_of(alike)
            plan = session.plan
            self._plans.append(plan)
            uncued = plan.suite.data.with_changes(minority="uncued")
            missing = []
            for experiment, planned in zip(alike, plan.pretrainings, strict=True):
                if planned.images != experiment.images:
                    raise UserError(f"{experiment.label} was made with other images: give its run's --data")
                cue_free = planned.with_changes(cue_rate=0.0, data=uncued)
                self._planned[experiment.key], self._cue_free[experiment.key] = planned, cue_free
                if self._store.done(cue_free) is None:
                    missing.append(cue_free.seed)
            if missing:
                suite = replace(plan.suite, cue_rates=(0.0,), seeds=tuple(missing), data=uncued)
                self._pretrain(replace(session, suite=suite))

    def hold_of_record(self, experiment: Pretraining, record: CellRecord | PretrainRecord) -> Hold:
        """Return what the model of a record has left of the cue of a prepared experiment."""
        assert record.weights_sha256 is not None
        job = record.cell if isinstance(record, CellRecord) else record.pretraining
        source = Source(record.key[:8], self._store.weights_file(job), record)
        checkpoint = Checkpoint(label=source.label, weights_sha256=record.weights_sha256, record=record.key)
        return self.hold(experiment, checkpoint, lambda: source.read()[1])

    def cue_free(self, experiment: Pretraining) -> Hold:
        """Return what θ_NC has left of the cue of a prepared experiment."""
        record = self._store.find(self._cue_free[experiment.key])
        assert isinstance(record, PretrainRecord)
        return self.hold_of_record(experiment, record)

    def hold(self, experiment: Pretraining, model: Checkpoint, weights: Callable[[], Tensors]) -> Hold:
        """Return what a model has left of the cue of a prepared experiment: of a record at hand, or measured now.

        Raises
        ------
        UserError
            When the weights do not fit the backbone.
        """
        planned = self._planned[experiment.key]
        probe = Probe(versions=versions_of_stages("probe"), model=model, experiment=planned)
        record: ProbeRecord = self._store.find_jobless(probe) or self._measured(probe, weights())
        return record.hold

    def _measured(self, probe: Probe, weights: Tensors) -> ProbeRecord:
        from mmc_bench.stages.probe import probe_weights

        display_of("probe", self._progress).announce(f"probing {probe.model.label}")
        resources, label = self._resources, f"probe of {probe.model.label}"
        with timed(Clock()), as_if_fresh(), Leases(self._store.locks) as leases, leased(leases, probe.key, label):
            record: ProbeRecord | None = self._store.find_jobless(probe)  # another run may have made it meanwhile
            if record is None:
                record = with_retries(lambda: probe_weights(probe, weights, resources), resources)
                self.computed += 1
            return record

    @cached_property
    def _resources(self) -> "Resources":
        """Check what can be checked beforehand, then import torch and the plugins."""
        computing, names = self._computing, dict.fromkeys(name for plan in self._plans for name in plan.suite.datasets)
        self._store.check_writable()
        check_present(self._session.data, self._session.wanted_sources([*names]), computing.download)
        for plan in self._plans:
            check_plugins(plan)
        device = resolve_device(computing.device)
        _, threads = share_cores((device,), 1, computing.threads)
        from mmc_bench.engines.worker import open_resources

        settings = worker_settings(self._session, replace(computing, device=device, threads=threads))
        return open_resources(settings, self._session.registry)

    def _session_of(self, alike: Sequence[Pretraining]) -> Session:
        """Return the session of pretrainings that differ in their seed alone, begun with the same weights."""
        one = alike[0]
        used = (one.dataset, one.backbone)
        start = f"{one.start.name}={file_of_start(one.start, self._given)}" if one.start else None
        suite = Suite(
            name="probe",
            datasets=(qualified(one.dataset),),
            backbones=(qualified(one.backbone),),
            methods=(),
            cue_rates=(one.cue_rate or 0.0,),
            seeds=tuple(experiment.seed for experiment in alike),
            data=one.data,
            pretrain=one.recipe if one.checkpoint is None or self._recipe is None else self._recipe,
            parameters={qualified(reference): reference.parameters for reference in used},
        )
        return replace(self._session, suite=suite, selection={"backbones": suite.backbones}, start=start)

    def _pretrain(self, session: Session) -> None:
        display = display_of("cue-free references", self._progress)
        display.announce("pretraining without the cue, to compare with")
        summary = run_session(session, replace(self._computing, workers=0), display)
        if summary.interrupted:
            raise KeyboardInterrupt
        if summary.stopped:
            raise FailedError(f"the references could not be trained: {summary.stopped}")
        for failure in summary.failures:
            raise UserError(f"{failure.label}: {failure.error}")
