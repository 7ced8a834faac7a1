"""What is tried of each method in each setting before its parameters are chosen."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import chain
from typing import TYPE_CHECKING, Any

from mmc_bench.errors import UserError, nearest
from mmc_bench.results.jobs import Cell, PluginRef, Selection, Trial
from mmc_bench.results.versions import versions_of_stages
from mmc_bench.system.process_state import kept
from mmc_bench.system.streams import tell

if TYPE_CHECKING:
    from mmc_bench.plugin.offers import Offer
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
        """The jobs of all trials, each once: of trials that draw the same, those of the first."""
        found: dict[str, Trial] = {}
        for trial in chain.from_iterable(self.trials):
            found.setdefault(trial.key, trial)
        return tuple(found.values())

    @property
    def place(self) -> tuple[str, str, str]:
        """The dataset, backbone and cue rate of its setting, for people."""
        return self.selection.pretraining.place

    @property
    def label(self) -> str:
        """One line for people."""
        return f"{' '.join(self.place)} · {self.selection.method.name}"

    def chosen(self, record: "SelectionRecord") -> dict[str, tuple[Cell, ...]]:
        """Return the ranked cells with the parameters that each rule chose; none where every trial diverged."""
        return {rule: self._with(self.drawn[place]) for rule, place in record.winners.items()}

    def _with(self, drawn: dict[str, Any]) -> tuple[Cell, ...]:
        method = _with_drawn(self.selection.method, drawn)
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
    cells: Sequence[Cell], plugins: Mapping[str, Sequence[tuple["Offer", PluginRef]]], settings: "TuneSettings"
) -> tuple[Tuning, ...]:
    """Return what is tried for ranked cells. This imports the methods, whose search spaces are read.

    One that does not load is not tuned: its own cells fail. `plugins` are those of the suite, by kind.

    Raises
    ------
    UserError
        When a search space has values that its method does not allow, or `fixed` names no parameter of a method.
    """
    found = {reference.canonical: _search_of(offer, reference, settings) for offer, reference in plugins["method"]}
    searches = {method: search for method, search in found.items() if search is not None}
    _refuse_unknown(settings, [offer for own in plugins.values() for offer, _ in own])
    versions = versions_of_stages("fine-tune", "score")
    seeds = tuple(dict.fromkeys(settings.seeds))
    groups: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.method.canonical in searches:
            groups[cell.pretraining.with_changes(seed=0).key, cell.method.canonical].append(cell)
    tunings = []
    for own in groups.values():
        method, (space, drawn) = own[0].method, searches[own[0].method.canonical]
        starts = [own[0].pretraining.with_changes(seed=seed) for seed in seeds]
        trials = tuple(
            tuple(
                Trial(versions=versions, pretraining=start, method=_with_drawn(method, parameters), number=number)
                for start in starts
            )
            for number, parameters in enumerate(drawn)
        )
        selection = Selection(
            pretraining=starts[0],
            method=method,
            seeds=seeds,
            trials=tuple(tuple(trial.key for trial in trial_jobs) for trial_jobs in trials),
        )
        described, standard = space.described(), tuple(sorted(space.standard))
        tunings.append(Tuning(selection, described, standard, drawn, trials, tuple(own)))
    return tuple(tunings)


def _search_of(
    offer: "Offer", reference: PluginRef, settings: "TuneSettings"
) -> tuple["SearchSpace", tuple[dict[str, Any], ...]] | None:
    """Return a method's search space, and what each trial draws: nothing, where it draws the published parameters."""
    from mmc_bench.plugin.parameters import parameters_of
    from mmc_bench.plugin.search import search_space

    label = f"{offer.spec.kind} {offer.spec.name}"
    with kept(label, tell):
        try:
            schema = parameters_of(offer.load())
        except UserError:
            return None
        space, drawn, published = search_space(schema, reference.parameters, _fixed(offer, settings)), [], None
        for number in range(settings.trials):
            own = space.draw(number)
            try:
                in_force = offer.configure({**reference.parameters, **own}).model_dump()
            except UserError as error:
                raise UserError(f"{error} (drawn from its search space, for trial {number})") from None
            published = in_force if published is None else published
            drawn.append({} if in_force == published else own)
    return space, tuple(drawn)


def _refuse_unknown(settings: "TuneSettings", offers: Sequence["Offer"]) -> None:
    """Refuse names of fixed parameters that no plugin has: they would be searched all the same."""
    from mmc_bench.plugin.parameters import parameters_of

    for pattern in settings.fixed:
        owner, _, name = pattern.rpartition(".")
        owners = [offer for offer in offers if any(fnmatchcase(own, owner) for own in offer.names)]
        if not owners:
            known = [offer.spec.name for offer in offers]
            raise UserError(f"tune.fixed: {pattern!r} is no METHOD.parameter of this run: {nearest(owner, known)}")
        parameters = {known for offer in owners for known in parameters_of(offer.load()).model_fields}
        if name not in parameters:
            raise UserError(f"tune.fixed: {pattern!r}: {owner} has no parameter {name!r}: {nearest(name, parameters)}")


def _fixed(offer: "Offer", settings: "TuneSettings") -> set[str]:
    """Return the parameters of a method that are not searched."""
    named = [pattern.rpartition(".") for pattern in settings.fixed]
    return {name for owner, _, name in named if any(fnmatchcase(own, owner) for own in offer.names)}


def _with_drawn(method: PluginRef, drawn: dict[str, Any]) -> PluginRef:
    return method.with_changes(parameters={**method.parameters, **drawn}) if drawn else method
