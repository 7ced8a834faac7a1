"""Protocols: which cells have published parameters, and which those that a rule chose by validation images."""

from collections import defaultdict
from collections.abc import Iterable

from mmc_bench.leaderboard.compared_settings import setting_key
from mmc_bench.leaderboard.submissions import Entry, cells_of, entries_of
from mmc_bench.results.jobs import PROTOCOLS, PUBLISHED, Cell, PluginRef
from mmc_bench.results.records import CellRecord
from mmc_bench.results.selections import SelectionRecord

#: A setting and a method with its parameters, each as canonical JSON.
Place = tuple[str, str]

#: A gap is the worst split of the first choice minus that of the second; it includes the chance in both choices.
GAP = ("counterfactual", "clean")

#: What each protocol's parameters are, in words.
MEANINGS = {
    PUBLISHED: "the method's published defaults, or what the suite sets in their place",
    "clean": "the trial with the highest accuracy on validation images without cues (NC): all that a user has who does "
    "not know the cue",
    "counterfactual": "the trial with the highest worst accuracy on validation NC, C and RC: an oracle that knows the "
    "cue, as papers on group robustness assume",
}


def chosen_by(record: SelectionRecord) -> dict[str, PluginRef]:
    """Return the method with the parameters that each rule chose; none where every trial diverged."""
    method = record.selection.method
    drawn = {rule: record.trials[place].parameters for rule, place in record.winners.items()}
    return {rule: method.with_changes(parameters={**method.parameters, **own}) for rule, own in drawn.items()}


def place_of(cell: Cell) -> Place:
    """Return the setting and the method of a cell."""
    return setting_key(cell.pretraining), cell.method.canonical


def places_of(record: SelectionRecord) -> dict[Place, list[str]]:
    """Return the setting with the published method, and with each that was chosen, and the rules that chose it."""
    setting, published = setting_key(record.selection.pretraining), record.selection.method.canonical
    found: dict[Place, list[str]] = {(setting, published): []}
    for rule, method in chosen_by(record).items():
        found.setdefault((setting, method.canonical), []).append(rule)
    return found


def by_protocol(entries: Iterable[Entry]) -> dict[str, list[tuple[Entry, CellRecord, SelectionRecord | None]]]:
    """Return the cells of each protocol, with the selections that their parameters come from.

    A cell whose parameters were published and chosen, or chosen by several rules, is of several protocols.
    """
    entries = list(entries)
    choices: dict[Place, dict[str, SelectionRecord]] = defaultdict(dict)
    for _, selection in entries_of(entries, SelectionRecord):
        for place, rules in places_of(selection).items():
            choices[place] |= dict.fromkeys(rules, selection)
    found: dict[str, list[tuple[Entry, CellRecord, SelectionRecord | None]]] = {protocol: [] for protocol in PROTOCOLS}
    for entry, record in cells_of(entries):
        if record.cell.selection is None:
            found[PUBLISHED].append((entry, record, None))
        for rule, chosen in choices.get(place_of(record.cell), {}).items():
            found[rule].append((entry, record, chosen))
    return found
