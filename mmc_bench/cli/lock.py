"""``mmc-bench lock``: is the source at hand known to give the numbers of its declared versions?"""

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmc_bench.cli.options import discovered
from mmc_bench.errors import UserError, nearest
from mmc_bench.results.versions import PACKAGE, add_to_lock, known_digests
from mmc_bench.running.session import DEFAULT_SUITE
from mmc_bench.system.streams import tell

if TYPE_CHECKING:
    from mmc_bench.testing.golden import Locked

ROOT = PACKAGE.parent
#: Commits that are looked through for source that the lock lists.
MOST_COMMITS = 50


@click.group("lock", short_help="Check that unchanged versions mean unchanged numbers.")
def command() -> None:
    """Check, in a checkout, that the source is known to give the numbers of the versions that it declares."""


@command.command()
def check() -> None:
    """Name the stages and built-in plugins whose source is not listed in mmc_bench/versions.lock."""
    from mmc_bench.testing.golden import locked_things

    unlisted = [thing for thing in locked_things(discovered(())) if not thing.is_listed]
    for thing in unlisted:
        click.echo(f"{thing.label}: the source at hand is not listed under version {thing.version}")
    if unlisted:
        names = " ".join(thing.name for thing in unlisted)
        raise UserError(f"raise the version where numbers change, and run: mmc-bench lock prove {names}")
    click.echo("all source is listed")


@command.command()
@click.argument("names", nargs=-1)
@click.option("--against", metavar="REV", help="Commit to compare with.  [default: the newest that the lock lists]")
def prove(names: Sequence[str], against: str | None) -> None:
    """Run small cells in old and new source, compare all numbers to the bit, and list the new source.

    NAMES are stages and plugins; without them, all whose source is not listed. The first source of a version is listed
    as it is: there is nothing to compare it with.
    """
    from mmc_bench.suites.suite import load_suite
    from mmc_bench.testing.golden import (
        first_difference,
        golden_suite,
        locked_things,
        numbers_of,
        old_source,
        things_in,
        untried,
    )

    registry = discovered(())
    things = locked_things(registry)
    for name in names:
        if name not in {thing.name for thing in things}:
            raise UserError(f"unknown stage or plugin {name!r}: {nearest(name, [thing.name for thing in things])}")
    unlisted = [thing for thing in things if not thing.is_listed and (not names or thing.name in names)]
    for thing in unlisted:
        if not known_digests(thing.kind, thing.name, thing.version):
            add_to_lock(thing.kind, thing.name, thing.version, thing.digest)
            click.echo(f"{thing.label}: listed as the first source of version {thing.version}")
    wanted = [thing for thing in unlisted if not thing.is_listed]
    usual = load_suite(DEFAULT_SUITE, registry.suites)
    named = {f"{kind}s": list(getattr(usual, f"{kind}s")) for kind in ("dataset", "backbone", "method")}
    for thing in wanted:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            revision = against or _newest_listed(thing, folder)
            old = old_source(ROOT, revision, folder / "source")
            suite = golden_suite(thing, registry, named, things_in(old))
            tell(f"{thing.label}: running small cells in {revision[:12]} and at hand")
            before = numbers_of(old, suite, registry, folder / "old")
            now = numbers_of(ROOT, suite, registry, folder / "new")
        if difference := first_difference(before, now):
            raise UserError(f"{thing.label} gives other numbers: {difference}: raise its version")
        if missed := untried(thing, now):
            raise UserError(f"{thing.label}: no small cell uses {', '.join(missed)}, so nothing is shown")
        add_to_lock(thing.kind, thing.name, thing.version, thing.digest)
        click.echo(f"{thing.label}: {len(now)} numbers are the same; listed under version {thing.version}")
    if not unlisted:
        click.echo("nothing to prove: all source is listed")


def _newest_listed(thing: "Locked", scratch: Path) -> str:
    """Return the newest commit whose source of a stage or plugin the lock lists.

    Raises
    ------
    UserError
        When none of the last commits has such source.
    """
    from mmc_bench.testing.golden import old_source, things_in

    for number, revision in enumerate(_commits()):
        found = things_in(old_source(ROOT, revision, scratch / f"commit{number}")).get((thing.kind, thing.name))
        if found and found[0] == thing.version and found[1] in known_digests(thing.kind, thing.name, found[0]):
            return revision
    raise UserError(f"no commit at hand has listed source of {thing.label}: name one with --against REV")


def _commits() -> Iterator[str]:
    command = ["git", "-C", str(ROOT), "log", f"-{MOST_COMMITS}", "--format=%H"]
    try:
        yield from subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    except (OSError, subprocess.SubprocessError):
        raise UserError(f"{ROOT} is no git checkout: source can be compared only in one") from None
