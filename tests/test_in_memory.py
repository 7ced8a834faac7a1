"""Methods that no plugin registers: how they are named and identified, and that they run like plugins."""

import importlib
import json
import subprocess
import sys
import textwrap

import pytest

from mmc_bench.errors import UserError
from mmc_bench.plugin.in_memory import kebab, method_offer, offered, pickled, unpickled
from mmc_bench.plugin.registry import Registry

SOURCE = '''
"""A module with a method."""

import math
from functools import wraps

from helping import halved

RATE = 0.5
UNUSED = 1
TABLE = {"a": [1, 2]}


def twice(function):
    @wraps(function)
    def wrapped(*arguments):
        return function(*arguments) + function(*arguments)

    return wrapped


class Base:
    def start(self):
        return math.sqrt(RATE)


@twice
def step(x):
    return x * TABLE["a"][0]


def unused():
    return 3


class Mine(Base):
    """Mend it.

    More.
    """

    needs = {"cued"}

    def __init__(self, lr: float = 0.1, model=None):
        self.lr, self.model = lr, model

    def fine_tune(self, task):
        return halved(step(self.start()))
'''
HELPING = "def halved(x):\n    return x / 2\n"


@pytest.fixture
def method_of(tmp_path, monkeypatch):
    """Return a maker of the class `Mine` from a source in which one text is replaced by another."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def make(old="", new="", helping=HELPING):
        name = f"methods{len(made)}"
        made.append(name)
        assert old in SOURCE
        (tmp_path / f"{name}.py").write_text(SOURCE.replace(old, new) if old else SOURCE)
        (tmp_path / "helping.py").write_text(helping)
        sys.modules.pop("helping", None)
        importlib.invalidate_caches()
        return importlib.import_module(name).Mine

    yield make
    for name in (*made, "helping"):
        sys.modules.pop(name, None)


def digest(target):
    return method_offer(target).digest


# --- identity


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("halved(step", "halved(3 * step"),
        ("math.sqrt(RATE)", "RATE"),
        ("RATE = 0.5", "RATE = 0.6"),
        ('{"a": [1, 2]}', '{"a": [1, 3]}'),
        ("x * TABLE", "2 * x * TABLE"),
        ("+ function(*arguments)", "- function(*arguments)"),
        ("lr: float = 0.1", "lr: float = 0.2"),
    ],
    ids=["the method", "a base class", "a constant", "a part of a constant", "a function", "a decorator", "a default"],
)
def test_a_change_of_what_the_code_names_is_another_version(method_of, old, new):
    assert digest(method_of()) != digest(method_of(old, new))


@pytest.mark.parametrize(("old", "new"), [("UNUSED = 1", "UNUSED = 2"), ("return 3", "return 4")])
def test_a_change_elsewhere_in_the_module_is_none(method_of, old, new):
    first, second = method_of(), method_of(old, new)
    assert digest(first) == digest(second)


def test_a_change_of_a_module_beside_it_is_another_version(method_of):
    assert digest(method_of()) != digest(method_of(helping=HELPING.replace("2", "3")))


def test_an_object_s_parameters_are_part_of_its_reference(method_of):
    mine = method_of()
    assert method_offer(mine).reference({}).parameters == {}
    assert method_offer(mine(lr=0.3)).reference({}).parameters == {"lr": 0.3, "model": None}
    assert digest(mine(lr=0.3)) == digest(mine)


@pytest.mark.slow
def test_source_that_is_not_there_is_said_in_a_sentence(tmp_path):
    code = "import mmc_bench\nclass Mine:\n    def fine_tune(self, task): pass\nmmc_bench.run(methods=Mine)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("mmc_bench.errors.UserError: the source of Mine is not available") and "file" in last


# --- names, needs, parameters


@pytest.mark.parametrize(
    ("name", "expected"),
    [("MyMethod", "my-method"), ("CBFTPlus", "cbft-plus"), ("Blend2", "blend2"), ("ours", "ours"), ("A_b", "a-b")],
)
def test_a_class_s_name_becomes_a_method_s(name, expected):
    assert kebab(name) == expected


def test_a_class_offers_its_summary_and_needs(method_of):
    spec = method_offer(method_of()).spec
    assert (spec.name, spec.summary, spec.needs) == ("mine", "Mend it.", {"cued"})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("name = 'ft-medium'", "method 'ft-medium' is offered by mmc-bench already: give class Local another name"),
        ("name = 'My Method'", "class Local: method name 'My Method' must be lower-case letters"),
        ("needs = {'test'}", "class Local: method 'local' needs ['test']; a method can need"),
        ("def __init__(self, lr=1): self.rate = lr", "attribute 'rate' is no parameter of Local"),
        ("def __init__(self, lr=1): pass", "does not keep its argument 'lr' as self.lr"),
        ("def __init__(self, lr=1j): self.lr = lr", "parameters are no plain data"),
        ("fine_tune = None", "is no method: a class with fine_tune(task)"),
    ],
)
def test_what_cannot_run_is_refused_in_a_sentence(tmp_path, monkeypatch, body, says):
    text = f"class Local:\n    def fine_tune(self, task):\n        return task.model\n\n    {body}\n"
    (tmp_path / "refused.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    try:
        local = importlib.import_module("refused").Local
        with pytest.raises(UserError) as caught:
            offered([local() if "lr" in body else local], Registry.discover(), method_offer)
    finally:
        sys.modules.pop("refused")
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_two_methods_of_one_name_are_refused(method_of):
    with pytest.raises(UserError, match="'mine' is offered by in-memory already"):
        offered([method_of(), method_of()], Registry([]), method_offer)


def test_a_method_travels_by_pickle(method_of):
    registry = Registry([])
    assert offered([method_of()(lr=0.3), "other"], registry, method_offer) == ["in-memory:mine", "other"]
    (offer,) = unpickled(pickled(registry))
    assert offer.version == registry.offers("method")[0].version
    assert offer.make(offer.configure({})).lr == 0.3
    assert list(unpickled(pickled(Registry([])))) == []


# --- scripts


SCRIPT = """
import mmc_bench
from mmc_bench import BaseConfig

