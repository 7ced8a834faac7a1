"""The update step: SGD, its learning-rate schedule, and the loop over the batches of all epochs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NotRequired, TypedDict, TypeVar

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, MultiStepLR

from mmc_bench.training.graphs import Graphs
from mmc_bench.training.progress import Progress

Batch = TypeVar("Batch")

#: Makes the schedule of an optimiser for a number of steps.
Schedule = Callable[[torch.optim.Optimizer, int], LRScheduler]


def cosine(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """Return a schedule that falls from the optimiser's learning rate to 0 as a cosine, a step at a time."""
    return CosineAnnealingLR(optimizer, T_max=max(steps, 1))


def constant(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """Return a schedule that leaves the learning rate as it is."""
    return LambdaLR(optimizer, lambda step: 1.0)


def stepped(drops: Sequence[float], factor: float) -> Schedule:
    """Return what makes a schedule that multiplies the learning rate by `factor` at each fraction of all steps."""
    return lambda optimizer, steps: MultiStepLR(optimizer, [round(drop * steps) for drop in drops], gamma=factor)


def adam(parameters: Iterable[torch.Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return Adam (Kingma and Ba, 2015) in its fused form, whose steps never wait for the device."""
    return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)


class DescentSettings(TypedDict):
    """The parameters of `Descent` that a `mmc_bench.training.Training` passes on."""

    lr: float
    epochs: int
    progress: Progress
    momentum: NotRequired[float]
    weight_decay: NotRequired[float]
    schedule: NotRequired[Schedule]
    optimizer: NotRequired[Callable[..., torch.optim.Optimizer] | None]


class Descent:
    """SGD, or another optimiser, on a loss that is computed in a loop over batches; each pass is one step::

        for rows in descent.each(epoch):
            descent.minimise(loss_of(rows))

    When a pass ends, the schedule advances, and `progress` gets the loss of the last update. No step waits for the
    device.

    Parameters
    ----------
    parameters
        What is trained.
    lr
        Initial learning rate.
    steps_per_epoch
        Batches of an epoch.
    momentum, weight_decay
        By default the paper's (App. A); the momentum is SGD's.
    schedule
        `cosine`, `constant`, or what `stepped` returns.
    optimizer
        What makes another optimiser than SGD of ``parameters, lr=…, weight_decay=…``, as `adam` does.
    graphs
        What replays steps on a GPU, for which SGD is fused, and its learning rate lies on the device.

    Attributes
    ----------
    steps
        Steps of all epochs.
    epoch, step
        Which of all epochs and steps this is, from 0.
    optimizer
        The optimiser.
    """

    def __init__(
        self,
        parameters: Iterable[torch.Tensor],
        *,
        lr: float,
        epochs: int,
        steps_per_epoch: int,
        progress: Progress,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        schedule: Schedule = cosine,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        graphs: Graphs | None = None,
    ) -> None:
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self.steps = epochs * steps_per_epoch
        self.epoch = self.step = 0
        self._graphs = None if optimizer else graphs
        make = optimizer or partial(torch.optim.SGD, momentum=momentum)
        if self._graphs:
            parameters = list(parameters)
            rate: float | torch.Tensor = torch.full((), lr, dtype=torch.float32, device=parameters[0].device)
            make, self._scheduled = partial(make, fused=True), _rate_alone(lr)
        else:
            rate = lr
        self.optimizer = make(parameters, lr=rate, weight_decay=weight_decay)
        self.optimizer.zero_grad(set_to_none=True)
        if self._graphs and momentum:  # a fused step wants all of them, or none
            for weight in parameters:
                self.optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        self._schedule = schedule(self._scheduled if self._graphs else self.optimizer, self.steps)
        self._progress = progress
        self._loss = torch.tensor(float("nan"))

    def each(
        self, batches: Callable[[], Iterable[Batch]], after_epoch: Callable[[], None] = lambda: None
    ) -> Iterator[Batch]:
        """Yield the batches of all epochs: those that ``batches()`` returns, called anew for each epoch.

        A batch is a tensor, or a tuple whose first member has the step's images or rows.

        Parameters
        ----------
        after_epoch
            Called after each epoch; what it does is not part of the epoch's time.

        Raises
        ------
        NonFiniteLossError
            When a loss of an epoch was NaN or infinite.
        """
        for epoch in self._progress.epochs(self.epochs, after_epoch):
            self.epoch = epoch
            for batch in batches():
                yield batch
                self._advance()
                self._progress.step(self._loss, _images_in(batch))
                self.step += 1

    def _advance(self) -> None:
        self._schedule.step()
        if self._graphs:
            self.optimizer.param_groups[0]["lr"].fill_(self._scheduled.param_groups[0]["lr"])

    def minimise(self, loss: torch.Tensor) -> None:
        """Update the weights once against the gradient of a loss, a scalar."""
        loss.backward()
        self.update(loss)

    def update(self, loss: torch.Tensor) -> None:
        """Update the weights once against the gradients that they hold, and drop these; the loss is for `progress`."""
        if self._graphs:
            self._lay_out_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._loss = loss.detach()

    def _lay_out_gradients(self) -> None:
        """Let gradients lie in memory as their weights do: a fused step on a GPU refuses others, on a CPU errs."""
        for weight in self.optimizer.param_groups[0]["params"]:
            if weight.grad is not None and weight.grad.stride() != weight.stride():
                weight.grad = torch.empty_like(weight).copy_(weight.grad)

    def forget_momentum(self) -> None:
        """Reset the optimiser's state, for another objective; the schedule goes on."""
        if not self._graphs:
            self.optimizer.state.clear()
        for state in self.optimizer.state.values():  # where captured steps find it
            state["momentum_buffer"].zero_()


def _rate_alone(lr: float) -> torch.optim.Optimizer:
    """Return an optimiser of nothing, for a schedule whose rate is copied to the device, and never read from there."""
    optimizer = torch.optim.SGD([torch.zeros(())], lr=lr)
    optimizer._opt_called = True  # type: ignore[attr-defined]  # else the schedule warns that it takes no step
    return optimizer


def _images_in(batch: Any) -> int:
    while isinstance(batch, tuple):
        batch = batch[0]
    return len(batch)
