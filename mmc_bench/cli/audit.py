"""``mmc-bench audit``."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from mmc_bench.cli.cluster import cluster_options
from mmc_bench.cli.options import session_options
from mmc_bench.cli.run import command as run
from mmc_bench.cli.run import put
from mmc_bench.running.session import Session

#: Options of ``run`` that an audit has not: it needs the whole suite, trains by itself, and keeps the weights it needs.
LEFT_OUT = ("shard", "checkpoint", "tune", "keep_weights", "profile")

_OWN = [
    click.Option(["--out"], default="audit", show_default=True, metavar="DIR", help="Folder for the report."),
    click.Option(
        ["--probe/--no-probe"],
        default=True,
        help="Whether to say of each repaired network what became of the cue; the weights of all are kept for it.",
    ),
]


@click.command("audit", short_help="Say which cues a network picks up from your images, and what removes them.")
@cluster_options
@session_options("audit")
def command(session: Session, out: str, probe: bool, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Plant cues in your images, train a network on them, repair it, and write a report.

    Five kinds of cues at three strengths: which does the network pick up, how fast, and which method removes
    them at what cost? The report is one HTML page and a JSON file. What has a record already is not run again, so an
    interrupted audit goes on where it stopped.
    """
    from mmc_bench.auditing.plan import AuditSession

    session = AuditSession.auditing(session)
    if dry_run:
        from mmc_bench.running.preview import preview

        would = preview(session, options["retry_failed"], options["keep_predictions"])
        click.echo(json.dumps(would.as_dict(), indent=1) if as_json else str(would))
        return
    from mmc_bench.auditing.report import audit
    from mmc_bench.running.display import display_of
    from mmc_bench.running.launch import Computing

    display = display_of(session.plan.suite.name)
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for results alone, whatever observers print
        audited = audit(session, Computing(**options), display, Path(out), probe)
    put(audited.report.model_dump_json(indent=1) + "\n" if as_json else f"{audited!r}\n")
    display.close(audited.summary, session.store.root)
    raise click.exceptions.Exit(audited.summary.exit_code)


_SUITE = {option.name: option for option in command.params if option.name == "suite"}  # with the default of its own
command.params = [*_OWN, *(_SUITE.get(option.name, option) for option in run.params if option.name not in LEFT_OUT)]
