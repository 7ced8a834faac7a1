"""What a method is given."""

from dataclasses import dataclass

import torch
from torch import nn

from mmc_bench.data.splits import CuedImages
from mmc_bench.errors import UserError
from mmc_bench.training.progress import Progress


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
        Cue-free training images that were held out of pretraining.
    validation
        Another such set, for choosing anything.
    num_classes
        K.
    device
        Where everything lies.
    generator
        Source of randomness on `device`, seeded from the experiment's seed; torch's global one is seeded too.
    progress
        To be told of every step: ``for epoch in task.progress.epochs(n)`` and ``task.progress.step(loss, n)``.
    """

    model: nn.Module
    pretrained: nn.Module
    clean: CuedImages
    validation: CuedImages
    num_classes: int
    device: torch.device
    generator: torch.Generator
    progress: Progress
    needs: frozenset[str] = frozenset()
    _cued: CuedImages | None = None

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
    def environments(self) -> torch.Tensor:
        """The environment (N,) of each image of `cued`: 1 where it carries its cue, 0 where it carries none.

        Every image of `clean` and `validation` is of environment 0.

        Raises
        ------
        UndeclaredDataError
            When the method's spec does not declare ``needs={"cued", "environments"}``.
        """
        if "environments" not in self.needs:
            raise UndeclaredDataError(
                'the method asked for task.environments: declare needs={"cued", "environments"} in its spec'
            )
        return self.cued.cues.reshape(len(self.cued), -1)[:, 0].ge(0).long()
