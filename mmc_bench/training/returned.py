"""What a method returns: unwrapped, judged, and loaded into a network that the core made."""

import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from mmc_bench.errors import PromiseError, message_of
from mmc_bench.system.devices import own_chance
from mmc_bench.training.backbone import Backbone
from mmc_bench.training.evaluate import eval_mode
from mmc_bench.training.precision import full_precision

#: Dictionaries of a module that hold its hooks. Those of load_state_dict, which torch leaves behind where it takes
#: weight_norm off, decide nothing: the returned model loads no weights.
HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_state_dict_hooks", "_state_dict_pre_hooks"),
)

#: Of what keeps a layer's weight under other names, by the name of its hook's class: what it is, and what undoes it.
REPARAMETRISATIONS = {
    "WeightNorm": ("under weight_norm", "call torch.nn.utils.remove_weight_norm(layer)"),
    "SpectralNorm": ("under spectral_norm", "call torch.nn.utils.remove_spectral_norm(layer)"),
    "BasePruningMethod": ("pruned by a mask", "call torch.nn.utils.prune.remove(layer, 'weight')"),
}

#: Of one network's outputs in two memory formats or algorithms, relative to the largest output.
ROUNDING = 1e-4

ARCHITECTURE = "returns a model of the same architecture"
OWN = "returns a model of its own"
FINITE = "returns finite weights"
IN_ORDER = "returns a model in working order"
IN_FULL = "returns a model that its state_dict describes in full"
#: What is asked of a returned model, in this order: each relies on those before it.
PROMISES = (ARCHITECTURE, OWN, FINITE, IN_ORDER, IN_FULL)


