"""What a fine-tuning method promises, put to the test by the stage that runs it, on tiny data."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from mmc_bench.cells import Cell, ConnectSettings, DataSettings, PluginRef, Pretraining, Recipe
from mmc_bench.data.sources import Sources
from mmc_bench.errors import UserError
from mmc_bench.landscape.paths import check_same_architecture
from mmc_bench.parameters import check_parameters
from mmc_bench.registry import Registry
from mmc_bench.stages.finetune import fine_tune
from mmc_bench.stages.workshop import Workshop
from mmc_bench.store import Store
from mmc_bench.testing.checks import Fault, NotChecked, Property, told
from mmc_bench.testing.common import COMMON, Subject
from mmc_bench.testing.networks import check_outputs, check_round_trip, first_difference, hooks_of
from mmc_bench.testing.tiny_data import (
    MANY,
    SQUARE,
    TALL,
    VECTORS,
    Shape,
    tensors_of,
    tiny_experiment,
    tiny_network,
)
from mmc_bench.training import Task
from mmc_bench.training.precision import arithmetic
from mmc_bench.training.task import UndeclaredDataError

CPU = torch.device("cpu")
EPOCHS = 2
STEPS_OF_AN_EPOCH = 4


@dataclass
class WatchedWorkshop(Workshop):
    """Lends methods that note what they were given and what they returned.

    What a method does not declare is out of its reach altogether, under a private name too. Python's and
    NumPy's global generators are seeded with `salt`: a method may draw from the task's generator and from
    torch's global one alone.
    """

    salt: int = 0
    tasks: list[Task] = field(default_factory=list)
    returned: list[Any] = field(default_factory=list)

    def target(self, kind: str, reference: PluginRef) -> Any:
        """Return a subclass of the method's class, which does the same."""
        workshop = self

        class Watched(super().target(kind, reference)):  # type: ignore[misc]
            def fine_tune(self, task: Task) -> Any:
                if "cued" not in task.needs:
                    task = replace(task, _cued=None)
                workshop.tasks.append(task)
                random.seed(workshop.salt)
                np.random.seed(workshop.salt)
                workshop.returned.append(super().fine_tune(task))
                return workshop.returned[-1]

        return Watched


@dataclass(frozen=True)
class Run:
    """One run of a method.

    Attributes
    ----------
    task
        What it was given; None where it could not even be made.
    returned
        What it returned: nothing, or one value.
    error
        What it, or the stage that judges what it returned, raised.
    spoilt
        The data that it changed.
    """

    task: Task | None
    returned: tuple[Any, ...]
    error: Exception | None
    spoilt: str | None


