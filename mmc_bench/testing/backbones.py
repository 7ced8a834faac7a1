"""What a backbone promises: timm's interface, both modes, gradients, and weights that say everything."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from mmc_bench.errors import PromiseError, UserError
from mmc_bench.landscape.alignment import permutation_groups
from mmc_bench.testing.checks import Fault, NotChecked, Property, one_line
from mmc_bench.testing.common import COMMON, Subject
from mmc_bench.testing.networks import check_outputs, check_round_trip, first_difference
from mmc_bench.testing.tiny_data import MANY, SQUARE, TALL, VECTORS, Shape
from mmc_bench.training import Backbone, cross_entropy
from mmc_bench.training.adapted import with_interface
from mmc_bench.training.evaluate import eval_mode
from mmc_bench.training.interface import PARTS, check_halves, close, require
from mmc_bench.training.precision import arithmetic

MEMBERS = (*PARTS, "reset_classifier", "num_features", "num_classes")
BATCH = 4


@dataclass(frozen=True)
class BackboneSubject(Subject):
    """A backbone under test."""

    def build(self, shape: Shape, seed: int = 0) -> Backbone:
        """Return a network for a shape, its weights drawn from torch's global generator at `seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = self.offer.configure({})
            model: Backbone = self.offer.make(config, num_classes=shape.num_classes, input_shape=shape.input_shape)
        if not isinstance(model, nn.Module):
            raise Fault(f"{self.place} returned {type(model).__name__}", "return a torch.nn.Module")
        return with_interface(model.to(memory_format=torch.channels_last), shape.num_classes, shape.input_shape)

    @cached_property
    def _built(self) -> Backbone:
        return self.build(self.shape)

    @property
    def network(self) -> Backbone:
        """A network for `shape`: a copy, since drawing weights takes longer."""
        return copy.deepcopy(self._built)

    @property
    def shape(self) -> Shape:
        """The first shape that the backbone does not refuse.

        Raises
        ------
        NotChecked
            When it refuses all of them.
        """
        if self._taken is None:
            raise NotChecked("it can be built for none of the datasets' shapes: see what failed")
        return self._taken

    @property
    def refuses_everything(self) -> bool:
        """Whether there is no shape that it can be built for."""
        return self._taken is None

    @cached_property
    def _taken(self) -> Shape | None:
        for shape in (SQUARE, VECTORS):
            try:
                self.build(shape)
            except UserError:
                continue
            return shape
        return None


def images_of(shape: Shape, n: int = BATCH) -> torch.Tensor:
    """Return noise (n, …) as a network would see it."""
    x = torch.rand(n, *shape.input_shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


# --- the properties


def builds_for(shape: Shape, subject: BackboneSubject) -> str | None:
    """It is built for a shape, or refuses it with a `UserError`, and its outputs have the right shape."""
    try:
        model = subject.build(shape)
        check_outputs(model, images_of(shape), shape.num_classes)
    except UserError as error:
        if subject.refuses_everything or isinstance(error, PromiseError):
            raise
        raise NotChecked(f"it refuses them: {error}") from None
    except Exception as error:  # what a network for images makes of a vector
        if shape is VECTORS:
            raise NotChecked("it is a network for images") from error
        raise
    return f"{sum(weight.numel() for weight in model.parameters()):,} parameters"


def has_timm_interface(subject: BackboneSubject) -> str:
    """All members are there, and agree with each other: the logits are the classifier's, of the features."""
    shape = subject.shape
    model = subject.network.eval()
    try:
        require(model, MEMBERS)
        with torch.no_grad():
            width = check_halves(model, images_of(shape))
    except PromiseError as broken:
        raise Fault(f"{broken.problem} ({subject.place})", broken.remedy) from None
    if model.num_classes != shape.num_classes:
        raise Fault(f"num_classes is {model.num_classes}, not {shape.num_classes}", "set self.num_classes")
    return f"{width} features"


def resets_classifier(subject: BackboneSubject) -> None:
    """`reset_classifier` puts a new layer at the end, and leaves everything else as it is."""
    shape = subject.shape
    model = subject.network.eval()
    last = {id(weight) for weight in model.get_classifier().parameters()}
    body = [(name, weight) for name, weight in model.named_parameters() if id(weight) not in last]
    before = [(name, weight.clone()) for name, weight in body]
    classes = shape.num_classes + 3
    model.reset_classifier(classes)
    if model.num_classes != classes:
        raise Fault(f"after reset_classifier({classes}) num_classes is {model.num_classes}", "set it there too")
    with torch.no_grad():
        found = tuple(model(images_of(shape)).shape)
    if found != (BATCH, classes):
        raise Fault(f"after reset_classifier({classes}) logits have shape {found}", "make the new layer that wide")
    if last & {id(weight) for weight in model.parameters()}:
        raise Fault("reset_classifier keeps the old layer", "put a new one with random weights in its place")
    if changed := first_difference(before, body):
        raise Fault(f"reset_classifier changes {changed!r}", "replace the last layer alone")


def draws_from_global_generator(subject: BackboneSubject) -> None:
    """Initial weights follow from torch's seed, and another seed gives others."""
    shape = subject.shape
    first, again, other = (subject.build(shape, seed).state_dict().items() for seed in (0, 0, 1))
    remedy = "draw initial weights with torch.nn.init or torch.randn, without a generator of your own"
    if name := first_difference(first, again):
        raise Fault(f"two networks built at one torch.manual_seed differ in {name!r} ({subject.place})", remedy)
    if not first_difference(first, other):
        raise Fault(f"networks built at different torch.manual_seed have the same weights ({subject.place})", remedy)


def treats_images_alone(subject: BackboneSubject) -> None:
    """In eval mode an image's logits do not depend on what else is in its batch."""
    shape = subject.shape
    model, x = subject.network.eval(), images_of(shape)
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(image[None]) for image in x])
    if not close(alone, together):
        raise Fault(
            f"in eval mode logits depend on the other images of the batch, by {(together - alone).abs().max():.3g}",
            "use running statistics in eval mode, and take no mean over the batch",
        )


