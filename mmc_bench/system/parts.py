"""Seconds of a job by its parts: code says which part it is, and the clock of the job that runs adds up.

Parts may lie in each other: a second counts for the innermost part alone, so that all parts add up to the time since
the clock was made. The host's clock is read, and nothing waits for a device: what a GPU still has queued when a part
ends counts for the part that next waits for it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: What a record's parts are called, in the order of tables.
PARTS = ("start-up", "data", "training", "validation", "scoring", "batchnorm", "paths", "saving", "profiling", "other")

_REST = ""


class Clock:
    """Adds up seconds by part.

    Parameters
    ----------
    now
        Returns seconds.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now, self._mark = now, now()
        self._seconds: dict[str, float] = {}
        self._parts = [_REST]  # the innermost last

    def rest(self, name: str) -> None:
        """Count the time that no part has claimed yet as a part's."""
        self._charge()
        if rest := self._seconds.pop(_REST, 0.0):
            self._seconds[name] = self._seconds.get(name, 0.0) + rest

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of each part so far, what no part has claimed left out."""
        self._charge()
        return {name: seconds for name, seconds in self._seconds.items() if name != _REST}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of the block as a part's."""
        self._charge()
        depth = len(self._parts)
        self._parts.append(name)
        try:
            yield
        finally:
            self._charge()
            del self._parts[depth:]

    def _charge(self) -> None:
        now, part = self._now(), self._parts[-1]
        self._seconds[part] = self._seconds.get(part, 0.0) + now - self._mark
        self._mark = now


_CLOCK: ContextVar[Clock | None] = ContextVar("clock", default=None)


def running_clock() -> Clock | None:
    """Return the clock of the job that runs, if one does."""
    return _CLOCK.get()


@contextmanager
def timed(clock: Clock) -> Iterator[Clock]:
    """Let a clock count the parts of a block."""
    token = _CLOCK.set(clock)
    try:
        yield clock
    finally:
        _CLOCK.reset(token)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Count the time of a block, or of a decorated function, as a part's on the running clock, if there is one."""
    clock = _CLOCK.get()
    if clock is None:
        yield
        return
    with clock.part(name):
        yield
