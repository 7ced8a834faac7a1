"""State of the whole process that outlives the code that changed it: read, compared, and put back.

A plugin's code may set such things for all that comes after it in its process: torch's default dtype, the working
directory, a signal's handler. `kept` runs it and puts back what it changed.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self

from mmc_bench.system.kept_states import UNKNOWN, KeptState, LastingChangeError, silently
from mmc_bench.system.python_state import python_states

#: Takes one sentence about what a plugin changed.
Note = Callable[[str], object]


@dataclass(frozen=True)
class Changes:
    """What was found changed, as clauses: put back, or there to stay."""

    undone: tuple[str, ...] = ()
    lasting: tuple[str, ...] = ()

    def by(self, who: str) -> str | None:
        """Return one sentence that names who made the changes, or None when there are none."""
        parts = []
        if self.undone:
            parts.append(f"changed {_listed(self.undone)}, which was put back")
        if self.lasting:
            parts.append(f"changed {_listed(self.lasting)}, which cannot be put back")
        return f"{who} {' and '.join(parts)}" if parts else None


def _listed(clauses: tuple[str, ...]) -> str:
    return " and ".join(filter(None, (", ".join(clauses[:-1]), clauses[-1])))


@dataclass(frozen=True)
class ProcessState:
    """The states of this process at one moment."""

    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def now(cls) -> Self:
        """Read all states."""
        return cls({state.name: state.value() for state in states()})

    @classmethod
    def fresh(cls) -> Self:
        """Return the states as they are now, with those that decide numbers as in a fresh process."""
        now = {state.name: state.value() for state in states()}
        return cls({**now, **{state.name: state.usual for state in states() if state.usual is not UNKNOWN}})

    def put_back(self) -> Changes:
        """Give the process these states again, and return what had changed.

        What could not be read then, since its library was not imported, becomes what it is in a fresh process.
        """
        undone, lasting = [], []
        for state in states():
            before = self.values.get(state.name, state.usual)
            if before is UNKNOWN:
                continue
            try:
                clause = state.put_back(before)
            except LastingChangeError as change:
                lasting.append(str(change))
            else:
                undone += [clause] if clause else []
        return Changes(tuple(undone), tuple(lasting))

    def but_for_chance(self) -> Self:
        """Return these states without those of random number generators, which plugins may draw from."""
        return self.but_for(*(state.name for state in states() if state.describe is silently))

    def but_for(self, *names: str) -> Self:
        """Return these states without some, which are then not put back."""
        return type(self)({**self.values, **dict.fromkeys(names, UNKNOWN)})


class Keeper:
    """Runs one plugin's code after another as `kept` does, and reads the states again only where they may differ.

    Parameters
    ----------
    but
        States that the code may change.
    """

    def __init__(self, but: Sequence[str] = ()) -> None:
        self._but = but
        self._before: ProcessState | None = None
        self._modules = 0

    @contextmanager
    def kept(self, who: str, note: Note) -> Iterator[None]:
        """Run a plugin's code, put back what it changed of the process, and say so in one sentence."""
        if self._before is None or self._modules != len(sys.modules):  # what was imported has states of its own
            self._before, self._modules = ProcessState.now().but_for_chance().but_for(*self._but), len(sys.modules)
        try:
            yield
        finally:
            changes = self._before.put_back()
            if changes.lasting:
                self._before = None
            if sentence := changes.by(who):
                note(sentence)


@contextmanager
def kept(who: str, note: Note, but: Sequence[str] = ()) -> Iterator[None]:
    """Run a plugin's code, put back what it changed of the process, and say so in one sentence.

    Random number generators go on from where it left them.

    Parameters
    ----------
    who
        The plugin, as the sentence begins: ``"method mine"``.
    but
        States that it may change.
    """
    with Keeper(but).kept(who, note):
        yield


@contextmanager
def as_if_fresh() -> Iterator[None]:
    """Give this process the states of a fresh one inside the block, and restore the caller's states after it."""
    before = ProcessState.now()
    ProcessState.fresh().put_back()
    try:
        yield
    finally:
        before.put_back()


def states() -> tuple[KeptState, ...]:
    """Return all states that can be read now: those of torch once it is imported."""
    if "torch" not in sys.modules or not hasattr(sys.modules["torch"], "compile"):  # it may be half imported
        return python_states()
    return _all_states()


@cache
def _all_states() -> tuple[KeptState, ...]:
    from mmc_bench.system.torch_state import torch_states

    return (*torch_states(), *python_states())
