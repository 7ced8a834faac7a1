"""Protocols: which cells have published parameters, and which those that a rule chose by validation images."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from mmc_bench.leaderboard.compared_settings import setting_key
from mmc_bench.leaderboard.submissions import Entry, cells_of, entries_of
from mmc_bench.results.jobs import PROTOCOLS, PUBLISHED, PluginRef, Pretraining
from mmc_bench.results.records import CellRecord
from mmc_bench.results.selections import SelectionRecord

#: What a method owes to knowing the cue is its mean under the first protocol less that under the second.
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


class Choices:
    """What the selections that were sent in chose, by setting and method."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._rules: dict[tuple[str, str], dict[str, SelectionRecord]] = defaultdict(dict)
        for _, record in entries_of(entries, SelectionRecord):
            for rule, method in chosen_by(record).items():
                self._rules[_place(record.selection.pretraining, method)].setdefault(rule, record)

    def of(self, record: CellRecord) -> Mapping[str, SelectionRecord | None]:
        """Return the protocols that a cell is of, each with the selection that its parameters come from."""
        rules = self._rules.get(_place(record.cell.pretraining, record.cell.method), {})
        return rules if record.cell.selection else {PUBLISHED: None, **rules}


def by_protocol(entries: Iterable[Entry]) -> dict[str, list[tuple[Entry, CellRecord, SelectionRecord | None]]]:
    """Return the cells of each protocol; one whose parameters were both published and chosen is of several."""
    entries = list(entries)
    choices = Choices(entries)
    found: dict[str, list[tuple[Entry, CellRecord, SelectionRecord | None]]] = {protocol: [] for protocol in PROTOCOLS}
    for entry, record in cells_of(entries):
        for protocol, selection in choices.of(record).items():
            found[protocol].append((entry, record, selection))
    return found


def _place(pretraining: Pretraining, method: PluginRef) -> tuple[str, str]:
    return setting_key(pretraining), method.canonical
