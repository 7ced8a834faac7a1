"""Claims as data, and verdicts on them: sentences, and the checks that must hold where they are true.

A check is on one quantity, or on the difference of two. Quantities are written so:

- ``SPLIT for METHOD``: accuracy in per cent on NC, C, RC, RI or ``worst_split``, the least of NC, C and RC;
- ``chance``: 100 over the number of classes;
- ``drop of PATH on SPLIT``: points by which the accuracy along a path falls below that of its worse end;
- ``fall of PATH on SPLIT``: points by which it falls below that of its better end; a path that falls connects no
  modes (definition 1), whether or not it rises again;
- ``barrier of PATH on SPLIT``: points by which it falls below the chord between the ends;
- ``loss barrier of PATH on SPLIT``: nats by which the loss rises above the chord;
- ``differing invariances``: the interventions to which one model is invariant and the other is not; similar models
  have none (definition 4).

Those of paths and invariances are of cells where they end in ``for METHOD``, else of pairs of models. A path's
``SPLIT`` is of test images, or of training images as in ``train NC``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from mmc_bench.errors import UserError, nearest
from mmc_bench.results.metrics import SPLITS
from mmc_bench.results.settings import Fraction, PathName
from mmc_bench.system.validation import changed_kind, first_problem
from mmc_bench.system.yaml_files import read_yaml

Kind = Literal["accuracies", "cells", "pairs"]

HOLDS, FAILS, NO_RECORDS = "holds", "fails", "no records"
VERDICTS = (HOLDS, FAILS, NO_RECORDS)
WORST_SPLIT, CHANCE, DIFFERING = "worst_split", "chance", "differing invariances"
BOUNDS = {"at_least": "≥ {:g}", "at_most": "≤ {:g}", "within": "within ±{:g}"}
ACCURACY = re.compile(rf"{CHANCE}|(?:{'|'.join((*SPLITS, WORST_SPLIT))}) for (?P<method>\S+)")
OF_MODELS = re.compile(
    rf"(?:(?:drop|fall|barrier|loss barrier) of (?:{'|'.join(get_args(PathName))}) on (?:train )?(?:{'|'.join(SPLITS)})"
    rf"|{DIFFERING})(?: for (?P<method>\S+))?"
)


def _known_quantity(text: str) -> str:
    if not (ACCURACY.fullmatch(text) or OF_MODELS.fullmatch(text)):
        raise ValueError(
            f"write SPLIT for METHOD, where SPLIT is {', '.join(SPLITS)} or {WORST_SPLIT}, or {CHANCE}; or [loss] "
            f"barrier, drop or fall of PATH on [train] SPLIT [for METHOD], where PATH is "
            f"{', '.join(get_args(PathName))}; or {DIFFERING} [for METHOD]"
        )
    return text


Quantity = Annotated[str, AfterValidator(_known_quantity)]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClaimCheck(_Checked):
    """One quantity, or the difference of two, and the one bound on it.

    `if_measured` leaves the check out where the records do not have it: not every path is measured everywhere.
    """

    value: Quantity | None = None
    difference: tuple[Quantity, Quantity] | None = None
    at_least: FiniteFloat | None = None
    at_most: FiniteFloat | None = None
    within: Annotated[FiniteFloat, Field(ge=0)] | None = None
    if_measured: bool = False

    @model_validator(mode="after")
    def _one_of_each(self) -> "ClaimCheck":
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
        """The check for people: ``"C for mine − NC for mine within ±15"``."""
        ((name, limit),) = self.bound.items()
        return f"{' − '.join(self.quantities)} {BOUNDS[name].format(limit)}"

    def allows(self, value: float) -> bool:
        """Return whether a value, in points, keeps the bound."""
        value = round(value, 6)  # .65 - .5 is a little more than .15
        ((name, limit),) = self.bound.items()
        return {"at_least": value >= limit, "at_most": value <= limit, "within": abs(value) <= limit}[name]


class PublishedClaim(_Checked):
    """A sentence, the checks that must all hold where it is true, and the cue rates that it speaks of."""

    statement: str
    checks: Annotated[tuple[ClaimCheck, ...], Field(min_length=1)]
    cue_rates: tuple[Fraction, Fraction] = (0.0, 1.0)

    @model_validator(mode="after")
    def _one_kind(self) -> "PublishedClaim":
        if len({kind_of(quantity) for quantity in self.quantities}) > 1:
            raise ValueError("a claim is on pairs of models, or on the paths of cells (for METHOD), or on accuracies")
        return self

    @property
    def quantities(self) -> list[str]:
        """The quantities of its checks."""
        return [quantity for check in self.checks for quantity in check.quantities]

    @property
    def kind(self) -> Kind:
        """What it is on: accuracies, the paths of cells, or pairs of models."""
        return kind_of(self.quantities[0])

    @property
    def methods(self) -> list[str]:
        """The methods that it names; none where it is on pairs."""
        return list(dict.fromkeys(method for quantity in self.quantities if (method := method_of(quantity))))

    def speaks_of(self, cue_rate: float) -> bool:
        """Tell whether a cue rate is among those that it speaks of."""
        low, high = self.cue_rates
        return low <= cue_rate <= high


class Claims(_Checked):
    """Claims on published tables and figures.

    `source` says by whom. `numbers` names the CSVs, beside the file, that claims on accuracies were made on; `classes`
    has the number of classes of each dataset in them, for chance.
    """

    source: str
    numbers: tuple[str, ...] = ()
    classes: dict[str, Annotated[int, Field(ge=2)]] = {}
    claims: Annotated[tuple[PublishedClaim, ...], Field(min_length=1)]


def read_claims(file: Path) -> Claims:
    """Return the claims in a YAML file.

    Raises
    ------
    UserError
        When it cannot be read, or has a bad key or value; the message names the file and the key.
    """
    content = read_yaml(file, "claims file")
    if not isinstance(content, dict):
        raise UserError(f"{file}: a claims file is a mapping with the keys {', '.join(Claims.model_fields)}")
    try:
        claims = Claims.model_validate(content)
    except ValidationError as error:
        problems: list[Any] = error.errors(include_url=False)
        # A misspelt key is missing under its right name too.
        problem = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
        key, name = ".".join(map(str, problem["loc"])), str(problem["loc"][-1])
        if problem["type"] == "extra_forbidden":
            schemas: dict[int, type[BaseModel]] = {1: Claims, 3: PublishedClaim}
            known = schemas.get(len(problem["loc"]), ClaimCheck).model_fields
            raise UserError(f"{file}: unknown key {key!r}: {nearest(name, known)}") from None
        if problem["type"] == "missing":
            raise UserError(f"{file}: the key {key!r} is missing") from None
        raise UserError(f"{file}: {first_problem(error)}") from None
    if changed := changed_kind(content, claims):
        raise UserError(f"{file}: {changed}")
    return claims


def kind_of(quantity: str) -> Kind:
    """Return what a quantity is of: accuracies, the paths of cells, or pairs of models."""
    if ACCURACY.fullmatch(quantity):
        return "accuracies"
    return "cells" if method_of(quantity) else "pairs"


def method_of(quantity: str) -> str | None:
    """Return the method that a quantity names, or None."""
    found = ACCURACY.fullmatch(quantity) or OF_MODELS.fullmatch(quantity)
    return found["method"] if found else None


# --- verdicts


@dataclass(frozen=True)
class JudgedSetting:
    """One dataset, backbone and cue rate, and of pairs the second model, under labels that tell settings apart."""

    dataset: str
    backbone: str
    cue_rate: float
    second: str = ""


@dataclass(frozen=True)
class Scored:
    """The quantities of one setting, as means over seeds, and these seeds by method; of pairs under ``"pairs"``."""

    setting: JudgedSetting
    seeds: Mapping[str, Sequence[int | str]]
    quantities: Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """A check's numbers, by quantity, its value and its verdict; a value is None where a number is missing."""

    check: ClaimCheck
    numbers: Mapping[str, float | None]
    value: float | None
    verdict: str

    def less(self, other: "Measured") -> float | None:
        """Return this value less another's; None where either is missing."""
        return None if self.value is None or other.value is None else self.value - other.value


