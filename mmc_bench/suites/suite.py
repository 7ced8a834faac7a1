"""Suite files: what to run, as YAML, checked against a pydantic model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from mmc_bench.errors import UserError, nearest
from mmc_bench.results.jobs import ConnectSettings, DataSettings, Fraction, Recipe
from mmc_bench.suites.settings import Setting
from mmc_bench.system.validation import shortened
from mmc_bench.system.yaml_files import read_yaml


class PairEnd(BaseModel):
    """Where one model of a pair differs from the grid's."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    dataset: str | None = None
    cue_rate: Fraction | None = None
    seed: Annotated[int, Field(ge=0)] | None = None


class PairSpec(BaseModel):
    """Pairs of pretrained models to compare, one for each point of the suite's grid that makes a new one.

    `data` says on which experiment's data; by default on the first model's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: PairEnd = PairEnd()
    second: PairEnd = PairEnd()
    data: PairEnd | None = None


class Suite(BaseModel):
    """Every combination of what the lists name, with common settings.

    `pairs` are pretrained models to compare with one another; their ends are pretrained as the grid's are.
    `parameters` maps a plugin's name, or a glob over names, to parameters that differ from its defaults.
    `threads` is the number of CPU threads of one cell; by default each worker gets its share of the cores.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    summary: str = ""
    datasets: Annotated[tuple[str, ...], Field(min_length=1)]
    backbones: Annotated[tuple[str, ...], Field(min_length=1)]
    methods: tuple[str, ...]
    cue_rates: Annotated[tuple[Fraction, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    data: DataSettings = DataSettings()
    pretrain: Recipe = Recipe()
    connect: ConnectSettings = ConnectSettings()
    pairs: tuple[PairSpec, ...] = ()
    parameters: dict[str, dict[str, JsonValue]] = {}
    threads: Annotated[int, Field(ge=1)] | None = None

    @field_validator("datasets", "backbones", "methods", "cue_rates", "seeds", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, (str, int, float)) else value


def load_suite(name: str, shipped: Mapping[str, Sequence[Path]]) -> Suite:
    """Load a suite that a plugin ships (`shipped` has the files by name), or any suite file by its path.

    Raises
    ------
    UserError
        When there is no such suite, or the file cannot be read or has a bad key or value; the message names
        the file, the line or key, and what is allowed.
    """
    files = shipped.get(name) or [Path(name)]
    if len(files) > 1:
        raise UserError(
            f"suite {name!r} is shipped by {len(files)} plugins: give the path of one, {' or '.join(map(str, files))}"
        )
    file = files[0]
    if file.suffix not in {".yaml", ".yml"}:
        raise UserError(f"unknown suite {name!r}: {nearest(name, shipped)}, or the path of a .yaml file")
    content = read_yaml(file, "suite file")
    if not isinstance(content, dict):
        raise UserError(f"{file}: a suite file is a mapping with the keys {', '.join(_allowed(Suite))}")
    return _checked({"name": file.stem, **content}, str(file))


def suite_of(content: Mapping[str, Any]) -> Suite:
    """Return the suite that a mapping describes, as a suite file's content does; it may lack a name.

    Raises
    ------
    UserError
        When a key or value is not allowed.
    """
    return _checked({"name": "suite", **content}, "suite")


def overridden(
    suite: Suite,
    selection: Mapping[str, Sequence[Any]],
    settings: Sequence[Setting],
    origin: str = "command line",
) -> Suite:
    """Return the suite with a caller's lists and settings in force.

    Parameters
    ----------
    selection
        Lists by field name (``methods``, ``seeds``, …); an empty one leaves the suite's.
    settings
        Those of the suite's sections, of plugins, and `threads`.
    origin
        Who gave them, for messages.

    Raises
    ------
    UserError
        When a key is unknown or a value is not allowed.
    """
    content = suite.model_dump()
    content.update({field: list(values) for field, values in selection.items() if values})
    for setting in settings:
        if not setting.owner:
            content[setting.name] = setting.value
        elif (section := _section(content, setting)) is not None:
            section[setting.name] = setting.value
        else:
            # Last, so that it wins over whatever pattern of the suite reaches the same plugin.
            earlier = content["parameters"].pop(setting.owner, {})
            content["parameters"][setting.owner] = {**earlier, setting.name: setting.value}
    return _checked(content, origin if settings or any(selection.values()) else suite.name)


def _section(content: Mapping[str, Any], setting: Setting) -> dict[str, Any] | None:
    """Return the part of a suite that a setting is for, ``connect`` or ``connect.quadratic``; None is a plugin's."""
    found = content[setting.section] if setting.section else None
    for name in setting.owner.split(".")[1:]:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _checked(content: Mapping[str, Any], origin: str) -> Suite:
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    place = problem["loc"]
    if problem["type"] == "extra_forbidden":
        key = ".".join(map(str, place))
        raise UserError(f"{origin}: unknown key {key!r}: {nearest(str(place[-1]), _allowed(_schema_at(place)))}")
    key = ".".join(map(str, place[:3]))  # deeper, pydantic names the types that it tried
    if problem["type"] == "missing":
        raise UserError(f"{origin}: the key {key!r} is missing; a suite has {', '.join(_allowed(Suite))}")
    raise UserError(f"{origin}: {key} = {shortened(problem['input'])}: {problem['msg'][0].lower()}{problem['msg'][1:]}")


def _schema_at(place: Sequence[int | str]) -> Any:
    """Return the model whose key the last part of `place` is not; numbers are places in lists of models."""
    schema: Any = Suite
    for part in place[:-1]:
        if isinstance(part, str):
            schema = schema.model_fields[part].annotation
            schema = next((one for one in get_args(schema) if hasattr(one, "model_fields")), schema)
    return schema


def _allowed(schema: type[BaseModel]) -> list[str]:
    return [name for name in schema.model_fields if name != "name"]
