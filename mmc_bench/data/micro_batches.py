"""Into how many micro-batches batches are cut meanwhile: one, unless memory ran out before."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_PARTS = ContextVar("micro_batches", default=1)


def micro_batches() -> int:
    """Return how many parts a batch is to be computed in, wherever that changes no result beyond rounding."""
    return _PARTS.get()


@contextmanager
def cut_into(parts: int) -> Iterator[None]:
    """Let batches be computed in so many parts for a while."""
    token = _PARTS.set(parts)
    try:
        yield
    finally:
        _PARTS.reset(token)
