"""Runs and workers killed at random, three runs on one folder at a time: nothing is lost, done twice, or left behind.

The short form runs in CI. The long one, about a quarter of an hour on two cores::

    MMC_BENCH_CHAOS=200 pytest -n 0 -s -m chaos
"""

import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mmc_bench.results.weights import decoded_weights
from mmc_bench.system.processes import descendants, this_process

KILLS = int(os.environ.get("MMC_BENCH_CHAOS", "6"))
RUNS = 3

WORDS = ["run", "--suite", "tiny.yaml", "--cue-rates", "0.2,0.4,0.6,0.8", "--methods", "tiny-ft,tiny-nap,tiny-still"]
WORDS += ["--seeds", "0,1,2,3,4", "--workers", 1]  # 20 pretrainings, 60 cells
JOBS = 80

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.skipif(not this_process().machine, reason="this system does not tell which processes live"),
]


def workers_of(process):
    """Return the worker processes of a run, and the one that forks them; multiprocessing has another of its own."""
    found = []
    for pid in descendants(process.pid):
        with suppress(OSError):
            if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
    return found


class Watch(threading.Thread):
    """Watches the records in a folder: one that is written over has another inode or time."""

    def __init__(self, results):
        super().__init__(daemon=True)
        self.results, self.first, self.rewritten, self.ended = results, {}, [], threading.Event()

    def run(self):
        while not self.ended.wait(0.01):
            self.look()

    def look(self):
        for path in self.results.glob("*/*.json"):
            if not path.name.endswith(".failure.json"):
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                now = (status.st_ino, status.st_mtime_ns)
                if self.first.setdefault(path.name, now) != now:
                    self.rewritten.append(path.name)

    def end(self):
        """Look once more, and return the records that were written over."""
        self.ended.set()
        self.join()
        self.look()
        return self.rewritten


class Round:
    """Three runs on one folder, each started anew when it ends, until the folder is complete."""

    def __init__(self, bench, name, chance, nap):
        self.bench, self.name, self.chance = bench, name, chance
        self.environment = {"TINY_NAP": str(nap), "OMP_NUM_THREADS": "1"}
        self.watch = Watch(bench.folder / name)
        self.watch.start()
        self.team = [self.start() for _ in range(RUNS)]

    def start(self):
        return self.bench.start(*WORDS, "--results", self.name, env=self.environment)

    def kill(self, killed):
        """Kill a worker or a run, and count it; seldom a run that still starts, or nothing would ever be done."""
        process = self.chance.choice(self.team)
        workers = workers_of(process)
        if workers and killed["workers"] <= killed["runs"]:
            os.kill(self.chance.choice(workers), self.chance.choice([signal.SIGKILL, signal.SIGTERM]))
            killed["workers"] += 1
        elif workers or self.chance.random() < 0.1:
            process.send_signal(self.chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            killed["runs"] += 1
        for place, process in enumerate(self.team):
            if process.poll() is not None:
                self.check(process)
                self.team[place] = self.start()

    def check(self, process):
        _, err = process.communicate(timeout=600)
        assert "Traceback" not in err, err

    def finish(self):
        """Let the runs end, and a last one where failures are left; return the records that were written over."""
        for process in self.team:
            self.check(process)
        last = self.bench.apart(*WORDS, "--results", self.name, env=self.environment)
        assert last.code == 0, last.err
        return self.watch.end()


def test_three_runs_whose_processes_are_killed_at_random_end_like_one_undisturbed_run(bench):
    reference = bench(*WORDS, "--workers", 0, "--results", "reference")
    assert reference.code == 0, reference.err
    assert len(bench.records("reference")) == JOBS
    chance, killed, rounds = random.Random(KILLS), {"runs": 0, "workers": 0}, 0
    nap, pause = (0.25, 1.0) if KILLS < 50 else (3.0, 2.0)
    while sum(killed.values()) < KILLS:
        rounds += 1
        name = f"round{rounds}"
        chaos = Round(bench, name, chance, nap)
        while len(chaos.watch.first) < JOBS and sum(killed.values()) < KILLS:
            time.sleep(chance.uniform(0.1, pause))
            chaos.kill(killed)
        assert chaos.finish() == []
        assert bench.records(name) == bench.records("reference")
        first, second = (weights_in(bench.folder / folder) for folder in (name, "reference"))
        assert first == second
        files = (path for path in (bench.folder / name).rglob("*") if path.is_file())
        assert [path for path in files if path.suffix not in (".json", ".safetensors")] == []
    print(f"{killed['runs']} runs and {killed['workers']} workers were killed in {rounds} rounds of {JOBS} jobs")


def weights_in(folder):
    files = (folder / "pretrained").glob("*.safetensors")
    return {path.name: decoded_weights(path.read_bytes()).sha256 for path in files}
