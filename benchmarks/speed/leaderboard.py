"""Time of a leaderboard's build, check and page on many records: copies of real ones at other cue rates.

python -m benchmarks.speed.leaderboard RESULTS [RECORDS]

The results are of one setting: copies of two at one cue rate would be the same cells.

Sorting is timed in a headless Chromium, where Selenium and one are at hand.
"""

import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TypeVar

from mmc_bench.leaderboard.build import generated_files, stale_files, write_generated
from mmc_bench.leaderboard.checks import inspect
from mmc_bench.leaderboard.schemas import KnownVersion, Submission, Versions, as_yaml, plugin_name
from mmc_bench.leaderboard.submissions import CHECKSUMS, SUBMISSION, Board, manifest, sha256_of, stage_versions_of
from mmc_bench.results.codec import job_of
from mmc_bench.results.jobs import Pretraining, references_of
from mmc_bench.results.records import CellRecord, PretrainRecord
from mmc_bench.results.store import Store

Result = TypeVar("Result")
Records = list[CellRecord | PretrainRecord]


def main(results: str, wanted: int = 2000) -> None:
    """Print the seconds of a build, a second one, a check, and of sorting the page, on about so many records."""
    store = Store(results)
    cells = [record for record in store.cell_records() if record.cell.selection is None]
    used = {record.pretraining_key for record in cells}
    real: Records = [*cells, *(record for record in store.pretrain_records() if record.key in used)]
    copies = max(1, wanted // len(real))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        records = [record for copy in range(copies) for record in _at(real, (copy + 1) / (copies + 1))]
        _write(root, records)
        board = Board.open(root)
        print(f"{len(records)} records")
        files = _timed("build", lambda: generated_files(board, inspect(board)))
        write_generated(board, files)
        assert _timed("build again", lambda: generated_files(board, inspect(board))) == files
        assert _timed("check", lambda: stale_files(board, generated_files(board, inspect(board)))) == []
        for name, content in files.items():
            print(f"{name}: {len(content) / 1000:.0f} kB")
        if shutil.which("chromium") and shutil.which("chromedriver"):
            times = sort_times(root / "index.html")
            print(f"sort and layout, ms: median {statistics.median(times):.0f}, largest {max(times):.0f}")


#: Clicks a header, lets the browser lay the page out, and returns the milliseconds until it has.
SORT = """
const [key, done] = arguments;
const header = document.querySelector(`[data-key="${key}"] button, button[data-key="${key}"]`);
const start = performance.now();
header.click();
document.body.getBoundingClientRect();
done(performance.now() - start);
"""


def sort_times(page: Path, rounds: int = 5) -> list[float]:
    """Return the milliseconds of each sort, with the layout that it brings, by several columns in turn."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for word in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{word}")
    options.binary_location = shutil.which("chromium") or ""
    browser = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        browser.get(page.as_uri())
        columns = ("worst_split", "method", "NC", "cue_reliance")
        return [browser.execute_async_script(SORT, column) for _ in range(rounds) for column in columns]
    finally:
        browser.quit()


def _at(records: Records, cue_rate: float) -> Records:
    """Return copies of records at another cue rate."""

    def moved(pretraining: Pretraining) -> Pretraining:
        return pretraining.with_changes(cue_rate=cue_rate)

    copies: Records = []
    for record in records:
        if isinstance(record, PretrainRecord):
            pretraining = moved(record.pretraining)
            copies.append(record.model_copy(update={"pretraining": pretraining, "key": pretraining.key}))
        else:
            cell = record.cell.with_changes(pretraining=moved(record.cell.pretraining))
            keys = {"key": cell.key, "pretraining_key": cell.pretraining.key}
            copies.append(record.model_copy(update={"cell": cell, **keys}))
    return copies


def _write(root: Path, records: Records) -> None:
    """Write a leaderboard with one submission of these records."""
    folder = root / "results" / "all"
    settings = "title: Speed\nbaseline: mmc-bench:ft-medium\ntolerances: {same_machine: 0, same_code: 0, other: 0}\n"
    (root / "leaderboard.yaml").write_text(settings, encoding="utf-8")
    (root / "versions.yaml").write_bytes(as_yaml(_versions(Board.open(root), records)))
    contents = {SUBMISSION: as_yaml(Submission(by="A machine", date=date(2026, 1, 1)))}
    for record in records:
        kind = "pretrained" if isinstance(record, PretrainRecord) else "cells"
        contents[f"{kind}/{record.key}.json"] = record.model_dump_json(indent=1).encode() + b"\n"
    contents[CHECKSUMS] = manifest({name: sha256_of(content) for name, content in contents.items()})
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _versions(board: Board, records: Records) -> Versions:
    plugins: dict[str, dict[str, KnownVersion]] = {}
    for record in records:
        for kind, plugin in references_of(job_of(record)):
            plugins.setdefault(plugin_name(kind, plugin), {})[plugin.version] = KnownVersion(needs=())
    stages: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for stage, version in stage_versions_of(record).items():
            stages[stage].add(version)
    return board.versions.including(stages, plugins)


def _timed(what: str, work: Callable[[], Result]) -> Result:
    start, used = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - start, time.process_time() - used
    print(f"{what}: {wall:.2f} s ({cpu:.2f} s of CPU)")
    return result


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
