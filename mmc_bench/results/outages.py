"""A results folder that waits while its disk is away for a short time, as a file server may be."""

import errno
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from mmc_bench.results.codec import DiskError, is_there
from mmc_bench.results.store import FOLDERS, Store
from mmc_bench.system.streams import notice

_NAMES = (
    *("EIO", "ENOENT", "ENODEV", "ENXIO", "EBUSY", "EAGAIN", "EINTR", "ENOLCK"),
    *("ESTALE", "EREMOTEIO", "ENOLINK", "ECOMM", "EPROTO", "EPIPE", "ESHUTDOWN", "ETIMEDOUT", "ENOTCONN"),
    *("ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EHOSTDOWN", "EHOSTUNREACH"),
    *("ENETDOWN", "ENETUNREACH", "ENETRESET"),
)

#: Errors of a disk that may be back soon; not every system has all of them.
PASSING = frozenset(getattr(errno, name) for name in _NAMES if hasattr(errno, name))

#: Seconds for which it may be away.
LONGEST_OUTAGE = 300.0

#: Seconds between two tries.
PAUSE = 1.0

#: Called with True when a wait begins, and with False when it ends.
ON_WAIT: ContextVar[Callable[[bool], object]] = ContextVar("on_wait", default=lambda waits: None)

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


def _patient(
    use: Callable[Concatenate[Store, Arguments], Returned],
) -> Callable[Concatenate[Store, Arguments], Returned]:
    """Return a method that does the same, again and again while the disk is away."""

    @wraps(use)
    def used(store: Store, /, *arguments: Arguments.args, **named: Arguments.kwargs) -> Returned:
        try:
            return _tried(store, *arguments, **named)
        except DiskError as error:
            if error.errno not in PASSING:
                raise
            notice(f"{error}: waiting for it, at most {LONGEST_OUTAGE / 60:g} minutes")
        last = time.monotonic() + LONGEST_OUTAGE
        ON_WAIT.get()(True)
        try:
            while True:
                time.sleep(PAUSE)
                try:
                    return _tried(store, *arguments, **named)
                except DiskError as error:
                    if error.errno not in PASSING or time.monotonic() > last:
                        raise
        finally:
            ON_WAIT.get()(False)

    def _tried(store: Store, /, *arguments: Arguments.args, **named: Arguments.kwargs) -> Returned:
        if not is_there(store.root / FOLDERS["pretraining"]):  # what is not mounted has no files, either
            raise DiskError(f"results folder {store.root} is gone", errno.ENOENT)
        return use(store, *arguments, **named)

    return used


class PatientStore(Store):
    """A results folder, writable once, that waits while its disk is away; after `LONGEST_OUTAGE` it raises as `Store`.

    What these methods call in turn does not wait a second time.
    """

    listing = _patient(Store.listing)
    find = _patient(Store.find)
    find_jobless = _patient(Store.find_jobless)
    find_failure = _patient(Store.find_failure)
    has_weights = _patient(Store.has_weights)
    lacks_predictions = _patient(Store.lacks_predictions)
    load_weights = _patient(Store.load_weights)
    kept_weights = _patient(Store.kept_weights)
    save = _patient(Store.save)
    save_weights = _patient(Store.save_weights)
    save_predictions = _patient(Store.save_predictions)
    save_jobless = _patient(Store.save_jobless)
    save_failure = _patient(Store.save_failure)
