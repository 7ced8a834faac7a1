"""Observers: what they are told, and that none of them stops a run, or makes it wait."""

import json
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from helpers.plugins import registering, registry_of, write_source

from mmc_bench.engines import Outcome, Settings
from mmc_bench.errors import UserError
from mmc_bench.results.records import Failure
from mmc_bench.running import observers as module
from mmc_bench.running.observers import FUNCTIONS, Observers
from mmc_bench.running.runner import Missing, run_plan
from mmc_bench.suites.plan import Plan

README = Path(__file__).parents[1] / "plugins" / "README.md"
PLAN = Plan(SimpleNamespace(name="a suite"), (), (), ())

#: The body of a class that hears of everything, and keeps it.
EARS = "".join(
    f"    def {news}(self, {', '.join(names)}):\n        self.hear({news!r}, [{', '.join(names)}])\n"
    for news, names in FUNCTIONS.items()
)
EARS += "    def hear(self, news, about):\n        self.heard.append((news, about))\n"


@pytest.fixture
def observe(tmp_path):
    """Return a maker of observers of a run, from the bodies of their classes; and of a list of what is warned of."""

    def make(*bodies):
        files = [
            write_source(
                tmp_path, f"{n}/mine{n}.py", f"{registering(f'mine{n}', kind='observer')}    heard = []\n{body}"
            )
            for n, body in enumerate(bodies)
        ]
        registry = registry_of(*files)
        offers = [registry.get("observer", f"mine{n}") for n in range(len(bodies))]
        return Observers.of([(offer, {}) for offer in offers]), [offer.load().heard for offer in offers]

    return make


@pytest.fixture
def failure(cell):
    return Failure(key=cell.key, label=cell.label, error="planted", traceback="", started="2026-01-01T00:00:00Z")


def small_run(observers, job, failure, warnings):
    """Tell of a run of one job, which fails."""
    observers.start(warnings.append, PLAN, [job], "folder")
    observers.event(job, {"stage": "fine-tune"})
    observers.event(job, {"epoch": 1})
    observers.ended(job, None, failure)
    observers.finish({"failed": 1})


# --- what is told


def test_an_observer_hears_of_a_run_in_its_order(observe, cell, failure):
    observers, (heard,) = observe(EARS)
    warnings = []
    small_run(observers, cell, failure, warnings)
    assert [news for news, _ in heard] == [
        "run_started",
        "job_started",
        "job_event",
        "job_event",
        "job_failed",
        "run_finished",
    ]
    assert heard[0][1] == [PLAN, [cell], "folder"]
    assert heard[3][1] == [cell, {"epoch": 1}]
    assert heard[4][1][1]["error"] == "planted"
    assert heard[5][1] == [{"failed": 1}]
    assert warnings == []


def test_a_job_that_is_done_again_in_one_run_starts_again(observe, cell, failure):
    observers, (heard,) = observe(EARS)
    observers.start(pytest.fail, PLAN, [cell], "folder")
    for _ in range(2):
        observers.event(cell, {"stage": "fine-tune"})
        observers.ended(cell, None, failure)
    observers.finish({})
    assert [news for news, _ in heard][1:-1] == 2 * ["job_started", "job_event", "job_failed"]


def test_every_function_and_every_argument_is_optional(observe, cell, failure):
    observers, (heard,) = observe("    def job_failed(self, failure):\n        self.heard.append(failure['label'])")
    small_run(observers, cell, failure, [])
    assert heard == [cell.label]


def test_what_another_run_did_is_told_apart_from_what_this_one_did(observe, cell, failure):
    """Otherwise two runs that share a folder would both report every cell."""

    class Engine:
        def run(self, jobs, settings, listener, follow_up):
            yield Outcome(cell, failure=failure, elsewhere=True)

    console = Mock(warn=pytest.fail)
    observers, (heard,) = observe(EARS)
    run_plan(PLAN, Missing((cell,), frozenset(), frozenset()), Engine(), Settings("folder"), observers, console)
    assert [news for news, _ in heard] == ["run_started", "job_done_elsewhere", "run_finished"]
    assert heard[1][1] == [cell, None, failure.model_dump(mode="json")]


# --- what goes wrong with them


@pytest.mark.parametrize("error", ["RuntimeError('tired')", "SystemExit('tired')", "UserError('tired')"])
@pytest.mark.parametrize("where", ["job_started", "job_event", "run_finished"])
def test_one_that_raises_is_named_once_and_the_others_hear_everything(observe, cell, failure, error, where):
    raising = (
        "        from mmc_bench import UserError\n" + f"        if news == {where!r}:\n            raise {error}\n"
    )
    raising = EARS.replace("(self, news, about):\n", f"(self, news, about):\n{raising}")
    observers, (first, bad, last) = observe(EARS, raising, EARS)
    warnings = []
    small_run(observers, cell, failure, warnings)
    assert len(first) == len(last) == 6
    everything = [news for news, _ in first]
    assert [news for news, _ in bad] == everything[: everything.index(where)]
    (warning,) = warnings
    assert "observer 'mine1' failed in" in warning and where in warning and "tired" in warning