def trains_every_parameter(subject: BackboneSubject) -> str | None:
    """The loss has a finite gradient in every parameter that wants one, and not all of them are zero."""
    shape = subject.shape
    model = subject.network.train()
    cross_entropy(model(images_of(shape)), torch.arange(BATCH) % shape.num_classes).backward()
    trained = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    remedy = "use every layer in forward, keep tensors on the graph (no .detach(), .data or .item()), or remove it"
    for name, gradient in trained.items():
        if gradient is None:
            raise Fault(f"no gradient reaches {name!r} ({subject.place})", remedy)
        if not gradient.isfinite().all():
            raise Fault(f"the gradient of {name!r} is not finite ({subject.place})", remedy)
    if not any(gradient.any() for gradient in trained.values() if gradient is not None):
        raise Fault(f"every gradient is zero ({subject.place})", remedy)
    frozen = len(list(model.parameters())) - len(trained)
    return f"{frozen} parameters are frozen" if frozen else None


def survives_round_trip(subject: BackboneSubject) -> None:
    """Saved as safetensors and read into a fresh network, it has the same outputs; so has a copy."""
    shape = subject.shape
    model, x = subject.network.train(), images_of(shape, 16)
    with torch.no_grad():
        model(x)  # moves statistics from where they start
    check_round_trip(model, subject.build(shape, seed=1), x)
    with torch.no_grad(), eval_mode(model):
        if not close(copy.deepcopy(model)(x), model(x)):
            raise Fault("copy.deepcopy gives a network with other outputs", "keep no reference to another module")


def runs_in(precision: str, device_type: str, subject: BackboneSubject) -> None:
    """It runs forward and backward on this device in this arithmetic."""
    if device_type == "cuda" and not torch.cuda.is_available():
        raise NotChecked("there is no GPU here")
    shape, device = subject.shape, torch.device(device_type)
    model = subject.network.to(device).train()
    with arithmetic(precision, device):
        loss = cross_entropy(model(images_of(shape).to(device)), torch.arange(BATCH, device=device) % shape.num_classes)
        loss.backward()
    if not loss.isfinite():
        raise Fault(f"the loss is {loss.item()} in {precision}", "compute what overflows in float32")


def can_be_aligned(subject: BackboneSubject) -> str:
    """Say which units can change places; a network that cannot be aligned is a network all the same."""
    shape = subject.shape
    model = subject.network.eval()
    try:
        groups = permutation_groups(model, shape.input_shape)
    except UserError as error:
        return f"not alignable: {error}"
    except (RuntimeError, TypeError, NotImplementedError) as error:  # what torch.export raises besides
        return f"not alignable: {one_line(error)}"
    reasons = sorted({pinned.reason for pinned in groups.pinned if not pinned.reason.startswith("the network's")})
    pinned = f"; pinned by {', '.join(reasons)}" if reasons else ""
    units = sum(group.size for group in groups)
    return f"alignable: {units} units in {len(groups)} groups can change places{pinned}"


ON_DEVICES: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("runs in bfloat16 on the CPU", partial(runs_in, "bf16", "cpu")),
    ("runs on a GPU", partial(runs_in, "fp32", "cuda")),
    ("runs in bfloat16 on a GPU", partial(runs_in, "bf16", "cuda")),
)

PROPERTIES = (
    *COMMON,
    *(Property(f"is built for {shape.name}", partial(builds_for, shape)) for shape in (SQUARE, TALL, MANY, VECTORS)),
    Property("has timm's interface", has_timm_interface),
    Property("resets its classifier", resets_classifier),
    Property("draws its weights from torch's generator", draws_from_global_generator),
    Property("treats every image alone in eval mode", treats_images_alone),
    Property("trains every parameter", trains_every_parameter),
    Property("is described in full by its state_dict", survives_round_trip),
    *(Property(name, test) for name, test in ON_DEVICES),
    Property("says whether it can be aligned", can_be_aligned),
)
