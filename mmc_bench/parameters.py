"""Parameters of plugins: the pydantic base class, and the making of a plugin object from its parameters."""

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from mmc_bench.errors import UserError, nearest


class Config(BaseModel):
    """Base class of a plugin's ``Config``: frozen, and unknown parameters are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def validated_config(owner: str, target: Any, parameters: Mapping[str, Any]) -> BaseModel:
    """Return the target's ``Config`` filled with `parameters`.

    Parameters
    ----------
    owner
        Whose parameters they are, for messages: ``"method cbft"``.
    target
        The plugin's class or function; without a ``Config`` attribute it takes no parameters.
    parameters
        Values by name.

    Raises
    ------
    UserError
        When a name is unknown (the nearest known ones are named) or a value is not allowed.
    """
    schema: type[BaseModel] = getattr(target, "Config", Config)
    for name in parameters:
        if name not in schema.model_fields:
            raise UserError(f"{owner} has no parameter {name!r}: {nearest(name, schema.model_fields)}")
    try:
        return schema.model_validate(dict(parameters))
    except ValidationError as error:
        raise UserError(f"{owner}: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """Return the first of pydantic's complaints as ``"where = value: what is wrong"``."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "value"
    return f"{where} = {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}"


def instantiate(owner: str, target: type, parameters: Mapping[str, Any]) -> Any:
    """Make a dataset or method object: ``target(config)``, or ``target()`` with ``.config`` set after.

    The second form serves classes that define no ``__init__``.
    """
    config = validated_config(owner, target, parameters)
    if target.__init__ is object.__init__:  # type: ignore[misc]
        plugin = target()
        plugin.config = config
        return plugin
    return target(config)


def call_builder(owner: str, target: Any, parameters: Mapping[str, Any], **context: Any) -> Any:
    """Call a backbone's target with the context and its parameters.

    A target with a ``Config`` gets the validated parameters; a plain function's own signature says which
    parameters there are.
    """
    if hasattr(target, "Config"):
        parameters = dict(validated_config(owner, target, parameters))
    else:
        known = set(inspect.signature(target).parameters) - set(context)
        for name in parameters:
            if name not in known:
                raise UserError(f"{owner} has no parameter {name!r}: {nearest(name, known)}")
    return target(**context, **parameters)
