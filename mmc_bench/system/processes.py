"""The identity of a process on a machine, unique also after it has ended; what it started; the cores it may use.

And how many threads it is to have, and whether the cores multiply in bfloat16.
"""

import math
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

#: Flags by which a processor says that it multiplies in bfloat16.
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})

#: What drivers of NVIDIA's and AMD's GPUs offer a program, also on a Jetson and under Windows.
GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvmap", "/dev/kfd", "/dev/dxg")


@dataclass(frozen=True)
class ProcessId:
    """A process, as another one can recognise it.

    `machine` names one boot of one machine and one space of process numbers (containers have their own); it is empty
    where the system does not tell. `born` is the start time in the kernel's ticks since then, so that a process that
    was given an old number is not taken for its predecessor.
    """

    host: str
    machine: str
    pid: int
    born: str

    @property
    def is_gone(self) -> bool:
        """Whether the process is known to have ended; of one on another machine, nothing is known."""
        if not self.machine or self.machine != this_process().machine:
            return False
        born = _born(self.pid)
        return not _is_there(self.pid) if born is None else born != self.born

    @property
    def tag(self) -> str:
        """The process as part of a file's name, without its host."""
        return f"{self.machine or '-'}.{self.pid}.{self.born or '-'}"


def this_process() -> ProcessId:
    """Return the process that calls."""
    return _process(os.getpid())


def tagged(text: str) -> ProcessId | None:
    """Return the process whose `tag` this is, or None when it is none."""
    parts = text.split(".")
    if len(parts) != 3 or not parts[1].isdecimal():
        return None
    machine, pid, born = ("" if part == "-" else part for part in parts)
    return ProcessId(host="", machine=machine, pid=int(pid), born=born)


def _is_there(pid: int) -> bool:
    """Tell whether there is a process; of other users', /proc may show nothing."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@cache
def _process(pid: int) -> ProcessId:  # by number, because a forked process is another one
    import socket

    return ProcessId(host=socket.gethostname(), machine=_machine(), pid=pid, born=_born(pid) or "")


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", "")
        space = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        return ""
    return f"{boot[:16]}{space}"


def _born(pid: int) -> str | None:
    """Return when a process started, an empty string when it has ended, or None when nothing is shown of it."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return "" if state in "ZX" else fields[18]


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and that these started; none where the system does not say."""
    children = defaultdict(list)
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            _, parent, *_ = file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            children[int(parent)].append(int(file.parent.name))
    found = list(children[pid])
    for child in found:  # grows meanwhile
        found += children[child]
    return found


def kill_all(pids: Iterable[int]) -> None:
    """Kill processes, of which some may have ended."""
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def available_cores() -> int:
    """Return how many cores this process may use, by its affinity and by the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = container_quota()
    return cores if quota is None else min(cores, math.ceil(quota))


def container_quota(groups: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return how many cores Linux grants the container, by its control groups of version 2 or 1; None without a limit.

    joblib reads the same files, and falls back to one core where a container has no shared memory.
    """
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with suppress(OSError, ValueError):  # "max 100000" and -1 are no quota
            quota, period = map(int, " ".join((groups / file).read_text(encoding="ascii") for file in files).split())
            if quota > 0 and period > 0:
                return quota / period
    return None


def threads_of_environment() -> int | None:
    """Return the number of threads that OMP_NUM_THREADS asks for, the first where it lists more; None without one."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def multiplies_in_bf16() -> bool:
    """Tell whether the processor has instructions that multiply in bfloat16, as far as Linux says."""
    return bool(BF16_FLAGS & {*cpu_info("flags", "Features").split()})


def cpu_info(*names: str) -> str:
    """Return what Linux says of the first processor under one of these names; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")


def may_have_gpu() -> bool:
    """Return whether a GPU's driver is there, without importing torch; outside Linux, True."""
    return sys.platform != "linux" or any(Path(device).exists() for device in GPU_DEVICES)