@dataclass(frozen=True)
class Judgement:
    """One claim in one setting: our checks, and those of the published numbers."""

    claim: PublishedClaim
    setting: JudgedSetting
    seeds: Mapping[str, Sequence[int | str]]
    checks: tuple[Measured, ...]
    published: tuple[Measured, ...]

    @property
    def verdict(self) -> str:
        """The verdict of our records."""
        return verdict_of(self.checks)

    @property
    def published_verdict(self) -> str | None:
        """The verdict of the published numbers; None where one is missing."""
        verdict = verdict_of(self.published)
        return None if verdict == NO_RECORDS else verdict


def judge(claim: PublishedClaim, scored: Scored, published: Mapping[str, float]) -> Judgement:
    """Put one setting's quantities to a claim, and beside them the published ones, of which there may be none."""
    seeds = scored.seeds if claim.kind == "pairs" else {m: scored.seeds[m] for m in claim.methods if m in scored.seeds}
    ours, theirs = (
        tuple(measure(check, numbers) for check in claim.checks) for numbers in (scored.quantities, published)
    )
    return Judgement(claim, scored.setting, seeds, ours, theirs)


def measure(check: ClaimCheck, quantities: Mapping[str, float]) -> Measured:
    """Put one setting's quantities to a check."""
    numbers = {quantity: quantities.get(quantity) for quantity in check.quantities}
    known = [number for quantity in check.quantities if (number := numbers[quantity]) is not None]
    if len(known) < len(check.quantities):
        return Measured(check, numbers, None, NO_RECORDS)
    value = known[0] - sum(known[1:])
    return Measured(check, numbers, value, HOLDS if check.allows(value) else FAILS)


def verdict_on(claim: PublishedClaim, quantities: Mapping[str, float]) -> str:
    """Return the verdict on a claim of one setting's quantities."""
    return verdict_of([measure(check, quantities) for check in claim.checks])


def verdict_of(checks: Iterable[Measured]) -> str:
    """Return what checks say together: one that fails decides, then one without records that must be measured."""
    verdicts = {done.verdict for done in checks if done.value is not None or not done.check.if_measured}
    return next((verdict for verdict in (FAILS, NO_RECORDS, HOLDS) if verdict in verdicts), NO_RECORDS)


def count(verdicts: Sequence[str]) -> dict[str, int]:
    """Return how often each verdict was given."""
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}
