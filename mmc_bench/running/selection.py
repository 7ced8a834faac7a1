"""The records at hand that a session selects: its suite's own, or, without a suite, all that its lists match."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from mmc_bench.errors import UserError, nearest
from mmc_bench.report.axis_curves import AxisCurves, axis_curves
from mmc_bench.report.protocols import protocol_rows
from mmc_bench.report.rows import NO_MEASURES, PRETRAINED, Measures, Row, make_rows
from mmc_bench.results.jobs import PROTOCOLS, PUBLISHED, OwnWeights, Pretraining
from mmc_bench.results.records import CellRecord, PairRecord, PretrainRecord
from mmc_bench.results.scores import CellScores, ModelScores, ScoreReader
from mmc_bench.running.kept import measures_of
from mmc_bench.running.runner import found_pairs, found_records, found_scores
from mmc_bench.running.session import Session
from mmc_bench.running.tuning import resolved
from mmc_bench.suites.plan import Plan

NOT_TUNED = "no method is tuned here, so there are no protocols: give a suite with tune, or --tune"

OfCell = TypeVar("OfCell", CellRecord, CellScores | CellRecord)
OfModel = TypeVar("OfModel", PretrainRecord, ModelScores | PretrainRecord)


def selected_records(session: Session) -> tuple[list[CellRecord], list[PretrainRecord]]:
    """Return the records of cells and pretrained models that a session selects."""
    if session.has_suite:
        return found_records(session.current_plan, session.store)
    return _selected(session, session.store.cell_records(), session.store.pretrain_records())


def records_of_protocol(session: Session, protocol: str | None = None) -> tuple[list[CellRecord], list[PretrainRecord]]:
    """Return the selected records of one protocol, by default of the published parameters, where methods are tuned.

    Raises
    ------
    UserError
        When a protocol is asked for, and nothing is tuned.
    """
    plan = session.current_plan if session.has_suite else None
    cells, models = found_records(plan, session.store) if plan else selected_records(session)
    if plan is None or not plan.tunings:
        if protocol:
            raise UserError(NOT_TUNED)
        return cells, models
    keys = {cell.key for cell in plan.protocols[protocol or PUBLISHED]}
    return [cell for cell in cells if cell.key in keys], models


def selected_scores(session: Session) -> tuple[list[CellScores | CellRecord], list[ModelScores | PretrainRecord]]:
    """Return of the records that a session selects what tables need."""
    if session.has_suite:
        return found_scores(session.current_plan, session.store)
    reader = ScoreReader()
    return _selected(session, session.store.cell_scores(reader), session.store.model_scores(reader))


def selected_rows(session: Session, protocols: Sequence[str] = (), columns: Sequence[str] = ()) -> list[Row]:
    """Return the rows of the records that a session selects; where its suite tunes methods, of these protocols, or all.

    Raises
    ------
    UserError
        When protocols are asked for, and nothing is tuned; or columns that need predictions, and none are kept.
    """
    plan = session.current_plan if session.has_suite else None  # with tuning, it reads what was chosen: once is enough
    cells, models = found_scores(plan, session.store) if plan else selected_scores(session)
    return rows_of(plan, cells, models, protocols, measures_of(session.store, [*cells, *models], columns))


def rows_of(
    plan: Plan | None,
    cells: Sequence[CellScores | CellRecord],
    models: Sequence[ModelScores | PretrainRecord],
    protocols: Sequence[str] = (),
    measures: Measures = NO_MEASURES,
) -> list[Row]:
    """Return the rows of a plan's records, with further columns; raises like `selected_rows`."""
    if plan is None or not plan.tunings:
        if protocols:
            raise UserError(NOT_TUNED)
        return make_rows(cells, models, measures)
    scores = {cell.key: cell for cell in cells}
    found = {name: [scores[cell.key] for cell in own if cell.key in scores] for name, own in plan.protocols.items()}
    searched = [{name: cell.key for name, cell in own.items()} for own in plan.searched]
    return protocol_rows(found, models, searched, protocols or PROTOCOLS, measures)


def selected_curves(session: Session, protocol: str | None = None) -> list[AxisCurves]:
    """Return the records that a session selects along the axes of its suite; raises like `curves_of`."""
    return curves_of(session, *selected_scores(session), protocol)


def curves_of(
    session: Session,
    cells: Sequence[CellScores | CellRecord],
    models: Sequence[ModelScores | PretrainRecord],
    protocol: str | None = None,
) -> list[AxisCurves]:
    """Return records along the axes of a session's suite: with published parameters, or those of a protocol.

    Raises
    ------
    UserError
        When there is no axis, or a protocol is asked for, and nothing is tuned.
    """
    plan = session.plan if session.has_suite else None
    if plan is None or not plan.points:
        raise UserError("there is no axis here: give a suite with axes, or --axis KEY=VALUE,VALUE")
    if protocol and not plan.tunings:
        raise UserError(NOT_TUNED)
    points = [(point.values, point.plan.cells) for point in plan.points]
    if protocol not in (None, PUBLISHED):
        found = [resolved(point.plan, session.store).protocols for point in plan.points]
        points = [(values, protocols[protocol]) for (values, _), protocols in zip(points, found, strict=True)]
    return axis_curves(points, cells, models)


