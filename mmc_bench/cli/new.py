"""``mmc-bench new``."""

import os
from pathlib import Path

import click

from mmc_bench.cli.options import discovered
from mmc_bench.errors import UserError
from mmc_bench.plugin.scaffold import KINDS, Project


@click.command("new", short_help="Write a plugin project to start from.")
@click.argument("kind", type=click.Choice(tuple(KINDS)))
@click.argument("name")
@click.option("--into", default=".", metavar="DIR", help="Folder in which the project's folder is made.  [default: .]")
def command(kind: str, name: str, into: str) -> None:
    """Write a complete plugin project into a new folder NAME: a working example to change, with its test."""
    project = Project(kind, name)
    project.check()
    if taken := [offer for offer in discovered(()).offers(kind) if offer.spec.name == name]:
        raise UserError(f"{taken[0].plugin.distribution} has a {kind} {name!r} already: choose another name")
    folder = project.write(Path(into))
    place = folder.as_posix()
    click.echo(f"wrote {place}/")
    for path, _ in project.files():
        click.echo(f"  {path}")
    here = place if folder.is_absolute() else f"./{os.path.normpath(place)}"
    click.echo("\nnext:")
    for line in (f"pip install -e {here}", f"mmc-bench check {name}", project.run):
        click.echo(f"  {line}")
