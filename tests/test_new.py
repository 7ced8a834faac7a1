"""``mmc-bench new``: what it writes, and what it refuses."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from mmc_bench.plugin.scaffold import Project

KINDS = ("method", "dataset", "backbone")
STRICT = "E,F,W,I,B,UP,SIM,C4,PIE,RET,PTH,RUF,D1,N"


@pytest.mark.parametrize("kind", KINDS)
def test_a_project_is_written_and_the_next_commands_are_told(bench, kind):
    result = bench("new", kind, "my-own.2nd")
    assert result.code == 0
    root = bench.folder / "my-own.2nd"
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    package = "mmc_bench_my_own_2nd"
    assert files == {
        *("pyproject.toml", "README.md", "tests/test_my_own_2nd.py"),
        *(f"{package}/__init__.py", f"{package}/{kind}.py"),
    }
    assert not any("{{" in (root / file).read_text() or "{%" in (root / file).read_text() for file in files)
    following = [line.strip() for line in result.out.partition("next:")[2].strip().splitlines()]
    assert following == [
        "pip install -e ./my-own.2nd",
        "mmc-bench check my-own.2nd",
        f"mmc-bench run --{kind}s my-own.2nd",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a", "a-name-of-forty-characters.which-is-long"])
def test_what_is_written_is_clean(bench, kind, name):
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed")
    bench("new", kind, name)
    project = bench.folder / name

    def ruff(*words):
        done = subprocess.run([sys.executable, "-m", "ruff", *words], cwd=project, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout

    ruff("check", "--no-cache", ".")
    ruff("format", "--no-cache", "--diff", ".")
    (package,) = project.glob("mmc_bench_*")
    ruff("check", "--no-cache", "--select", STRICT, "--ignore", "D107,RUF001,RUF002,RUF003", package.name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_found_and_passes_every_check(bench, kind):
    bench("new", kind, "foo")
    package = bench.folder / "foo" / "mmc_bench_foo"
    result = bench("check", "foo", "--plugins-dir", package, "--json")
    (report,) = json.loads(result.out)
    assert [check for check in report["checks"] if check["outcome"] == "failed"] == []
    assert (result.code, report["name"], report["kind"]) == (0, "foo", kind)


@pytest.fixture
def import_from(monkeypatch):
    """Return what puts a folder on this process's import path; a project of it is forgotten in the end."""
    yield monkeypatch.syspath_prepend
    for name in [name for name in sys.modules if name.partition(".")[0] == "mmc_bench_foo"]:
        del sys.modules[name]


@pytest.mark.slow
def test_an_installed_project_runs_and_its_own_tests_pass(bench, import_from):
    """Of a data set's, for all kinds; the tutorial's test does it for a method."""
    bench("new", "dataset", "foo")
    site = bench.folder / "site"
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", site]
    variables = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1"}

    def python(*words):
        environment = {**os.environ, **variables, "PYTHONPATH": str(site)}
        command = [sys.executable, "-m", *map(str, words)]
        done = subprocess.run(command, cwd=bench.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    python("pip", "install", *options, "./foo")
    assert "passed" in python("pytest", "-q", "-p", "no:cacheprovider", "foo")
    import_from(site)
    sizes = ["pretrain.epochs=1", "data.pretrain_images=200", "ft-small.epochs=1", "connect.points=2"]
    settings = [word for size in sizes for word in ("--set", size)]
    words = ["--datasets", "foo", "--methods", "ft-small", "--seeds", 0, "--workers", 0, "--device", "cpu", *settings]
    result = bench("run", *words, "--json")
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert (content["computed"], content["failed"]) == (1, 0)
    assert {row["dataset"] for row in content["rows"]} == {"foo"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["method", "Foo"], "'Foo' cannot be the name of a method"),
        (["method", "a/b"], "'a/b' cannot be the name of a method"),
        (["method", "2nd"], "beginning with a letter"),
        (["dataset", "a--b"], "'a--b' cannot be the name of a dataset"),
        (["dataset", "x" * 41], "40 at most"),
        (["backbone", "none"], "would name a class None"),
        (["method", "data"], "method name 'data' stands for settings of a suite, as in data.key=value"),
        (["method", "pretrained"], "method name 'pretrained' stands for the model that methods start from"),
        (["method", "task"], "would name a class Task"),
        (["method", "plugins"], "would make a package mmc_bench_plugins, and one of that name is installed"),
        (["dataset", "benchmarks"], "would make a package mmc_bench_benchmarks"),
        (["method", "foo", "--into", "x" * 300], "cannot be written (File name too long)"),
        (["method", "cbft"], "mmc-bench has a method 'cbft' already"),
        (["method", "taken"], "taken exists already"),
        (["method", "foo", "--into", "a-file"], "cannot be written"),
        (["suite", "foo"], "'suite' is not one of"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_sentence(bench, words, says):
    (bench.folder / "taken").mkdir()
    (bench.folder / "a-file").write_text("")
    before = sorted(bench.folder.rglob("*"))
    result = bench("new", *words)
    assert (result.code, result.out) == (4, "")
    assert says in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert sorted(bench.folder.rglob("*")) == before


@pytest.mark.slow
def test_another_folder_can_be_named(bench):
    result = bench("new", "method", "foo", "--into", "deep/er")
    assert (bench.folder / "deep" / "er" / "foo" / "pyproject.toml").is_file()
    assert "pip install -e ./deep/er/foo" in result.out


def test_names_become_names_of_python():
    project = Project("method", "my-own.2nd_try")
    assert (project.package, project.classname) == ("mmc_bench_my_own_2nd_try", "MyOwn2ndTry")
