"""Parameters of plugins: the pydantic base class, and the making of a plugin object from its parameters."""

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from mmc_bench.errors import UserError, nearest
from mmc_bench.system.validation import first_problem

#: Arguments of a target that the core gives; all others are parameters.
CONTEXT = frozenset({"config", "num_classes", "input_shape"})


class BaseConfig(BaseModel):
    """Base class of a plugin's ``Config``: frozen, and unknown parameters are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def check_parameters(owner: str, target: Any, parameters: Mapping[str, Any]) -> BaseModel:
    """Return the target's ``Config`` filled with `parameters`.

    A target without a ``Config`` takes what its own signature names, of the types it says.

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
    schema = parameters_of(target)
    for name in parameters:
        if name not in schema.model_fields:
            raise UserError(f"{owner} has no parameter {name!r}: {nearest(name, schema.model_fields)}")
    try:
        return schema.model_validate(dict(parameters))
    except ValidationError as error:
        raise UserError(f"{owner}: {first_problem(error)}") from None


def parameters_of(target: Any) -> type[BaseModel]:
    """Return the target's ``Config``, or one made of what its signature names."""
    schema: type[BaseModel] = getattr(target, "Config", None) or _signature_config(target)
    return schema


class _SignatureBase(BaseConfig):
    model_config = ConfigDict(arbitrary_types_allowed=True)


def _signature_config(target: Any) -> type[BaseModel]:
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except (NameError, TypeError):  # a type imported for type checkers alone, or no plain function
        hints = {}
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(target).parameters.items()
        if name not in CONTEXT and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    return create_model("SignatureConfig", __base__=_SignatureBase, **fields)


def instantiate(owner: str, target: type, parameters: Mapping[str, Any]) -> Any:
    """Check the parameters of a dataset or method and make its object; see `construct`."""
    return construct(target, check_parameters(owner, target, parameters))


def construct(target: type, config: BaseModel) -> Any:
    """Make a dataset or method object from its checked parameters.

    ``target(config)``; ``target()`` with ``.config`` set after, for a class without ``__init__``; and
    ``target(**parameters)`` for one without ``Config`` whose ``__init__`` names its parameters itself.
    """
    if target.__init__ is object.__init__:  # type: ignore[misc]
        plugin = target()
        plugin.config = config
        return plugin
    if hasattr(target, "Config") or "config" in inspect.signature(target).parameters:
        return target(config)
    return target(**dict(config))


def build(owner: str, target: Any, parameters: Mapping[str, Any], **context: Any) -> Any:
    """Call a backbone's target with the context and its parameters."""
    return target(**context, **dict(check_parameters(owner, target, parameters)))
