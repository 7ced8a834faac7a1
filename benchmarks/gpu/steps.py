"""The steps of a check, each in a process of its own that can be ended, and what became of them."""

import json
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Loads torch once, and touches no GPU: each step's process is a copy of it.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([f"{__package__}.kernels"])


@dataclass(frozen=True)
class Step:
    """``python -m module words``, for at most so many seconds; in `words`, FILE stands for a JSON file of its own.

    A run has its results' folder instead of the file. Neither has anything of an earlier check.
    """

    name: str
    what: str
    seconds: float
    module: str
    words: tuple[str, ...]
    results: Path | None = None


def done(step: Step, out: Path, seconds: float) -> dict[str, Any]:
    """Run a step for at most so many seconds.

    Returns
    -------
    dict
        ``step``, ``what``, ``state`` (``ok``, ``failed`` or ``too slow``), ``seconds``, ``exit_code`` (None where it
        was ended), ``log``, the name of its output's file, and ``found``, what it wrote as JSON, or what the records of
        its results say of their making, as far as it came. ``gpu``: its state at the end, where NVIDIA's tool tells.
    """
    log, file = out / f"{step.name}.log", out / f"{step.name}.json"
    for old in (log, file):
        old.unlink(missing_ok=True)
    if step.results:
        shutil.rmtree(step.results, ignore_errors=True)
    words = tuple(str(file) if word == "FILE" else word for word in step.words)
    start = time.perf_counter()
    process = PROCESSES.Process(target=_work, args=(step.module, words, log))
    process.start()
    process.join(seconds)
    late = process.is_alive()
    if late:
        _end(process.pid)
        process.join()
    return {
        "step": step.name,
        "what": step.what,
        "state": "too slow" if late else "failed" if process.exitcode else "ok",
        "seconds": round(time.perf_counter() - start, 1),
        "exit_code": None if late else process.exitcode,
        "log": log.name,
        "found": making_of(step.results) if step.results else read_json(file),
        "gpu": state_of_gpu(),
    }


def skipped(step: Step) -> dict[str, Any]:
    """Return what became of a step for which no time was left."""
    return {"step": step.name, "what": step.what, "state": "skipped", "seconds": 0.0}


def read_json(file: Path) -> Any:
    """Return a file's content, None where it is missing or was cut off."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def making_of(results: Path) -> dict[str, Any]:
    """Return how records were made, by folder and key: seconds of stages, images a second, compilation; or an error."""
    found = {}
    for file in sorted(file for kind in ("pretrained", "cells") for file in (results / kind).glob("*.json")):
        record = read_json(file) or {"error": "cannot be read"}
        told = record.get("timing", {})
        making = {name: told.get(name) for name in ("seconds", "images_per_second", "compilation")}
        found[f"{file.parent.name}/{file.stem[:8]}"] = {"error": record["error"]} if "error" in record else making
    return found


def state_of_gpu() -> str | None:
    """Return clocks, power, temperature and memory of GPUs, None where NVIDIA's tool does not tell."""
    words = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu,memory.used", "--format=csv"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _end(process: int | None) -> None:
    """End a step's process with the workers that it has started."""
    assert process is not None
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:  # it has no group yet
        os.kill(process, signal.SIGKILL)


def _work(module: str, words: tuple[str, ...], log: Path) -> None:
    os.setsid()
    with log.open("wb") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
