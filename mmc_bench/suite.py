"""Suite files: what to run, as YAML, checked against a pydantic model."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mmc_bench.cells import ConnectSettings, DataSettings, Fraction, Recipe
from mmc_bench.errors import UserError, nearest

SECTIONS = ("data", "pretrain", "connect")


class Suite(BaseModel):
    """Every combination of what the lists name, with common settings.

    `parameters` maps a plugin's name, or a glob over names, to parameters that differ from its defaults.
    `threads` is the number of CPU threads of one cell; by default each worker gets its share of the cores.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    parameters: dict[str, dict[str, Any]] = {}
    threads: Annotated[int, Field(ge=1)] | None = None

    @field_validator("datasets", "backbones", "methods", "cue_rates", "seeds", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, (str, int, float)) else value


def suite_files(paths: Iterable[Path]) -> dict[str, Path]:
    """Return the suite files that plugins ship, by name (the file's stem)."""
    files: dict[str, Path] = {}
    for path in paths:
        for file in sorted(path.glob("*.yaml")) if path.is_dir() else [path]:
            files.setdefault(file.stem, file)
    return files


def load_suite(name: str, shipped: Mapping[str, Path]) -> Suite:
    """Load a shipped suite by name, or any suite file by path.

    Raises
    ------
    UserError
        When there is no such suite, or the file cannot be read or has a bad key or value; the message names
        the file, the line or key, and what is allowed.
    """
    file = shipped.get(name)
    if file is None:
        file = Path(name)
        if file.suffix not in {".yaml", ".yml"}:
            raise UserError(f"unknown suite {name!r}: {nearest(name, shipped)}, or the path of a .yaml file")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"suite file {file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{file}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: a suite file is a mapping with the keys {', '.join(_allowed(Suite))}")
    return _checked({"name": file.stem, **content}, str(file))


def overridden(
    suite: Suite,
    selection: Mapping[str, Sequence[Any]],
    settings: Sequence[str],
) -> Suite:
    """Return the suite with the command line's lists and ``--set KEY=VALUE`` settings in force.

    Parameters
    ----------
    selection
        Lists by field name (``methods``, ``seeds``, …); an empty one leaves the suite's.
    settings
        ``SECTION.key=value`` for the sections ``data``, ``pretrain`` and ``connect``, ``threads=value``, or
        ``PLUGIN.parameter=value``. Values are read as YAML.

    Raises
    ------
    UserError
        When a key is unknown or a value is not allowed.
    """
    content = suite.model_dump()
    content.update({field: list(values) for field, values in selection.items() if values})
    for setting in settings:
        key, equals, text = setting.partition("=")
        owner, dot, name = key.strip().rpartition(".")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if isinstance(value, str):
            value = _number(value)
        if equals and key.strip() == "threads":
            content["threads"] = value
        elif not equals or not dot or not owner or not name:
            raise UserError(f"--set {setting}: write SECTION.key=value or PLUGIN.parameter=value")
        elif owner in SECTIONS:
            content[owner][name] = value
        else:
            content["parameters"] = {
                **content["parameters"],
                owner: {**content["parameters"].get(owner, {}), name: value},
            }
    return _checked(content, "command line" if settings or any(selection.values()) else suite.name)


def _number(text: str) -> Any:
    # YAML 1.1 reads 1e-4 as a string; whoever types it means the number.
    try:
        return float(text)
    except ValueError:
        return text


def _checked(content: Mapping[str, Any], origin: str) -> Suite:
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    path = problem["loc"]
    key = ".".join(str(part) for part in path)
    if problem["type"] == "extra_forbidden":
        schema: Any = Suite
        for part in path[:-1]:
            schema = schema.model_fields[part].annotation
        raise UserError(f"{origin}: unknown key {key!r}: {nearest(str(path[-1]), _allowed(schema))}")
    if problem["type"] == "missing":
        raise UserError(f"{origin}: the key {key!r} is missing; a suite has {', '.join(_allowed(Suite))}")
    raise UserError(f"{origin}: {key} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}")


def _allowed(schema: type[BaseModel]) -> list[str]:
    return [name for name in schema.model_fields if name != "name"]
