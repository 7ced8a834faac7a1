"""Suites of many cells: how the commands bear them, and that work grows no faster than the cells do."""

import json
from collections import Counter

import click
import pytest
from mmc_bench_benchmarks.speed.scale import COMMANDS, measured, prepare, write_records

from mmc_bench.results import canonical
from mmc_bench.results import codec as record_files
from mmc_bench.results.store import Store
from mmc_bench.running.runner import find_missing


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a suite of 300 cells, and all records of two of its three seeds."""
    folder = tmp_path_factory.mktemp("scale")
    plan = prepare(folder, seeds=3)
    assert (len(plan.pretrainings), len(plan.cells)) == (15, 300)
    write_records(prepare(folder, seeds=2), Store(folder / "results"))
    prepare(folder, seeds=3)
    return folder


@pytest.fixture
def plan(folder):
    return prepare(folder, seeds=3)


@pytest.fixture
def opened(monkeypatch):
    """Return a counter of the files that are opened to read records."""
    opened, read = Counter(), record_files.read_if_there

    def counted(path):
        opened[str(path)] += 1
        return read(path)

    monkeypatch.setattr("mmc_bench.results.store.read_if_there", counted)
    return opened


@pytest.mark.slow
def test_each_record_that_is_there_is_opened_once_and_no_other_is_looked_for(folder, plan, opened):
    assert not find_missing(plan, Store(folder / "nowhere")).found
    assert not opened
    missing = find_missing(plan, Store(folder / "results"))
    assert (len(missing.found), len(missing.jobs)) == (210, 105)
    assert len(opened) == 210 and set(opened.values()) == {1}


@pytest.mark.slow
def test_records_are_not_parsed_to_tell_that_they_are_there(folder, plan, monkeypatch):
    monkeypatch.setattr("mmc_bench.results.codec.parsed", None)
    monkeypatch.setattr("mmc_bench.results.store.parsed", None)
    assert len(find_missing(plan, Store(folder / "results")).found) == 210


def test_the_json_of_what_cells_share_is_made_once(plan, monkeypatch):
    made, canonical_json = Counter(), canonical.canonical_json

    def counted(content):
        made[json.dumps(content)] += 1
        return canonical_json(content)

    monkeypatch.setattr(canonical, "canonical_json", counted)
    assert len({cell.key for cell in plan.cells}) == 300
    # Of the methods, and of how paths are measured unless that is known.
    assert len(made) in (20, 21) and set(made.values()) == {1}


@pytest.mark.slow
def test_the_commands_that_are_measured_say_what_is_there(folder, bench):
    words = {name: [*own, "--results", folder / "results"] for name, own in COMMANDS.items()}
    words = {name: [folder / word if word == "scale.yaml" else word for word in own] for name, own in words.items()}
    assert "300 cells, 200 cached, 100 to run; 5 of 15 pretrainings" in bench(*words["dry run"]).out
    assert "300 cells, 200 done, 100 missing" in bench(*words["status"]).out
    table, of_suite = bench(*words["table"]), bench(*words["table of the suite"])
    assert table.out.count("(mean ± standard deviation over seeds 0 1)") == 5
    assert table.out.count("\n| ") == of_suite.out.count("\n| ") == 5 * (1 + 1 + 20)
    assert "200 cached" in bench(*words["run, nothing missing"], "--seeds", "0,1").err


@pytest.mark.slow
def test_a_command_is_measured_as_a_whole_process(folder):
    found = measured(folder, ("list", "suites"))
    assert found["cpu_seconds"] > 0.1 and found["seconds"] > 0.1
    assert 20 < found["peak_mb"] < 200  # not those of this process, which has imported torch
    with pytest.raises(click.ClickException, match="unknown command 'lits'"):
        measured(folder, ("lits",))
