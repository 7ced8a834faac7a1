"""What interventions do to a model's loss, beside published differences in loss."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmc_bench.errors import NothingSelectedError
from mmc_bench.landscape.invariance import TOLERANCE
from mmc_bench.report.claims import FAILS, HOLDS, NO_RECORDS
from mmc_bench.report.compare import plain
from mmc_bench.report.published import LOSS_COLUMNS, PublishedKey, PublishedTable, read_numbers
from mmc_bench.report.rows import Row, Statistic
from mmc_bench.report.tables import Report, TextTable

#: A difference that was published as zero may be this share of the model's largest one.
NEGLIGIBLE = 0.005

COLUMNS = ("dataset", "backbone", "cue_rate", "method", "seeds", "split", "ours", "ours_std", "published", "verdict")


@dataclass(frozen=True)
class LossDifference:
    """One difference in loss of ours beside the published one.

    Parameters
    ----------
    row
        The model, or the method, with its setting and seeds.
    split
        Its loss differs from that on C.
    published
        The published difference (nats).
    largest
        The largest difference of ours among the row's published splits.
    """

    row: Row
    split: str
    published: float
    largest: float

    @property
    def ours(self) -> Statistic:
        """Our difference (nats)."""
        return self.row.loss_differences[self.split]

    @property
    def verdict(self) -> str:
        """Whether ours is zero where the published one is, and is not where that is not.

        Zero is `NEGLIGIBLE` of the model's largest difference; not zero is above what counts as invariant.
        """
        if self.published == 0:
            return HOLDS if self.ours.mean <= NEGLIGIBLE * self.largest else FAILS
        return HOLDS if self.ours.mean > TOLERANCE else FAILS


@dataclass(frozen=True)
class LossComparison:
    """Every difference that both have, and the published places that no row is of."""

    table: PublishedTable
    differences: tuple[LossDifference, ...]
    missing: tuple[PublishedKey, ...]

    @property
    def verdict(self) -> str:
        """Whether all differences together have the published pattern; one that fails decides."""
        if any(difference.verdict == FAILS for difference in self.differences):
            return FAILS
        return NO_RECORDS if self.missing else HOLDS


def read_losses(file: Path) -> PublishedTable:
    """Read a published table of differences in loss.

    Raises
    ------
    UserError
        When the file cannot be read or is malformed.
    """
    numbers = read_numbers(file, LOSS_COLUMNS)
    return PublishedTable(file.stem, numbers, None, numbers)


def compare_losses(rows: Iterable[Row], table: PublishedTable) -> LossComparison:
    """Put rows beside a published table; they are matched by dataset, cue rate and method.

    Raises
    ------
    NothingSelectedError
        When no row has a number in the table.
    """
    differences: list[LossDifference] = []
    left = dict.fromkeys(table.numbers)
    for row in rows:
        if row.cue_rate is None:
            continue
        places = {
            split: PublishedKey(plain(row.dataset), row.cue_rate, plain(row.method), split)
            for split in row.loss_differences
        }
        known = {split: place for split, place in places.items() if place in table.numbers}
        largest = max((row.loss_differences[split].mean for split in known), default=0.0)
        for split, place in known.items():
            differences.append(LossDifference(row, split, table.numbers[place], largest))
            left.pop(place, None)
    if not differences:
        raise NothingSelectedError(f"no selected record has a number in {table.name}: mmc-bench run makes some")
    return LossComparison(table, tuple(differences), tuple(left))


def render(comparison: LossComparison, form: str) -> str:
    """Return a comparison in one of `mmc_bench.report.tables.FORMATS`."""
    entries = [_entry(item) for item in comparison.differences]
    return Report(
        blocks=list(_blocks(comparison)),
        columns=COLUMNS,
        lines=map(_line, entries),
        content={
            "table": comparison.table.name,
            "unit": "nats",
            "verdict": comparison.verdict,
            "numbers": entries,
            "without_records": [place._asdict() for place in comparison.missing],
        },
    ).render(form)


def _blocks(comparison: LossComparison) -> Iterator[str | TextTable]:
    yield f"**Ours against {comparison.table.name}**"
    yield (
        "Difference in loss (nats) between a split and C, in absolute value; ours as mean ± standard deviation over "
        "the seeds."
    )
    headers = ["dataset", "backbone", "cue rate", "method", "split", "ours", "published", "verdict", "seeds"]
    lines = [
        [
            *(item.row.dataset, item.row.backbone, f"{item.row.cue_rate:g}", item.row.method, item.split),
            *(_mean(item.ours), f"{item.published:g}", item.verdict, " ".join(map(str, item.row.seeds))),
        ]
        for item in comparison.differences
    ]
    yield TextTable(headers, lines, words=5)
    yield (
        f"**Zero where the published difference is zero, and only there: {comparison.verdict}.** Zero is at most "
        f"{100 * NEGLIGIBLE:g} % of the model's largest difference, and other differences are above {TOLERANCE:g}."
    )
    missing = [f"{place.split} of {place.method} on {place.dataset}" for place in comparison.missing]
    if missing:
        yield f"Without a selected record: {'; '.join(missing)}."


def _entry(item: LossDifference) -> dict[str, Any]:
    return {
        "dataset": item.row.dataset,
        "backbone": item.row.backbone,
        "cue_rate": item.row.cue_rate,
        "method": item.row.method,
        "seeds": list(item.row.seeds),
        "split": item.split,
        "ours": {"mean": item.ours.mean, "std": item.ours.std},
        "published": item.published,
        "verdict": item.verdict,
    }


def _line(entry: dict[str, Any]) -> dict[str, Any]:
    ours = {"ours": entry["ours"]["mean"], "ours_std": entry["ours"]["std"]}
    return {**entry, "seeds": " ".join(map(str, entry["seeds"])), **ours}


def _mean(value: Statistic) -> str:
    return " ± ".join(f"{number:.3g}" for number in (value.mean, value.std) if number is not None)
