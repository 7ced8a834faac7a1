"""What a process keeps when the code that changed it has returned: read, compared, and put back.

A plugin's code may set such things for all that comes after it in its process: torch's default dtype, the working
directory, a signal's handler. `kept` runs it and puts back what it changed.
"""

import gc
import locale
import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

#: Takes one sentence about what a plugin changed.
Note = Callable[[str], object]

#: No value: it cannot be read here, or differs between fresh processes.
UNKNOWN: Any = object()

#: Environment variables that libraries set for themselves when they are first used: they stay.
OF_LIBRARIES = ("CUDA_MODULE_LOADING", "KMP_", "TORCHINDUCTOR_", "TRITON_")


def to_value(name: str, before: Any, after: Any) -> str | None:
    """Describe a change by the new value."""
    return None if before == after else f"{name} to {after}"


def name_alone(name: str, before: Any, after: Any) -> str | None:
    """Describe a change of what is too long to show."""
    return None if before == after else name


def silently(name: str, before: Any, after: Any) -> None:
    """Describe no change: every plugin may make it."""


@dataclass(frozen=True)
class State:
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
    """

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], object]
    describe: Callable[[str, Any, Any], str | None] = to_value
    usual: Any = UNKNOWN

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
        after = self.value()
        clause = self.name if after is UNKNOWN else self.describe(self.name, before, after)
        if clause or self.describe is silently:
            with suppress(OSError, RuntimeError, ValueError):
                self.restore(before)
            if self.describe(self.name, before, self.value()):
                raise LastingChangeError(clause)
        return clause


class LastingChangeError(Exception):
    """A change that cannot be undone in this process; the message is a clause about it."""


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
    before = ProcessState.now().but_for_chance().but_for(*but)
    try:
        yield
    finally:
        if sentence := before.put_back().by(who):
            note(sentence)


@contextmanager
def lent() -> Iterator[None]:
    """Compute in a process that is somebody's: as in a fresh one meanwhile, and as they left it afterwards."""
    before = ProcessState.now()
    ProcessState.fresh().put_back()
    try:
        yield
    finally:
        before.put_back()


def states() -> tuple[State, ...]:
    """Return all states that can be read now: those of torch once it is imported."""
    if "torch" not in sys.modules or not hasattr(sys.modules["torch"], "compile"):  # it may be half imported
        return python_states()
    return _all_states()


@cache
def _all_states() -> tuple[State, ...]:
    from mmc_bench.system.torch_state import torch_states

    return (*torch_states(), *python_states())


@cache
def python_states() -> tuple[State, ...]:
    """Return what Python and the operating system keep."""
    found = (
        State("the working directory", os.getcwd, os.chdir),
        State("environment variables", lambda: dict(os.environ), _set_environment, _of_environment),
        State("warnings filters", _filters, _set_filters, _of_filters),
        State("the root logger", _root_logger, _set_root_logger, name_alone),
        State("signal handlers", _handlers, _set_handlers, name_alone),
        State("a pending alarm", lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0, _stop_alarm, name_alone),
        State("the umask", _umask, os.umask, lambda name, *values: to_value(name, *map(oct, values))),
        State("the locale", lambda: locale.setlocale(locale.LC_ALL), _set_locale),
        State("sys.path", lambda: list(sys.path), lambda path: _refill(sys.path, path), name_alone),
        State("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
        State("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable(), name_alone),
        State("sys.stdout or sys.stderr", lambda: (sys.stdout, sys.stderr), _set_streams, name_alone),
        State("how processes are started", _start_method, _set_start_method),
    )
    if not hasattr(os, "sched_getaffinity"):
        return found
    cores = State("the cores that it may use", lambda: os.sched_getaffinity(0), lambda of: os.sched_setaffinity(0, of))
    return (*found, cores)


def _set_environment(before: dict[str, str]) -> None:
    for name in _changed_variables(before, dict(os.environ)):
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]


def _of_environment(name: str, before: dict[str, str], after: dict[str, str]) -> str | None:
    changed = _changed_variables(before, after)
    return f"environment variable{'s' * (len(changed) > 1)} {', '.join(changed)}" if changed else None


def _changed_variables(before: dict[str, str], after: dict[str, str]) -> list[str]:
    if before == after:
        return []
    names = sorted({*before, *after})
    return [name for name in names if before.get(name) != after.get(name) and not name.startswith(OF_LIBRARIES)]


def _filters() -> tuple[Any, ...]:
    return list(warnings.filters), warnings.showwarning


def _set_filters(before: tuple[Any, ...]) -> None:
    warnings.resetwarnings()  # has what was shown or not shown before forgotten
    _refill(warnings.filters, before[0])  # type: ignore[arg-type]
    warnings.showwarning = before[1]


def _of_filters(name: str, before: tuple[Any, ...], after: tuple[Any, ...]) -> str | None:
    """Describe a change of filters for everything, or that raise; libraries add others when they are imported."""

    def far_reaching(filters: list[Any]) -> list[Any]:
        return [
            (action, category)
            for action, message, category, module, _ in filters
            if action == "error" or (message is None and module is None and category.__module__ == "builtins")
        ]

    same = far_reaching(before[0]) == far_reaching(after[0]) and before[1] is after[1]
    return None if same else name


def _root_logger() -> tuple[Any, ...]:
    root = logging.getLogger()
    return root.level, root.disabled, root.manager.disable, list(root.handlers)


def _set_root_logger(before: tuple[Any, ...]) -> None:
    root = logging.getLogger()
    root.setLevel(before[0])
    root.disabled, root.manager.disable = before[1:3]
    _refill(root.handlers, before[3])


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.Signals}


def _set_handlers(before: dict[int, Any]) -> None:
    """Set handlers again; only the main thread may, and what is not Python's (None) cannot be set from here."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)


def _stop_alarm(was_pending: bool) -> None:
    if not was_pending:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _umask() -> int:
    with suppress(OSError, ValueError):  # reading it by setting it would reach files made meanwhile
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("Umask:")[2].split(maxsplit=1)[0], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _set_locale(before: str) -> None:
    with suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, before)


def _set_streams(before: tuple[Any, Any]) -> None:
    sys.stdout, sys.stderr = before


def _start_method() -> str | None:
    return multiprocessing.get_start_method(allow_none=True)


def _set_start_method(before: str | None) -> None:
    multiprocessing.set_start_method(before, force=True)


def _refill(values: list[Any], before: list[Any]) -> None:
    """Give a list, which others may hold, its values back."""
    values[:] = before
