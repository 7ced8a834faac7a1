"""Published tables, and the claims that were made on them, as data.

A published table is a CSV with the columns `COLUMNS`, accuracies in per cent, or `LOSS_COLUMNS`, absolute
differences in loss between a split and C, in nats. Beside one of accuracies may stand a file ``claims.yaml``: what
its authors say of the numbers, as checks that anybody's numbers can be put to.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from mmc_bench.errors import UserError, nearest
from mmc_bench.results.records import SPLITS
from mmc_bench.system.files import read_whole
from mmc_bench.system.validation import first_problem
from mmc_bench.system.yaml_files import read_yaml

PLACE = ("dataset", "cue_rate", "method", "split")
COLUMNS = (*PLACE, "accuracy_percent")
LOSS_COLUMNS = (*PLACE, "loss_difference")
LIMITS = {"accuracy_percent": 100.0, "loss_difference": math.inf}
CLAIMS_FILE = "claims.yaml"
WORST_SPLIT, CHANCE = "worst_split", "chance"
BOUNDS = {"at_least": "≥ {:g}", "at_most": "≤ {:g}", "within": "within ±{:g}"}


class Place(NamedTuple):
    """Where a number stands in a table."""

    dataset: str
    cue_rate: float
    method: str
    split: str


Numbers = Mapping[Place, float]
AnyClaims = TypeVar("AnyClaims", bound=BaseModel)


def _known_quantity(text: str) -> str:
    split, of, method = text.partition(" of ")
    if text != CHANCE and not (of and method.split() == [method] and split in (*SPLITS, WORST_SPLIT)):
        raise ValueError(f"write SPLIT of METHOD, where SPLIT is {', '.join(SPLITS)} or {WORST_SPLIT}, or {CHANCE}")
    return text


Quantity = Annotated[str, AfterValidator(_known_quantity)]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Check(_Checked):
    """One quantity, or the difference of two, and the one bound on it, in per cent or points.

    A quantity is written ``"RI of METHOD"``: an accuracy on NC, C, RC or RI, or ``worst_split``, the least of
    NC, C and RC; or ``chance``, 100 over the number of classes.
    """

    value: Quantity | None = None
    difference: tuple[Quantity, Quantity] | None = None
    at_least: FiniteFloat | None = None
    at_most: FiniteFloat | None = None
    within: Annotated[FiniteFloat, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> "Check":
        if (self.value is None) == (self.difference is None) or len(self.bound) != 1:
            raise ValueError(f"a check has a value or a difference, and one of {', '.join(BOUNDS)}")
        return self

    @property
    def quantities(self) -> tuple[str, ...]:
        """The one quantity, or the two whose difference is taken."""
        return self.difference or (self.value or "",)

    @property
    def bound(self) -> dict[str, float]:
        """The bound by its name."""
        return {name: limit for name in BOUNDS if (limit := getattr(self, name)) is not None}

    @property
    def text(self) -> str:
        """The check for people: ``"C of mine − NC of mine within ±15"``."""
        ((name, limit),) = self.bound.items()
        return f"{' − '.join(self.quantities)} {BOUNDS[name].format(limit)}"

    def allows(self, value: float) -> bool:
        """Return whether a value, in points, keeps the bound."""
        value = round(value, 6)  # .65 - .5 is a little more than .15
        ((name, limit),) = self.bound.items()
        return {"at_least": value >= limit, "at_most": value <= limit, "within": abs(value) <= limit}[name]


class Claim(_Checked):
    """A sentence, and the checks that must all hold where it is true."""

    statement: str
    checks: Annotated[tuple[Check, ...], Field(min_length=1)]


class Claims(_Checked):
    """What is said of published numbers.

    `source` says whose they are; `numbers` names the CSVs, beside the file, on which the claims were made;
    `classes` has the number of classes of each dataset in them, for chance.
    """

    source: str
    numbers: Annotated[tuple[str, ...], Field(min_length=1)]
    classes: dict[str, Annotated[int, Field(ge=2)]]
    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]


@dataclass(frozen=True)
class PublishedTable:
    """A table of accuracies in per cent, with the claims on it and all numbers behind those."""

    name: str
    numbers: Numbers
    claims: Claims | None
    basis: Numbers


def published_file(name: str, shipped: Mapping[str, Sequence[Path]]) -> Path:
    """Return the file that a plugin ships under a name (`shipped` has the files by name), or one by its path.

    A CSV is a table, a YAML file one of claims on paths (`mmc_bench.report.path_claims`).

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
        choice = "the path of a .csv file, or of a .yaml file with claims on paths"
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
    numbers: dict[Place, float] = {}
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


