"""What ``mmc-bench status`` tells of the runs at work on a results folder."""

import json
import os

import pytest
from test_faults import wait_for
from test_leases import ended_process, left_by

from mmc_bench.results.leases import find_claims
from mmc_bench.system.processes import this_process

pytestmark = pytest.mark.slow


def test_status_tells_who_does_what_and_watches_until_all_is_done(bench):
    nap = bench.start(*NAP, env={"TINY_NAP": "6"})
    watch = bench.start("status", "--suite", "tiny.yaml", "--methods", "tiny-nap", "--seeds", "0", "--watch")
    try:
        locks = bench.folder / "results" / "locks"
        wait_for(lambda: locks.is_dir() and any("tiny-nap" in claim.label for claim in find_claims(locks)))
        words = ["status", "--suite", "tiny.yaml", "--methods", "tiny-nap", "--seeds", "0"]
        told = bench(*words)
        assert f"at work: {this_process().host}, process {nap.pid}" in " ".join(told.out.split())
        assert told.out.splitlines()[-1].endswith("tiny-set tiny-net cue rate 0.9 seed 0 · tiny-nap")
        (entry,) = json.loads(bench(*words, "--json").out)["at_work"]
        assert (entry["pid"], entry["state"]) == (nap.pid, "at work")
        assert nap.wait(timeout=60) == 0
        out, err = watch.communicate(timeout=60)
    finally:
        nap.kill(), watch.kill()
    assert (watch.returncode, err) == (0, "")
    assert "1 cell, 0 done, 1 missing" in out and "1 cell, 1 done, 0 missing" in out.splitlines()[-2]
    assert bench(*words).out.count("at work") == 0


NAP = ["run", "--suite", "tiny.yaml", "--methods", "tiny-nap", "--seeds", "0", "--workers", 1]


@pytest.mark.skipif(not this_process().machine, reason="this system does not tell which processes live")
def test_status_names_claims_of_the_dead_and_of_nobody(bench):
    locks = bench.folder / "results" / "locks"
    locks.mkdir(parents=True)
    left_by(locks, "dead", ended_process())
    (locks / "junk.0.lease").write_bytes(b"\xff")
    os.utime(locks / "junk.0.lease", (1, 1))
    lines = bench("status", "--suite", "tiny.yaml").out.splitlines()
    assert any(line.split()[0] == "ended:" for line in lines)
    assert any("silent for" in line and "an unknown process" in line and line.endswith("junk") for line in lines)
