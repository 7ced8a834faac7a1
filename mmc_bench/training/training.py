"""Training a network on batches of images."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar, Unpack

import torch
from torch import nn

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.data.micro_batches import micro_batches
from mmc_bench.errors import UserError
from mmc_bench.system.tally import tallied
from mmc_bench.training.backbone import features, logits
from mmc_bench.training.compiled import Forward, UncompiledError, compiled, fused, is_worth_compiling, why_uncompiled
from mmc_bench.training.descent import Descent, DescentSettings
from mmc_bench.training.graphs import graphs_on, places_of
from mmc_bench.training.memory import PROBED_IMAGES, backward_in_parts, couples_images
from mmc_bench.training.passes import note_pass
from mmc_bench.training.precision import cross_entropy

Network = TypeVar("Network", bound=nn.Module)
Images = tuple[torch.Tensor, torch.Tensor]  # (n, …), and labels (n,)


class Training(Descent, Generic[Network]):
    """SGD on a network's weights, in place, with a loss on batches of images::

        training = task.training(lr=0.01, epochs=20, batch_size=256)
        for x, y in training.batches():
            training.minimise(cross_entropy(training.logits(x), y))

    `logits` and `features` run compiled code in a long training on a GPU; where it cannot be compiled, the run says so,
    and this training goes on without.

    Parameters
    ----------
    model
        The network; only `fit` puts it into training mode.
    images
        What an epoch passes over once.
    generator
        Source of the batches' order.
    parameters
        What is trained, if not the network's own parameters.

    The others are those of `Descent`.

    Raises
    ------
    UserError
        When the images make no batch.
    """

    def __init__(
        self,
        model: Network,
        images: CuedImages,
        *,
        batch_size: int,
        generator: torch.Generator,
        parameters: Iterable[torch.Tensor] | None = None,
        **settings: Unpack[DescentSettings],
    ) -> None:
        if not images.steps(batch_size):
            raise UserError(f"a set of {len(images)} images makes no batch to train on")
        device = images.labels.device
        self._trained = list(model.parameters() if parameters is None else parameters)
        graphs = graphs_on(device)
        self._recorder = graphs.recorder if graphs else None
        super().__init__(self._trained, steps_per_epoch=images.steps(batch_size), graphs=graphs, **settings)
        self.model, self.images, self.batch_size, self.generator = model, images, batch_size, generator
        self._compiles = is_worth_compiling(device, self.steps)
        if not self._compiles:
            self._progress.compiler.runs_without(why_uncompiled(device, self.steps))
        self._marked = -1  # the last step that was marked for CUDA graphs
        self._sums = torch.zeros(2, device=device)  # of the losses and of what is right, in an epoch of `fit`
        self._is_whole = False  # whether the step that runs is captured as a whole

    def batches(self, after_epoch: Callable[[], None] = lambda: None) -> Iterator[Images]:
        """Yield the batches of all epochs, each epoch in a new random order: see `each`."""
        return self.each(lambda: self.images.shuffled(self.batch_size, self.generator), after_epoch)

    def pairs(self, others: CuedImages) -> Iterator[tuple[Images, Images]]:
        """Yield the batches of all epochs, each with one of `others`, which are gone through again and again."""
        stream = others.stream(self.batch_size, self.generator)
        return self.each(lambda: ((own, next(stream)) for own in self.images.shuffled(self.batch_size, self.generator)))

    def paired_rows(self, chances: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield rows (2n,) of ``images.joined(others)``: the batches of all epochs, each with as many of `others`.

        Parameters
        ----------
        chances
            For each of `others`, (M,), in proportion to what it is drawn, with replacement.
        """

        def epoch() -> Iterator[torch.Tensor]:
            for rows in self.images.shuffled_rows(self.batch_size, self.generator):
                drawn = torch.multinomial(chances, len(rows), replacement=True, generator=self.generator)
                yield torch.cat([rows, len(self.images) + drawn])

        return self.each(epoch)

    def take(self, step: Callable[..., None], *inputs: torch.Tensor | float, form: Hashable = None) -> None:
        """Take one step: call ``step(*inputs)``, which updates the weights by `minimise` or `update`.

        On a GPU the whole step, once captured as a CUDA graph, is replayed without running Python; numbers become
        scalars on the device. So whatever differs between two steps must be an input, change in place on the device,
        or be part of the form: `epoch` and `step` are, inside a step, those of its capture. Where a step cannot be
        captured, the run says so, and it is called as it is. A step begins without gradients.

        Parameters
        ----------
        inputs
            The step's batches, and numbers.
        form
            What else the step depends on, besides its code, and which modules and weights train. A training defines a
            step once: two of the same code, with other values around them, are one.
        """
        graphs = self._graphs
        if graphs:
            self._progress.replayed(graphs)
        if not graphs or graphs.why_not:
            self.optimizer.zero_grad(set_to_none=True)
            step(*inputs)
            return

        def whole(*inputs: torch.Tensor) -> tuple[torch.Tensor]:
            self.optimizer.zero_grad(set_to_none=True)
            self._is_whole = True
            try:
                step(*inputs)
            finally:
                self._is_whole = False
            return (self._loss,)

        like = self._trained[0]
        tensors = [one if isinstance(one, torch.Tensor) else like.new_full((), one) for one in inputs]
        modes = tuple(module.training for module in self.model.modules())
        modes += tuple(weight.requires_grad for weight in self._trained)
        form = (form, getattr(step, "__code__", step), modes)
        places = dict.fromkeys((*places_of(self.model), *self._trained))
        (self._loss,) = graphs.run(whole, *tensors, form=form, places=places)
        self._progress.replayed(graphs)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the network's logits (n, K) of images, in float32 or better."""
        return self._run(logits, x)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the last linear layer sees of images, in float32 or better, of shape (n, F)."""
        return self._run(features, x)

    def _run(self, forward: Forward, x: torch.Tensor) -> torch.Tensor:
        if not self._compiles or len(x) % self.batch_size:  # an epoch's smaller last batch is not worth other code
            return forward(self.model, x)
        graphs, recorder = self._graphs, self._recorder
        # Beside captured steps, and where captures failed, compiled code has no CUDA graphs of its own.
        is_fused = self._is_whole or bool(graphs and graphs.replays) or bool(recorder and recorder.why_not)
        if not is_fused and self._marked != self.step:
            torch.compiler.cudagraph_mark_step_begin()
            self._marked = self.step
        with tallied(None):  # where it cannot be compiled, it would count itself
            try:
                outputs = self._progress.compiler.run(fused if is_fused else compiled, forward, self.model, x)
            except UncompiledError as error:
                outputs = forward(self.model, x)  # if the network is to blame, this says so
                self._compiles = False
                self._progress.is_uncompiled(str(error))
        note_pass(outputs)
        return outputs

    def fit(self, on_epoch: Callable[[torch.Tensor, torch.Tensor], None] | None = None) -> Network:
        """Minimise the cross-entropy, and return the network in training mode.

        After memory ran out, gradients are summed over micro-batches, unless the network couples a batch's images.

        Parameters
        ----------
        on_epoch
            Called as ``on_epoch(loss, accuracy)`` after each epoch with the running means over its batches,
            scalars on the device; what it does is not part of the epoch's time.

        Raises
        ------
        NonFiniteLossError
            When a loss is NaN or infinite.
        """
        loss_sum, correct = self._sums
        self._sums.zero_()
        seen = 0

        def finish_epoch() -> None:
            nonlocal seen
            if on_epoch is not None:
                on_epoch(loss_sum / seen, correct / seen)
                self._sums.zero_()
                seen = 0

        parts = micro_batches()
        if parts > 1 and couples_images(self.model, self.images.batch(slice(PROBED_IMAGES))[0]):
            parts = 1
        self.model.train()

        def step(x: torch.Tensor, y: torch.Tensor) -> None:
            if parts > 1:
                loss, outputs = backward_in_parts(self.model, x, y, parts)
                self.update(loss)
            else:
                outputs = self.logits(x)
                loss = cross_entropy(outputs, y)
                self.minimise(loss)
            if on_epoch is not None:
                loss_sum.add_(loss.detach() * len(y))
                correct.add_((outputs.detach().argmax(1) == y).sum())

        for x, y in self.batches(finish_epoch):
            self.take(step, x, y, form=on_epoch is None)
            seen += len(y)
        return self.model
