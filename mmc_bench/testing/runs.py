"""Running a method on tiny data, by the stage that runs it in an experiment, and noting what it does."""

import copy
import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from mmc_bench.data.sources import Sources
from mmc_bench.data.splits import ExperimentData
from mmc_bench.errors import UserError
from mmc_bench.plugin.offers import Offer
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.jobs import Cell, ConnectSettings, DataSettings, PluginRef, Pretraining, Recipe
from mmc_bench.results.store import Store
from mmc_bench.stages.finetune import fine_tune
from mmc_bench.stages.resources import Resources
from mmc_bench.testing.checks import NotChecked
from mmc_bench.testing.common import Subject
from mmc_bench.testing.networks import first_difference
from mmc_bench.testing.tiny_data import SHAPES, Shape, random_network, tensors_of, tiny_experiment, tiny_network
from mmc_bench.training import Backbone, Task
from mmc_bench.training.precision import arithmetic
from mmc_bench.training.progress import NonFiniteLossError
from mmc_bench.training.task import UndeclaredDataError

CPU = torch.device("cpu")
EPOCHS = 2
STEPS_OF_AN_EPOCH = 4


@dataclass
class WatchedResources(Resources):
    """Lends methods that note what they were given, and whether they came to their end.

    Python's and NumPy's global generators are seeded with `salt`: a method may draw from the task's generator and
    from torch's global one alone.
    """

    salt: int = 0
    tasks: list[Task] = field(default_factory=list)
    tasks_done: int = 0
    reseeded: list[int] = field(default_factory=list)

    def offer(self, kind: str, reference: PluginRef) -> Offer:
        """Return an offer whose target is a subclass of the method's class, which does the same."""
        offer = super().offer(kind, reference)
        return _WatchedOffer(offer.spec, offer.plugin, self, fixed=offer.fixed)

    def model(self, pretraining: Pretraining, data: ExperimentData) -> Backbone:
        """Return the tiny network for the data, with weights from torch's global generator."""
        return random_network(data.num_classes, data.input_shape, self.device)


@dataclass(frozen=True)
class _WatchedOffer(Offer):
    resources: WatchedResources

    def load(self) -> Any:
        resources = self.resources

        class Watched(super().load()):  # type: ignore[misc]
            def fine_tune(self, task: Task) -> Any:
                resources.tasks.append(task)
                random.seed(resources.salt)
                np.random.seed(resources.salt)
                with _noting_seeds(resources.reseeded):
                    returned = super().fine_tune(task)
                resources.tasks_done += 1
                return returned

        return Watched


@dataclass(frozen=True)
class Run:
    """One run of a method.

    Attributes
    ----------
    task
        What it was given; None where it could not even be made.
    returned
        Whether it came to its end.
    model
        What would be scored: the network that the stage made of what it returned; None where that was refused.
    error
        What it, or the stage that judges what it returned, raised.
    spoilt
        The data that it changed.
    reseeded
        What it seeded torch's global generator with.
    changed
        A sentence about what it changed of the process; it was put back.
    """

    task: Task | None
    returned: bool
    model: Backbone | None
    error: Exception | None
    spoilt: str | None
    reseeded: tuple[int, ...]
    changed: str | None

    @property
    def refusal(self) -> str | None:
        """The sentence with which the method refused what it was given, or None."""
        wrong = (UndeclaredDataError, NonFiniteLossError)
        if self.returned or not isinstance(self.error, UserError) or isinstance(self.error, wrong):
            return None
        return str(self.error)

    @property
    def trained(self) -> Backbone:
        """The model of a run without an error."""
        assert self.model is not None
        return self.model

    def images(self, n: int) -> torch.Tensor:
        """Return some images as the network sees them."""
        assert self.task is not None
        return self.task.validation.batch(slice(n))[0]


