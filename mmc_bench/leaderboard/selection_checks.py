"""Whether tuned cells were tuned as they say: recomputed from the records of all trials.

A submission holds the selections that it made, and all trials that they rest on. No test image has a part in them: a
trial's record has scores on validation images alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mmc_bench.leaderboard.compared_settings import setting_key
from mmc_bench.leaderboard.protocols import chosen_by, place_of, places_of
from mmc_bench.leaderboard.schemas import BoardSettings
from mmc_bench.leaderboard.submissions import Entry, Problem, cells_of, entries_of
from mmc_bench.results.canonical import canonical_json
from mmc_bench.results.jobs import PluginRef
from mmc_bench.results.records import CellRecord, TrialRecord
from mmc_bench.results.selections import SelectionRecord, select

Selections = Sequence[tuple[Entry, SelectionRecord]]


def selection_problems(entries: Sequence[Entry], board: BoardSettings) -> Iterator[Problem]:
    """Yield what is wrong with selections, with their trials, and with the cells that name them."""
    selections = list(entries_of(entries, SelectionRecord))
    trials = {(entry.folder, record.key): record for entry, record in entries_of(entries, TrialRecord)}
    for entry, record in selections:
        yield from (Problem(entry.file, reason) for reason in _problems_of_choice(entry, record, trials))
    yield from _unlike_budgets(selections)
    yield from _second_selections(selections)
    yield from _ranked_seeds(entries, selections, board)
    yield from _problems_of_cells(entries, selections)
    used = {(entry.folder, key) for entry, record in selections for own in record.selection.trials for key in own}
    for entry, _ in entries_of(entries, TrialRecord):
        if (entry.folder, entry.record.key) not in used:
            yield Problem(entry.file, "is the trial of no selection of its submission")


def _problems_of_choice(
    entry: Entry, record: SelectionRecord, trials: Mapping[tuple[str, str], TrialRecord]
) -> Iterator[str]:
    """Compare a selection with what its trials' records say."""
    selection = record.selection
    missing = [key for own in selection.trials for key in own if (entry.folder, key) not in trials]
    if missing:
        yield f"lacks the record of a trial, trials/{missing[0]}.json"
        return
    found = [[trials[entry.folder, key] for key in own] for own in selection.trials]
    wrong = list(_problems_of_trials(record, found))
    yield from wrong
    if wrong:
        return
    again = select(selection, record.space, [trial.parameters for trial in record.trials], found)
    for place, (said, own) in enumerate(zip(record.trials, again.trials, strict=True)):
        if said != own:  # the winners follow from what is said: a record in which they do not is not valid
            yield f"says other validation scores of trial {place} than its records have"


def _problems_of_trials(record: SelectionRecord, found: Sequence[Sequence[TrialRecord]]) -> Iterator[str]:
    """Compare what each trial was run with, and what the selection says of it."""
    selection = record.selection
    if tried := record.trials[0].parameters:
        yield f"has a trial 0 with {_named(tried)}, and that is the trial of the published parameters"
    for place, (said, own) in enumerate(zip(record.trials, found, strict=True)):
        if len(own) != len(selection.seeds):
            yield f"has {len(own)} runs of trial {place}, and {len(selection.seeds)} seeds to try it on"
            continue
        method = _merged(selection.method, said.parameters)
        for seed, trial in zip(selection.seeds, own, strict=True):
            job = trial.trial
            if job.method != method:
                run = _named(job.method.parameters)
                yield f"says that trial {place} is of {_named(method.parameters)}, and it was run with {run}"
            if job.pretraining != selection.pretraining.with_changes(seed=seed):
                run = job.pretraining.label
                yield f"says that trial {place} is of its setting and seed {seed}, and it was run in another: {run}"


def _unlike_budgets(selections: Selections) -> Iterator[Problem]:
    """Yield selections with another number of trials, or other seeds, than the first one of their setting."""
    first: dict[str, tuple[Entry, SelectionRecord]] = {}
    for entry, record in selections:
        other_entry, other = first.setdefault(setting_key(record.selection.pretraining), (entry, record))
        budgets = [(len(one.trials), one.selection.seeds) for one in (record, other)]
        if budgets[0] != budgets[1]:
            said = [f"{trials} trials on seeds {' '.join(map(str, seeds))}" for trials, seeds in budgets]
            reason = f"has {said[0]}, and {other_entry.file}, of the same setting, has {said[1]}"
            yield Problem(entry.file, f"{reason}: every method gets as many")


def _second_selections(selections: Selections) -> Iterator[Problem]:
    """Yield selections of a method that was tuned before in its setting: that would be more trials than others get."""
    first: dict[str, Entry] = {}
    for entry, record in selections:
        method = record.selection.method
        what = [setting_key(record.selection.pretraining), method.distribution, method.name]
        other_entry = first.setdefault(canonical_json(what), entry)
        if other_entry is not entry:
            yield Problem(entry.file, f"is a second selection of {method.name} in the setting of {other_entry.file}")


def _ranked_seeds(entries: Sequence[Entry], selections: Selections, board: BoardSettings) -> Iterator[Problem]:
    """Yield selections that were made on a seed that counts, and cells of a seed that others were tuned on."""
    tuned: dict[tuple[str, int], Entry] = {}
    for entry, record in selections:
        p = record.selection.pretraining
        for seed in record.selection.seeds:
            tuned.setdefault((setting_key(p), seed), entry)
        listed = {seed for place in board.places if place.matches(p) for seed in place.seeds}
        for seed in sorted(listed & {*record.selection.seeds}):
            yield Problem(entry.file, f"was tuned on seed {seed}, which is ranked")
    for entry, cell in cells_of(entries):
        p = cell.cell.pretraining
        if other := tuned.get((setting_key(p), p.seed)):
            yield Problem(entry.file, f"is a result of seed {p.seed}, on which {other.file} was tuned")


def _problems_of_cells(entries: Iterable[Entry], selections: Selections) -> Iterator[Problem]:
    """Yield tuned cells that are not what a rule chose, and selections of nothing."""
    by_key = {record.key: record for _, record in selections}
    rested_on = set()
    for entry, cell in cells_of(entries):
        rested_on.add(place_of(cell.cell))
        if cell.cell.selection is not None:
            record = by_key.get(cell.cell.selection)
            if record is None:
                yield Problem(entry.file, f"names the selection {cell.cell.selection}, whose record is not there")
            else:
                yield from (Problem(entry.file, reason) for reason in _problems_of_tuned(cell, record))
    for entry, record in selections:
        if rested_on.isdisjoint(places_of(record)):
            yield Problem(entry.file, "is the selection of no cell of the leaderboard")


def _problems_of_tuned(cell: CellRecord, record: SelectionRecord) -> Iterator[str]:
    """Compare a tuned cell with the selection that it names."""
    method = cell.cell.method
    if setting_key(cell.cell.pretraining) != setting_key(record.selection.pretraining):
        yield f"names the selection of another setting, {record.selection.pretraining.label}"
        return
    chosen = chosen_by(record)
    if method not in chosen.values():
        said = "; ".join(f"{rule}: {_named(own.parameters)}" for rule, own in chosen.items()) or "every trial diverged"
        yield f"was run with {_named(method.parameters)}, which no rule of its selection chose ({said})"


def _merged(method: PluginRef, drawn: Mapping[str, object]) -> PluginRef:
    return method.with_changes(parameters={**method.parameters, **drawn})


def _named(parameters: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in parameters.items()) or "the published parameters"
