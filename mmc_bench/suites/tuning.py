"""What is tried of each method in each setting before its parameters are chosen."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mmc_bench.results.jobs import Cell, PluginRef, Selection, Trial
from mmc_bench.results.versions import versions_of_stages

if TYPE_CHECKING:
    from mmc_bench.plugin.registry import Offer
    from mmc_bench.plugin.search import SearchSpace
    from mmc_bench.results.selections import SelectionRecord
    from mmc_bench.suites.suite import TuneSettings


@dataclass(frozen=True)
class Tuning:
    """One method in one setting.

    Parameters
    ----------
    selection
        Names the trials, and the record of which are the best.
    space
        What the parameters are drawn from, in words.
    standard
        The parameters that have the standard space, since the method declares none for them.
    drawn
        What each trial draws.
    trials
        The jobs of each trial, one a tuning seed; trials that draw the same share them.
    cells
        The ranked cells with the published parameters.
    """

    selection: Selection
    space: dict[str, str]
    standard: tuple[str, ...]
    drawn: tuple[dict[str, Any], ...]
    trials: tuple[tuple[Trial, ...], ...]
    cells: tuple[Cell, ...]

    @property
    def jobs(self) -> tuple[Trial, ...]:
        """The jobs of all trials, each once."""
        return tuple({trial.key: trial for own in self.trials for trial in own}.values())

    @property
    def place(self) -> tuple[str, str, str]:
        """The dataset, backbone and cue rate of its setting, for people."""
        p = self.selection.pretraining
        return p.dataset.name, p.backbone.name, f"cue rate {p.cue_rate:g}"

    @property
    def label(self) -> str:
        """One line for people."""
        return f"{' '.join(self.place)} · {self.selection.method.name}"

    def chosen(self, record: "SelectionRecord") -> dict[str, tuple[Cell, ...]]:
        """Return the ranked cells with the parameters that each rule chose; none where every trial diverged."""
        return {rule: self._with(self.drawn[place]) for rule, place in record.winners.items()}

    def _with(self, drawn: dict[str, Any]) -> tuple[Cell, ...]:
        method = _merged(self.selection.method, drawn)
        if method == self.selection.method:
            return self.cells
        return tuple(cell.with_changes(method=method, selection=self.selection.key) for cell in self.cells)

    def with_cells(self, cells: Collection[Cell]) -> "Tuning":
        """Return this with more ranked cells, each once."""
        return replace(self, cells=tuple({cell.key: cell for cell in (*self.cells, *cells)}.values()))

    def among(self, keys: Collection[str]) -> "Tuning | None":
        """Return this with the ranked cells of these keys alone, or None where there are none."""
        cells = tuple(cell for cell in self.cells if cell.key in keys)
        return replace(self, cells=cells) if cells else None


def tunings_of(
    cells: Sequence[Cell], methods: Sequence[tuple["Offer", PluginRef]], settings: "TuneSettings"
) -> tuple[Tuning, ...]:
    """Return what is tried for ranked cells. This imports the methods, whose search spaces are read.

    Raises
    ------
    UserError
        When a method does not load, or its search space has values that it does not allow.
    """
    spaces = {reference.canonical: _space_of(offer, reference, settings.trials) for offer, reference in methods}
    versions = versions_of_stages("fine-tune", "score")
    groups: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.pretraining.with_changes(seed=0).key, cell.method.canonical].append(cell)
    tunings = []
    for own in groups.values():
        method, space = own[0].method, spaces[own[0].method.canonical]
        starts = [own[0].pretraining.with_changes(seed=seed) for seed in settings.seeds]
        drawn = tuple(space.draw(number) for number in range(settings.trials))
        trials = tuple(
            tuple(
                Trial(versions=versions, pretraining=start, method=_merged(method, parameters), number=number)
                for start in starts
            )
            for number, parameters in enumerate(drawn)
        )
        selection = Selection(
            pretraining=starts[0],
            method=method,
            seeds=settings.seeds,
            trials=tuple(tuple(trial.key for trial in trial_jobs) for trial_jobs in trials),
        )
        described, standard = space.described(), tuple(sorted(space.standard))
        tunings.append(Tuning(selection, described, standard, drawn, trials, tuple(own)))
    return tuple(tunings)


def _space_of(offer: "Offer", reference: PluginRef, trials: int) -> "SearchSpace":
    from mmc_bench.plugin.parameters import parameters_of
    from mmc_bench.plugin.search import search_space

    space = search_space(parameters_of(offer.load()), reference.parameters)
    for number in range(trials):
        offer.configure({**reference.parameters, **space.draw(number)})
    return space


def _merged(method: PluginRef, drawn: dict[str, Any]) -> PluginRef:
    return method.with_changes(parameters={**method.parameters, **drawn}) if drawn else method
