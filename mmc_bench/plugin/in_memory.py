"""Methods that no plugin registers: a class, or an object of one, from a notebook, a script or a module."""

import inspect
import json
import pickle
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from mmc_bench.errors import UserError
from mmc_bench.plugin.class_source import digest_of_class
from mmc_bench.plugin.offers import Offer, Plugin
from mmc_bench.plugin.parameters import parameters_of
from mmc_bench.plugin.registry import Registry
from mmc_bench.plugin.specs import MethodSpec

#: What stands for the distribution of such a method, in its qualified name and in records.
DISTRIBUTION = "in-memory"


@dataclass(frozen=True)
class InMemoryOffer(Offer):
    """A method whose class is at hand. Its version is a digest of the class's source and of what that names."""

    target: type = object

    def load(self) -> Any:
        """Return the class."""
        return self.target


def offered(methods: Iterable[str | object], registry: Registry) -> list[str]:
    """Add the classes and objects among `methods` to the registry; return all as names that select them.

    Parameters
    ----------
    methods
        Names or globs of registered methods, classes with ``fine_tune(task)``, and objects of such classes.

    Raises
    ------
    UserError
        When one is no method, its name is taken or malformed, or its source is not available.
    """
    names = []
    for method in methods:
        if not isinstance(method, str):
            offer = offer_of(method)
            _refuse_taken(offer, registry)
            registry.add(offer)
            method = offer.qualified_name
        names.append(method)
    return names


def offer_of(method: object) -> InMemoryOffer:
    """Return the offer of a class or of an object; the object's parameters become the offer's defaults.

    Raises
    ------
    UserError
        When it has no ``fine_tune``, its name or needs are malformed, or its source or parameters are not available.
    """
    target = method if isinstance(method, type) else type(method)
    if not callable(getattr(target, "fine_tune", None)):
        raise UserError(f"{method!r} is no method: a class with fine_tune(task), an object of one, or a name is")
    name = getattr(method, "name", None) or kebab(target.__name__)
    needs = getattr(method, "needs", ())
    try:
        spec = MethodSpec(
            name=name,
            target=f":{target.__name__}",
            summary=(inspect.getdoc(target) or "").partition("\n")[0],
            needs=frozenset([needs] if isinstance(needs, str) else needs),
            defaults={} if method is target else _parameters(method),
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"class {target.__name__}: {error}") from None
    digest = digest_of_class(target)
    plugin = Plugin(name, DISTRIBUTION, f"0+{digest}", target.__module__, digest=digest)
    return InMemoryOffer(spec, plugin, target)


def pickled(registry: Registry) -> bytes:
    """Return the in-memory methods of a registry for `unpickled`, in this or another process.

    Raises
    ------
    UserError
        When a method holds what cannot travel to another process.
    """
    import cloudpickle

    own = [offer for offer in registry.offers("method") if isinstance(offer, InMemoryOffer)]
    if not own:
        return b""
    try:
        content: bytes = cloudpickle.dumps(own)
    except Exception as error:  # whatever the class's globals raise
        names = ", ".join(offer.spec.name for offer in own)
        raise UserError(
            f"method {names} cannot be sent to a worker ({error}): it must name picklable things alone"
        ) from None
    return content


def unpickled(content: bytes) -> Sequence[InMemoryOffer]:
    """Return the offers in what `pickled` returned."""
    offers: Sequence[InMemoryOffer] = pickle.loads(content) if content else ()
    return offers


def kebab(name: str) -> str:
    """Return a class's name as a method's: ``MyMethod`` is ``my-method``, ``SGDPlus`` is ``sgd-plus``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).replace("_", "-").lower().strip("-")


def _refuse_taken(offer: InMemoryOffer, registry: Registry) -> None:
    name = offer.spec.name
    for other in registry.offers("method"):
        if other.spec.name == name:
            advice = f'give class {offer.target.__name__} another name, for example name = "my-{name}"'
            raise UserError(f"method {name!r} is offered by {other.plugin.distribution} already: {advice}")


def _parameters(method: object) -> dict[str, Any]:
    """Return an object's parameters as plain data: those of its ``config``, or its constructor's, kept as attributes.

    Raises
    ------
    UserError
        When one is not kept, or is no plain data.
    """
    name = type(method).__name__
    config = getattr(method, "config", None)
    if isinstance(config, BaseModel):
        return config.model_dump(mode="json", exclude_unset=True)
    known = parameters_of(type(method)).model_fields
    for attribute in vars(method):
        if attribute not in known and not attribute.startswith("_") and attribute not in ("name", "needs"):
            raise UserError(
                f"{name} object: its attribute {attribute!r} is no parameter of {name}: "
                f"make it an argument of __init__ or a field of its Config"
            )
    parameters: dict[str, Any] = {}
    for field in known:
        if field not in vars(method):
            raise UserError(f"{name} object: __init__ does not keep its argument {field!r} as self.{field}")
        parameters[field] = getattr(method, field)
    try:
        plain: dict[str, Any] = json.loads(json.dumps(parameters, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} object: its parameters are no plain data ({error})") from None
    return plain