@dataclass(frozen=True)
class MethodSubject(Subject):
    """A method under test."""

    registry: Registry

    def run(self, shape: Shape, device: torch.device = CPU, precision: str = "fp32", salt: int = 0) -> Run:
        """Run the method on a tiny experiment, seeded as any run is; the global generators start at `salt`."""
        workshop = WatchedWorkshop(self.registry, Store("."), Sources(), device, threads=1, salt=salt)
        data = tiny_experiment(shape, device)
        before = [(name, value.clone()) for name, value in tensors_of(data)]
        error = None
        with _own_randomness(salt), arithmetic(precision, device):
            try:
                fine_tune(self._cell(shape), tiny_network(shape, device), data, workshop, lambda event: None)
            except Exception as raised:  # a stranger's code; the properties say what becomes of it
                error = raised
        spoilt = first_difference(before, tensors_of(data))
        return Run(next(iter(workshop.tasks), None), tuple(workshop.returned), error, spoilt)

    @cached_property
    def first(self) -> Run:
        """The run that most properties look at."""
        return self.run(SQUARE)

    @property
    def model(self) -> nn.Module:
        """A copy of the model that the first run returned.

        Raises
        ------
        NotChecked
            When it returned none that could be judged.
        """
        self.require_a_model()
        return copy.deepcopy(self.first.returned[0])

    def require_a_model(self) -> None:
        """Raise `NotChecked` unless the first run returned something that can be judged further."""
        if self.first.error is not None:
            raise NotChecked("it returned no model that could be judged: see what failed")

    def _cell(self, shape: Shape) -> Cell:
        def stand_in(name: str) -> PluginRef:
            return PluginRef(name=name, distribution="mmc-bench", version="0")

        pretraining = Pretraining(
            core="check",
            dataset=stand_in(shape.name),
            images={},
            data=DataSettings(),
            backbone=stand_in("tiny network"),
            cue_rate=0.8,
            recipe=Recipe(),
            seed=0,
        )
        reference = self.offer.reference(self._quick_parameters(shape))
        return Cell(pretraining=pretraining, method=reference, connect=ConnectSettings())

    def _quick_parameters(self, shape: Shape) -> dict[str, Any]:
        """Return two epochs of four steps, as far as the method has such parameters and takes these values."""
        wanted = {name: EPOCHS for name in self.schema.model_fields if name.split("_")[-1] == "epochs"}
        if "batch_size" in self.schema.model_fields:
            wanted["batch_size"] = max(shape.set_size // STEPS_OF_AN_EPOCH, 2)
        quick: dict[str, Any] = {}
        for name, value in wanted.items():
            try:
                check_parameters(self.label, self.target, {**self.offer.spec.defaults, **quick, name: value})
            except UserError:
                continue
            quick[name] = value
        return quick


@contextmanager
def _own_randomness(salt: int) -> Iterator[None]:
    """Start the global generators at `salt`, and give them back as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(salt)
        np.random.seed(salt)
        torch.manual_seed(salt)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


# --- the properties


def asks_for_declared_data(subject: MethodSubject) -> str | None:
    """Nothing is asked for but what the spec's ``needs`` declare."""
    error = subject.first.error
    if isinstance(error, UndeclaredDataError):
        wanted = {"cued", "environments"} if "environments" in str(error) else {"cued"}
        raise Fault(f"{error} ({subject.place})", f"write MethodSpec(…, needs={sorted(wanted)})")
    needs = sorted({"clean", *subject.offer.spec.needs})
    return f"needs {', '.join(needs)}"


def fine_tunes(shape: Shape, subject: MethodSubject) -> None:
    """It runs to its end on data of this shape, and its model has outputs of the right shape."""
    run = subject.first if shape is SQUARE else subject.run(shape)
    if isinstance(run.error, UndeclaredDataError):
        raise NotChecked("it asks for data that it does not declare")
    if run.error is not None and not (shape is SQUARE and run.returned):  # what it returned is judged below
        raise Fault(
            told(run.error) if not isinstance(run.error, UserError) else str(run.error),
            f"see {subject.place}: `mmc-bench check` hands over {shape.name}, in sets of a few images of each class",
        )
    if shape is not SQUARE:
        check_outputs(run.returned[0], _images(run, 8), shape.num_classes)


def _images(run: Run, n: int) -> torch.Tensor:
    assert run.task is not None
    return run.task.validation.batch(slice(n))[0]


def returns_same_architecture(subject: MethodSubject) -> None:
    """What is returned is a model with the weights' names and shapes of the one that was given."""
    if not subject.first.returned:
        raise NotChecked("it did not run to its end")
    model = subject.first.returned[0]
    if not isinstance(model, nn.Module):
        raise Fault(
            f"{subject.place} returned {type(model).__name__}, not a model", "end fine_tune with `return model`"
        )
    try:
        check_same_architecture(tiny_network(SQUARE, CPU), model, ("pretrained model", "returned model"))
    except UserError as error:
        raise Fault(
            f"{error} ({subject.place})",
            "change the weights of task.model, not its layers: paths between the two models need equal shapes",
        ) from None


def returns_finite_weights(subject: MethodSubject) -> None:
    """No weight or statistic is NaN or infinite."""
    if not subject.first.returned or not isinstance(subject.first.returned[0], nn.Module):
        raise NotChecked("it returned no model")
    for name, value in subject.first.returned[0].state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise Fault(
                f"weight {name!r} of the returned model is not finite ({subject.place})",
                "lower the learning rate, and tell task.progress.step of every loss: it names the step that went wrong",
            )


def repeats_itself(subject: MethodSubject) -> None:
    """The same seed gives the same weights to the bit, whatever state the global generators were in before."""
    subject.require_a_model()
    if not (name := _difference(subject, salt=1)):
        return
    if not _difference(subject, salt=0):
        raise Fault(
            f"weight {name!r} depends on the state of Python's or NumPy's global generator, or on a draw in __init__ "
            f"({subject.place})",
            "draw within fine_tune from task.generator or torch's global generator, and give other libraries a seed "
            "drawn from them",
        )
    raise Fault(
        f"two runs with one seed differ in weight {name!r} ({subject.place})",
        "look for a generator without a seed, the clock, the order of a set, or something kept from the last run",
    )


def _difference(subject: MethodSubject, salt: int) -> str | None:
    """Run once more; return the name of the first weight that differs from the first run's."""
    again = subject.run(SQUARE, salt=salt)
    if again.error is not None:
        raise Fault(f"a second run failed: {told(again.error)}", "keep nothing from one run for the next")
    return first_difference(subject.model.state_dict().items(), again.returned[0].state_dict().items())


def leaves_pretrained_model(subject: MethodSubject) -> None:
    """θ_C has the weights and statistics that it had, and is frozen in eval mode still."""
    task = subject.first.task
    if task is None:
        raise NotChecked("it did not run")
    frozen = task.pretrained
    remedy = "change task.model, or a copy.deepcopy of task.pretrained: θ_C is what every path and barrier starts from"
    if changed := first_difference(tiny_network(SQUARE, CPU).state_dict().items(), frozen.state_dict().items()):
        raise Fault(f"fine_tune changed {changed!r} of task.pretrained ({subject.place})", remedy)
    if any(module.training for module in frozen.modules()):
        raise Fault(f"fine_tune left task.pretrained in training mode ({subject.place})", remedy)
    if any(weight.requires_grad for weight in frozen.parameters()):
        raise Fault(f"fine_tune made task.pretrained trainable ({subject.place})", remedy)
    if hooks := next(hooks_of(frozen), None):
        raise Fault(f"fine_tune left {hooks} on task.pretrained ({subject.place})", "remove hooks: handle.remove()")


def leaves_data(subject: MethodSubject) -> None:
    """Images, labels and cues are what they were: other methods are given the same tensors."""
    if spoilt := subject.first.spoilt:
        raise Fault(f"fine_tune changed the {spoilt} in place ({subject.place})", "work on a clone()")


def leaves_working_order(subject: MethodSubject) -> None:
    """The model runs in both modes, has no hooks left on it, and lies where it lay, in the type it had."""
    model = subject.model
    if hooks := next(hooks_of(subject.first.returned[0]), None):  # a copy loses the hooks of its weights
        raise Fault(
            f"the returned model has {hooks} ({subject.place})",
            "remove it before returning, as in handle = layer.register_forward_hook(…); …; handle.remove()",
        )
    _check_placement(model, tiny_network(SQUARE, CPU), subject)
    check_outputs(model, _images(subject.first, 8), SQUARE.num_classes)


def _check_placement(model: nn.Module, given: nn.Module, subject: MethodSubject) -> None:
    for (name, value), was in zip(model.state_dict().items(), given.state_dict().values(), strict=True):
        if (value.dtype, value.device) != (was.dtype, was.device):
            raise Fault(
                f"weight {name!r} of the returned model is {value.dtype} on {value.device}, not {was.dtype} on "
                f"{was.device} ({subject.place})",
                "return the model in the type and on the device that it came in",
            )


def survives_round_trip(subject: MethodSubject) -> None:
    """Saved as safetensors and read into a fresh backbone, the model has the same outputs."""
    check_round_trip(subject.model, tiny_network(SQUARE, CPU), _images(subject.first, 16))


def runs_in(precision: str, device_type: str, subject: MethodSubject) -> None:
    """It runs on this device in this arithmetic, and the weights stay there in float32."""
    if device_type == "cuda" and not torch.cuda.is_available():
        raise NotChecked("there is no GPU here")
    subject.require_a_model()
    device = torch.device(device_type)
    run = subject.run(SQUARE, device, precision)
    if run.error is not None:
        raise Fault(
            told(run.error),
            "create tensors on task.device; under autocast, compute losses with mmc_bench.training.cross_entropy and "
            "other sums within full_precision(task.device)",
        )
    # cuda without a number is what task.device says, and cuda:0 is where tensors lie
    _check_placement(run.returned[0], tiny_network(SQUARE, device), subject)


PROPERTIES = (
    *COMMON,
    Property("asks only for data that it declares", asks_for_declared_data),
    *(Property(f"fine-tunes {shape.name}", partial(fine_tunes, shape)) for shape in (SQUARE, TALL, MANY, VECTORS)),
    Property("returns a model of the same architecture", returns_same_architecture),
    Property("returns finite weights", returns_finite_weights),
    Property("returns the same weights for the same seed", repeats_itself),
    Property("leaves the pretrained model as it was", leaves_pretrained_model),
    Property("leaves the data as they were", leaves_data),
    Property("returns a model in working order", leaves_working_order),
    Property("returns a model that its state_dict describes in full", survives_round_trip),
    Property("runs in bfloat16 on the CPU", partial(runs_in, "bf16", "cpu")),
    Property("runs on a GPU", partial(runs_in, "fp32", "cuda")),
    Property("runs in bfloat16 on a GPU", partial(runs_in, "bf16", "cuda")),
)
