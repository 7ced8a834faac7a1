"""Choosing the parameters of methods by trials: which are done, and which cells follow from them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from mmc_bench.engines import Outcome
from mmc_bench.results.jobs import PUBLISHED, RULES, Cell, Job, Trial
from mmc_bench.results.store import Store
from mmc_bench.suites.plan import Plan
from mmc_bench.suites.tuning import Tuning
from mmc_bench.system.words import counted

if TYPE_CHECKING:
    from mmc_bench.results.selections import SelectionRecord


def resolved(plan: Plan, store: Store) -> Plan:
    """Return a plan with the cells whose parameters are chosen by now, and which is which in each protocol.

    A plan without tuning is returned as it is.
    """
    if not plan.tunings:
        return plan
    searched: list[dict[str, Cell]] = []
    for tuning in plan.tunings:
        record = selection_of(tuning, store)
        protocols = {PUBLISHED: tuning.cells, **(tuning.chosen(record) if record else {})}
        searched += [dict(zip(protocols, own, strict=True)) for own in zip(*protocols.values(), strict=True)]
    with_chosen = replace(plan, searched=tuple(searched))
    cells = {cell.key: cell for cell in chain(plan.cells, *with_chosen.protocols.values())}
    return replace(with_chosen, cells=tuple(cells.values()))


def selection_of(tuning: Tuning, store: Store) -> "SelectionRecord | None":
    """Return what was chosen for a method in a setting, or None while trials lack a record."""
    made: SelectionRecord | None = store.find_jobless(tuning.selection)
    return made or _selected(tuning, store)


def _selected(tuning: Tuning, store: Store) -> "SelectionRecord | None":
    """Return the choice that the trials at hand lead to, or None while one lacks a record."""
    from mmc_bench.results.records import TrialRecord
    from mmc_bench.results.selections import select

    found: list[list[TrialRecord]] = []
    for jobs in tuning.trials:
        own = [record for job in jobs if isinstance(record := store.find(job), TrialRecord)]
        if len(own) < len(jobs):
            return None
        found.append(own)
    return select(tuning.selection, tuning.space, tuning.drawn, found)


@dataclass(frozen=True)
class Chosen:
    """What was chosen for a method in a setting, and the cells that follow and have no record.

    Nothing is chosen, and there is no `record`, where trials failed.
    """

    tuning: Tuning
    record: "SelectionRecord | None" = None
    cells: tuple[Cell, ...] = ()

    @property
    def key(self) -> str:
        """The selection's."""
        return self.tuning.selection.key

    def __str__(self) -> str:
        """The choice as one line."""
        if self.record is None:
            return f"{self.tuning.label}: nothing is chosen, since trials failed"
        trials = self.record.trials
        chosen = []
        for rule, place in self.record.winners.items():
            parameters = ", ".join(f"{name}={value}" for name, value in trials[place].parameters.items())
            chosen.append(f"{rule}: {parameters or 'the published parameters'}")
        return f"{self.tuning.label}: of {counted(len(trials), 'trial')}, {'; '.join(chosen) or 'every one diverged'}"


class Tuner:
    """Follows a run's trials, and says which cells come next.

    Parameters
    ----------
    plan, store
        The plan, with what is chosen by now, and where its records are.
    jobs
        What is to run.
    only_failed
        Run no cells but those of `jobs`.
    """

    def __init__(self, plan: Plan, store: Store, jobs: Iterable[Job], only_failed: bool = False) -> None:
        self._store, self._only_failed = store, only_failed
        self._known = {cell.key for cell in plan.cells}
        to_run = {job.key for job in jobs if isinstance(job, Trial)}
        waiting = ((tuning, {job.key for job in tuning.jobs} & to_run) for tuning in plan.tunings)
        self._waiting = [(tuning, keys) for tuning, keys in waiting if keys]

    def follow_up(self, outcome: Outcome) -> list[Chosen]:
        """Return the choices that can be made now that a job has ended; each is written."""
        if not isinstance(outcome.job, Trial):
            return []
        for _, keys in self._waiting:
            keys.discard(outcome.job.key)
        ready = [tuning for tuning, keys in self._waiting if not keys]
        self._waiting = [(tuning, keys) for tuning, keys in self._waiting if keys]
        return [self._choose(tuning) for tuning in ready]

    def _choose(self, tuning: Tuning) -> Chosen:
        record = _selected(tuning, self._store)  # what was chosen before, from trials on other weights, is superseded
        if record is None:
            return Chosen(tuning)
        self._store.save_jobless(record)
        cells = {cell.key: cell for own in tuning.chosen(record).values() for cell in own}
        wanted = [] if self._only_failed else cells.items()
        new = tuple(cell for key, cell in wanted if key not in self._known and self._store.done(cell) is None)
        self._known |= {cell.key for cell in new}
        return Chosen(tuning, record, new)


def expected_cells(plan: Plan, jobs: Iterable[Job]) -> dict[str, list[Job]]:
    """Return cells like those that the trials to run will lead to, by the key of what decides their parameters."""
    to_run = {job.key for job in jobs}
    open_ = [tuning for tuning in plan.tunings if any(job.key in to_run for job in tuning.jobs)]
    return {tuning.selection.key: [*tuning.cells] * len(RULES) for tuning in open_}


def about_open(plan: Plan, store: Store) -> str | None:
    """Return for how many methods and settings nothing is chosen yet, as one line, or None where there are none."""
    number = sum(selection_of(tuning, store) is None for tuning in plan.tunings)
    if not number:
        return None
    what = "1 method in a setting" if number == 1 else f"{number} methods, counted in each setting,"
    return f"nothing is chosen yet for {what} whose trials are not done: mmc-bench run does them"


def about_spaces(plan: Plan) -> str | None:
    """Return which methods have the standard search space alone, as one line, or None where none has."""
    methods: dict[str, str] = {}
    for tuning in plan.tunings:
        if len(tuning.standard) == len(tuning.space):
            words = "; ".join(f"{name} {space.removesuffix(' (standard)')}" for name, space in tuning.space.items())
            methods[tuning.selection.method.name] = words or "which is empty: all trials are the same"
    by_space = {words: [name for name in methods if methods[name] == words] for words in methods.values()}
    said = [f"{', '.join(names)} ({words})" for words, names in by_space.items()]
    return f"no search space is declared, so the standard one holds: {'; '.join(said)}" if said else None


def save_selections(plan: Plan, store: Store) -> None:
    """Write the choices whose trials are all done, and which no run has written."""
    for tuning in plan.tunings:
        if store.find_jobless(tuning.selection) is None and (record := selection_of(tuning, store)):
            store.save_jobless(record)
