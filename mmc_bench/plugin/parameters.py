"""Parameters of plugins: the base class of a ``Config``, the check of given values, and the call with them."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from mmc_bench.errors import UserError, nearest
from mmc_bench.system.validation import changed_kind, first_problem

#: Arguments of a target that the core gives; all others are parameters.
CONTEXT = frozenset({"config", "num_classes", "input_shape"})


class BaseConfig(BaseModel):
    """Base class of a plugin's ``Config``: a frozen pydantic model; unknown parameters are errors.

    Examples
    --------
    >>> from mmc_bench import BaseConfig
    >>> class Config(BaseConfig):
    ...     lr: float = 0.1
    >>> Config(lr=0.02).lr
    0.02
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


def check_parameters(owner: str, target: Any, parameters: Mapping[str, Any], fixed: Collection[str] = ()) -> BaseModel:
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
    fixed
        Which of them are no parameters to the user.

    Raises
    ------
    UserError
        When a name is unknown (the nearest known ones are named), or a value is not allowed or of another kind: a
        boolean or quoted text for a number.
    """
    schema = parameters_of(target)
    for name in parameters:
        if name not in schema.model_fields:
            raise UserError(f"{owner} has no parameter {name!r}: {nearest(name, schema.model_fields.keys() - fixed)}")
    try:
        config = schema.model_validate(dict(parameters))
    except ValidationError as error:
        raise UserError(f"{owner}: {first_problem(error)}") from None
    # What has no type is of its default's kind.
    untyped = {name: field.default for name, field in schema.model_fields.items() if field.annotation is Any}
    if problem := changed_kind(parameters, {**dict(config), **untyped}):
        raise UserError(f"{owner}: {problem}")
    return config


def parameters_of(target: Any) -> type[BaseModel]:
    """Return the target's ``Config``, or one made of what its signature names.

    Raises
    ------
    UserError
        When its ``Config`` is no pydantic model.
    """
    schema: type[BaseModel] = getattr(target, "Config", None) or _signature_config(target)
    if not (inspect.isclass(schema) and issubclass(schema, BaseModel)):
        raise UserError(f"{target.__name__}.Config is no pydantic model: derive it from mmc_bench.BaseConfig")
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


def construct(target: Any, config: BaseModel, **context: Any) -> Any:
    """Call a target with its checked parameters, in the way that it takes them.

    A backbone is called with the context and all parameters by name. A dataset, method or observer is called with its
    ``Config``, or, where it has none, with the parameters that its ``__init__`` names; a class without ``__init__``
    finds them in ``self.config``.
    """
    if context:
        return target(**context, **dict(config))
    if target.__init__ is object.__init__:
        plugin = target()
        plugin.config = config
        return plugin
    if hasattr(target, "Config") or "config" in inspect.signature(target).parameters:
        return target(config)
    return target(**dict(config))