def _number(line: Mapping[str, str], where: str, value: str) -> tuple[Place, float]:
    try:
        place = Place(line["dataset"], float(line["cue_rate"]), line["method"], line["split"])
        number = float(line[value])
    except (TypeError, ValueError):
        raise UserError(f"{where}: not a line of {', '.join((*PLACE, value))}") from None
    if place.split not in SPLITS:
        raise UserError(f"{where}: unknown split {place.split!r}: {nearest(place.split, SPLITS)}")
    if not 0 <= number <= LIMITS[value] or math.isinf(number) or not 0 <= place.cue_rate <= 1:
        what = "an accuracy lies in 0 to 100" if value == COLUMNS[-1] else "a difference in loss is 0 or more"
        raise UserError(f"{where}: {what}, a cue rate in 0 to 1")
    return place, number


def read_claims(file: Path) -> Claims:
    """Return the claims that a file makes on numbers; raises like `read_claims_as`."""
    return read_claims_as(file, Claims, Claim, Check)


def read_claims_as(file: Path, claims: type[AnyClaims], claim: type[BaseModel], check: type[BaseModel]) -> AnyClaims:
    """Return a file of claims, checked against its schema; those of a claim and of a check name its keys.

    Raises
    ------
    UserError
        When it cannot be read, or has a bad key or value.
    """
    content = read_yaml(file, "claims file")
    if not isinstance(content, dict):
        raise UserError(f"{file}: a claims file is a mapping with the keys {', '.join(claims.model_fields)}")
    try:
        return claims.model_validate(content)
    except ValidationError as error:
        problems: list[Any] = error.errors(include_url=False)
        # A misspelt key is missing under its right name too.
        problem = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
        key, name = ".".join(map(str, problem["loc"])), str(problem["loc"][-1])
        if problem["type"] == "extra_forbidden":
            known = {1: claims.model_fields, 3: claim.model_fields}.get(len(problem["loc"]), check.model_fields)
            raise UserError(f"{file}: unknown key {key!r}: {nearest(name, known)}") from None
        if problem["type"] == "missing":
            raise UserError(f"{file}: the key {key!r} is missing") from None
        raise UserError(f"{file}: {first_problem(error)}") from None


def published_scores(numbers: Numbers, classes: Mapping[str, int]) -> dict[tuple[str, float], dict[str, float]]:
    """Return the quantities that claims name, by dataset and cue rate.

    The worst split is the least of the published means, where ours is the mean over seeds of each seed's least.
    """
    settings: dict[tuple[str, float], dict[str, float]] = {}
    for place, accuracy in numbers.items():
        scores = settings.setdefault((place.dataset, place.cue_rate), {})
        scores[f"{place.split} of {place.method}"] = accuracy
    for (dataset, _), scores in settings.items():
        for method in {place.method for place in numbers}:
            least = _least(scores.get(f"{split} of {method}", math.nan) for split in ("NC", "C", "RC"))
            if not math.isnan(least):
                scores[f"{WORST_SPLIT} of {method}"] = least
        if dataset in classes:
            scores[CHANCE] = 100 / classes[dataset]
    return settings


def _least(values: Iterable[float]) -> float:
    """Return the least value, or not-a-number when one is missing."""
    found = list(values)
    return math.nan if any(map(math.isnan, found)) else min(found)
