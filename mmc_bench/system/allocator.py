"""What glibc's `malloc` does with memory that is freed."""

import sys
from collections.abc import Callable

#: `mallopt`'s numbers (malloc.h): the size from which a block is mapped by itself, and how much free memory may lie at
#: the end of the heap.
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1

#: Thresholds in bytes: what is asked for, and what older versions of glibc accept.
LARGEST, LARGEST_IN_OLD_GLIBC = 2**30, 2**25


def keep_freed_memory() -> bool:
    """Let this process use freed memory again instead of asking the kernel for more; return whether it does.

    By default glibc returns large blocks to the kernel, which fills each page with zeros when it is touched anew. The
    activations of a batch are such blocks, and come and go with every step. Older versions of glibc keep blocks of up
    to 32 MB.
    """
    mallopt = _function("mallopt")
    if mallopt is None:
        return False
    mapped = mallopt(MMAP_THRESHOLD, LARGEST) or mallopt(MMAP_THRESHOLD, LARGEST_IN_OLD_GLIBC)
    # Either ends glibc's own adjustment of both, so one alone would leave the other at 128 KB.
    return bool(mapped and mallopt(TRIM_THRESHOLD, LARGEST))


def return_freed_memory() -> None:
    """Give the kernel all pages that hold nothing; where there is no glibc, nothing happens."""
    if trim := _function("malloc_trim"):
        trim(0)


def _function(name: str) -> Callable[..., int] | None:
    import ctypes  # here, since commands that compute nothing load this file too

    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
