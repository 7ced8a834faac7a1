"""What a training loop reports: losses stay on the device until an epoch ends."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from mmc_bench.errors import UserError
from mmc_bench.training.compiled import Compiler
from mmc_bench.training.graphs import Graphs


class NonFiniteLossError(UserError):
    """The loss became NaN or infinite."""


class Progress:
    """Counts epochs and steps, checks the losses, and reports once an epoch.

    Parameters
    ----------
    report
        Gets one dictionary an epoch: ``epoch``, ``epochs``, ``loss``, ``images_per_second``; and a ``note`` when
        compiling or capturing fails.

    Attributes
    ----------
    images, seconds
        What was trained on so far, and how long it took; the time of compiling is no part of it, nor of an epoch's.
    last_loss
        The mean over the last epoch (nats).
    compiler
        Runs compiled code, and keeps what came of it.
    is_replayed, why_not_replayed
        Whether steps were replayed as CUDA graphs, and what failed where they no longer are.
    """

    def __init__(self, report: Callable[[dict[str, Any]], None] = lambda event: None) -> None:
        self._report = report
        self._losses: list[torch.Tensor] = []
        self._steps = 0
        self._epoch_images = 0
        self.images = 0
        self.seconds = 0.0
        self.last_loss = float("nan")
        self.compiler = Compiler()
        self.is_replayed = False
        self.why_not_replayed: str | None = None

    def epochs(self, n: int, after: Callable[[], None] = lambda: None) -> Iterator[int]:
        """Yield 0 … n-1; after each epoch check that its losses are finite, report, and call `after`.

        What `after` does is not part of the epoch's time.

        Raises
        ------
        NonFiniteLossError
            When a loss of the epoch was NaN or infinite; the message names the step.
        """
        for epoch in range(n):
            start, compiling = time.perf_counter(), self.compiler.seconds
            self._epoch_images = 0
            yield epoch
            self._check(epoch)
            elapsed = time.perf_counter() - start - (self.compiler.seconds - compiling)
            self.images += self._epoch_images
            self.seconds += elapsed
            self._report(
                {
                    "epoch": epoch + 1,
                    "epochs": n,
                    "loss": self.last_loss,
                    "images_per_second": self._epoch_images / elapsed if elapsed else 0.0,
                }
            )
            after()

    def step(self, loss: torch.Tensor, images: int) -> None:
        """Note one optimiser step: its loss (a scalar on the device, kept there) and its images."""
        self._losses.append(loss.detach())
        self._epoch_images += images

    def is_uncompiled(self, why: str) -> None:
        """Note that a training goes on without compiled code, since compiling failed; a run says it once."""
        self.compiler.runs_without(why)
        self._report({"note": f"compiling failed, and trainings go on without: {why}", "once": True})

    def replayed(self, graphs: Graphs) -> None:
        """Note what came of replaying steps as CUDA graphs; where that fails, a run says so once."""
        self._is_replayed(graphs.replays > 0, graphs.why_not)

    def include(self, other: "Progress") -> None:
        """Count another's images and seconds as this one's, and note what came of CUDA graphs there."""
        self.images += other.images
        self.seconds += other.seconds
        self._is_replayed(other.is_replayed, other.why_not_replayed)

    def _is_replayed(self, replayed: bool, why_not: str | None) -> None:
        self.is_replayed |= replayed
        if why_not and not self.why_not_replayed:
            self.why_not_replayed = why_not
            self._report({"note": f"CUDA graphs failed, and steps run without: {why_not}", "once": True})

    def _check(self, epoch: int) -> None:
        if not self._losses:
            return
        losses = torch.stack(self._losses)
        finite = torch.isfinite(losses).tolist()
        if not all(finite):
            step = finite.index(False)
            raise NonFiniteLossError(
                f"the loss became {losses[step].item()} at step {self._steps + step + 1} (epoch {epoch + 1}): "
                "a smaller learning rate may help"
            )
        self.last_loss = losses.mean().item()
        self._steps += len(losses)
        self._losses.clear()
