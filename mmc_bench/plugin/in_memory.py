"""Methods that no plugin registers, from a notebook, a script or a module; and how these, and networks, travel."""

import inspect
import json
import pickle
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from mmc_bench.errors import UserError
from mmc_bench.plugin.class_source import identity_of_class
from mmc_bench.plugin.local_modules import LocalModules, ModuleNames, check_loaded_modules, source_of_modules
from mmc_bench.plugin.offers import Offer, Plugin
from mmc_bench.plugin.parameters import parameters_of
from mmc_bench.plugin.registry import Registry
from mmc_bench.plugin.specs import MethodSpec

#: What stands for the distribution of such a method or network, in its qualified name and in records.
DISTRIBUTION = "in-memory"


@dataclass(frozen=True)
class InMemoryOffer(Offer):
    """A method or network that is at hand. Its version is a digest of its source and of what that names.

    `modules` finds those that another process imports for it.
    """

    target: Any = object
    modules: ModuleNames = field(default_factory=ModuleNames)

    def load(self) -> Any:
        """Return the class or function.

        Raises
        ------
        UserError
            When a module of it was edited before this process imported it.
        """
        self.check_source()
        return self.target


def offered(given: Iterable[str | object], registry: Registry, offer_of: Callable[[Any], InMemoryOffer]) -> list[str]:
    """Add the classes and objects among what is given to the registry; return all as names that select them.

    Parameters
    ----------
    given
        Names or globs of what is registered, and what `offer_of` takes.
    offer_of
        Returns the offer of a class or object.

    Raises
    ------
    UserError
        When one is nothing of the kind, its name is taken or malformed, or its source is not available.
    """
    names = []
    for one in given:
        if not isinstance(one, str):
            offer = offer_of(one)
            _refuse_taken(offer, registry)
            registry.add(offer)
            one = offer.qualified_name
        names.append(one)
    return names


def method_offer(method: object) -> InMemoryOffer:
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
    digest, modules = identity_of_class(target)
    return InMemoryOffer(spec, plugin_of(name, target.__module__, digest, modules), target, modules.names)


def plugin_of(name: str, origin: str, digest: str, modules: LocalModules) -> Plugin:
    """Return what stands for the plugin of a method or network that is at hand, given the modules that it rests on.

    Raises
    ------
    UserError
        When one of these was edited since this process imported it.
    """
    check_loaded_modules(modules)
    source = source_of_modules(modules)
    return Plugin(name, DISTRIBUTION, f"0+{digest}", origin, digest=digest, source=source)


def in_memory_offers(registry: Registry) -> tuple[InMemoryOffer, ...]:
    """Return the in-memory networks and methods of a registry."""
    offers = (*registry.offers("backbone"), *registry.offers("method"))
    return tuple(offer for offer in offers if isinstance(offer, InMemoryOffer))


def pickled(registry: Registry) -> bytes:
    """Return the in-memory methods and networks of a registry for `unpickled`, in another process.

    In this one, `unpickled` would give the caller's own classes other functions, which have no source.

    Raises
    ------
    UserError
        When one holds what cannot travel to another process.
    """
    import cloudpickle

    own = in_memory_offers(registry)
    if not own:
        return b""
    try:
        content: bytes = cloudpickle.dumps(own)
    except Exception as error:  # whatever the class's globals raise
        names = ", ".join(f"{offer.spec.kind} {offer.spec.name}" for offer in own)
        raise UserError(f"{names} cannot be sent to a worker ({error}): it must name picklable things alone") from None
    return content


def unpickled(content: bytes) -> Sequence[InMemoryOffer]:
    """Return the offers in what `pickled` returned."""
    offers: Sequence[InMemoryOffer] = pickle.loads(content) if content else ()
    return [_imported(offer) for offer in offers]


def _imported(offer: InMemoryOffer) -> InMemoryOffer:
    """Return an offer from another process with the source that this one has imported for it."""
    before = offer.plugin.source
    source = source_of_modules(LocalModules(offer.modules), before.digest if before else None)
    return replace(offer, plugin=replace(offer.plugin, source=source))


def kebab(name: str) -> str:
    """Return a class's name as a plugin's: ``MyMethod`` is ``my-method``, ``SGDPlus`` is ``sgd-plus``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).replace("_", "-").lower().strip("-")


def _refuse_taken(offer: InMemoryOffer, registry: Registry) -> None:
    kind, name = offer.spec.kind, offer.spec.name
    for other in registry.offers(kind):
        if other.spec.name == name:
            whose = f"{'class ' if isinstance(offer.target, type) else ''}{offer.spec.target[1:]}"
            advice = f'give {whose} another name, for example name = "my-{name}"'
            raise UserError(f"{kind} {name!r} is offered by {other.plugin.distribution} already: {advice}")


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
    for one in known:
        if one not in vars(method):
            raise UserError(f"{name} object: __init__ does not keep its argument {one!r} as self.{one}")
        parameters[one] = getattr(method, one)
    try:
        plain: dict[str, Any] = json.loads(json.dumps(parameters, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} object: its parameters are no plain data ({error})") from None
    return plain
