"""``mmc-bench list``."""

import json
from collections.abc import Sequence
from typing import Any

import click

from mmc_bench.cli.options import discovered, plugins_dir_option
from mmc_bench.cli.streams import sentence, tell
from mmc_bench.errors import UserError
from mmc_bench.leaderboard.untrusted import printable
from mmc_bench.plugin.registry import Registry
from mmc_bench.suites.suite import load_suite

KINDS = ("suites", "datasets", "backbones", "methods", "observers")


@click.command("list", short_help="List suites, datasets, backbones, methods or observers.")
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@plugins_dir_option
def command(kind: str, as_json: bool, plugins_dir: Sequence[str]) -> None:
    """List what can be run: suites, datasets, backbones or methods; and the observers of runs."""
    registry = discovered(plugins_dir)
    entries = _suites(registry) if kind == "suites" else _offers(registry, kind.removesuffix("s"))
    if as_json:
        click.echo(json.dumps(entries, indent=1))
        return
    for line in aligned([[entry["name"], _note(entry), entry["summary"]] for entry in entries]):
        click.echo(line)


def _suites(registry: Registry) -> list[dict[str, Any]]:
    files = [file for name in sorted(registry.suites) for file in registry.suites[name]]
    entries = []
    for file in files:
        try:
            entries.append({**load_suite(str(file), {}).content(), "file": str(file)})
        except UserError as error:  # somebody's broken suite must not hide the others
            tell(f"mmc-bench: {sentence(error)}")
    return entries


def _offers(registry: Registry, kind: str) -> list[dict[str, Any]]:
    offers = registry.offers(kind)
    names = [offer.spec.name for offer in offers]
    entries = []
    for offer in offers:
        shared = names.count(offer.spec.name) > 1
        entry = {
            "name": offer.qualified_name if shared else offer.spec.name,
            "distribution": offer.plugin.distribution,
            "version": offer.version,
            "summary": offer.spec.summary,
            "defaults": dict(offer.spec.defaults),
        }
        if kind == "method":
            entry["needs"] = sorted({"clean", *offer.spec.needs})
        if kind == "dataset":
            entry["sources"] = list(offer.spec.sources)
        if kind == "observer":
            entry["remedy"] = offer.spec.remedy
        entries.append(entry)
    return entries


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
