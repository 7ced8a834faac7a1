"""Methods over all settings that count: means to which every dataset adds as much, their intervals, and tiers."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from statistics import fmean

from mmc_bench.leaderboard.inference import DIGITS, Estimate, Interval, combined, estimate, tiers
from mmc_bench.leaderboard.protocols import GAP
from mmc_bench.leaderboard.ranked_rows import RankedRow
from mmc_bench.leaderboard.schemas import CountedPlace
from mmc_bench.results.jobs import PROTOCOLS

Rows = Mapping[CountedPlace, RankedRow]
#: Settings with the same seeds, and how much each adds to the mean. They share these seeds' draws, and different
#: datasets can share images under different cues: their means are not independent.
Block = Mapping[CountedPlace, float]
#: What a method scores: by block, and by seed within it.
Scores = Sequence[Sequence[float]]
#: A method's distribution, name and note.
Name = tuple[str, str, str]


@dataclass(frozen=True)
class Overall:
    """A method over the settings that count under one protocol: its mean worst split, unless a cell is missing.

    `by_dataset` has its mean over the settings of each dataset. `gap` is how much the mean is higher under the
    protocol that knows the cue than under the one that does not (`protocols.GAP`).
    """

    protocol: str
    distribution: str
    method: str
    note: str
    mean: Interval | None
    settings: int
    missing: tuple[str, ...]
    tier: int | None = None
    by_dataset: tuple[float, ...] = ()
    gap: Interval | None = None

    @property
    def label(self) -> str:
        """The method, with what distinguishes it from others of its name."""
        return f"{self.method} ({self.note})" if self.note else self.method


def make_overall(rows: Iterable[RankedRow], places: Sequence[CountedPlace]) -> list[Overall]:
    """Return the methods, by protocol, tier and mean; those that lack a cell come last, with what is missing.

    A method that was run in none of these settings is left out.
    """
    found: dict[str, dict[Name, dict[CountedPlace, RankedRow]]] = {p: defaultdict(dict) for p in PROTOCOLS}
    for row in rows:
        place = row.setting.place
        if not row.is_pretrained and place is not None and place in places:
            found[row.protocol][row.distribution, row.method, row.note][place] = row
    blocks = _blocks(places)
    scores = {protocol: _scores(own, blocks) for protocol, own in found.items()}
    knowing, unknowing = (scores[protocol] for protocol in GAP)
    gaps = {name: _difference(knowing[name], unknowing[name]).interval for name in knowing if name in unknowing}
    methods: list[Overall] = []
    for protocol, own in found.items():
        methods += _in_tiers(protocol, own, places, blocks, scores[protocol])
    return [replace(one, gap=gaps.get((one.distribution, one.method, one.note))) for one in methods]


def _in_tiers(
    protocol: str,
    found: Mapping[Name, Rows],
    places: Sequence[CountedPlace],
    blocks: Sequence[Block],
    scores: Mapping[Name, Scores],
) -> list[Overall]:
    """Return the methods of one protocol."""
    names = sorted(scores)
    means = [_mean_of(scores[name]) for name in names]
    in_tiers = tiers([[scores[name][at] for name in names] for at in range(len(blocks))])
    ranked = [
        Overall(protocol, *name, mean.interval, len(places), (), tier, _by_dataset(places, found[name]))
        for name, mean, tier in zip(names, means, in_tiers, strict=True)
    ]
    ranked.sort(key=lambda one: (one.tier, -round(one.mean.mean, DIGITS) if one.mean else 0, one.method, one.note))
    lacking = []
    for name, own in found.items():
        if name not in scores:
            missing = tuple(text for place in places for text in _missing(place, own.get(place)))
            lacking.append(Overall(protocol, *name, None, len(own), missing))
    return ranked + sorted(lacking, key=lambda one: (one.method, one.note))


def _scores(found: Mapping[Name, Rows], blocks: Sequence[Block]) -> dict[Name, list[list[float]]]:
    """Return what each block and seed adds to the mean worst split of the methods that lack no cell."""
    places = [place for block in blocks for place in block]
    complete = (name for name, own in found.items() if not any(_missing(place, own.get(place)) for place in places))
    return {name: [_by_seed(block, found[name]) for block in blocks] for name in complete}


def _difference(first: Scores, second: Scores) -> Estimate:
    """Return the mean difference between two methods, paired by seed in every block."""
    pairs = zip(first, second, strict=True)
    return _mean_of([[a - b for a, b in zip(*pair, strict=True)] for pair in pairs])


def _missing(place: CountedPlace, row: RankedRow | None) -> list[str]:
    if row is None:
        return [place.label]
    return [f"{row.setting.label} seed {seed}" for seed in row.missing]


def _blocks(places: Sequence[CountedPlace]) -> list[Block]:
    """Return the blocks of settings. Datasets add equally much to the mean, and so do the settings of each."""
    of_dataset = Counter(place.dataset for place in places)
    blocks: dict[tuple[int, ...], dict[CountedPlace, float]] = defaultdict(dict)
    for place in places:
        blocks[place.seeds][place] = 1 / len(of_dataset) / of_dataset[place.dataset]
    return list(blocks.values())


def _by_seed(block: Block, rows: Rows) -> list[float]:
    """Return what each seed of a block adds to a method's mean worst split."""
    worst = [(share, rows[place].worst_by_seed) for place, share in block.items()]
    seeds = next(iter(block)).seeds
    return [fsum(share * own[seed] for share, own in worst) for seed in seeds]


def _mean_of(scores: Scores) -> Estimate:
    """Return the mean of a method: the sum over blocks of their means over seeds."""
    return combined([estimate(own) for own in scores])


def _by_dataset(places: Sequence[CountedPlace], rows: Rows) -> tuple[float, ...]:
    """Return a method's mean over the settings of each dataset, in the order of their first setting."""
    means: dict[str, list[float]] = defaultdict(list)
    for place in places:
        means[place.dataset].append(_mean(rows[place]))
    return tuple(fmean(own) for own in means.values())


def _mean(row: RankedRow) -> float:
    assert row.worst_split is not None
    return row.worst_split.mean
