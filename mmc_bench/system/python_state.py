"""What Python and the operating system keep for the whole process; see `mmc_bench.system.process_state`."""

import gc
import locale
import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from mmc_bench.system.kept_states import KeptState, name_alone, to_value

#: Environment variables that libraries set for themselves when they are first used: they stay.
OF_LIBRARIES = ("CUDA_MODULE_LOADING", "KMP_", "TORCHINDUCTOR_", "TRITON_")


@cache
def python_states() -> tuple[KeptState, ...]:
    """Return what Python and the operating system keep."""
    found = (
        KeptState("the working directory", os.getcwd, os.chdir),
        KeptState("environment variables", lambda: dict(os.environ), _set_environment, _of_environment),
        KeptState("warnings filters", _filters, _set_filters, _of_filters),
        KeptState("the root logger", _root_logger, _set_root_logger, name_alone),
        KeptState("signal handlers", _handlers, _set_handlers, name_alone),
        KeptState("a pending alarm", lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0, _stop_alarm, name_alone),
        KeptState("the umask", _umask, os.umask, lambda name, *values: to_value(name, *map(oct, values))),
        KeptState("the locale", lambda: locale.setlocale(locale.LC_ALL), _set_locale),
        KeptState("sys.path", lambda: list(sys.path), lambda path: _refill(sys.path, path), name_alone),
        KeptState("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
        KeptState("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable(), name_alone),
        KeptState("sys.stdout or sys.stderr", lambda: (sys.stdout, sys.stderr), _set_streams, name_alone),
        KeptState("how processes are started", _start_method, _set_start_method),
    )
    if not hasattr(os, "sched_getaffinity"):
        return found
    cores = KeptState(
        "the cores that it may use", lambda: os.sched_getaffinity(0), lambda of: os.sched_setaffinity(0, of)
    )
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
    warnings.resetwarnings()  # also clears the memory of warnings that were shown once
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
    """Return the handlers of all signals but SIGCHLD, which libraries that start processes listen to."""
    return {number: signal.getsignal(number) for number in signal.Signals if number.name not in ("SIGCHLD", "SIGCLD")}


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
    with suppress(OSError, ValueError):  # the other way, setting it, affects files that threads make at that moment
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


def _start_method() -> str:
    """Return how processes are started; the first process that is started only settles the default."""
    return multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]


def _set_start_method(before: str) -> None:
    multiprocessing.set_start_method(before, force=True)


def _refill(values: list[Any], before: list[Any]) -> None:
    """Give a list, which others may hold, its values back."""
    values[:] = before
