"""Published tables, and the claims that were made on them, as data.

A published table is a CSV with the columns `COLUMNS`, accuracies in per cent, or `LOSS_COLUMNS`, absolute
differences in loss between a split and C, in nats. Beside one of accuracies may stand a file ``claims.yaml``: what
its authors say of the numbers, as checks that any numbers can be put to.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmc_bench.errors import UserError, nearest
from mmc_bench.report.claims import CHANCE, WORST_SPLIT, Claims, read_claims
from mmc_bench.results.metrics import SPLITS
from mmc_bench.system.files import read_whole

PLACE = ("dataset", "cue_rate", "method", "split")
COLUMNS = (*PLACE, "accuracy_percent")
LOSS_COLUMNS = (*PLACE, "loss_difference")
LIMITS = {"accuracy_percent": 100.0, "loss_difference": math.inf}
CLAIMS_FILE = "claims.yaml"


class PublishedKey(NamedTuple):
    """Where a number stands in a table."""

    dataset: str
    cue_rate: float
    method: str
    split: str


Numbers = Mapping[PublishedKey, float]


@dataclass(frozen=True)
class PublishedTable:
    """A table of accuracies (per cent) or losses (nats), with the claims on it and all numbers behind those."""

    name: str
    numbers: Numbers
    claims: Claims | None
    basis: Numbers


def published_file(name: str, shipped: Mapping[str, Sequence[Path]]) -> Path:
    """Return the file that a plugin ships under a name (`shipped` has the files by name), or one by its path.

    A CSV is a table, a YAML file one of claims (`mmc_bench.report.claims`).

    Raises
    ------
    UserError
        When there is no such table, or more than one plugin ships it.
    """
    files = shipped.get(name) or [Path(name)]
    if len(files) > 1:
        choice = " or ".join(map(str, files))
        raise UserError(f"published table {name!r} is shipped by {len(files)} plugins: give the path of one, {choice}")
    file = files[0]
    if file.suffix not in {".csv", ".yaml"}:
        choice = "the path of a .csv file, or of a .yaml file with claims"
        raise UserError(f"unknown published table {name!r}: {nearest(name, shipped)}, or {choice}")
    return file


def load_published(name: str, shipped: Mapping[str, Sequence[Path]]) -> PublishedTable:
    """Load a table of accuracies by its name or path, as `published_file` finds it.

    Raises
    ------
    UserError
        When there is no such table, or a file cannot be read or is malformed; the message names the file and
        the line or key.
    """
    file = published_file(name, shipped)
    numbers = read_numbers(file)
    claims_file = file.parent / CLAIMS_FILE
    if not claims_file.is_file():
        return PublishedTable(file.stem, numbers, None, numbers)
    claims = read_claims(claims_file)
    for claim in claims.claims:
        if claim.kind != "accuracies":
            raise UserError(f"{claims_file}: {claim.statement!r} is on paths: put it into a file of another name")
    basis = dict(numbers)
    for other in claims.numbers:
        basis.update(read_numbers(claims_file.parent / other))
    return PublishedTable(file.stem, numbers, claims, basis)


def holds_losses(file: Path) -> bool:
    """Tell whether a file is a table of differences in loss, by its first line."""
    try:
        with io.StringIO(read_whole(file).decode(), newline="") as opened:
            return tuple(next(csv.reader(opened), ())) == LOSS_COLUMNS
    except (OSError, UnicodeDecodeError, csv.Error):
        return False  # reading it as a table of accuracies will say why


def read_numbers(file: Path, columns: tuple[str, ...] = COLUMNS) -> Numbers:
    """Return a CSV's numbers: accuracies in per cent, or differences in loss with `LOSS_COLUMNS`.

    Raises
    ------
    UserError
        When it cannot be read, lacks a column, or has a line that is no such number, or one place twice.
    """
    numbers: dict[PublishedKey, float] = {}
    try:
        with io.StringIO(read_whole(file).decode(), newline="") as opened:
            lines = csv.DictReader(opened)
            if tuple(lines.fieldnames or ()) != columns:
                raise UserError(f"{file}: a published table has the columns {','.join(columns)}")
            for line in lines:
                place, number = _number(line, f"{file}, line {lines.line_num}", columns[-1])
                if place in numbers:
                    raise UserError(f"{file}, line {lines.line_num}: {' '.join(map(str, place))} is there twice")
                numbers[place] = number
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"published table {file} cannot be read: {reason}") from None
    return numbers


def _number(line: Mapping[str, str], where: str, value: str) -> tuple[PublishedKey, float]:
    try:
        place = PublishedKey(line["dataset"], float(line["cue_rate"]), line["method"], line["split"])
        number = float(line[value])
    except (TypeError, ValueError):
        raise UserError(f"{where}: not a line of {', '.join((*PLACE, value))}") from None
    if place.split not in SPLITS:
        raise UserError(f"{where}: unknown split {place.split!r}: {nearest(place.split, SPLITS)}")
    if not 0 <= number <= LIMITS[value] or math.isinf(number) or not 0 <= place.cue_rate <= 1:
        what = "an accuracy lies in 0 to 100" if value == COLUMNS[-1] else "a difference in loss is 0 or more"
        raise UserError(f"{where}: {what}, a cue rate in 0 to 1")
    return place, number


def published_scores(numbers: Numbers, classes: Mapping[str, int]) -> dict[tuple[str, float], dict[str, float]]:
    """Return the quantities that claims name, by dataset and cue rate.

    The worst split is the least of the published means, where ours is the mean over seeds of each seed's least.
    """
    settings: dict[tuple[str, float], dict[str, float]] = {}
    for place, accuracy in numbers.items():
        scores = settings.setdefault((place.dataset, place.cue_rate), {})
        scores[f"{place.split} for {place.method}"] = accuracy
    for (dataset, _), scores in settings.items():
        for method in {place.method for place in numbers}:
            least = _least(scores.get(f"{split} for {method}", math.nan) for split in ("NC", "C", "RC"))
            if not math.isnan(least):
                scores[f"{WORST_SPLIT} for {method}"] = least
        if dataset in classes:
            scores[CHANCE] = 100 / classes[dataset]
    return settings


def _least(values: Iterable[float]) -> float:
    """Return the least value, or not-a-number when one is missing."""
    found = list(values)
    return math.nan if any(map(math.isnan, found)) else min(found)
