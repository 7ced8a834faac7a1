"""Methods over all settings that count: means to which every dataset adds as much, their intervals, and tiers."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mmc_bench.leaderboard.inference import DIGITS, Estimate, Interval, combined, estimate, tiers
from mmc_bench.leaderboard.ranked_rows import RankedRow
from mmc_bench.leaderboard.schemas import CountedPlace

Rows = Mapping[CountedPlace, RankedRow]
#: Settings of one dataset with the same seeds, whose means share these seeds' draws and so are no independent ones.
Block = tuple[CountedPlace, ...]


@dataclass(frozen=True)
class Overall:
    """A method over the settings that count: its mean worst-split accuracy, unless a cell of it is missing.

    `by_place` has its mean in each of these settings, in their order.
    """

    distribution: str
    method: str
    note: str
    mean: Interval | None
    settings: int
    missing: tuple[str, ...]
    tier: int | None = None
    by_place: tuple[float, ...] = ()

    @property
    def label(self) -> str:
        """The method, with what distinguishes it from others of its name."""
        return f"{self.method} ({self.note})" if self.note else self.method


def make_overall(rows: Iterable[RankedRow], places: Sequence[CountedPlace]) -> list[Overall]:
    """Return the methods, by tier and mean; those that lack a cell come last, with what is missing.

    A method that was run in none of these settings is left out.
    """
    found: dict[tuple[str, str, str], dict[CountedPlace, RankedRow]] = defaultdict(dict)
    for row in rows:
        place = row.setting.place
        if not row.is_pretrained and place is not None and place in places:
            found[row.distribution, row.method, row.note][place] = row
    missing = {
        key: tuple(text for place in places for text in _missing(place, own.get(place))) for key, own in found.items()
    }
    complete = sorted(key for key in found if not missing[key])
    blocks = _blocks(places)
    scores = [[_mean_by_seed(block, found[key]) for block in blocks] for key in complete]
    means = [_weighted(blocks, own) for own in scores]

    def difference(first: int, second: int) -> Estimate:
        pairs = zip(scores[first], scores[second], strict=True)
        return _weighted(blocks, [[a - b for a, b in zip(*pair, strict=True)] for pair in pairs])

    ranked = [
        Overall(*key, mean.interval, len(places), (), tier, tuple(_mean(found[key][place]) for place in places))
        for key, mean, tier in zip(complete, means, tiers([mean.mean for mean in means], difference), strict=True)
    ]
    ranked.sort(key=lambda one: (one.tier, -round(one.mean.mean, DIGITS) if one.mean else 0, one.method, one.note))
    lacking = [Overall(*key, None, len(own), missing[key]) for key, own in found.items() if missing[key]]
    return ranked + sorted(lacking, key=lambda one: (one.method, one.note))


def _missing(place: CountedPlace, row: RankedRow | None) -> list[str]:
    if row is None:
        return [place.label]
    return [f"{row.setting.label} seed {seed}" for seed in row.missing]


def _blocks(places: Sequence[CountedPlace]) -> dict[Block, float]:
    """Return the blocks of settings with their weights: datasets weigh equally, and so do the settings of each."""
    of_dataset = Counter(place.dataset for place in places)
    grouped: dict[tuple[str, tuple[int, ...]], list[CountedPlace]] = defaultdict(list)
    for place in places:
        grouped[place.dataset, place.seeds].append(place)
    return {tuple(block): len(block) / of_dataset[dataset] / len(of_dataset) for (dataset, _), block in grouped.items()}


def _weighted(blocks: Mapping[Block, float], by_seed: Sequence[Sequence[float]]) -> Estimate:
    """Return the mean over blocks of what each has for its seeds."""
    return combined([(weight, estimate(own)) for weight, own in zip(blocks.values(), by_seed, strict=True)])


def _mean_by_seed(block: Block, rows: Rows) -> list[float]:
    """Return a method's worst split for each seed of a block, over its settings."""
    worst = [rows[place].worst_by_seed for place in block]
    return [fmean(own[seed] for own in worst) for seed in block[0].seeds]


def _mean(row: RankedRow) -> float:
    assert row.worst_split is not None
    return row.worst_split.mean