SHIFT = 0.0


class Config(BaseConfig):
    lr: float = 0.5


class Shifted:
    Config = Config

    def __init__(self, config=Config()):
        self.config = config

    def fine_tune(self, task):
        task.model.head.bias.data += SHIFT * self.config.lr
        return task.model


results = mmc_bench.run("tiny.yaml", methods=["tiny-ft", Shifted], workers=2, progress=print)
print("rows", len(results.to_frame()), results.summary.computed, len(results.failures))
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard_runs_its_class_in_workers(bench):
    def run(shift, workers):
        script = SCRIPT.replace("SHIFT = 0.0", f"SHIFT = {shift}").replace("workers=2", f"workers={workers}")
        (bench.folder / "script.py").write_text(script)
        process = bench.start(executable_arguments=["script.py"])
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
        return out

    first = run(0.0, workers=2)
    assert "rows 4 4 0" in first and first.count("[") == 6
    assert "rows 4 0 0" in run(0.0, workers=2)  # which needs no worker
    assert "rows 4 2 0" in run(1.0, workers=1)
    records = [record for record in bench.records().values() if record["kind"] == "cell"]
    versions = {record["cell"]["method"]["version"] for record in records if "shifted" in json.dumps(record)}
    assert len(versions) == 2


@pytest.mark.slow
def test_an_error_in_a_class_of_a_script_is_a_failure_with_its_place(bench):
    (bench.folder / "script.py").write_text(
        textwrap.dedent(
            """
            import mmc_bench

            class Broken:
                def fine_tune(self, task):
                    raise ValueError("planted")

            results = mmc_bench.run("tiny.yaml", methods=Broken, seeds=0, workers=1, progress=False)
            print(results)
            print(results.failures[0].error)
            """
        )
    )
    out, err = bench.start(executable_arguments=["script.py"]).communicate(timeout=180)
    assert "1 cell: 0 computed, 0 cached, 1 failed" in out, err
    assert out.strip().endswith("ValueError: planted (line 6 of its file or cell)")
