"""``mmc-bench plugins``."""

import json
from collections.abc import Sequence

import click

from mmc_bench.cli.list import aligned
from mmc_bench.cli.options import plugins_dir_option
from mmc_bench.plugin.discovery import configured_folders
from mmc_bench.plugin.registry import Registry


@click.command("plugins", short_help="List plugins, with those that failed to load.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@plugins_dir_option
def command(as_json: bool, plugins_dir: Sequence[str]) -> None:
    """List every plugin that was found, what it provides, and why any failed to load."""
    plugins = Registry.discover(configured_folders(plugins_dir)).plugins
    if as_json:
        entries = [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "origin": plugin.origin,
                "provides": list(plugin.provides),
                "error": plugin.error,
            }
            for plugin in plugins
        ]
        click.echo(json.dumps(entries, indent=1))
        return
    rows = [
        [
            plugin.name,
            f"{plugin.distribution} {plugin.version}",
            f"FAILED: {plugin.error}" if plugin.error else ", ".join(plugin.provides),
        ]
        for plugin in plugins
    ]
    for line in aligned(rows):
        click.echo(line)
