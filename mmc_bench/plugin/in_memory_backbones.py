"""Networks that no plugin registers: a class or function that makes one, or a trained network itself."""

import copy
import inspect
import json
import operator
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from mmc_bench.errors import UserError
from mmc_bench.plugin.class_source import (
    CACHED,
    PLAIN,
    KnownParts,
    identity_of_class,
    identity_of_code,
    identity_of_value,
)
from mmc_bench.plugin.in_memory import InMemoryOffer, kebab, plugin_of
from mmc_bench.plugin.local_modules import LocalModules, ModuleNames, is_installed
from mmc_bench.plugin.parameters import CONTEXT
from mmc_bench.plugin.random_weights import draw_weights
from mmc_bench.plugin.source_text import digest_of_script
from mmc_bench.plugin.specs import BackboneSpec
from mmc_bench.system.digests import digest_of_text

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class InMemoryBackbone(InMemoryOffer):
    """A network's class, a function that makes networks, or an `Architecture`."""

    def make(self, config: BaseModel, **context: Any) -> Any:
        """Return a network, made with what its class or function takes of the context."""
        return self.target(**_taken(self.target, context), **dict(config))


@dataclass(frozen=True)
class Architecture:
    """The architecture of a network at hand: each call returns another one of random weights (`draw_weights`)."""

    network: "nn.Module"

    def __call__(self, num_classes: int) -> "nn.Module":
        """Return a new network, all of whose parameters are trained; with timm's interface, it has so many classes."""
        model: Any = copy.deepcopy(self.network)
        if getattr(model, "num_classes", num_classes) != num_classes and hasattr(model, "reset_classifier"):
            model.reset_classifier(num_classes)
        draw_weights(model)
        return model.requires_grad_(True)  # type: ignore[no-any-return]


def backbone_offer(given: Any) -> InMemoryOffer:
    """Return the offer of a class or function that makes networks, or of an `Architecture`.

    A class or function is given ``num_classes`` and ``input_shape`` where it takes them; its other arguments are
    parameters.

    Raises
    ------
    UserError
        When it cannot make networks, its name is malformed, or its source is not available.
    """
    trained = given.network if isinstance(given, Architecture) else None
    if trained is None and _is_network(given):
        raise UserError(f"{type(given).__name__} object in backbones: give its class, or the network as checkpoint")
    if not callable(given):
        raise UserError(f"{given!r} is no backbone: a torch.nn.Module class, a function that makes one, or a name is")
    named = type(trained) if trained is not None else given.func if isinstance(given, partial) else given
    own = getattr(named, "__name__", type(named).__name__)
    name = getattr(named, "name", None)
    name = name if isinstance(name, str) else kebab(own)
    if name == "<lambda>":
        raise UserError("a lambda in backbones has no name: define a function, def my_net(num_classes): …")
    try:
        summary = (named.__doc__ or "").strip().partition("\n")[0]
        spec = BackboneSpec(name=name, target=f":{own}", summary=summary)
    except (ValueError, TypeError) as error:
        raise UserError(f"backbone {own}: {error}") from None
    digest, modules = _identity_of(given) if trained is None else _identity_of_network(trained)
    plugin = plugin_of(name, named.__module__, digest, LocalModules(modules))
    return InMemoryBackbone(spec, plugin, given, modules)


def _is_network(given: object) -> bool:
    torch = sys.modules.get("torch")  # without it, there is no network
    return torch is not None and isinstance(given, torch.nn.Module)


