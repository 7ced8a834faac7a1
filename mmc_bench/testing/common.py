"""What every plugin promises, whatever it offers: a cheap registration, and parameters that explain themselves."""

import inspect
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from mmc_bench.errors import UserError
from mmc_bench.plugin.offers import Offer, Plugin
from mmc_bench.plugin.parameters import parameters_of
from mmc_bench.testing.checks import Fault, Property
from mmc_bench.testing.elsewhere import ask_elsewhere

#: What takes longer to import than all of `mmc-bench list` may.
HEAVY = ("torch", "torchvision", "timm", "pandas", "scipy", "sklearn", "matplotlib", "jax", "tensorflow")

#: No parameter of any type can mean this.
NONSENSE = {"no": ["parameter", {"is": object()}]}

#: Of these a float has to refuse one at least; an integer may be any, as a seed may.
EXTREMES = (float("nan"), float("inf"), -float("inf"), -1e300, 1e300)

# Imports the plugin as the registry does; a heavy module is not imported, which takes long, but printed, with the line.
REGISTRATION = """
import traceback
from mmc_bench.plugin.registry import Registry

found = {}

class Spy:
    def find_spec(self, module, path=None, target=None):
        if module in more:
            frames = [f for f in traceback.extract_stack() if "importlib" not in f.filename and f.filename[0] != "<"]
            found.setdefault(module, f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "unknown")
            raise ImportError(f"{module} is heavy")

sys.meta_path.insert(0, Spy())
Registry([candidate])
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Subject:
    """One offer under test."""

    offer: Offer

    @property
    def label(self) -> str:
        """For example ``"method mine"``."""
        return f"{self.offer.spec.kind} {self.offer.spec.name}"

    @cached_property
    def target(self) -> Any:
        """The plugin's class or function."""
        return self.offer.load()

    @property
    def schema(self) -> type[BaseModel]:
        """The ``Config`` of the target, or what stands for it: the parameters that its signature names."""
        return parameters_of(self.target)

    @property
    def parameters(self) -> dict[str, FieldInfo]:
        """The fields of `schema` but for those that the name of a family's member fixes."""
        fields = self.schema.model_fields
        return {name: field for name, field in fields.items() if name not in self.offer.fixed}

    @property
    def place(self) -> str:
        """File and line of the target."""
        try:
            file, line = inspect.getsourcefile(self.target), inspect.getsourcelines(self.target)[1]
        except (TypeError, OSError):
            return str(self.offer.spec.target)
        return f"{Path(file or '?').name}, line {line}"


def registers_cheaply(subject: Subject) -> None:
    """In a fresh interpreter, the plugin's hooks bring in no heavy module."""
    brought = _heavy_imports(subject.offer.plugin)
    if brought:
        module, place = next(iter(brought.items()))
        raise Fault(
            f"registering imports {', '.join(brought)}: {module} in {place}",
            f"import {module} in the module of the target, or within the function that needs it, not in that of the "
            "hooks: `mmc-bench list` loads the hooks of every plugin",
        )


@cache
def _heavy_imports(plugin: Plugin) -> dict[str, str]:
    """Return the heavy modules that a plugin's registration imports, each with the place."""
    brought: dict[str, str] = ask_elsewhere(plugin, REGISTRATION, HEAVY)
    return brought


def documents_parameters(subject: Subject) -> str | None:
    """The spec has a summary, and every parameter a description: in its field, or by name in the docstring."""
    if not subject.offer.spec.summary.strip():
        raise Fault(
            f"the spec of {subject.label} has no summary",
            f'write {type(subject.offer.spec).__name__}(…, summary="one line for mmc-bench list")',
        )
    docstring = inspect.getdoc(subject.target) or ""
    silent = [
        name
        for name, field in subject.parameters.items()
        if not (field.description or "").strip()
        and (hasattr(subject.target, "Config") or not re.search(rf"\b{name}\b", docstring))
    ]
    if silent:
        raise Fault(
            f"parameter{'s' * (len(silent) > 1)} {', '.join(silent)} of {subject.place} without a description",
            f'write {silent[0]}: … = Field(…, description="what it is, and its unit")',
        )
    return _count(subject)


def validates_parameters(subject: Subject) -> str | None:
    """Defaults are valid, unknown names are refused, and so is an impossible value of every parameter."""
    schema, defaults = subject.schema, dict(subject.offer.spec.defaults)
    try:
        valid = subject.offer.configure({})
    except UserError as error:
        raise Fault(str(error), "give every parameter a default, in the Config or in the spec's defaults") from None
    _refuses_unknown_names(schema, defaults)
    for name, field in subject.parameters.items():
        value = getattr(valid, name)
        if not _accepts(schema, defaults, name, value):
            raise Fault(f"{name} refuses its own default {value!r}", "let the bounds of the field contain its default")
        if _accepts(schema, defaults, name, NONSENSE):
            raise Fault(
                f"{name} takes any value, even {{'no': …}}: it has no type",
                f"annotate it, as in {name}: float = Field({value!r}, gt=0, description=…)",
            )
        is_float = isinstance(value, float) or field.annotation is float
        if is_float and all(_accepts(schema, defaults, name, extreme) for extreme in EXTREMES):
            raise Fault(
                f"{name} has no bound: it takes {EXTREMES[0]!r} and {EXTREMES[-1]!r}",
                f"say what is possible, as in Field({value!r}, ge=0, description={field.description!r})",
            )
    return _count(subject)


def _refuses_unknown_names(schema: type[BaseModel], defaults: dict[str, Any]) -> None:
    try:
        schema.model_validate({**defaults, "no_such_parameter": 1})
    except ValidationError:
        return
    raise Fault(
        f"{schema.__name__} takes parameters that it does not have, such as no_such_parameter=1",
        "derive it from mmc_bench.BaseConfig, which refuses them",
    )


def _accepts(schema: type[BaseModel], defaults: dict[str, Any], name: str, value: Any) -> bool:
    try:
        schema.model_validate({**defaults, name: value})
    except ValidationError:
        return False
    return True


def _count(subject: Subject) -> str:
    number = len(subject.parameters)
    return f"{number} parameter{'s' * (number != 1)}" if number else "no parameters"


COMMON = (
    Property("registers without a heavy import", registers_cheaply),
    Property("documents its parameters", documents_parameters),
    Property("validates its parameters", validates_parameters),
)
