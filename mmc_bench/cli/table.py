"""``mmc-bench table``."""

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from mmc_bench.cli.options import EVERY_RECORD, list_option, protocol_option, session_options, words_of
from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.report.claims import read_claims
from mmc_bench.report.columns import check_columns
from mmc_bench.report.published import holds_losses, load_published, published_file
from mmc_bench.report.rows import Row
from mmc_bench.results.jobs import PUBLISHED
from mmc_bench.running.selection import (
    about_none,
    records_of_protocol,
    refuse_only_groups,
    selected_curves,
    selected_pairs,
    selected_records,
    selected_rows,
)
from mmc_bench.running.session import Session
from mmc_bench.running.tuning import about_open
from mmc_bench.system.streams import tell

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
@click.option(
    "--halving",
    is_flag=True,
    help="Along the suite's axes: where each method's cue reliance falls to half of the pretrained model's, such as "
    "how many clean images it needs.",
)
@list_option("columns", str, "Columns to show, e.g. RC,flips,ece,brier_C: also measures of predictions that were kept.")
@protocol_option
@session_options(EVERY_RECORD)
def command(
    session: Session,
    form: str,
    against: str | None,
    connections: bool,
    halving: bool,
    columns: Sequence[Sequence[str]],
    protocol: str | None,
) -> None:
    """Print the table of the results at hand.

    Without --suite, of every record in the results folder that the lists select; with it, of the suite's own.
    """
    tables = {"--against": against is not None, "--connections": connections, "--halving": halving}
    asked = [option for option, given in tables.items() if given]
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)} are different tables: ask for one at a time")
    if protocol and connections:
        raise UserError("--connections shows every cell: --protocol selects rows of other tables")
    if columns and asked:
        raise UserError(f"{asked[0]} has columns of its own: leave out --columns")
    names = words_of(columns)
    check_columns(names)
    if asked:
        refuse_only_groups(session, asked[0])
    if halving:
        click.echo(_halving(session, form, protocol), nl=False)
        return
    if connections:
        click.echo(_connections(session, form), nl=False)
        return
    if against is not None:
        file = published_file(against, session.registry.published)
        if file.suffix == ".yaml":
            click.echo(_judged(file, session, form, protocol), nl=False)
            return
    compared = None if against is None else _comparison(against, session, form)
    if compared and protocol is None and session.has_suite and session.plan.tunings:
        protocol = PUBLISHED
    if session.has_suite and protocol != PUBLISHED and (words := about_open(session.plan, session.store)):
        tell(f"mmc-bench: {words}")
    rows = selected_rows(session, [protocol] if protocol else (), names)
    if not rows:
        raise NothingSelectedError(about_none(session))
    if not session.has_suite and session.store.models_of("trial"):
        tell(
            "mmc-bench: methods were tuned here: with --suite and --tune as in the run, rows are told apart by protocol"
        )
    click.echo(compared(rows) if compared else _printed(rows, form, names), nl=False)


def _printed(rows: Sequence[Row], form: str, columns: Sequence[str]) -> str:
    from mmc_bench.report.row_tables import render

    return render(rows, form, columns)


def _connections(session: Session, form: str) -> str:
    from mmc_bench.report.connection_tables import render
    from mmc_bench.report.connections import connections

    pairs, (cells, pretrained) = selected_pairs(session), selected_records(session)
    if not (pairs or cells):
        raise NothingSelectedError(about_none(session, "record of a pair or cell"))
    return render(connections(pairs, cells, pretrained), form)


def _halving(session: Session, form: str, protocol: str | None) -> str:
    from mmc_bench.report.halving_tables import render

    curves = selected_curves(session, protocol)
    if not curves:
        raise NothingSelectedError(f"no records in {session.store.root} lie along an axis of numbers: {MAKE_SOME}")
    return render(curves, form)


def _judged(file: Path, session: Session, form: str, protocol: str | None) -> str:
    """Return the verdicts of the selected records on a file of claims."""
    from mmc_bench.report.claim_tables import render
    from mmc_bench.report.judgements import judge_records

    claims = read_claims(file)
    judgements = judge_records(claims, selected_pairs(session), *records_of_protocol(session, protocol))
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