@dataclass(frozen=True)
class MethodSubject(Subject):
    """A method under test."""

    registry: Registry

    def run(
        self,
        shape: Shape,
        *,
        device: torch.device = CPU,
        precision: str = "fp32",
        salt: int = 0,
        seed: int = 0,
        data: ExperimentData | None = None,
    ) -> Run:
        """Run the method on a tiny experiment, seeded as any run is.

        Parameters
        ----------
        salt
            Where Python's and NumPy's global generators start.
        seed
            The experiment's, as far as fine-tuning draws from it: the images stay the same.
        data
            Other sets than the tiny experiment's.
        """
        resources = WatchedResources(self.registry, Store("."), Sources(), device, threads=1, salt=salt)
        data = data or tiny_experiment(shape, device)
        before = [(name, value.clone()) for name, value in tensors_of(data)]
        model = error = None
        notes: list[str] = []
        with _own_randomness(salt), arithmetic(precision, device):
            try:
                network = tiny_network(shape, device)
                model = fine_tune(self._cell(shape, seed), network, data, resources, partial(_keep_note, notes))[0]
            except Exception as raised:  # the plugin's own code may raise anything; the properties judge it
                error = raised
        spoilt = first_difference(before, tensors_of(data))
        task = next(iter(resources.tasks), None)
        returned = resources.tasks_done > 0
        return Run(task, returned, model, error, spoilt, tuple(resources.reseeded), next(iter(notes), None))

    def run_on(self, shape: Shape) -> Run:
        """Return the run on a shape; each is made once."""
        if shape not in self._runs:
            self._runs[shape] = self.run(shape)
        return self._runs[shape]

    @cached_property
    def _runs(self) -> dict[Shape, Run]:
        return {}

    @cached_property
    def shape(self) -> Shape:
        """What most properties are checked on: the first shape that the method does not refuse."""
        return next((shape for shape in SHAPES if self.run_on(shape).refusal is None), SHAPES[0])

    @property
    def first(self) -> Run:
        """The run that most properties look at."""
        return self.run_on(self.shape)

    def network(self, device: torch.device = CPU) -> nn.Module:
        """Return the pretrained network that the first run was given."""
        return tiny_network(self.shape, device)

    @property
    def model(self) -> nn.Module:
        """A copy of the model that the first run made.

        Raises
        ------
        NotChecked
            When it made none.
        """
        self.require_a_model()
        return copy.deepcopy(self.first.trained)

    def require_a_model(self) -> None:
        """Raise `NotChecked` unless the first run returned something that can be judged further."""
        if self.first.error is not None:
            raise NotChecked("it returned no model that could be judged: see what failed")

    def _cell(self, shape: Shape, seed: int) -> Cell:
        def stand_in(name: str) -> PluginRef:
            return PluginRef(name=name, distribution="mmc-bench", version="0")

        pretraining = Pretraining(
            versions={"pretrain": "check", "score": "check"},
            dataset=stand_in(shape.name),
            images={},
            data=DataSettings(),
            backbone=stand_in("tiny network"),
            cue_rate=0.8,
            recipe=Recipe(),
            seed=seed,
        )
        reference = self.offer.reference(self._quick_parameters(shape))
        versions = {"fine-tune": "check", "score": "check", "connect": "check"}
        return Cell(versions=versions, pretraining=pretraining, method=reference, connect=ConnectSettings())

    def _quick_parameters(self, shape: Shape) -> dict[str, Any]:
        """Return two epochs of four steps, as far as the method has such parameters and takes these values."""
        wanted = {name: EPOCHS for name in self.schema.model_fields if name.split("_")[-1] == "epochs"}
        if "batch_size" in self.schema.model_fields:
            wanted["batch_size"] = max(shape.set_size // STEPS_OF_AN_EPOCH, 2)
        quick: dict[str, Any] = {}
        for name, value in wanted.items():
            try:
                self.offer.configure({**quick, name: value})
            except UserError:
                continue
            quick[name] = value
        return quick


def _keep_note(notes: list[str], event: dict[str, Any]) -> None:
    if "note" in event:
        notes.append(event["note"])


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


@contextmanager
def _noting_seeds(seeds: list[int]) -> Iterator[None]:
    """Note what torch's global generator is seeded with.

    A function that imported ``manual_seed`` by its name escapes the patch; the seed that it leaves shows it.
    """
    real, before = torch.manual_seed, torch.initial_seed()

    def noted(seed: int) -> torch.Generator:
        seeds.append(int(seed))
        return real(seed)

    with patch.object(torch, "manual_seed", noted), patch.object(torch.random, "manual_seed", noted):
        yield
    if torch.initial_seed() != before:
        seeds.append(torch.initial_seed())


def digests(model: nn.Module) -> dict[str, str]:
    """Return a digest of every weight and statistic, by name."""
    return {
        name: hashlib.sha256(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, value in model.state_dict().items()
    }
