"""One thing that a process keeps: its name, how it is read and set, and how a change of it is described."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

#: No value: it cannot be read here, or differs between fresh processes.
UNKNOWN: Any = object()


def to_value(name: str, before: Any, after: Any) -> str | None:
    """Describe a change by its new value."""
    return None if before == after else f"{name} to {after}"


def name_alone(name: str, before: Any, after: Any) -> str | None:
    """Describe a change by its name alone, where values are too long to show."""
    return None if before == after else name


def silently(name: str, before: Any, after: Any) -> None:
    """Describe no change: plugins may change this state, as they do by drawing random numbers."""


@dataclass(frozen=True)
class KeptState:
    """One thing that a process keeps.

    Attributes
    ----------
    name
        As it stands in a sentence: ``"torch's default dtype"``.
    read
        Returns its value.
    restore
        Sets a value that was read.
    describe
        Called as ``describe(name, before, after)``; returns a clause about a change, or None when there is none.
    usual
        Its value in a fresh process, where that decides numbers.
    compares_itself
        Whether `describe` looks at the process itself, so that no value after a change is read for it.
    """

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], object]
    describe: Callable[[str, Any, Any], str | None] = to_value
    usual: Any = UNKNOWN
    compares_itself: bool = False

    def value(self) -> Any:
        """Return its value, or UNKNOWN where it cannot be read."""
        try:
            return self.read()
        except (OSError, RuntimeError):
            return UNKNOWN

    def put_back(self, before: Any) -> str | None:
        """Set it to an earlier value, and return a clause about the change, or None when there was none.

        Raises
        ------
        LastingChangeError
            When it keeps its new value.
        """
        after = self._now()
        clause = self.name if after is UNKNOWN else self.describe(self.name, before, after)
        if clause or self.describe is silently:
            with suppress(OSError, RuntimeError, ValueError):
                self.restore(before)
            if self.describe(self.name, before, self._now()):
                raise LastingChangeError(clause)
        return clause

    def _now(self) -> Any:
        return None if self.compares_itself else self.value()


class LastingChangeError(Exception):
    """A change that cannot be undone in this process; the message is a clause about it."""
