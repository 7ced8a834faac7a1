"""``mmc-bench check``."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mmc_bench.cli.options import data_option, discovered, folders_of, plugins_dir_option
from mmc_bench.data.locations import identify
from mmc_bench.errors import NothingSelectedError, UserError, nearest
from mmc_bench.plugin.offers import Offer
from mmc_bench.plugin.registry import KINDS, Registry
from mmc_bench.running.session import wanted_by
from mmc_bench.system.streams import notice

if TYPE_CHECKING:
    from mmc_bench.testing import Check

MARKS = {"ok": "ok", "failed": "FAILED", "not checked": "–"}

#: What says more of a name than that no plugin of a kind has it.
TELLING = ("is offered by", "one by one", "is not there: plugin")


@click.command("check", short_help="Check that a plugin keeps its promises.")
@click.argument("names", metavar="NAME...", nargs=-1)
@click.option("--kind", type=click.Choice(tuple(KINDS)), help="Which of a name's plugins.  [default: all]")
@click.option("--all", "everything", is_flag=True, help="Check all that there is.")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@plugins_dir_option
def command(
    names: Sequence[str],
    kind: str | None,
    everything: bool,
    data: Sequence[str],
    as_json: bool,
    plugins_dir: Sequence[str],
) -> None:
    """Run plugins on tiny data and report each property; NAME may be a glob.

    A failure says what is wrong, where, and how to mend it. The exit code is 0 when nothing failed, and 1
    otherwise. Image sources that need files are made up, unless --data gives them.
    """
    if everything and names:
        raise UserError(f"--all checks everything: leave out {' '.join(names)}, or --all")
    folders = folders_of(data)
    registry = discovered(plugins_dir)
    offers = selected(registry, ("*",) if everything else names, (kind,) if kind else tuple(KINDS))
    identify(folders, wanted_by(offer for offer in offers if offer.spec.kind == "dataset"), notice)
    reports = [_checked(offer, registry, folders, as_json) for offer in offers]
    if as_json:
        click.echo(json.dumps(reports, indent=1))
    elif len(reports) > 1:
        failed = [f"{report['kind']} {report['name']}" for report in reports if not report["passed"]]
        click.echo(f"{len(reports)} plugins checked: {', '.join(failed) + ' failed' if failed else 'all passed'}")
    raise click.exceptions.Exit(0 if all(report["passed"] for report in reports) else 1)


def selected(registry: Registry, patterns: Sequence[str], kinds: Sequence[str]) -> list[Offer]:
    """Return what names and globs select, of any of these kinds.

    Raises
    ------
    UserError
        When a name is unknown, naming the nearest.
    """
    if not patterns:
        raise UserError("name what to check, or write --all")
    chosen: dict[tuple[str, str], Offer] = {}
    for pattern in patterns:
        found, problems = [], []
        for kind in kinds:
            try:
                found += registry.select(kind, [pattern])
            except UserError as error:
                problems.append(error)
        if not found:
            telling = [error for error in problems if any(words in str(error) for words in TELLING)]
            if telling or len(kinds) == 1:
                raise next(iter(telling), problems[0])
            known = [offer.spec.name for kind in kinds for offer in registry.offers(kind)]
            refusal = NothingSelectedError if isinstance(problems[0], NothingSelectedError) else UserError
            raise refusal(f"no method, dataset, backbone or observer is called {pattern!r}: {nearest(pattern, known)}")
        chosen.update({(offer.spec.kind, offer.qualified_name): offer for offer in found})
    return list(chosen.values())


def _checked(offer: Offer, registry: Registry, folders: dict[str, str], quiet: bool) -> dict[str, Any]:
    """Run the checks of one offer, print each as it ends, and return the report as plain data."""
    import torch

    from mmc_bench.testing import run_checks

    torch.set_num_threads(1)  # tiny networks gain nothing from more
    started = time.perf_counter()
    if not quiet:
        version = offer.plugin.version.partition("+")[0]
        click.echo(f"{offer.spec.kind} {offer.spec.name} ({offer.plugin.distribution} {version})")
    checks = []
    for check in run_checks(offer, registry, folders):
        checks.append(check)
        if not quiet:
            click.echo(line_of(check))
    seconds = time.perf_counter() - started
    passed = all(check.passed for check in checks)
    if not quiet:
        click.echo(_verdict(checks, seconds))
    return {
        "kind": offer.spec.kind,
        "name": offer.spec.name,
        "distribution": offer.plugin.distribution,
        "version": offer.version,
        "passed": passed,
        "seconds": round(seconds, 1),
        "checks": [asdict(check) for check in checks],
    }


def line_of(check: "Check") -> str:
    """Return a check as one line, and another for the remedy of a failure."""
    line = f"  {MARKS[check.outcome]:8}{check.name}"
    if check.message:
        line += f": {check.message}"
    return line if check.passed else f"{line}\n          to mend it: {check.remedy}"


def _verdict(checks: Sequence["Check"], seconds: float) -> str:
    counts = {outcome: sum(check.outcome == outcome for check in checks) for outcome in MARKS}
    parts = [f"{number} {outcome}" for outcome, number in counts.items() if number]
    return f"{', '.join(parts)} in {seconds:.1f} s"