def _taken(target: Any, context: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a class or function takes of the context: what it names, and the classes also by ``**kwargs``."""
    if getattr(getattr(target, "__init__", None), "__module__", "") == "torch.nn.modules.module":
        return {}  # nn.Module's own, whose arguments are none
    parameters = inspect.signature(target).parameters
    names = {*parameters} & CONTEXT
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        names.add("num_classes")
    return {name: value for name, value in context.items() if name in names}


def _identity_of(target: Any) -> tuple[str, ModuleNames]:
    """Return a digest of a class or function, and the modules, not installed, that another process imports for it."""
    if isinstance(target, partial):
        digest, names = _identity_of(target.func)
        given = (target.args, target.keywords)
        arguments, modules = identity_of_value(f"arguments of {target.func.__name__}", given, target.func.__module__)
        return digest_of_text(digest + arguments), names | modules.names
    if not hasattr(target, "__qualname__"):  # an object with __call__
        raise UserError(f"{type(target).__name__} object is no backbone: give a class, or a function that makes one")
    return _identity_by(identity_of_class, target)


def _identity_by(identify: Callable[[Any], tuple[str, LocalModules]], target: Any) -> tuple[str, ModuleNames]:
    """Return the identity of a class or function; that of an installed one is its name and version."""
    if _is_installed(target):
        return digest_of_text(_installed(target)), ModuleNames()
    digest, modules = identify(target)
    return digest, modules.names


def _identity_of_network(network: Any) -> tuple[str, ModuleNames]:
    """Return a digest of a network's architecture, and its modules.

    The architecture is its layers' classes, settings and names, and its weights' shapes.

    Raises
    ------
    UserError
        When a layer has no weights before its first batch, as ``nn.LazyLinear``; and as `identity_of_value`.
    """
    from torch import Tensor
    from torch.nn.parameter import is_lazy

    if any(map(is_lazy, (*network.parameters(), *network.buffers()))):
        raise UserError("the network's weights have no shapes yet: call it once on images before you give it")
    layers = [(name, type(layer), _settings_of(layer)) for name, layer in _layers_of(network)]
    known = KnownParts.of(network)
    classes = {family: _identity_by(partial(identity_of_code, known=known), family) for _, family, _ in layers}
    settings = [
        identity_of_value(f"layer {name}" if name else "the network", own, family.__module__, known)
        for name, family, own in layers
    ]
    weights = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    shapes = {name: list(value.shape) for name, value in weights.items()}
    parts = [[name, classes[family][0], own] for (name, family, _), (own, _) in zip(layers, settings)]
    digest = digest_of_text(json.dumps([parts, repr(network), shapes]))
    names = [names for _, names in classes.values()] + [modules.names for _, modules in settings]
    return digest, reduce(operator.or_, names)


def _layers_of(network: Any) -> Iterator[tuple[str, Any]]:
    """Yield a network and its layers by name, but for those inside what TorchScript made, which counts as a whole."""
    from torch import jit

    scripts: list[str] = []
    for name, layer in network.named_modules():
        if not any(name.startswith(script) for script in scripts):
            yield name, layer
            scripts += [f"{name}." if name else ""] if isinstance(layer, jit.ScriptModule) else []


def _is_installed(target: Any) -> bool:
    package = sys.modules.get(target.__module__.partition(".")[0])
    return is_installed(Path(getattr(package, "__file__", None) or ""))


def _installed(target: Any) -> str:
    """Return the name of an installed class or function, and the version of its package."""
    package = sys.modules.get(target.__module__.partition(".")[0])
    return f"{target.__module__}.{target.__qualname__} {getattr(package, '__version__', '')}"


def _settings_of(layer: Any) -> dict[str, Any]:
    """Return what a layer keeps of plain data and of code, which its text may not show."""
    from torch import jit, nn

    if isinstance(layer, jit.ScriptModule):
        return {"TorchScript": digest_of_script(layer)}
    kinds = (*PLAIN, FunctionType, BuiltinFunctionType, MethodType, partial, CACHED, jit.ScriptFunction)
    found = {name: value for name, value in vars(layer).items() if isinstance(value, kinds)}
    # A copy has no compiled call; a recurrent layer lists its weights once more.
    left_out = {
        *vars(nn.Module()),
        "_compiled_call_impl",
        *(["_flat_weights"] if isinstance(layer, nn.RNNBase) else []),
    }
    return {name: found[name] for name in sorted(found.keys() - left_out)}