class UnfitModelError(PromiseError):
    """A method returned something that cannot be scored.

    Parameters
    ----------
    promise
        Which of a method's promises is broken, in the words of ``mmc-bench check``.
    problem
        What it returned, as in ``"a model with forward_hooks of stem"``.
    remedy
        How to mend it.
    """

    def __init__(self, promise: str, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.promise = promise

    def of(self, whose: str) -> "UnfitModelError":
        """Return this error with the problem's subject and verb: ``"method mine returned"``."""
        return UnfitModelError(self.promise, f"{whose} {self.problem}", self.remedy)


@dataclass(frozen=True)
class Returned:
    """What a method returned, without its wrappers, and what it is judged by.

    Attributes
    ----------
    model
        What was returned.
    start
        θ_C, which no method has touched.
    lent
        The copy of θ_C that the method was given to look at.
    fresh
        A network of the core's own.
    images
        Some inputs of the network, (n, …).
    """

    model: nn.Module
    start: Backbone
    lent: Backbone
    fresh: Backbone
    images: torch.Tensor


def accepted(returned: object, start: Backbone, lent: Backbone, images: torch.Tensor) -> Backbone:
    """Return a network of the core's own with the weights of the model that a method returned, frozen, in eval mode.

    What is scored is thus what the saved weights give. The parameters are those of `Returned`.

    Raises
    ------
    UnfitModelError
        When it is no model, or breaks one of `CHECKS`.
    """
    model = unwrapped(returned)
    if not isinstance(model, nn.Module):
        raise UnfitModelError(ARCHITECTURE, f"{type(model).__name__}, not a model", "end fine_tune with `return model`")
    fresh = copy.deepcopy(start).eval().requires_grad_(False)
    judged = Returned(model, start, lent, fresh, images)
    for check in CHECKS:
        check(judged)
    return fresh


def unwrapped(model: object) -> object:
    """Take off the wrappers that only wrap: torch.compile's, data parallelism's, AveragedModel."""
    wrappers: tuple[type, ...] = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    wrappers += (torch.optim.swa_utils.AveragedModel,)
    compiler = sys.modules.get("torch._dynamo.eval_frame")  # which takes long to import, and is there if it was used
    compiled: tuple[type, ...] = (compiler.OptimizedModule,) if compiler else ()
    while isinstance(model, (*wrappers, *compiled)):
        model = model.module if isinstance(model, wrappers) else model._orig_mod  # type: ignore[attr-defined]
    return model


def _check_names_and_shapes(of: Returned) -> None:
    wanted, found = of.start.state_dict(), of.model.state_dict()
    if wanted.keys() != found.keys():
        raise UnfitModelError(ARCHITECTURE, *_reason(of, wanted.keys() - found.keys(), found.keys() - wanted.keys()))
    remedy = "change the weights of task.model, not its layers: paths between the two models need equal shapes"
    for name, was in wanted.items():
        value = found[name]
        if not isinstance(value, torch.Tensor) or is_lazy(value) or value.is_meta:
            raise UnfitModelError(ARCHITECTURE, f"a model whose weight {name!r} has no values", remedy)
        if value.shape != was.shape:
            problem = f"a model whose weight {name!r} has shape {tuple(value.shape)}, the pretrained model's"
            raise UnfitModelError(ARCHITECTURE, f"{problem} {tuple(was.shape)}", remedy)


def _reason(of: Returned, missing: set[str], extra: set[str]) -> tuple[str, str]:
    """Say why a model's weights have other names, and what to do about it."""
    layers = dict(of.model.named_modules())
    for place, layer in layers.items():
        if parametrize.is_parametrized(layer):
            names = ", ".join(layer.parametrizations)
            undo = f"call torch.nn.utils.parametrize.remove_parametrizations(layer, {names!r})"
            return f"a model whose layer {place!r} is parametrised", f"{undo} before returning it"
        for hook in layer._forward_pre_hooks.values():
            for kind in type(hook).__mro__:
                if kind.__name__ in REPARAMETRISATIONS:
                    state, undo = REPARAMETRISATIONS[kind.__name__]
                    return f"a model whose layer {place!r} is {state}", f"{undo} before returning it"
        if "quantized" in type(layer).__module__:
            return f"a model whose layer {place!r} is quantised", "return the model in float32"
    if part := next((name for name in sorted(extra) if "_orig_mod." in name), None):
        place = part.partition("._orig_mod.")[0]
        return f"a model whose part {place!r} is compiled", "put the part's _orig_mod back in its place, or compile all"
    first = next(iter(sorted(missing or extra)))
    prefix = next((name.removesuffix(first) for name in extra if missing and name.endswith(f".{first}")), "")
    if prefix:
        return f"the model within a {type(of.model).__name__}", f"return its {prefix.rstrip('.')}"
    problem = f"a model without the weight {first!r}" if missing else f"a model with a weight {first!r} of its own"
    return problem, "return task.model's own layers, with other values in their weights"


def _check_own(of: Returned) -> None:
    if of.model is of.lent:
        raise UnfitModelError(
            OWN, "task.pretrained itself", "change task.model and return it: without a change it has θ_C's weights too"
        )
    taken = {value.data_ptr() for value in of.lent.state_dict().values() if value.numel()}
    for name, value in of.model.state_dict().items():
        if value.numel() and value.data_ptr() in taken:
            raise UnfitModelError(
                OWN,
                f"a model whose {name!r} is task.pretrained's own tensor",
                "copy values, as load_state_dict does without assign=True, or return a copy.deepcopy",
            )


def _check_finite(of: Returned) -> None:
    for name, value in of.model.state_dict().items():
        if not value.isfinite().all():
            raise UnfitModelError(
                FINITE,
                f"a model whose weight {name!r} is not finite",
                "lower the learning rate, and tell task.progress.step of every loss, which names the step that failed",
            )


def _check_order(of: Returned) -> None:
    known = set(hooks_of(of.start))
    if hook := next((hook for hook in hooks_of(of.model) if hook not in known), None):
        raise UnfitModelError(IN_ORDER, f"a model with {hook}", "remove it before returning, as in handle.remove()")
    weights = of.model.state_dict()
    for name, was in of.start.state_dict().items():
        value = weights[name]
        if value.dtype != was.dtype:
            problem = f"a model whose weight {name!r} is {value.dtype}, not {was.dtype}"
            raise UnfitModelError(IN_ORDER, problem, "train and return it in the type that it came in")


def hooks_of(model: nn.Module) -> Iterator[str]:
    """Yield the places at which something is hooked into a network, methods that were replaced among them."""
    for name, module in model.named_modules():
        place = name or "the model"
        yield from (f"{kind.strip('_')} of {place}" for kind in HOOKS if getattr(module, kind, None))
        for attribute, value in vars(module).items():
            if callable(value) and attribute[0] != "_" and callable(getattr(type(module), attribute, None)):
                yield f"{attribute} of {place}, which was replaced"
    for name, weight in model.named_parameters():
        if weight._backward_hooks or getattr(weight, "_post_accumulate_grad_hooks", None):
            yield f"gradient hook of {name}"


def _check_description(of: Returned) -> None:
    """Load the weights into the fresh network, and compare the outputs."""
    weights = of.model.state_dict()
    of.fresh.load_state_dict(weights)
    remedy = "keep everything that decides the output in the weights and buffers that task.model has"
    for name, value in of.fresh.state_dict().items():
        if not torch.equal(value, weights[name].to(value.device)):
            problem = f"a model whose weight {name!r} is no longer tied to another"
            raise UnfitModelError(IN_FULL, problem, "give both the same values")
    try:
        there, back = (_outputs(model, of.images) for model in (of.model, of.fresh))
    except Exception as error:  # whatever a forward of the method's own may raise
        text = f"a model that does not run ({type(error).__name__}: {message_of(error)[:200]})"
        raise UnfitModelError(IN_FULL, text, remedy) from error
    tolerance = ROUNDING * back.nan_to_num().abs().max().item()
    if not torch.isclose(there, back, rtol=0, atol=tolerance, equal_nan=True).all():
        gap = (there - back).abs().max().item()
        problem = f"a model whose outputs differ by up to {gap:.3g} from what its state_dict gives in a fresh network"
        raise UnfitModelError(IN_FULL, problem, remedy)


def _outputs(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the logits (n, K) in eval mode, in float32, on the CPU; no generator moves on."""
    place = next(iter(model.state_dict().values())).device
    with own_chance(place), torch.no_grad(), eval_mode(model), full_precision(place):
        torch.manual_seed(0)
        logits: torch.Tensor = model(images.to(place)).float().cpu()
    return logits


#: One for each of `PROMISES`.
CHECKS: tuple[Callable[[Returned], None], ...] = (
    _check_names_and_shapes,
    _check_own,
    _check_finite,
    _check_order,
    _check_description,
)
