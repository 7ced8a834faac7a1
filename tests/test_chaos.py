"""Runs and workers killed at random, three runs on one folder at a time: nothing is lost, done twice, or left behind.

The short form runs in CI. The long one, about a quarter of an hour on two cores::

    MMC_BENCH_CHAOS=200 pytest -n 0 -m chaos
"""

import os
import random
import signal
import threading
import time

import pytest

from mmc_bench.processes import this_process

KILLS = int(os.environ.get("MMC_BENCH_CHAOS", "6"))
NAP = 0.25 if KILLS < 50 else 2.0
RUNS = 3

WORDS = ["run", "--suite", "tiny.yaml", "--cue-rates", "0.2,0.4,0.6,0.8", "--methods", "tiny-ft,tiny-nap,tiny-still"]
WORDS += ["--seeds", "0,1,2,3,4", "--workers", 1]  # 20 pretrainings, 60 cells

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.skipif(not this_process().machine, reason="this system does not tell which processes live"),
]


def workers_of(process):
    """Return the worker processes of a run; multiprocessing has another helper of its own."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as status, open(f"/proc/{entry}/cmdline") as line:
                    parent = int(status.read().rpartition(")")[2].split()[1])
                    if parent == process.pid and "spawn_main" in line.read():
                        found.append(int(entry))
            except OSError:
                continue
    return found


class Watch(threading.Thread):
    """Watches a folder of records: one that is written over has another inode or time."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder, self.first, self.rewritten, self.ended = folder, {}, [], threading.Event()

    def run(self):
        while not self.ended.wait(0.01):
            self.look()

    def look(self):
        for path in self.folder.glob("*.json"):
            if not path.name.endswith(".failure.json"):
                status = path.stat()
                now = (status.st_ino, status.st_mtime_ns)
                if self.first.setdefault(path.name, now) != now:
                    self.rewritten.append(path.name)


def test_three_runs_whose_processes_are_killed_at_random_end_like_one_undisturbed_run(bench):
    reference = bench(*WORDS, "--workers", 0, "--results", "reference")
    assert reference.code == 0, reference.err
    chance = random.Random(KILLS)
    environment = {"TINY_NAP": str(NAP), "OMP_NUM_THREADS": "1"}
    results = bench.folder / "results"
    (results / "cells").mkdir(parents=True)
    watches = [Watch(results / "cells"), Watch(results / "pretrained")]
    for watch in watches:
        watch.start()

    def start():
        return bench.start(*WORDS, "--results", "results", env=environment)

    team = [start() for _ in range(RUNS)]
    killed = {"runs": 0, "workers": 0}
    while sum(killed.values()) < KILLS:
        time.sleep(chance.uniform(0.1, 1.5))
        place = chance.randrange(RUNS)
        workers = workers_of(team[place])
        if workers and killed["workers"] <= killed["runs"]:
            os.kill(chance.choice(workers), chance.choice([signal.SIGKILL, signal.SIGTERM]))
            killed["workers"] += 1
        elif workers or chance.random() < 0.1:  # seldom while it starts, or nothing would ever be done
            team[place].send_signal(chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            killed["runs"] += 1
        for place, process in enumerate(team):
            if process.poll() is not None:
                _, err = process.communicate(timeout=60)
                assert "Traceback" not in err, err
                team[place] = start()
    for process in team:
        _, err = process.communicate(timeout=600)
        assert "Traceback" not in err, err
    last = bench.apart(*WORDS, "--results", "results", env=environment)
    assert last.code == 0, last.err
    for watch in watches:
        watch.ended.set()
        watch.join()
        watch.look()
    print(f"{killed['runs']} runs and {killed['workers']} workers were killed")
    assert bench.records("results") == bench.records("reference")
    assert [watch.rewritten for watch in watches] == [[], []]
    weights = {name: (bench.folder / name / "pretrained").glob("*.safetensors") for name in ("results", "reference")}
    first, second = ({path.name: path.read_bytes() for path in paths} for paths in weights.values())
    assert first == second
    left = [path for path in results.rglob("*") if path.is_file() and path.suffix not in (".json", ".safetensors")]
    assert left == []
