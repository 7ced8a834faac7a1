"""The results of a run, or the records at hand, as frames and tables."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmc_bench.errors import UserError
from mmc_bench.report.columns import check_columns
from mmc_bench.report.rows import GROUP_COLUMNS, PRETRAINED, Measures, values_of_cell, values_of_model
from mmc_bench.results.jobs import PROTOCOLS, Pretraining
from mmc_bench.results.making import Budget
from mmc_bench.results.records import CellRecord, Failure, PairRecord, PretrainRecord
from mmc_bench.results.scores import CellScores, ModelScores
from mmc_bench.running.given import several
from mmc_bench.running.kept import (
    Kept,
    all_measures,
    found_measures,
    frame_of_classes,
    frame_of_groups,
    frame_of_images,
    kept_predictions,
    measures_of,
)
from mmc_bench.running.selection import (
    curves_of,
    records_of_protocol,
    rows_of,
    selected_pairs,
    selected_records,
    selected_scores,
)
from mmc_bench.running.session import Session
from mmc_bench.running.summary import Summary
from mmc_bench.system.words import counted

if TYPE_CHECKING:
    import pandas as pd

    from mmc_bench.report.axis_curves import AxisCurves


class PrintedTable(str):
    """A printed table; a notebook shows it as HTML, an interactive session as it is printed."""

    _html: str

    @classmethod
    def of(cls, text: str, html: str) -> "PrintedTable":
        """Return a table with its HTML."""
        table = cls(text)
        table._html = html
        return table

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self._html


class Results:
    """The records that a run made or found, or that `mmc_bench.load` selects.

    Attributes
    ----------
    summary : Summary or None
        The counts of a run: ``cells``, ``computed``, ``cached``, ``failed``, ``seconds``; None of loaded records.
    failures : list of Failure
        Why cells have no record: each has a ``label``, an ``error`` (one sentence) and a ``traceback``.
    cells, pretrained, pairs : list
        The records themselves, with every path and seed.
    folder : pathlib.Path
        The results folder.

    Examples
    --------
    >>> import mmc_bench
    >>> class Unchanged:
    ...     def fine_tune(self, task):
    ...         return task.model
    >>> small = {"pretrain.epochs": 1, "connect.points": 2}
    >>> results = mmc_bench.run(methods=Unchanged, seeds=0, set=small)
    >>> results.summary.failed, results.failures
    (0, [])
    >>> results.to_frame().loc[0, "method"]
    'unchanged'
    """

    def __init__(self, session: Session, summary: Summary | None = None) -> None:
        self._session, self.summary = session, summary
        self._plan = session.current_plan if session.has_suite else None
        self._scores = selected_scores(session)

    @property
    def folder(self) -> Path:
        """The results folder."""
        return self._session.store.root

    @property
    def failures(self) -> list[Failure]:
        """Why cells and pretrainings of the run have no record."""
        return self.summary.failures if self.summary else []

    @cached_property
    def _records(self) -> tuple[list[CellRecord], list[PretrainRecord]]:
        return selected_records(self._session)

    @property
    def cells(self) -> list[CellRecord]:
        """The records of the cells."""
        return self._records[0]

    @property
    def pretrained(self) -> list[PretrainRecord]:
        """The records of the pretrained models."""
        return self._records[1]

    @cached_property
    def pairs(self) -> list[PairRecord]:
        """The records of pairs of pretrained models."""
        return selected_pairs(self._session)

    def __len__(self) -> int:
        return len(self._scores[0])

    def to_frame(self, what: str = "cells") -> "pd.DataFrame":
        """Return a pandas frame with a row for each cell.

        Parameters
        ----------
        what : {"cells", "pretrained", "budgets", "classes", "groups"}
            Cells; the pretrained models that they start from; what the trainings of both looked at and computed; or,
            where predictions were kept, the accuracy of both on each class of each split, or on each group of label and
            cue on RC.

        Returns
        -------
        pandas.DataFrame
            Columns ``dataset``, ``backbone``, ``cue_rate``, ``seed``, ``method``; accuracies (fractions) ``NC``, ``C``,
            ``RC``, ``RI`` and ``worst_split``; ``cue_reliance``; on RC, where cues make groups,
            the ``worst_group`` of label and cue; ``barrier_C`` and ``barrier_NC`` (nats); ``seconds``
            of the fine-tuning or pretraining; ``parameters`` that were given to the method; the record's ``key``. Where
            methods are tuned, also ``protocol``; a cell that is of several protocols has a row for each.
            Datasets with a second cue also have the accuracies ``other_absent``, where images have no cue, and
            ``other_random_NC`` and ``other_random_C``, where the second is random; ``other_reliance_NC`` and
            ``other_reliance_C``; and, of cells, ``other_growth_NC`` and ``other_growth_C``.
            Datasets whose images come in groups have, in place of these scores, ``worst_group``, ``mean``, ``aligned``
            and ``conflicting`` (fractions) and ``barrier`` (nats), and no ``cue_rate``.
            Where predictions were kept, also ``worst_class_NC``, ``ece_NC``, ``brier_NC``, ``auroc_NC`` and those of
            the other splits, ``flips_RC`` and ``flips_RI``; NaN for records without.
            Budgets have, in place of the scores, ``clean_images``, ``cued_images``, ``validation_images``,
            ``optimiser_steps``, ``forward_passes`` and ``backward_passes``; missing where a record does not tell.

        Raises
        ------
        UserError
            When `what` is none of these, or needs predictions, and none are kept.
        """
        import pandas as pd

        cells, models = self._scores
        if what == "cells":
            before = {model.key: model for model in models}
            rows = [_cell(cell, before.get(cell.cell.pretraining.key)) for cell in cells]
            if protocols := self._plan and self._plan.protocols:
                by_key = {row["key"]: row for row in rows}
                rows = [
                    by_key[cell.key] | {"protocol": protocol}
                    for protocol, own in protocols.items()
                    for cell in own
                    if cell.key in by_key
                ]
        elif what == "pretrained":
            alone = {"method": "pretrained", "parameters": {}}
            rows = [_place(one.pretraining) | alone | values_of_model(one) | {"key": one.key} for one in models]
        elif what == "budgets":
            rows = [*map(_budget_row, self.pretrained), *map(_budget_row, self.cells)]
            return pd.DataFrame(rows, columns=BUDGET_COLUMNS).astype(dict.fromkeys(Budget.model_fields, "Int64"))
        elif what in ACCURACIES_OF_PARTS:
            return ACCURACIES_OF_PARTS[what](self._predictions)
        else:
            raise UserError(f"to_frame gives 'cells', 'pretrained', 'budgets', 'classes' or 'groups', not {what!r}")
        rows = [{**row, **self._measures.get(row["key"], {})} for row in rows]
        return pd.DataFrame(rows, columns=_columns(rows))

    def predictions(self) -> "pd.DataFrame":
        """Return a pandas frame with a row for each test image and split of each cell and pretrained model.

        Returns
        -------
        pandas.DataFrame
            Columns ``dataset``, ``backbone``, ``cue_rate``, ``seed``, ``method`` and ``key``; ``split``; ``image``, the
            row of the picture in the test set; the ``label``; the ``cue`` that is shown, -1 for none (``cue_0``, …
            where a cue is told by several numbers); ``group``, that of label and cue, -1 for none; ``predicted``; and
            the probabilities ``probability_0``, … of the classes.

        Raises
        ------
        UserError
            When no predictions are kept: `run` keeps them with ``keep_predictions=True``.
        """
        return frame_of_images(self._predictions)

    @property
    def _predictions(self) -> Kept:
        """The predictions that are kept; raises a `UserError` where there are none."""
        cells, models = self._scores
        of_models = [{**_place(one.pretraining), "method": PRETRAINED, "key": one.key} for one in models]
        of_cells = [{**_place(one.cell.pretraining), "method": one.cell.method.name, "key": one.key} for one in cells]
        return kept_predictions(self._session.store, [*of_models, *of_cells])

    @cached_property
    def _measures(self) -> Measures:
        columns = {*all_measures(False), *all_measures(True)}
        return found_measures(self._session.store, [*self._scores[0], *self._scores[1]], columns)

    def table(self, format: str = "md", protocol: str | None = None, columns: Sequence[str] | str = ()) -> PrintedTable:
        """Return the table that the command line prints: a row a method, mean ± standard deviation over seeds.

        Parameters
        ----------
        format : {"md", "csv", "json", "latex", "html"}
            How it is printed.
        protocol : {"published", "clean", "counterfactual"}
            Where methods are tuned: only the rows whose parameters are published, or were chosen by this rule.
        columns : str or iterable of str
            The columns to show, as ``mmc-bench table --columns`` takes them: ``"RC,flips,ece"``.

        Returns
        -------
        PrintedTable
            Text; a notebook shows it as HTML.

        Raises
        ------
        UserError
            When the format, protocol or a column is unknown, nothing is tuned, or no predictions are kept.
        """
        from mmc_bench.report.row_tables import render

        check_format(format)
        if protocol not in (None, *PROTOCOLS):
            raise UserError(f"unknown protocol {protocol!r}: write {', '.join(PROTOCOLS)}")
        names = several(columns)
        check_columns(names)
        measures = measures_of(self._session.store, [*self._scores[0], *self._scores[1]], names)
        rows = rows_of(self._plan, *self._scores, [protocol] if protocol else (), measures)
        forms = [render(rows, form, names) if rows else "" for form in (format, "html")]
        return PrintedTable.of(*forms)

    @cached_property
    def along(self) -> "Sequence[AxisCurves]":
        """The scores along each axis of the suite; none where it has no axes."""
        return curves_of(self._session, *self._scores) if self._plan and self._plan.points else []

    def of_protocol(self, protocol: str | None = None) -> tuple[list[CellRecord], list[PretrainRecord]]:
        """Return the records of cells of one protocol, and those of the pretrained models.

        Parameters
        ----------
        protocol : {"published", "clean", "counterfactual"}
            Where methods are tuned: by default the published parameters.

        Raises
        ------
        UserError
            When a protocol is asked for, and nothing is tuned.
        """
        return records_of_protocol(self._session, protocol)

    def halving(self, format: str = "md") -> PrintedTable:
        """Return the table of where on the suite's axes each method halves the cue's hold.

        Parameters
        ----------
        format : {"md", "csv", "json", "latex", "html"}
            How it is printed.

        Returns
        -------
        PrintedTable
            Text; a notebook shows it as HTML. Empty where nothing is run along an axis.

        Raises
        ------
        UserError
            When the format is unknown.
        """
        from mmc_bench.report.halving_tables import render

        check_format(format)
        along = self.along
        return PrintedTable.of(render(along, format), render(along, "html")) if along else PrintedTable.of("", "")

    def _lines(self) -> Sequence[str]:
        if self.summary is not None:
            from mmc_bench.running.lines import closing_lines

            return closing_lines(self.summary, self.folder)
        cells, models = self._scores
        if not (cells or models):
            return [f"no record in {self.folder} is selected: mmc_bench.run makes some"]
        return [f"{counted(len(cells), 'cell')} and {counted(len(models), 'pretrained model')} in {self.folder}/"]

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        lines = "".join(f"<div>{escape(line)}</div>" for line in self._lines())
        return self.table()._repr_html_() + lines


def check_format(form: str) -> None:
    """Refuse a format that tables do not have, by a `UserError`."""
    from mmc_bench.report.tables import FORMATS

    if form not in FORMATS:
        raise UserError(f"unknown format {form!r}: write {', '.join(FORMATS)}")


#: The frames of accuracies on parts of the test images.
ACCURACIES_OF_PARTS = {"classes": frame_of_classes, "groups": frame_of_groups}

PLACE = ("dataset", "backbone", "cue_rate", "seed", "method")
FIGURES = ("NC", "C", "RC", "RI", "worst_split", "cue_reliance", "barrier_C", "barrier_NC", "seconds", "worst_group")

BUDGET_COLUMNS = (
    *(*PLACE, *Budget.model_fields),
    *("seconds", "parameters", "key"),
)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns of rows: of datasets with groups in place of counterfactuals, other ones."""
    is_grouped = {row["cue_rate"] is None for row in rows}
    figures = [*FIGURES] if is_grouped != {True} else []
    figures += [name for name in GROUP_COLUMNS if name not in figures] if True in is_grouped else []
    protocol = ["protocol"] if rows and "protocol" in rows[0] else []
    measures = [*all_measures(False), *all_measures(True)]
    kept = [name for name in measures if any(name in row for row in rows)]
    ends = ["parameters", "key", *protocol]
    known = {*PLACE, *FIGURES, *GROUP_COLUMNS, *measures, *ends}
    others = dict.fromkeys(name for row in rows for name in row if name not in known)
    return [*PLACE, *figures, *others, *kept, *ends]


def _cell(cell: CellScores | CellRecord, before: ModelScores | PretrainRecord | None) -> dict[str, Any]:
    method = {"method": cell.cell.method.name, "parameters": dict(cell.cell.method.parameters)}
    return _place(cell.cell.pretraining) | method | values_of_cell(cell, before) | {"key": cell.key}


def _place(pretraining: Pretraining) -> dict[str, Any]:
    return {
        "dataset": pretraining.dataset.name,
        "backbone": pretraining.network,
        "cue_rate": pretraining.cue_rate,
        "seed": pretraining.seed,
    }


def _budget_row(record: PretrainRecord | CellRecord) -> dict[str, Any]:
    if isinstance(record, CellRecord):
        method, pretraining = record.cell.method, record.cell.pretraining
        name, parameters, stage = method.name, dict(method.parameters), "fine_tune"
    else:
        name, parameters, pretraining, stage = "pretrained", {}, record.pretraining, "pretrain"
    counts = record.budget.model_dump() if record.budget else {}
    seconds = record.timing.seconds.get(stage)
    return {
        **_place(pretraining),
        "method": name,
        **counts,
        "seconds": seconds,
        "parameters": parameters,
        "key": record.key,
    }
