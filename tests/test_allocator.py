"""Memory that a worker frees: used again within a job, given back after it."""

import os
import platform
import subprocess
import sys

import pytest

from mmc_bench.system import allocator

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

#: Without a change, every block of 24 MB is then mapped, filled with zeros and unmapped. Older versions of glibc, too,
#: can serve it from the heap.
MAPPED = {"MALLOC_MMAP_THRESHOLD_": str(2**17)}

COUNTING = """
import resource
from mmc_bench.system.allocator import keep_freed_memory, return_freed_memory

def pages_of(n):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n):
        bytearray(24 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() // 2**20

plain = pages_of(4)
assert keep_freed_memory()
pages_of(1)
kept, held = pages_of(4), resident()
return_freed_memory()
print(plain, kept, held - resident())
"""


def test_freed_memory_is_used_again_and_given_back_on_request():
    words, environment = [sys.executable, "-c", COUNTING], {**os.environ, **MAPPED}
    run = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    plain, kept, returned = map(int, run.stdout.split())
    assert plain > 1000  # pages that the kernel provided
    assert kept < plain / 100
    assert returned >= 23


@pytest.mark.parametrize("most, accepted", [(2**40, 2**30), (2**25, 2**25), (0, None)])
def test_where_less_is_accepted_less_is_set_and_where_nothing_is_all_stays(monkeypatch, most, accepted):
    thresholds = {}

    def mallopt(number, size):  # older versions of glibc refuse to serve blocks above 32 MB from the heap
        allowed = number != allocator.MMAP_THRESHOLD or size <= most
        thresholds.update({number: size} if allowed else {})
        return int(allowed)

    monkeypatch.setattr(allocator, "_function", lambda name: mallopt)
    assert allocator.keep_freed_memory() is (accepted is not None)
    expected = {allocator.MMAP_THRESHOLD: accepted, allocator.TRIM_THRESHOLD: 2**30}
    assert thresholds == (expected if accepted else {})


METHOD = """
import resource
from mmc_bench import BaseConfig, MethodSpec, hookimpl

@hookimpl
def register_methods(register):
    register(MethodSpec(name="counting", target=":Counting", summary="counts the pages of blocks that come and go"))

class Counting:
    class Config(BaseConfig):
        pass

    def fine_tune(self, task):
        bytearray(24 * 2**20)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            bytearray(24 * 2**20)
        new = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        assert new < 400, f"{new} new pages"
        return task.model
"""


@pytest.mark.slow
def test_workers_use_freed_memory_again(bench, monkeypatch):
    monkeypatch.setenv(*next(iter(MAPPED.items())))
    (bench.folder / "counting.py").write_text(METHOD)
    words = ("run", "--suite", "tiny.yaml", "--methods", "counting", "--seeds", "0", "--workers", 1)
    assert bench(*words, "--plugins-dir", bench.folder / "counting.py").code == 0
