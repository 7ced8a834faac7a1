"""Suite files: what to run, as YAML, checked against a frozen dataclass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args, get_type_hints

from annotated_types import Ge, MinLen

from mmc_bench.errors import UserError, nearest
from mmc_bench.results.settings import ConnectSettings, DataSettings, Fraction, Recipe
from mmc_bench.suites.settings import Setting

if TYPE_CHECKING:
    from pydantic import JsonValue, TypeAdapter

#: Keys of a suite whose one value stands for a list of one.
LISTS = ("datasets", "backbones", "methods", "cue_rates", "seeds")


class _Checked:
    #: Read by pydantic, which checks suites: other keys, NaN and infinity are refused.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True, kw_only=True)
class PairEnd(_Checked):
    """Where one model of a pair differs from the grid's."""

    dataset: str | None = None
    cue_rate: Fraction | None = None
    seed: Annotated[int, Ge(0)] | None = None


@dataclass(frozen=True, kw_only=True)
class PairSpec(_Checked):
    """Pairs of pretrained models to compare, one for each point of the suite's grid that makes a new one.

    `data` says on which experiment's data; by default on the first model's.
    """

    first: PairEnd = PairEnd()
    second: PairEnd = PairEnd()
    data: PairEnd | None = None


@dataclass(frozen=True, kw_only=True)
class TuneSettings(_Checked):
    """How each method's parameters are chosen: in as many trials for each, on seeds that are never ranked.

    `fixed` names parameters that are not searched, as ``"METHOD.parameter"``; METHOD may be a glob. What a caller sets,
    or an axis, is among them.
    """

    trials: Annotated[int, Ge(1)] = 16
    seeds: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (100,)
    fixed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Suite(_Checked):
    """Every combination of what the lists name, with common settings.

    `pairs` are pretrained models to compare with one another; their ends are pretrained as the grid's are.
    `parameters` maps a plugin's name, or a glob over names, to parameters that differ from its defaults.
    `axes` maps settings (``data.clean_images``, ``pretrain.lr``) to the values that they take, in every combination.
    `tune` has every method tried with parameters of its search space, and run with the best by each rule, besides its
    own. `threads` is the number of CPU threads of one cell; by default a worker's share of the cores,
    at most OMP_NUM_THREADS, and on a cluster one for each CPU that it takes.
    """

    name: str
    summary: str = ""
    datasets: Annotated[tuple[str, ...], MinLen(1)]
    backbones: Annotated[tuple[str, ...], MinLen(1)]
    methods: tuple[str, ...]
    cue_rates: Annotated[tuple[Fraction, ...], MinLen(1)]
    seeds: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (0,)
    data: DataSettings = field(default_factory=DataSettings)
    pretrain: Recipe = field(default_factory=Recipe)
    connect: ConnectSettings = field(default_factory=ConnectSettings)
    pairs: tuple[PairSpec, ...] = ()
    parameters: "dict[str, dict[str, JsonValue]]" = field(default_factory=dict)
    axes: "dict[str, Annotated[tuple[JsonValue, ...], MinLen(1)]]" = field(default_factory=dict)
    tune: TuneSettings | None = None
    threads: Annotated[int, Ge(1)] | None = None

    def content(self) -> dict[str, Any]:
        """Return the suite as JSON has it."""
        content: dict[str, Any] = _adapter().dump_python((self,), mode="json")[0]
        return content


