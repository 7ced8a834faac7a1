"""Search spaces of parameters, and the trials that are drawn from them by hashing."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel

from mmc_bench.seeds import derive_seed

#: Learning rates that a method is tried with which declares none: a range of SGD with momentum.
STANDARD_LR = (1e-3, 0.3)

#: Where a default lies outside, the range is from the default divided by this to the default times this.
STANDARD_FACTOR = 30.0


@dataclass(frozen=True)
class LogUniform:
    """Numbers between `low` and `high`, uniform in their logarithm; whole ones where the parameter is a whole number.

    Examples
    --------
    >>> from typing import Annotated
    >>> from pydantic import Field
    >>> from mmc_bench import BaseConfig, LogUniform
    >>> class Config(BaseConfig):
    ...     weight: Annotated[float, LogUniform(0.1, 10)] = Field(1.0, gt=0)
    >>> LogUniform(0.1, 10).at(0.5)
    1.0
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"LogUniform({self.low}, {self.high}): 0 < low < high must hold")

    def at(self, u: float) -> float:
        """Return the number at `u` in [0, 1), in three digits."""
        return _rounded(math.exp(math.log(self.low) + u * math.log(self.high / self.low)))

    def __str__(self) -> str:
        return f"log-uniform in [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Uniform:
    """Numbers between `low` and `high`; whole ones where the parameter is a whole number.

    Examples
    --------
    >>> from mmc_bench import Uniform
    >>> Uniform(0, 1).at(0.25)
    0.25
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Uniform({self.low}, {self.high}): low < high must hold")

    def at(self, u: float) -> float:
        """Return the number at `u` in [0, 1), in three digits."""
        return _rounded(self.low + u * (self.high - self.low))

    def __str__(self) -> str:
        return f"uniform in [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True, init=False)
class Choice:
    """One of several values, each as likely; plain data, as JSON has it.

    Examples
    --------
    >>> from mmc_bench import Choice
    >>> Choice("mean", "sum").at(0.75)
    'sum'
    """

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        if len(values) < 2:
            raise ValueError(f"Choice{values}: two values or more")
        object.__setattr__(self, "values", values)

    def at(self, u: float) -> Any:
        """Return the value at `u` in [0, 1)."""
        return self.values[int(u * len(self.values))]

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.values))}"


Space = LogUniform | Uniform | Choice


@dataclass(frozen=True)
class SearchSpace:
    """The parameters of a method that are searched, each with its space.

    `standard` are those for which the method declares none: they have the standard space.
    """

    spaces: Mapping[str, Space]
    whole: frozenset[str] = frozenset()
    standard: frozenset[str] = frozenset()

    def draw(self, trial: int) -> dict[str, Any]:
        """Return the parameters of a trial: none for trial 0, which is the method as it is published.

        Each value is drawn by hashing the parameter's name and the trial's number, so that it depends on nothing else:
        more trials, or another parameter, change none, and methods that search the same space are tried with the
        same values.
        """
        if trial == 0:
            return {}
        drawn = {name: space.at(derive_seed(f"trial {name}", trial) / 2**63) for name, space in self.spaces.items()}
        return {name: round(value) if name in self.whole else value for name, value in drawn.items()}

    def described(self) -> dict[str, str]:
        """Return the space of each parameter in words."""
        return {name: f"{space}{' (standard)' if name in self.standard else ''}" for name, space in self.spaces.items()}


def search_space(schema: type[BaseModel], defaults: Mapping[str, Any], fixed: Collection[str] = ()) -> SearchSpace:
    """Return the search space that a ``Config`` declares, with the standard space of `lr` and `epochs`.

    The standard space of `lr` is log-uniform in `STANDARD_LR`; where the default lies outside, within a factor of
    `STANDARD_FACTOR` of the default. That of `epochs` is half the default, the default, or twice the default.

    Parameters
    ----------
    schema
        A method's ``Config``, whose fields may have a space as metadata: ``Annotated[float, LogUniform(0.1, 10)]``.
    defaults
        Values that win over those of `schema`, by name.
    fixed
        Names of parameters that keep their values instead of being searched.
    """
    spaces: dict[str, Space] = {}
    whole, standard = set(), set()
    for name, field in schema.model_fields.items():
        declared = _declared(field.annotation, field.metadata)
        default = defaults.get(name, field.default)
        if name in fixed or not (declared or _has_standard(name, default)):
            continue
        if not declared:
            standard.add(name)
        spaces[name] = declared[0] if declared else _standard(name, default)
        if not isinstance(spaces[name], Choice) and _is_whole(field.annotation, default):
            whole.add(name)
    return SearchSpace(spaces, frozenset(whole), frozenset(standard))


def _declared(annotation: Any, metadata: Sequence[Any]) -> list[Space]:
    """Return the spaces in an annotation's metadata, at any depth, as in ``Annotated[float, Uniform(0, 1)] | None``."""
    parts = () if isinstance(annotation, str) else get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _declared(parts[0], [*metadata, *parts[1:]])
    nested = [one for part in parts for one in _declared(part, ())]
    return [*(one for one in metadata if isinstance(one, LogUniform | Uniform | Choice)), *nested]


def _is_whole(annotation: Any, default: Any) -> bool:
    """Tell whether a parameter takes whole numbers alone; without a type, it is of its default's."""
    if annotation is Any:
        return isinstance(default, int) and not isinstance(default, bool)
    kinds = {annotation, *get_args(annotation)}
    kinds |= {part for kind in kinds for part in get_args(kind)}
    return int in kinds and float not in kinds


def _has_standard(name: str, default: Any) -> bool:
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    return is_number and default > 0 and (name == "lr" or (name == "epochs" and isinstance(default, int)))


def _standard(name: str, default: float) -> Space:
    if name == "epochs":
        values = dict.fromkeys((max(1, round(default / 2)), default, 2 * default))
        return Choice(*values)
    low, high = STANDARD_LR
    if low <= default <= high:
        return LogUniform(low, high)
    return LogUniform(_rounded(default / STANDARD_FACTOR), _rounded(default * STANDARD_FACTOR))


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
