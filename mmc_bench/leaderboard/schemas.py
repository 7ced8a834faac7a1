"""The files of a leaderboard that people write and review, as pydantic models.

BOARD/leaderboard.yaml                       what is compared with what       `BoardSettings`
BOARD/versions.yaml                          known versions                   `Versions`
BOARD/results/<submission>/submission.yaml   who ran it, when                 `Submission`
BOARD/verifications/<name>.yaml              what was re-run, and how it went `Verification`
"""

from collections import Counter
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from mmc_bench.errors import UserError
from mmc_bench.results.jobs import PluginRef, Pretraining
from mmc_bench.results.making import Provenance
from mmc_bench.results.settings import DataSettings, Fraction
from mmc_bench.system.validation import changed_kind, first_problem
from mmc_bench.system.yaml_files import read_yaml, yaml_of

Model = TypeVar("Model", bound=BaseModel)


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("one line of printable text is wanted, without spaces around it")
    return text


Person = Annotated[str, Field(min_length=1, max_length=80), AfterValidator(_printable)]
Line = Annotated[str, Field(max_length=300), AfterValidator(_printable)]
Note = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


OWN = "mmc-bench"  # the distribution of names that say none


def _qualified(name: str) -> str:
    return name if ":" in name else f"{OWN}:{name}"


def _data_settings(given: dict[str, Any]) -> dict[str, Any]:
    known = DataSettings().content()
    for name in given:
        if name not in known:
            raise ValueError(f"there is no data setting {name!r}: known are {', '.join(known)}")
    try:
        made = TypeAdapter(DataSettings).validate_python(given)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None
    if changed := changed_kind(given, made):
        raise ValueError(changed)
    return given


#: ``distribution:name`` of a plugin; a name alone is one of mmc-bench's.
PluginName = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*:)?[^:\s]+$", max_length=200), AfterValidator(_qualified)
]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Submission(_File):
    """Who ran the records of a folder, and when they were sent in."""

    by: Person
    date: date
    note: Line = ""


class Tolerances(_File):
    """How far a re-run's accuracies (fractions) may lie from the reported ones.

    `same_machine` holds where device, precision, threads and packages are the same ones, and everything that
    decides the result too; `same_code` where only the latter is; `other` where code or plugins changed since.
    """

    same_machine: Fraction
    same_code: Fraction
    other: Fraction


@dataclass(frozen=True)
class CountedPlace:
    """One setting that is listed, by the full names of its plugins, with its seeds; `data` are settings of its sets."""

    dataset: str
    backbone: str
    cue_rate: float
    seeds: tuple[int, ...]
    data: tuple[tuple[str, str | int | None], ...] = ()

    @property
    def label(self) -> str:
        """One line for people."""
        dataset, backbone = (name.partition(":")[2] for name in (self.dataset, self.backbone))
        note = "".join(f" {name}={value}" for name, value in self.data)
        return f"{dataset} {backbone} {self.cue_rate:g}{note}"

    def matches(self, pretraining: Pretraining) -> bool:
        """Tell whether a pretraining is of this setting, whatever its recipe and the data settings not named here."""
        p, data = pretraining, pretraining.data.content()
        names = (full_name(p.dataset), full_name(p.backbone), p.cue_rate)
        same = names == (self.dataset, self.backbone, self.cue_rate)
        return same and all(data[name] == value for name, value in self.data)