def refuse_only_groups(session: Session, what: str) -> None:
    """Refuse a table about counterfactuals where all that is selected is of datasets that have none.

    Raises
    ------
    UserError
        When that is so.
    """
    if session.has_suite:
        found = [*session.plan.pretrainings]
    else:
        cells, models = selected_scores(session)
        found = [*(cell.cell.pretraining for cell in cells), *(model.pretraining for model in models)]
    if found and all(pretraining.cue_rate is None for pretraining in found):
        names = ", ".join(dict.fromkeys(pretraining.dataset.name for pretraining in found))
        raise UserError(f"{names}: groups and no counterfactuals, which {what} is about")


def about_none(session: Session, what: str = "record") -> str:
    """Return a sentence about a selection of nothing; it names the nearest to a name that no record at hand has."""
    sentence = f"no {what} in {session.store.root} is selected"
    if not session.has_suite:
        methods = [record.cell.method for record in session.store.cell_records()]
        models = [record.pretraining for record in session.store.pretrain_records()]
        known = {
            "methods": {(PRETRAINED, ""), *((one.name, one.distribution) for one in methods)},
            "datasets": {(one.dataset.name, one.dataset.distribution) for one in models},
            "backbones": {(one.backbone.name, one.backbone.distribution) for one in models},
        }
        for field, names in known.items():
            for pattern in session.lists.get(field, ()) if models else ():
                if not any(_fits(pattern, *one) for one in names):
                    advice = nearest(pattern.rpartition(":")[2].strip("*"), sorted(name for name, _ in names))
                    return f"{sentence}: none has {field.removesuffix('s')} {pattern!r}: {advice}"
    return f"{sentence}: mmc-bench run makes some"


def selected_pairs(session: Session) -> list[PairRecord]:
    """Return the records of pairs that a session selects; without a suite, by their first model."""
    if session.has_suite:
        return found_pairs(session.current_plan, session.store)
    if not _matches(session, "methods", PRETRAINED):
        return []
    pairs = [record for record in session.store.pair_records() if _selects(session, record.pair.first)]
    return sorted(pairs, key=lambda record: (_order(record.pair.first), _order(record.pair.second)))


def _selected(
    session: Session, records: Iterable[OfCell], models: Iterable[OfModel]
) -> tuple[list[OfCell], list[OfModel]]:
    cells = [
        record
        for record in records
        if _selects(session, record.cell.pretraining)
        and _matches(session, "methods", record.cell.method.name, record.cell.method.distribution)
    ]
    wanted = {record.cell.pretraining.key for record in cells}
    alone = _matches(session, "methods", PRETRAINED)
    tried = session.store.models_of("trial")  # their seeds are never ranked
    probed = session.store.models_of("probe") if cells else set()  # those without a cue are references of cells

    def is_asked_for(record: OfModel) -> bool:
        aside = record.key in tried or (record.key in probed and record.pretraining.cue_rate == 0)
        return alone and not aside and _selects(session, record.pretraining)

    pretrained = [record for record in models if record.key in wanted or is_asked_for(record)]
    cells.sort(key=lambda record: (_order(record.cell.pretraining), record.cell.method.name))
    pretrained.sort(key=lambda record: _order(record.pretraining))
    return cells, pretrained


def _order(pretraining: Pretraining) -> tuple[str, str, float, int]:
    return (pretraining.dataset.name, pretraining.network, pretraining.cue_rate or 0.0, pretraining.seed)


def _selects(session: Session, pretraining: Pretraining) -> bool:
    lists = session.lists
    return (
        _matches(session, "datasets", pretraining.dataset.name, pretraining.dataset.distribution)
        and _matches(session, "backbones", pretraining.backbone.name, pretraining.backbone.distribution)
        and _is_of(pretraining.checkpoint, session.own_weights)
        and _is_of(pretraining.start, session.own_start)
        and pretraining.cue_rate in (lists.get("cue_rates") or [pretraining.cue_rate])
        and pretraining.seed in (lists.get("seeds") or [pretraining.seed])
    )


def _is_of(weights: OwnWeights | None, asked: tuple[OwnWeights, Path] | None) -> bool:
    """Tell whether weights are those that were asked for, if any were."""
    return asked is None or (weights is not None and weights.sha256 == asked[0].sha256)


def _matches(session: Session, field: str, name: str, distribution: str = "") -> bool:
    patterns = session.lists.get(field)
    return not patterns or any(_fits(pattern, name, distribution) for pattern in patterns)


def _fits(pattern: str, name: str, distribution: str) -> bool:
    return any(fnmatchcase(one, pattern) for one in (name, f"{distribution}:{name}"))
