"""The example of every public name does what it shows; all share one results folder."""

import doctest
import importlib

import pytest

import mmc_bench
from mmc_bench import api

pytestmark = pytest.mark.slow

NAMES = [name for name in mmc_bench.__all__ if name not in ("hookimpl", "__version__")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("examples")


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_name_does_what_it_shows(folder, monkeypatch, name):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("mmc_bench.running.launch.share_cores", lambda *given: (0, 1))  # no example shows workers
    value = getattr(mmc_bench, name)
    module = importlib.import_module(value.__module__)
    tests = doctest.DocTestFinder(recurse=False).find(value, name, module=module, globs={})
    assert sum(len(test.examples) for test in tests) >= 2, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in tests:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("name", api.__all__)
def test_a_public_function_says_what_it_takes_returns_and_raises(name):
    text = getattr(api, name).__doc__
    for section in ("Parameters", "Returns", "Raises", "Examples"):
        assert f"\n    {section}\n    {'-' * len(section)}\n" in text
    for parameter in getattr(api, name).__annotations__:
        if parameter != "return":
            assert parameter in text.partition("Returns\n")[0], parameter


def test_the_api_page_is_what_the_docstrings_say():
    from mmc_bench_benchmarks.api_page import GROUPS, PAGE, page

    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m benchmarks.api_page"
    described = {value for values in GROUPS.values() for value in values}
    assert {getattr(mmc_bench, name) for name in NAMES} <= described
