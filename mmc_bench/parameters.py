"""Parameters of plugins: the pydantic base class, and the making of a plugin object from its parameters."""

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from mmc_bench.errors import UserError, nearest

#: Arguments of a target that the core gives; all others are parameters.
CONTEXT = frozenset({"config", "num_classes", "input_shape"})


class BaseConfig(BaseModel):
    """Base class of a plugin's ``Config``: frozen, and unknown parameters are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def check_parameters(owner: str, target: Any, parameters: Mapping[str, Any]) -> BaseModel:
    """Return the target's ``Config`` filled with `parameters`.

    A target without a ``Config`` takes what its own signature names.

    Parameters
    ----------
    owner
        Whose parameters they are, for messages: ``"method mine"``.
    target
        The plugin's class or function.
    parameters
        Values by name.

    Raises
    ------
    UserError
        When a name is unknown (the nearest known ones are named) or a value is not allowed.
    """
    schema: type[BaseModel] = getattr(target, "Config", None) or _signature_config(target)
    for name in parameters:
        if name not in schema.model_fields:
            raise UserError(f"{owner} has no parameter {name!r}: {nearest(name, schema.model_fields)}")
    try:
        return schema.model_validate(dict(parameters))
    except ValidationError as error:
        raise UserError(f"{owner}: {first_problem(error)}") from None


def _signature_config(target: Any) -> type[BaseModel]:
    fields: dict[str, Any] = {
        name: (Any, ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(target).parameters.items()
        if name not in CONTEXT
    }
    return create_model("SignatureConfig", __base__=BaseConfig, **fields)


def first_problem(error: ValidationError) -> str:
    """Return the first of pydantic's complaints as ``"where = value: what is wrong"``."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "value"
    return f"{where} = {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}"


def instantiate(owner: str, target: type, parameters: Mapping[str, Any]) -> Any:
    """Make a dataset or method object: ``target(config)``, or ``target()`` with ``.config`` set after.

    The second form serves classes that define no ``__init__``.
    """
    config = check_parameters(owner, target, parameters)
    if target.__init__ is object.__init__:  # type: ignore[misc]
        plugin = target()
        plugin.config = config
        return plugin
    return target(config)


def build(owner: str, target: Any, parameters: Mapping[str, Any], **context: Any) -> Any:
    """Call a backbone's target with the context and its parameters."""
    return target(**context, **dict(check_parameters(owner, target, parameters)))
