"""``mmc-bench leaderboard``: add, build, check, verify."""

import secrets
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmc_bench.cli.options import (
    Command,
    device_option,
    discovered,
    download_option,
    folders_of,
    list_option,
    plugins_dir_option,
    words_of,
)
from mmc_bench.errors import UserError
from mmc_bench.running.interrupts import raised_interrupts
from mmc_bench.running.session import DamageReport, Session, default_results
from mmc_bench.system.streams import notice, printable, tell
from mmc_bench.system.words import counted

if TYPE_CHECKING:
    from mmc_bench.engines import Engine
    from mmc_bench.leaderboard.schemas import VerifiedCell
    from mmc_bench.leaderboard.submissions import Board, Entry
    from mmc_bench.results.records import CellRecord


@click.group("leaderboard", short_help="Take results into the leaderboard, check it, build its tables.")
def command() -> None:
    """Take results into the leaderboard, check it, build its tables and its page, and re-run some of its cells."""


def _board_option(function: Command) -> Command:
    return click.option(
        "--board", default="leaderboard", show_default=True, metavar="DIR", help="The leaderboard's folder."
    )(function)


def _by_option(function: Command) -> Command:
    return click.option("--by", metavar="NAME", help="Who ran it.  [default: user.name of git]")(function)


@command.command("add", short_help="Take a run's records in.")
@click.argument("results", metavar="RESULTS", default=default_results)
@_by_option
@click.option("--note", default="", metavar="TEXT", help="A line about the run.")
@list_option("methods", str, "Take only cells of these methods; names or globs.")
@_board_option
@plugins_dir_option
def add(
    results: str, by: str | None, note: str, methods: Sequence[list[str]], board: str, plugins_dir: Sequence[str]
) -> None:
    """Take the cells in the folder RESULTS, and the records that they rest on, into a submission of their own.

    These are their pretrainings, and the trials of methods whose parameters were tuned. All of them are taken, or none,
    and no weights. Cells that are on the leaderboard already are left out; one that is there in another version is
    refused. A version of a plugin that the leaderboard does not know yet must be the one at hand, and is noted in
    versions.yaml.
    """
    from mmc_bench.leaderboard.adding import add as take_in

    opened, folder = _open(board), Path(results)
    if not folder.is_dir():
        raise UserError(f"there is no results folder {results}")
    opened.sweep()
    added = take_in(opened, folder, discovered(plugins_dir), by or _git_user(), _today(), note, words_of(methods))
    click.echo(f"taken into {added.folder}: {counted(added.cells, 'cell')} ({', '.join(added.methods)})")
    click.echo(f"with the records of their {counted(added.pretrainings, 'pretraining')}")
    if added.selections:
        choices = counted(added.selections, "selection")
        click.echo(f"and of {counted(added.trials, 'trial')}, which {choices} of parameters rest on")
    if added.already_there:
        click.echo(f"{counted(added.already_there, 'cell')} left out: on the leaderboard already")
    for version in added.new_versions:
        click.echo(f"new in versions.yaml: {version}")
    click.echo("next: mmc-bench leaderboard build")


@command.command("build", short_help="Write the tables and the page.")
@_board_option
def build(board: str) -> None:
    """Write README.md, its pictures, leaderboard.csv, overall.csv and index.html from the records.

    The same records give the same bytes. What a killed command left half written is removed first.
    """
    from mmc_bench.leaderboard.build import generated_files, write_generated
    from mmc_bench.leaderboard.checks import inspect

    opened = _open(board)
    opened.sweep()
    files = generated_files(opened, inspect(opened))
    changed = write_generated(opened, files)
    for name in files:
        click.echo(f"{opened.path(name)}: {'written' if name in changed else 'unchanged'}")


@command.command("check", short_help="Check the leaderboard.")
@_board_option
def check(board: str) -> None:
    """Check records, checksums, versions and verifications, and that the generated files are what a build writes.

    Each problem is a line that names the file. Exit codes: 0 all well, 1 something is wrong.
    """
    from mmc_bench.leaderboard.build import generated_files, stale_files
    from mmc_bench.leaderboard.checks import inspect

    opened = _open(board)
    inspection = inspect(opened)
    problems = list(inspection.problems) or stale_files(opened, generated_files(opened, inspection))
    for problem in problems:
        click.echo(f"{printable(problem.file)}: {printable(problem.reason)}")
    if problems:
        tell(f"mmc-bench: {len(problems)} problem{'s' if len(problems) > 1 else ''} in {board}")
        raise click.exceptions.Exit(1)
    click.echo(f"{board}: {counted(len(inspection.entries), 'record')}, all well")


