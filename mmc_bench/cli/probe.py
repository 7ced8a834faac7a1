"""``mmc-bench probe``."""

from typing import Any

import click

from mmc_bench.cli.options import EVERY_RECORD, device_option, download_option, precision_option, session_options
from mmc_bench.cli.table import FORMATS
from mmc_bench.running.launch import Computing
from mmc_bench.running.session import Session
from mmc_bench.system.streams import tell


@click.command("probe", short_help="Say what became of the cue: removed, hidden, unlinked or kept.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="md", show_default=True, help="How to print it.")
@click.option("--plot", "plotted", is_flag=True, help="Draw how well the cue is read, stage by stage, too.")
@click.option("--out", default="figures", show_default=True, metavar="DIR", help="Folder for the pictures.")
@download_option
@device_option
@precision_option
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: OMP_NUM_THREADS, or all cores]")
@session_options(EVERY_RECORD)
def command(session: Session, form: str, plotted: bool, out: str, **options: Any) -> None:
    """Say of each repaired model what became of the cue: removed, hidden, unlinked or kept.

    It takes the cells at hand whose weights were kept (run --keep-weights), and for each setting a model of the same
    seed that was pretrained without the cue, which is trained now unless it is at hand. What is measured is kept as a
    record: the same call computes nothing again.
    """
    from mmc_bench.running.probing import probe_cells

    probed = probe_cells(session, Computing(**options))
    click.echo(probed.table(form), nl=False)
    figures = probed.plot().save(out) if plotted else []
    done = f"{probed.computed} models probed" if probed.computed else "read back, nothing computed"
    tell(f"{done}; records in {probed.folder / 'probes'}")
    if figures:
        tell(f"figures {', '.join(map(str, figures))}")
