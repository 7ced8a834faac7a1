"""A disk that is unavailable for a short time, as a file server may be: what meets that waits, and is done again."""

import errno
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from mmc_bench.results.codec import DiskError
from mmc_bench.results.store import Store
from mmc_bench.system.streams import notice

#: Errors of a disk that stays as it is.
FINAL = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG),
)

#: Seconds for which it may be unavailable.
LONGEST_OUTAGE = 300.0

#: Seconds between two tries.
PAUSE = 1.0

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


def _patient(use: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Return what does the same, again and again while the disk is unavailable."""

    @wraps(use)
    def used(*arguments: Arguments.args, **named: Arguments.kwargs) -> Returned:
        last: float | None = None
        while True:
            try:
                return use(*arguments, **named)
            except DiskError as error:
                if error.errno in FINAL or (last is not None and time.monotonic() > last):
                    raise
                if last is None:
                    last = time.monotonic() + LONGEST_OUTAGE
                    notice(f"{error}: waiting for its disk, at most {LONGEST_OUTAGE / 60:g} minutes")
            time.sleep(PAUSE)

    return used


class PatientStore(Store):
    """A results folder that waits while its disk is unavailable; it raises as `Store` does after `LONGEST_OUTAGE`."""

    find = _patient(Store.find)
    done = _patient(Store.done)
    find_jobless = _patient(Store.find_jobless)
    find_failure = _patient(Store.find_failure)
    load_weights = _patient(Store.load_weights)
    kept_weights = _patient(Store.kept_weights)
    save = _patient(Store.save)
    save_weights = _patient(Store.save_weights)
    save_predictions = _patient(Store.save_predictions)
    save_jobless = _patient(Store.save_jobless)
    save_failure = _patient(Store.save_failure)
