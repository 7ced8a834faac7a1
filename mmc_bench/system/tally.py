"""What a training looks at and computes: code says what it does, and the tally of the training that runs adds up."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: What a training may have images for.
ROLES = ("clean", "cued", "validation")


class Tally:
    """Counts the images, optimiser steps and passes of one training. Nothing waits for a device until `counts`.

    Attributes
    ----------
    optimiser_steps
        Updates of weights.
    forward_passes, backward_passes
        How often an image went through a network, and a gradient back through it.
    """

    def __init__(self) -> None:
        self.optimiser_steps = self.forward_passes = self.backward_passes = 0
        self._images: Counter[str] = Counter()
        self._mixed: torch.Tensor | None = None  # (R,) of sets that have images of several roles, on their device

    def visit(self, role: "str | torch.Tensor", images: int) -> None:
        """Count the images of a batch, all of one role, or each of the role that is true in its row (n, R)."""
        if isinstance(role, str):
            self._images[role] += images
        else:
            self._mixed = role.sum(0) if self._mixed is None else self._mixed + role.sum(0)

    @property
    def passes(self) -> tuple[int, ...]:
        """Passes forward and backward, and optimiser steps, so far."""
        return self.forward_passes, self.backward_passes, self.optimiser_steps

    @passes.setter
    def passes(self, counts: tuple[int, ...]) -> None:
        self.forward_passes, self.backward_passes, self.optimiser_steps = counts

    @property
    def counts(self) -> dict[str, int]:
        """The numbers so far, by the names that a record's budget has."""
        mixed = [0] * len(ROLES) if self._mixed is None else self._mixed.tolist()
        return {
            **{f"{role}_images": self._images[role] + more for role, more in zip(ROLES, mixed, strict=True)},
            "optimiser_steps": self.optimiser_steps,
            "forward_passes": self.forward_passes,
            "backward_passes": self.backward_passes,
        }


_TALLY: ContextVar[Tally | None] = ContextVar("tally", default=None)


def running_tally() -> Tally | None:
    """Return the tally of the training that runs, if one does."""
    return _TALLY.get()


@contextmanager
def tallied(tally: Tally | None) -> Iterator[None]:
    """Let a tally count what a block does; with None nothing is counted."""
    token = _TALLY.set(tally)
    try:
        yield
    finally:
        _TALLY.reset(token)
