"""``mmc-bench list``."""

import json
from collections.abc import Sequence
from typing import Any

import click

from mmc_bench.cli.options import discovered, plugins_dir_option
from mmc_bench.running.listing import KINDS, entries_of
from mmc_bench.system.streams import printable


@click.command("list", short_help="List suites, datasets, backbones, methods or observers.")
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@plugins_dir_option
def command(kind: str, as_json: bool, plugins_dir: Sequence[str]) -> None:
    """List what can be run: suites, datasets, backbones or methods; and the observers of runs."""
    entries = entries_of(kind, discovered(plugins_dir))
    if as_json:
        click.echo(json.dumps(entries, indent=1))
        return
    for line in aligned([[entry["name"], _note(entry), entry["summary"]] for entry in entries]):
        click.echo(line)


def _note(entry: dict[str, Any]) -> str:
    if "needs" in entry:
        return "needs " + ", ".join(entry["needs"])
    if "sources" in entry:
        return "images " + ", ".join(entry["sources"])
    if "remedy" in entry:
        return entry["remedy"] or "ready"
    if "seeds" in entry:
        return f"{len(entry['seeds'])} seed{'s' * (len(entry['seeds']) != 1)}"
    return ""


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of words as lines with aligned columns; columns without a word are left out."""
    columns = [[printable(word) for word in column] for column in zip(*rows) if any(column)]
    widths = [max(map(len, column)) for column in columns]
    return [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in zip(*columns)
    ]
