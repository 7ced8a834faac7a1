"""The settings in which methods are compared, which of them count over all, and the seeds that rows are made of.

The leaderboard's owner lists the settings that count, with their seeds, so that one more cell can neither
unrank the others nor change what they are compared over.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmc_bench.leaderboard.schemas import BoardSettings, CountedPlace, full_name
from mmc_bench.leaderboard.submissions import Entry, cells_of
from mmc_bench.report.rows import differences
from mmc_bench.results.canonical import canonical_json
from mmc_bench.results.jobs import Pretraining
from mmc_bench.results.records import CellRecord


@dataclass(frozen=True)
class ComparedSetting:
    """Where methods are compared: all that decides a pretraining but its seed and the versions of software.

    `seeds` are those that rows are made of: the listed ones where the setting is listed, else all that were sent in.
    `place` is where it is listed, None where it is not. With fewer seeds than `BoardSettings.fewest_seeds` there are no
    tiers, and the setting does not count over all.
    """

    key: str
    dataset: str
    note: str
    backbone: str
    cue_rate: float
    num_classes: int
    seeds: tuple[int, ...]
    place: CountedPlace | None
    has_tiers: bool

    @property
    def counts(self) -> bool:
        """Whether it counts over all settings."""
        return self.place is not None and self.has_tiers

    @property
    def label(self) -> str:
        """One line for people."""
        note = f" ({self.note})" if self.note else ""
        return f"{self.dataset}{note} {self.backbone} {self.cue_rate:g}"


#: The keys of settings by those of pretrainings: thousands of records share a few dozen.
_SETTING_KEYS: dict[str, str] = {}


def setting_key(pretraining: Pretraining) -> str:
    """Return what identifies a setting; versions are no part of it."""
    if (key := _SETTING_KEYS.get(pretraining.key)) is None:
        key = _SETTING_KEYS[pretraining.key] = canonical_json(_content(pretraining))
    return key


def find_settings(entries: Sequence[Entry], board: BoardSettings) -> dict[str, ComparedSetting]:
    """Return the settings in which there are cells, by key, in the order in which they are shown."""
    examples: dict[str, CellRecord] = {}
    seeds = defaultdict(set)
    for _, record in cells_of(entries):
        key = setting_key(record.cell.pretraining)
        examples.setdefault(key, record)
        seeds[key].add(record.cell.pretraining.seed)
    listed = _listed(entries, board)
    pretrainings = {key: record.cell.pretraining for key, record in examples.items()}
    contents = {key: _content(pretraining) for key, pretraining in pretrainings.items()}
    shown = {key: (p.dataset.name, p.backbone.name, p.cue_rate) for key, p in pretrainings.items()}
    notes = differences(contents, shown)
    own_seeds = {key: tuple(sorted(listed[key].seeds if key in listed else seeds[key])) for key in pretrainings}
    settings = [
        ComparedSetting(
            key=key,
            dataset=p.dataset.name,
            note=notes[key].strip().removeprefix("(").removesuffix(")"),
            backbone=p.backbone.name,
            cue_rate=p.cue_rate or 0.0,  # records without one are not read
            num_classes=examples[key].num_classes,
            seeds=own_seeds[key],
            place=listed.get(key),
            has_tiers=len(own_seeds[key]) >= board.fewest_seeds,
        )
        for key, p in pretrainings.items()
    ]
    settings.sort(key=lambda s: (s.dataset, s.backbone, s.cue_rate, s.note, s.key))
    return {setting.key: setting for setting in settings}


def _listed(entries: Sequence[Entry], board: BoardSettings) -> dict[str, CountedPlace]:
    """Return the places that count by the key of their setting.

    A place names no recipe, and no sizes unless its `data` do: of settings that differ in these it is the one with most
    of the listed seeds of the baseline, and of equals the one whose submission's folder comes first.
    """
    sent: dict[CountedPlace, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for _, record in sorted(cells_of(entries), key=lambda pair: (pair[0].folder, pair[0].file)):
        p = record.cell.pretraining
        if full_name(record.cell.method) == board.baseline:
            for place in board.places:
                if p.seed in place.seeds and place.matches(p):
                    sent[place][setting_key(p)].add(p.seed)
    return {max(variants, key=lambda key: len(variants[key])): place for place, variants in sent.items()}


def _content(pretraining: Pretraining) -> dict[str, Any]:
    content = pretraining.content("seed", "versions")
    return content | {name: getattr(pretraining, name).content("version") for name in ("dataset", "backbone")}
