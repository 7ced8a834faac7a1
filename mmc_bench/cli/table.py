"""``mmc-bench table``."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

import click

from mmc_bench.cli.options import Session, session_options
from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.report.claims import read_claims
from mmc_bench.report.published import holds_losses, load_published, published_file
from mmc_bench.report.rows import PRETRAINED, Row, make_rows
from mmc_bench.results.jobs import Pretraining
from mmc_bench.results.records import CellRecord, PairRecord, PretrainRecord
from mmc_bench.results.scores import CellScores, ModelScores, ScoreReader
from mmc_bench.running.runner import found_pairs, found_records, found_scores

OfCell = TypeVar("OfCell", CellRecord, CellScores | CellRecord)
OfModel = TypeVar("OfModel", PretrainRecord, ModelScores | PretrainRecord)

FORMATS = ("md", "csv", "json", "latex", "html")
MAKE_SOME = "mmc-bench run makes some"


@click.command("table", short_help="Print the table of the results at hand.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="md", show_default=True, help="How to print it.")
@click.option(
    "--against",
    metavar="TABLE|FILE",
    help="Compare with a published table or figure (a name, a CSV file, or a YAML file of claims), and check the "
    "claims made on it.",
)
@click.option(
    "--connections",
    is_flag=True,
    help="For each pair of models and each cell: barriers along its paths, and whether the two are mechanistically "
    "similar.",
)
@session_options
def command(session: Session, form: str, against: str | None, connections: bool) -> None:
    """Print the table of the results at hand.

    Without --suite, of every record in the results folder that the lists select; with it, of the suite's own.
    """
    if against is not None and connections:
        raise UserError("--against and --connections are two tables: ask for one at a time")
    if connections:
        click.echo(_connections(session, form), nl=False)
        return
    if against is not None:
        file = published_file(against, session.registry.published)
        if file.suffix == ".yaml":
            click.echo(_judged(file, session, form), nl=False)
            return
    compared = None if against is None else _comparison(against, session, form)
    rows = make_rows(*_selected_scores(session))
    if not rows:
        raise NothingSelectedError(f"no record in {session.store.root} is selected: {MAKE_SOME}")
    click.echo(compared(rows) if compared else _printed(rows, form), nl=False)


def _printed(rows: Sequence[Row], form: str) -> str:
    from mmc_bench.report.row_tables import render

    return render(rows, form)


def _connections(session: Session, form: str) -> str:
    from mmc_bench.report.connection_tables import render
    from mmc_bench.report.connections import connections

    pairs, (cells, pretrained) = selected_pairs(session), selected_records(session)
    if not (pairs or cells):
        raise NothingSelectedError(f"no record of a pair or cell in {session.store.root} is selected: {MAKE_SOME}")
    return render(connections(pairs, cells, pretrained), form)


def _judged(file: Path, session: Session, form: str) -> str:
    """Return the verdicts of the selected records on a file of claims."""
    from mmc_bench.report.claim_tables import render
    from mmc_bench.report.judgements import judge_records

    claims = read_claims(file)
    judgements = judge_records(claims, selected_pairs(session), *selected_records(session))
    return render(file.stem, claims, judgements, form)


def _comparison(name: str, session: Session, form: str) -> Callable[[Sequence[Row]], str]:
    """Read a published table, and return what compares rows with it."""
    from mmc_bench.report import compare_tables, losses
    from mmc_bench.report.compare import compare

    file = published_file(name, session.registry.published)
    if holds_losses(file):
        differences = losses.read_losses(file)
        return lambda rows: losses.render(losses.compare_losses(rows, differences), form)
    published = load_published(name, session.registry.published)
    return lambda rows: compare_tables.render(compare(rows, published), form)


def selected_records(session: Session) -> tuple[list[CellRecord], list[PretrainRecord]]:
    """Return the records that the session's options select."""
    if session.suite_name or session.settings:
        return found_records(session.plan, session.store)
    return _selected(session, session.store.cell_records(), session.store.pretrain_records())


def _selected_scores(session: Session) -> tuple[list[CellScores | CellRecord], list[ModelScores | PretrainRecord]]:
    """Return of the records that the options select what tables need."""
    if session.suite_name or session.settings:
        return found_scores(session.plan, session.store)
    reader = ScoreReader()
    return _selected(session, session.store.cell_scores(reader), session.store.model_scores(reader))


def _selected(
    session: Session, records: Iterable[OfCell], models: Iterable[OfModel]
) -> tuple[list[OfCell], list[OfModel]]:
    cells = [
        record
        for record in records
        if _selects(session, record.cell.pretraining) and _matches(session, "methods", record.cell.method.name)
    ]
    wanted = {record.cell.pretraining.key for record in cells}
    alone = _matches(session, "methods", PRETRAINED)
    pretrained = [
        record for record in models if record.key in wanted or (alone and _selects(session, record.pretraining))
    ]
    cells.sort(key=lambda record: (_order(record.cell.pretraining), record.cell.method.name))
    pretrained.sort(key=lambda record: _order(record.pretraining))
    return cells, pretrained


def selected_pairs(session: Session) -> list[PairRecord]:
    """Return the records of pairs that the session's options select; without a suite, by their first model."""
    if session.suite_name or session.settings:
        return found_pairs(session.plan, session.store)
    if not _matches(session, "methods", PRETRAINED):
        return []
    pairs = [record for record in session.store.pair_records() if _selects(session, record.pair.first)]
    return sorted(pairs, key=lambda record: (_order(record.pair.first), _order(record.pair.second)))


def _order(pretraining: Pretraining) -> tuple[str, str, float, int]:
    return (pretraining.dataset.name, pretraining.backbone.name, pretraining.cue_rate, pretraining.seed)


def _selects(session: Session, pretraining: Pretraining) -> bool:
    return (
        _matches(session, "datasets", pretraining.dataset.name)
        and _matches(session, "backbones", pretraining.backbone.name)
        and pretraining.cue_rate in (session.selection["cue_rates"] or [pretraining.cue_rate])
        and pretraining.seed in (session.selection["seeds"] or [pretraining.seed])
    )


def _matches(session: Session, field: str, name: str) -> bool:
    patterns = session.selection[field]
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