class CountedSettings(_File):
    """Settings that count over all: one for each cue rate. Exactly these seeds count in them.

    `data` are values that `DataSettings` must have there, such as ``{minority: conflicting}``.
    """

    dataset: PluginName
    backbone: PluginName
    cue_rates: Annotated[tuple[Fraction, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    data: Annotated[dict[str, str | int | None], AfterValidator(_data_settings)] = {}


class BoardSettings(_File):
    """What a leaderboard is called, what is compared with what and over which seeds, and what re-runs must keep to.

    `baseline` is the method that rows are compared with. `settings` are those that count over all; one with fewer seeds
    than `fewest_seeds` is shown without tiers, and does not count. `notes` are what readers should keep in mind.
    `verifiers` are the names of those whose re-runs make a row verified.
    `test_images` are the numbers of test images of datasets, where they are known: with the original images,
    every accuracy is a whole number of them.
    """

    title: Line
    baseline: PluginName
    settings: tuple[CountedSettings, ...] = ()
    fewest_seeds: Annotated[int, Field(ge=1)] = 5
    notes: tuple[Note, ...] = ()
    verifiers: tuple[Person, ...] = ()
    tolerances: Tolerances
    test_images: dict[str, Annotated[int, Field(ge=1)]] = {}

    @property
    def places(self) -> tuple[CountedPlace, ...]:
        """The settings that are listed, in their order."""
        return tuple(
            CountedPlace(
                one.dataset, one.backbone, rate, tuple(sorted(set(one.seeds))), tuple(sorted(one.data.items()))
            )
            for one in self.settings
            for rate in one.cue_rates
        )

    @property
    def counted(self) -> tuple[CountedPlace, ...]:
        """The settings that count over all: those listed with enough seeds."""
        return tuple(place for place in self.places if len(place.seeds) >= self.fewest_seeds)

    @model_validator(mode="after")
    def _places_differ(self) -> Self:
        times = Counter(place.label for place in self.places)
        for place in self.places:
            if times[place.label] > 1:
                raise ValueError(f"the setting {place.label} is listed twice")
        for one, other in combinations({place.seeds: place for place in self.counted}.values(), 2):
            if shared := {*one.seeds} & {*other.seeds}:
                raise ValueError(
                    f"{one.label} and {other.label} share seed {min(shared)} and not all seeds: "
                    "settings that count have the same seeds, or none in common"
                )
        return self


class KnownVersion(_File):
    """How a version of a plugin describes itself; `needs` are those of a method."""

    summary: str = ""
    needs: tuple[str, ...] | None = None


class Versions(_File):
    """The versions that records may come from, of stages and, by ``distribution:kind:name``, of plugins."""

    stages: dict[str, tuple[str, ...]] = {}
    plugins: dict[str, dict[str, KnownVersion]] = {}

    def find(self, kind: str, plugin: PluginRef) -> KnownVersion | None:
        """Return what is known of a plugin's version, or None."""
        return self.plugins.get(plugin_name(kind, plugin), {}).get(plugin.version)

    def including(self, stages: dict[str, set[str]], plugins: dict[str, dict[str, KnownVersion]]) -> Self:
        """Return these versions and others, in order."""
        merged = {name: {**self.plugins.get(name, {}), **plugins.get(name, {})} for name in {*self.plugins, *plugins}}
        ordered = {name: dict(sorted(merged[name].items())) for name in sorted(merged)}
        names = sorted({*self.stages, *stages})
        known = {name: tuple(sorted({*self.stages.get(name, ()), *stages.get(name, ())})) for name in names}
        return self.model_copy(update={"stages": known, "plugins": ordered})


class VerifiedCell(_File):
    """One cell that was re-run: the accuracies on the four splits as reported and as found."""

    record: str
    sha256: Digest
    reported: dict[str, Fraction]
    found: dict[str, Fraction]
    same_versions: bool
    tolerance: Fraction
    agrees: bool

    @property
    def difference(self) -> float:
        """The largest difference between a reported accuracy and the one found."""
        return max(abs(self.reported[name] - self.found[name]) for name in self.reported)


class Verification(_File):
    """What one call of ``verify`` re-ran, who called it, when, and on what."""

    by: Person
    date: date
    sample: Annotated[int, Field(ge=1)]
    seed: int
    provenance: Provenance
    seconds: Annotated[FiniteFloat, Field(ge=0)]
    cells: Annotated[tuple[VerifiedCell, ...], Field(min_length=1)]


def full_name(plugin: PluginRef) -> str:
    """Return ``distribution:name``."""
    return f"{plugin.distribution}:{plugin.name}"


def plugin_name(kind: str, plugin: PluginRef) -> str:
    """Return ``distribution:kind:name``."""
    return f"{plugin.distribution}:{kind}:{plugin.name}"


def read_model(file: Path, schema: type[Model], kind: str) -> Model:
    """Return what a YAML file of the leaderboard says.

    Parameters
    ----------
    kind
        What the file is, for messages: ``"submission"``.

    Raises
    ------
    UserError
        When it is missing, no YAML, too large, or not what the model allows; the message names the file and the key.
    """
    content = read_yaml(file, kind)
    if not isinstance(content, dict):
        raise UserError(f"{file}: a {kind} file is a mapping with the keys {', '.join(schema.model_fields)}")
    try:
        model = schema.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{file}: {first_problem(error)}") from None
    if problem := changed_kind(content, model):
        raise UserError(f"{file}: {problem}")
    return model


def as_yaml(model: BaseModel) -> bytes:
    """Return a model as the YAML file that `read_model` reads, the same bytes for the same content."""
    content: Any = model.model_dump(mode="json", exclude_defaults=True)
    return yaml_of(content, sort_keys=False, width=110).encode()
