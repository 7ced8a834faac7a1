"""What became of the cue in the models of cells whose weights are kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmc_bench.data.locations import check_present
from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.report.probed import ProbedModel
from mmc_bench.results.jobs import Checkpoint, Pretraining, Probe
from mmc_bench.results.leases import Leases, leased
from mmc_bench.results.probes import ProbeRecord
from mmc_bench.results.records import CellRecord, PretrainRecord
from mmc_bench.results.settings import Recipe
from mmc_bench.results.versions import versions_of_stages
from mmc_bench.running.connecting import with_retries
from mmc_bench.running.display import Progress, display_of
from mmc_bench.running.launch import Computing, resolve_device, run_session, share_cores, worker_settings
from mmc_bench.running.outcome import PrintedTable, check_format
from mmc_bench.running.runner import check_plugins
from mmc_bench.running.selection import refuse_only_groups, selected_records
from mmc_bench.running.session import Session
from mmc_bench.stages.checkpoints import Source, Tensors
from mmc_bench.suites.suite import Suite
from mmc_bench.system.parts import Clock, timed
from mmc_bench.system.process_state import as_if_fresh
from mmc_bench.system.streams import tell

if TYPE_CHECKING:
    import pandas as pd

    from mmc_bench.report.pictures import Picture
    from mmc_bench.stages.resources import Resources

#: Cells without weights that a sentence names.
MOST_NAMED = 5


@dataclass(frozen=True)
class Probed:
    """What became of the cue in several models, and in their references.

    Attributes
    ----------
    models : tuple of ProbedModel
        Each with its measurements, those of θ_C and θ_NC, and a ``verdict`` (``word``, ``left``).
    computed : int
        How many models were measured now; the others had a record.
    folder : pathlib.Path
        The results folder, whose ``probes/`` has the records.
    """

    models: tuple[ProbedModel, ...]
    computed: int
    folder: Path

    def to_frame(self) -> "pd.DataFrame":
        """Return a pandas frame with a row for each model, after those of its θ_C and θ_NC.

        Returns
        -------
        pandas.DataFrame
            Columns ``dataset``, ``backbone``, ``cue_rate``, ``seed``, ``method`` (``pretrained`` is θ_C, ``cue-free``
            θ_NC); ``read``, the accuracy (a fraction) of a linear probe for the cue on the features that the last layer
            sees, ``read_STAGE`` on those of earlier stages, and the ``chance`` of it; ``left``, what is left of
            θ_C's readability; ``attribution`` and ``cue_pixels`` (fractions); ``flips`` (a fraction); ``barrier``
            (nats); the ``word``.
        """
        import pandas as pd

        from mmc_bench.report.probed import frame_rows

        return pd.DataFrame(frame_rows(self.models))

    def table(self, format: str = "md") -> PrintedTable:
        """Return the table that the command line prints: a row a method, mean ± standard deviation over seeds.

        Parameters
        ----------
        format : {"md", "csv", "json", "latex", "html"}
            How it is printed.

        Returns
        -------
        PrintedTable
            Text; a notebook shows it as HTML.

        Raises
        ------
        UserError
            When the format is unknown.
        """
        from mmc_bench.report.probe_tables import render

        check_format(format)
        return PrintedTable.of(render(self.models, format), render(self.models, "html"))

    def plot(self) -> "Picture":
        """Return the picture of the readability by stage, a panel a method; a notebook shows it."""
        from mmc_bench.report.pictures import Picture
        from mmc_bench.report.probe_figures import draw_probed
        from mmc_bench.report.probe_tables import render

        return Picture("probe", partial(draw_probed, self.models), render(self.models, "csv"))

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_() + self.plot()._repr_html_()
