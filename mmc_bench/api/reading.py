"""Reading and drawing results, and listing what can be run."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmc_bench.errors import UserError
from mmc_bench.running.given import AnySuite, GivenAxes, GivenSettings, with_trials
from mmc_bench.running.listing import entries_of
from mmc_bench.running.outcome import Results
from mmc_bench.running.session import Session, default_results

if TYPE_CHECKING:
    import pandas as pd

    from mmc_bench.report.pictures import Pictures


def load(
    results: str | Path | None = None,
    *,
    suite: AnySuite | None = None,
    methods: Any = (),
    datasets: Any = (),
    backbones: Any = (),
    cue_rates: Any = (),
    seeds: Any = (),
    tune: int | None = None,
    set: GivenSettings = (),
    axes: GivenAxes = (),
    data: Mapping[str, str | Path] | None = None,
    plugins_dir: Any = (),
) -> Results:
    """Return the records at hand: all that the lists select, or a suite's own.

    Parameters
    ----------
    results : str or pathlib.Path
        Results folder; by default ``$MMC_BENCH_RESULTS``, or ``results``.
    suite, methods, datasets, backbones, cue_rates, seeds, tune, set, axes, data, plugins_dir
        As for `run`. Without a suite, settings and axes, every record that the lists select.

    Returns
    -------
    Results
        The records; none where nothing is selected.

    Raises
    ------
    UserError
        When the folder does not exist, or a name or value is not allowed.

    Examples
    --------
    >>> import mmc_bench
    >>> class Unchanged:
    ...     def fine_tune(self, task):
    ...         return task.model
    >>> small = {"pretrain.epochs": 1, "connect.points": 2}
    >>> made = mmc_bench.run(methods=Unchanged, seeds=0, set=small)
    >>> len(mmc_bench.load(made.folder, seeds=0))
    1
    """
    folder = Path(results or default_results())
    if not folder.is_dir():
        raise UserError(f"there is no results folder {folder}: mmc_bench.run makes one")
    lists = {"methods": methods, "datasets": datasets, "backbones": backbones, "cue_rates": cue_rates, "seeds": seeds}
    session = Session.of(suite, lists, with_trials(set, tune), data, folder, plugins_dir, axes=axes)
    session.check_lists()
    return Results(session)


def list(kind: str = "methods", *, plugins_dir: Any = ()) -> "pd.DataFrame":
    """List what can be run.

    Parameters
    ----------
    kind : {"methods", "suites", "datasets", "backbones", "observers"}
        What to list.
    plugins_dir
        Folders or files with more plugins.

    Returns
    -------
    pandas.DataFrame
        A row for each, by ``name``, with its ``summary`` and more.

    Raises
    ------
    UserError
        When there is no such kind.

    Examples
    --------
    >>> import mmc_bench
    >>> frame = mmc_bench.list("suites")
    >>> frame.loc[frame["name"] == "quick", "seeds"].item()
    [0, 1, 2]
    """
    import pandas as pd

    return pd.DataFrame(entries_of(kind, Session.of(plugins_dir=plugins_dir).registry))


def plot(results: Results, paths: bool = True, protocol: str | None = None) -> "Pictures":
    """Draw results: along the suite's axes, bars of splits, panels over cue rates, and curves along every cell's path.

    Parameters
    ----------
    results : Results
        From `run` or `load`.
    paths : bool
        Whether to draw the path of every cell.
    protocol : {"published", "clean", "counterfactual"}
        Whose cells to draw where methods are tuned; by default those with the published parameters.

    Returns
    -------
    Pictures
        A notebook shows them; each has a ``figure`` (matplotlib), and ``save(folder)`` writes PNG, SVG and CSV files.

    Raises
    ------
    UserError
        When there is nothing to draw, or nothing is tuned.

    Examples
    --------
    >>> import mmc_bench
    >>> class Unchanged:
    ...     def fine_tune(self, task):
    ...         return task.model
    >>> small = {"pretrain.epochs": 1, "connect.points": 2}
    >>> results = mmc_bench.run(methods=Unchanged, seeds=0, set=small)
    >>> len(mmc_bench.plot(results, paths=False))
    1
    """
    if not isinstance(results, Results):
        raise UserError(f"plot takes results of mmc_bench.run or mmc_bench.load, not {type(results).__name__}")
    if not (results.cells or results.pretrained or results.pairs):
        raise UserError(f"no record in {results.folder} is selected: mmc_bench.run makes some")
    from mmc_bench.report.pictures import Pictures, pictures_of

    cells, pretrained = results.of_protocol(protocol)
    return Pictures(pictures_of(cells, pretrained, results.pairs, paths, results.along))
