"""Where a job's time goes: parts add up to the whole, and every image that a network sees lies in its part."""

import json
from itertools import count

import pytest
import torch

from mmc_bench.results.making import Timing
from mmc_bench.results.records import CellRecord, PretrainRecord
from mmc_bench.running.profile import Profile
from mmc_bench.system.parts import PARTS, Clock, part, running_clock, timed


def ticking():
    """Return a clock that advances by a second whenever it is read."""
    return Clock(count().__next__)


def test_a_second_counts_for_the_innermost_part_and_all_parts_add_up():
    now = [0.0]
    clock = Clock(lambda: now[0])
    with timed(clock):
        now[0] += 1
        with part("paths"):
            now[0] += 2
            with part("batchnorm"):
                now[0] += 4
            now[0] += 8
    now[0] += 16
    assert clock.seconds == {"paths": 10, "batchnorm": 4}
    clock.rest("other")
    assert clock.seconds == {"paths": 10, "batchnorm": 4, "other": 17}
    assert sum(clock.seconds.values()) == now[0]


def test_a_part_that_is_left_late_or_by_an_error_takes_none_of_the_others_time():
    clock = ticking()

    def epochs():
        with part("training"):
            yield

    with timed(clock):
        loop = epochs()
        with pytest.raises(RuntimeError), part("scoring"):
            next(loop)
            raise RuntimeError
        loop.close()  # long after the part around it
        before = clock.seconds
        with part("saving"):
            pass
    assert clock.seconds["saving"] == 1 and clock.seconds["training"] == before["training"]


def test_without_a_job_there_is_no_clock():
    with part("data"):
        assert running_clock() is None


@pytest.fixture
def images_as_seconds(monkeypatch):
    """Let a job's clock count the images that networks have seen in place of seconds; return their number by job."""
    seen, clocks = [0], []

    def look(module, inputs, output):
        if isinstance(module, torch.nn.Conv2d):
            seen[0] += len(inputs[0])

    def clock():
        clocks.append((Clock(lambda: seen[0]), seen[0]))
        return clocks[-1][0]

    monkeypatch.setattr("mmc_bench.engines.worker.Clock", clock)
    hook = torch.nn.modules.module.register_module_forward_hook(look)
    yield seen
    hook.remove()


@pytest.mark.slow
def test_the_parts_of_a_job_are_all_of_its_time_and_say_what_was_done(bench, images_as_seconds):
    assert bench.tiny("--seeds", "1", "--methods", "tiny-ft").code == 0
    files = sorted((bench.folder / "results").rglob("*.json"))
    contents = {json.loads(file.read_text())["kind"]: file.read_bytes() for file in files}
    pretrained = PretrainRecord.model_validate_json(contents["pretraining"]).timing.parts
    cell = CellRecord.model_validate_json(contents["cell"]).timing.parts
    assert sum(pretrained.values()) + sum(cell.values()) == images_as_seconds[0]
    assert {*pretrained} | {*cell} <= {*PARTS} and "other" not in {**pretrained, **cell}
    points, test, splits = 4, 30, 4
    statistics = cell["batchnorm"] / points  # at each point, the ends among them
    assert cell["paths"] == points * splits * test and statistics > 0
    assert cell["scoring"] == 2 * splits * test + 12 + 12  # the repaired model's sets, the pretrained one's splits
    probe = 2 * 2  # images in two passes that tell where passes are counted
    assert pretrained["validation"] == 2 * 2 * test and (cell["training"] - probe) % 12 == 0 < cell["training"] - probe


@pytest.mark.slow
def test_a_run_measures_parts_always_and_the_share_of_the_peak_on_request(bench):
    plain = bench.tiny("--seeds", "1", "--json")
    assert "profile" not in json.loads(plain.out)
    result = bench.tiny("--seeds", "2", "--json", "--profile")
    rows = {row["kind"]: row for row in json.loads(result.out)["profile"]}
    assert list(rows) == ["pretraining", "tiny-ft", "tiny-still", "all"]
    assert rows["all"]["seconds"] == pytest.approx(sum(rows["all"]["parts"].values()))
    assert rows["all"]["jobs"] == 3 and 0 < rows["pretraining"]["share_of_peak"] < 1
    assert rows["tiny-ft"]["images_per_second"] > 0 and rows["tiny-ft"]["share_of_peak"] is None
    timings = [json.loads(file.read_text())["timing"] for file in (bench.folder / "results").rglob("*.json")]
    assert all(timing["parts"]["training"] >= 0 for timing in timings)
    assert sum(timing["peak_gflops"] is not None for timing in timings) == 1
    table = bench.tiny("--seeds", "3", "--profile")
    assert "| pretraining  |" in table.out and "of the peak" in table.out
    assert "nothing ran" in bench.tiny("--seeds", "3", "--profile").out


@pytest.mark.slow
def test_profiling_changes_no_number(bench):
    def numbers(*words):
        assert bench.tiny("--seeds", "1", *words).code == 0
        records = [json.loads(file.read_text()) for file in sorted((bench.folder / words[1]).rglob("*.json"))]
        return [(record["metrics"], record.get("curve"), record.get("paths")) for record in records]

    assert numbers("--results", "one", "--profile") == numbers("--results", "two")


def test_a_record_without_parts_stays_valid():
    timing = Timing(started="2026-01-01T00:00:00Z", seconds={"data": 1.0}, images_per_second=5.0)
    assert timing.parts == {} and timing.share_of_peak is None
    assert str(Profile()).startswith("nothing ran")
