"""A method, and what it is given."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.errors import UserError
from mmc_bench.training.backbone import Backbone
from mmc_bench.training.descent import Schedule, cosine
from mmc_bench.training.progress import Progress
from mmc_bench.training.training import Training


class UndeclaredDataError(UserError):
    """A method asked for data that its spec does not declare."""


@dataclass(frozen=True)
class Task:
    """One repair job: a pretrained model, and the data a method may use; no test image is handed over.

    Parameters
    ----------
    model
        A fresh trainable copy of θ_C, in training mode, to change and return.
    pretrained
        θ_C itself, frozen, in eval mode.
    clean
        Cue-free training images that were held out of pretraining, unless the settings give them random cues, or make
        them the pretraining images.
    validation
        Another such set, always held out, for choosing anything.
    num_classes
        K.
    device
        Where everything lies.
    generator
        Source of randomness on `device`, seeded from the experiment's seed; torch's global one is seeded too.
    progress
        Gets every step's loss. `training` does it; a loop of your own is
        ``for epoch in task.progress.epochs(n)`` with ``task.progress.step(loss, images)``.
    """

    model: Backbone
    pretrained: Backbone
    clean: CuedImages
    validation: CuedImages
    num_classes: int
    device: torch.device
    generator: torch.Generator
    progress: Progress
    needs: frozenset[str] = frozenset()
    _cued: CuedImages | None = None
    _environments: torch.Tensor | None = None
    _clean_environments: torch.Tensor | None = None
    _cue_classes: Callable[[torch.Tensor], torch.Tensor | None] | None = None
    _fully_cued: CuedImages | None = None
    _all_fully_cued: CuedImages | None = None
    _untrained: Callable[[], Backbone] | None = None

    @property
    def cued(self) -> CuedImages:
        """The cued pretraining set.

        Raises
        ------
        UndeclaredDataError
            When the method's spec does not declare ``needs={"cued"}``.
        """
        if "cued" not in self.needs or self._cued is None:
            raise UndeclaredDataError('the method asked for task.cued: declare needs={"cued"} in its spec')
        return self._cued

    @property
    def fully_cued(self) -> CuedImages:
        """The pretraining images, every one with its own cue, whatever the cue rate of the pretraining was.

        Raises
        ------
        UndeclaredDataError
            When the method's spec does not declare ``needs={"fully-cued"}``.
        """
        return self._declared(self._fully_cued)

    @property
    def all_fully_cued(self) -> CuedImages:
        """As `fully_cued`, with the images of `clean` and `validation` among them, which thus show their cues as well.

        Raises
        ------
        UndeclaredDataError
            When the method's spec does not declare ``needs={"fully-cued"}``.
        """
        return self._declared(self._all_fully_cued)

    def _declared(self, images: CuedImages | None) -> CuedImages:
        if "fully-cued" not in self.needs or images is None:
            raise UndeclaredDataError(
                'the method asked for fully cued images: declare needs={"fully-cued"} in its spec'
            )
        return images

    @property
    def environments(self) -> torch.Tensor:
        """The environment (N,) of each image of `cued`: 1 where it carries its own cue, else 0: none or another's.

        Where images come in groups, it is 1 where label and attribute are positively associated among them.

        Raises
        ------
        UndeclaredDataError
            When the method's spec does not declare ``needs={"cued", "environments"}``.
        """
        if "environments" not in self.needs or self._environments is None:
            raise UndeclaredDataError(
                'the method asked for task.environments: declare needs={"cued", "environments"} in its spec'
            )
        return self._environments

    @property
    def pool_environments(self) -> torch.Tensor:
        """The environment (N,) of each image of `clean`, then of each of `cued`.

        Every image of `clean` and `validation` is of environment 0, random cues or not, but where images come in
        groups: there its own label and attribute decide.

        Raises
        ------
        UndeclaredDataError
            When the method's spec does not declare ``needs={"cued", "environments"}``.
        """
        cued, clean = self.environments, self._clean_environments
        return torch.cat([cued.new_zeros(len(self.clean)) if clean is None else clean, cued])

    @property
    def pool_attributes(self) -> torch.Tensor:
        """The spurious attribute (N,) of each image of `clean`, then of each of `cued`, as a whole number.

        It is the class of the cue that an image carries, -1 for none. Where images come in groups, it is the attribute
        that the dataset gives. Where cues make no classes, an image with its own cue has its label's, all others none.

        Raises
        ------
        UndeclaredDataError
            When the method's spec does not declare ``needs={"cued", "environments"}``.
        """
        own = self.pool_environments == 1
        classes = self._cue_classes(torch.cat([self.clean.cues, self.cued.cues])) if self._cue_classes else None
        return torch.where(own, torch.cat([self.clean.labels, self.cued.labels]), -1) if classes is None else classes

    def untrained(self) -> Backbone:
        """Return a new network of the same architecture, in training mode, with weights that it draws at random.

        They come from torch's global generator, which is seeded for each cell. Weights that the backbone makes frozen
        are frozen.

        Raises
        ------
        UserError
            When the task was made by hand, and has no backbone to make.
        """
        if self._untrained is None:
            raise UserError("this task has no backbone to make a network of: take one from mmc_bench.task(…)")
        model, fresh = copy.deepcopy(self.pretrained), self._untrained()  # passes through copies of θ_C are counted
        model.load_state_dict(fresh.state_dict())
        for weight, new in zip(model.parameters(), fresh.parameters(), strict=True):
            weight.requires_grad_(new.requires_grad)
        return model.train()

    def training(
        self,
        *,
        lr: float,
        epochs: int,
        batch_size: int,
        weight_decay: float = 1e-4,
        schedule: Schedule = cosine,
        model: Backbone | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    ) -> Training[Backbone]:
        """Return the training of `model`, by default the task's own, on the clean images.

        Parameters
        ----------
        lr
            Initial learning rate.
        epochs
            Passes over the clean images.
        optimizer
            What to use instead of SGD with momentum .9, as `adam`.
        """
        return Training(
            model or self.model,
            self.clean,
            lr=lr,
            epochs=epochs,
            batch_size=batch_size,
            generator=self.generator,
            progress=self.progress,
            weight_decay=weight_decay,
            schedule=schedule,
            optimizer=optimizer,
        )


class Method(Protocol):
    """A fine-tuning method.

    Its class is made with its ``Config``, or without arguments and then given `config`.
    """

    def fine_tune(self, task: Task) -> Backbone:
        """Return the repaired model: the architecture of ``task.model``, with other weights."""