@cache
def _adapter() -> "TypeAdapter[tuple[Suite]]":
    from pydantic import ConfigDict, JsonValue, TypeAdapter  # noqa: F401 - resolves the annotation of `parameters`

    # A JsonValue is recursive, and pydantic refuses NaN in it only where the outermost type does.
    return TypeAdapter(tuple[Suite], config=ConfigDict(allow_inf_nan=False))


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
    from mmc_bench.system.yaml_files import read_yaml

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
    axes: Mapping[str, Sequence[Any]] = {},
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
    axes
        Axes by key, besides the suite's or in their place.

    Raises
    ------
    UserError
        When a key is unknown or a value is not allowed.
    """
    content = suite.content()
    content["axes"] |= {key: list(values) for key, values in axes.items()}
    content.update({field: list(values) for field, values in selection.items() if values})
    for setting in settings:
        if setting.section == "tune" and content["tune"] is None:
            raise UserError(f"{origin}: {setting}: nothing is tuned here: say in how many trials, as tune=16")
        if not setting.owner and setting.name == "tune" and _is_count(setting.value):
            content["tune"] = {**(content["tune"] or {}), "trials": setting.value} if setting.value else None
        elif not setting.owner:
            content[setting.name] = setting.value
        elif (section := _section(content, setting)) is not None:
            section[setting.name] = setting.value
        else:
            # Last, so that it wins over whatever pattern of the suite reaches the same plugin.
            earlier = content["parameters"].pop(setting.owner, {})
            content["parameters"][setting.owner] = {**earlier, setting.name: setting.value}
    if isinstance(content["tune"], dict):
        content["tune"]["fixed"] = [
            *content["tune"].get("fixed", ()),
            *(f"{setting.plugin}.{setting.name}" for setting in settings if setting.plugin),
        ]
    return _checked(content, origin if settings or axes or any(selection.values()) else suite.name)


def _section(content: Mapping[str, Any], setting: Setting) -> dict[str, Any] | None:
    """Return the part of a suite that a setting is for, ``connect`` or ``connect.quadratic``; None is a plugin's."""
    found = content[setting.section] if setting.section else None
    for name in setting.owner.split(".")[1:]:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _checked(content: Mapping[str, Any], origin: str) -> Suite:
    from pydantic import ValidationError

    from mmc_bench.system.validation import changed_kind, shortened

    lists: dict[str, Any] = {
        name: [content[name]] for name in LISTS if isinstance(content.get(name), (str, int, float))
    }
    if "tune" in content:
        lists["tune"] = _tuning_of(content["tune"], origin)
    try:
        suite: Suite = _adapter().validate_python(({**content, **lists},))[0]
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    else:
        if changed := changed_kind({**content, **lists}, suite):
            raise UserError(f"{origin}: {changed}")
        if suite.tune and (both := {*suite.seeds} & {*suite.tune.seeds}):
            raise UserError(f"{origin}: seed {min(both)} is ranked, and cannot be a seed of trials: see tune.seeds")
        return suite
    place = problem["loc"][1:]
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        key = ".".join(map(str, place))
        raise UserError(f"{origin}: unknown key {key!r}: {nearest(str(place[-1]), _allowed(_schema_at(place)))}")
    key = ".".join(map(str, place[:3]))  # deeper, pydantic names the types that it tried
    if problem["type"] == "missing":
        raise UserError(f"{origin}: the key {key!r} is missing; a suite has {', '.join(_allowed(Suite))}")
    wrong = problem["msg"].partition(" or an instance of ")[0]  # a class is nothing that a file can hold
    if problem["type"] == "too_short":
        wrong = f"a list of {problem['ctx']['min_length']} or more is wanted"
    elif problem["type"] == "tuple_type":
        wrong = "a list is wanted"
    raise UserError(f"{origin}: {key} = {shortened(problem['input'])}: {wrong[0].lower()}{wrong[1:]}")


def _tuning_of(given: Any, origin: str) -> Any:
    """Return what a suite's `tune` stands for: a number is that of the trials."""
    if _is_count(given):
        return {"trials": given} if given else None
    if given is None or isinstance(given, TuneSettings):
        return given
    if not isinstance(given, Mapping):
        raise UserError(f"{origin}: tune = {given!r}: write a number of trials, or {{trials: 16, seeds: [100]}}")
    seeds = given.get("seeds")
    return {**given, "seeds": [seeds]} if _is_count(seeds) else given


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _schema_at(place: Sequence[int | str]) -> Any:
    """Return the dataclass whose key the last part of `place` is not; numbers are places in lists of such."""
    schema: Any = Suite
    for part in place[:-1]:
        if isinstance(part, str):
            schema = get_type_hints(schema, localns={"JsonValue": Any})[part]
            schema = next((one for one in get_args(schema) if hasattr(one, "__annotations__")), schema)
    return schema


def _allowed(schema: Any) -> list[str]:
    return [name for name in signature(schema).parameters if name != "name"]