def test_one_that_hangs_makes_nobody_wait_and_is_named_in_the_end(observe, cell, failure, monkeypatch):
    monkeypatch.setattr(module, "GRACE", 0.05)
    release = threading.Event()
    observers, (hanging, other) = observe("    def job_started(self, job):\n        self.heard[0].wait(60)", EARS)
    hanging.append(release)
    warnings = []
    small_run(observers, cell, failure, warnings)
    try:
        assert [news for news, _ in other][-1] == "run_finished"
        assert warnings == [
            "observer 'mine0' could not keep up with the run: its last events may be lost",
        ]
    finally:
        release.set()


def test_one_that_was_chosen_may_refuse_the_run_before_it_begins(observe, cell):
    body = "    def run_started(self):\n        from mmc_bench import UserError\n        raise UserError('no room')"
    observers, _ = observe(body)
    with pytest.raises(UserError, match=r"^no room$"):
        observers.start(pytest.fail, PLAN, [cell], "folder")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("    def job_finnished(self): pass", "observer 'mine0' has none of the functions run_started, job_started"),
        ("    def job_failed(self, failed): pass", "job_failed asks for 'failed': did you mean failure?"),
        (
            "    def __init__(self): self.file = open('/')",
            "observer 'mine0' of mine0: cannot be made: IsADirectoryError",
        ),
    ],
)
def test_one_that_cannot_observe_is_refused_in_a_sentence(observe, body, says):
    with pytest.raises(UserError) as caught:
        observe(body)
    assert says in str(caught.value)


def test_packages_are_named_by_what_is_imported(tmp_path):
    source = registering("mine", kind="observer").replace("defaults={}", "packages={'a.b': 'ab'}")
    (plugin,) = registry_of(write_source(tmp_path, "mine.py", source)).failures
    assert "packages maps the name of a top-level package to what pip is to install, not 'a.b' to 'ab'" in plugin.error


# --- the command


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--observe", "event-lgo"], "unknown observer 'event-lgo': did you mean event-log?"),
        (["--observe", ","], "empty list"),
        (["--observe", "event-log", "--set", "event-log.pth=x"], "has no parameter 'pth': did you mean path?"),
        (["--observe", "event-log", "--set", "event-log.path=3"], "event-log: path = 3: Input should be"),
        (["--observe", "event-log", "--set", "event-log.path=tiny.yaml/x"], "event log tiny.yaml/x cannot be written"),
        (["--set", "event-log.path=x"], "observer event-log is not part of this run: add --observe event-log"),
        (["--observe", "tensorboard"], "observer tensorboard needs tensorboard: pip install 'mmc-bench[tensorboard]'"),
        (
            ["--observe", "mlflow", "--dry-run"],
            "observer mlflow needs mlflow and sqlalchemy and alembic: pip install 'mmc-bench[mlflow]'",
        ),
    ],
)
def test_wrong_input_gets_one_sentence_before_anything_runs(bench, monkeypatch, words, says):
    for name in ("tensorboard", "mlflow", "sqlalchemy", "alembic"):
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    result = bench.tiny(*words)
    assert (result.code, result.out) == (4, "")
    *announced, refused = result.err.strip().splitlines()
    # A file is opened only when the run begins, after it was said what it will do.
    assert says in refused and len(announced) == (2 if "cannot be written" in says else 0)
    assert bench.records() == {}


@pytest.mark.slow
def test_observers_are_listed_with_what_they_lack(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    lines = {line.split()[0]: line for line in bench("list", "observers").out.splitlines()}
    assert "needs tensorboard: pip install 'mmc-bench[tensorboard]'" in lines["tensorboard"]
    assert "ready" in lines["event-log"]
    entries = {entry["name"]: entry for entry in json.loads(bench("list", "observers", "--json").out)}
    assert entries["event-log"]["remedy"] is None
    assert "observer event-log" in bench("plugins").out


@pytest.mark.slow
def test_observers_change_no_record_and_what_they_print_is_no_result(bench):
    source = "    def job_finished(self, job):\n        print('heard of', job.label)\n"
    source += "    def __init__(self, word: str):\n        print(word, 'from its maker')\n"
    write_source(bench.folder, "plugs/mine.py", registering("mine", kind="observer") + source)
    bench.tiny("--methods", "tiny-ft", "--seeds", 0, "--results", "alone")
    words = ["--observe", "mine", "--plugins-dir", "plugs", "--set", "mine.word=greetings", "--json"]
    result = bench.tiny("--methods", "tiny-ft", "--seeds", 0, "--results", "observed", *words)
    assert json.loads(result.out)["computed"] == 1
    assert "greetings from its maker" in result.err and result.err.count("heard of") == 2
    assert bench.records("observed") == bench.records("alone")


@pytest.mark.slow
def test_the_example_of_the_manual_works_as_it_is_written(bench):
    section = README.read_text(encoding="utf-8").partition("## An observer")[2].partition("\n## ")[0]
    write_source(bench.folder, "plugs/failures.py", section.partition("```python\n")[2].partition("```")[0])
    words = ["--seeds", 0, "--methods", "tiny-raise", "--observe", "failures", "--plugins-dir", "plugs"]
    assert bench.tiny(*words, "--set", "failures.path=mine.txt").code == 1
    assert "tiny-raise: ZeroDivisionError: planted" in (bench.folder / "mine.txt").read_text()
    told = re.findall(r"^\| `((?:run|job)_\w+)` \| (.*) \|$", section, re.MULTILINE)
    assert [name for name, _ in told] == list(FUNCTIONS)
    for name, arguments in told:
        assert all(f"`{argument}`" in arguments for argument in FUNCTIONS[name])