@command.command("verify", short_help="Re-run cells and compare.")
@click.option("--sample", required=True, type=click.IntRange(min=1), metavar="N", help="How many cells, at random.")
@click.option("--seed", type=int, help="Seed of the draw.  [default: a new one]")
@_by_option
@click.option("--data", multiple=True, metavar="SOURCE=DIR", help="Where images are, as for run; drawn or not.")
@download_option
@device_option
@click.option("--workers", type=click.IntRange(min=0), default=1, show_default=True, help="Worker processes.")
@_board_option
@plugins_dir_option
def verify(
    sample: int,
    seed: int | None,
    by: str | None,
    data: Sequence[str],
    board: str,
    plugins_dir: Sequence[str],
    **options: Any,
) -> None:
    """Re-run cells drawn at random, and their pretrainings, and compare their accuracies with the reported ones.

    They run with the code at hand, in the precision and with the threads of their records, in a folder that is removed
    afterwards. What came out is kept in verifications/. Exit codes: 0 all agree, 1 some do not or failed.
    """
    from mmc_bench.leaderboard.checks import inspect
    from mmc_bench.leaderboard.schemas import Verification
    from mmc_bench.leaderboard.verify import check_writable, sample_cells, save_verification

    opened, who = _open(board), by or _git_user()
    inspection = inspect(opened)
    if inspection.problems:
        first = inspection.problems[0]
        raise UserError(f"{opened.path(first.file)}: {first.reason}; see mmc-bench leaderboard check")
    seed = secrets.randbelow(2**32) if seed is None else seed
    chosen = sample_cells(inspection.entries, sample, seed)
    check_writable(opened)
    tell(f"re-running {counted(len(chosen), 'cell')}, drawn with --seed {seed}")
    start = time.perf_counter()
    import_module("mmc_bench.stages.job")  # imports torch, which may swallow what Ctrl-C raises below
    with raised_interrupts(), tempfile.TemporaryDirectory(prefix="mmc-bench-verify-") as scratch:
        session = Session.of(data=folders_of(data), results=scratch, plugins_dir=plugins_dir)
        records = _run_again(session, chosen, **options)
    cells = _compare(opened, chosen, records)
    if not cells:
        raise click.exceptions.Exit(1)
    verification = Verification(
        by=who,
        date=_today(),
        sample=sample,
        seed=seed,
        provenance=next(iter(records.values())).provenance,
        seconds=round(time.perf_counter() - start, 1),
        cells=tuple(cells),
    )
    click.echo(f"written: {save_verification(opened, verification)}; next: mmc-bench leaderboard build")
    if len(cells) < len(chosen) or not all(cell.agrees for cell in cells):
        raise click.exceptions.Exit(1)


def _run_again(
    session: Session, chosen: "Sequence[Entry]", download: bool, device: str, workers: int
) -> "dict[str, CellRecord]":
    """Run the chosen cells in the session's scratch folder, and return their new records by the old ones' files.

    Those of one precision and number of threads share a folder and its pretrainings, whose keys name neither.
    """
    from mmc_bench.data.locations import check_present, identify
    from mmc_bench.engines.local import InProcessEngine, LocalEngine
    from mmc_bench.leaderboard.verify import by_arithmetic, known_sources, plan_again, wanted_sources
    from mmc_bench.results.records import CellRecord
    from mmc_bench.results.store import Store
    from mmc_bench.running.devices import resolve_devices
    from mmc_bench.running.display import display_of
    from mmc_bench.running.launch import Computing, worker_settings
    from mmc_bench.running.observers import Observers
    from mmc_bench.running.runner import check_plugins, find_missing, run_plan

    wanted = wanted_sources(chosen, session.registry)
    known = known_sources(session.registry)
    images = identify(session.data, {**known, **wanted}, notice)
    check_present(session.data, wanted, download)
    devices = resolve_devices(device)
    records: dict[str, CellRecord] = {}
    for (precision, threads), entries in by_arithmetic(chosen).items():
        plan, cells = plan_again(entries, session.registry, images)
        check_plugins(plan)
        store = Store(Path(session.results) / f"{precision}-{threads}", DamageReport())
        store.check_writable()
        settings = worker_settings(session, Computing(download, devices[0], precision, threads=threads))
        settings = replace(settings, results=str(store.root.resolve()))
        engine: Engine = LocalEngine(workers, devices=devices) if workers else InProcessEngine(session.registry)
        with display_of(plan.suite.name) as display:
            missing = find_missing(plan, store)
            summary = run_plan(plan, missing, engine, settings, Observers.of(()), display)
        if summary.interrupted:
            raise KeyboardInterrupt
        found = {file: store.find(cell) for file, cell in cells.items()}
        records |= {file: record for file, record in found.items() if isinstance(record, CellRecord)}
    return records


def _compare(board: "Board", chosen: "Sequence[Entry]", records: "dict[str, CellRecord]") -> "list[VerifiedCell]":
    """Print and return how each cell compares; one that failed has nothing to compare."""
    from mmc_bench.leaderboard.submissions import cell_of
    from mmc_bench.leaderboard.verify import compared

    cells = []
    for entry in chosen:
        label = printable(cell_of(entry).cell.label)
        if entry.file not in records:
            click.echo(f"FAILED     {label}: {entry.file}")
            continue
        cell = compared(entry, records[entry.file], board.settings.tolerances)
        cells.append(cell)
        scores = "  ".join(
            f"{name} {100 * cell.reported[name]:.1f}/{100 * cell.found[name]:.1f}" for name in cell.found
        )
        verdict = "agrees    " if cell.agrees else "DISAGREES "
        click.echo(
            f"{verdict} {label}:  {scores}  (reported/found; at most {100 * cell.tolerance:g} apart): {entry.file}"
        )
    return cells


def _open(board: str) -> "Board":
    from mmc_bench.leaderboard.submissions import Board

    return Board.open(board)


def _today() -> date:
    return datetime.now(UTC).date()


def _git_user() -> str:
    """Return the name that git knows the user by."""
    try:
        found = subprocess.run(
            ["git", "config", "user.name"], capture_output=True, text=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found = ""
    if not found:
        raise UserError("the name of who ran it is unknown: give --by NAME, or set user.name of git")
    return found
