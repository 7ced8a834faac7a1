"""What importing and what a command that computes nothing load: promises that keep the command line quick to answer."""

import os
import subprocess
import sys

import pytest

from mmc_bench.system.processes import may_have_gpu

#: Packages that take long to import, and parts of our own that compute or read records.
HEAVY = ("torch", "torchvision", "timm", "pandas", "scipy", "sklearn", "matplotlib", "rich")
MODELS = ("pydantic", "pydantic_core")
READING = ("mmc_bench.results.records", "mmc_bench.results.scores", "mmc_bench.results.leases")
RUNNING = ("mmc_bench.running.launch", "mmc_bench.engines.local", "mmc_bench.report")


def loaded(code, folder, *modules):
    """Return which of some modules are loaded after a fresh interpreter has run `code` in an empty folder."""
    asked = f"\nimport sys; print('LOADED', *[name for name in {modules!r} if name in sys.modules])"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MMC_BENCH_")}
    words = [sys.executable, "-c", code + asked]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def command(*words):
    return (
        f"import sys; sys.argv = ['mmc-bench', *{words!r}]\n"
        "from mmc_bench.cli.main import run_command_line\n"
        "assert run_command_line() == 0"
    )


def test_importing_the_package_loads_nothing_that_takes_long(tmp_path):
    assert loaded("import mmc_bench", tmp_path, *HEAVY, *MODELS, *READING, "click", "yaml") == []


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["list", "methods"], ["list", "datasets"], ["plugins"]], ids=" ".join)
def test_what_reads_no_suite_loads_no_models(tmp_path, words):
    assert loaded(command(*words), tmp_path, *HEAVY, *MODELS, *READING, *RUNNING, "yaml") == []


@pytest.mark.slow
@pytest.mark.parametrize("words", [["run", "--dry-run"], ["status"]], ids=" ".join)
def test_what_finds_no_record_loads_none_of_what_reads_one(tmp_path, words):
    assert loaded(command(*words), tmp_path, *HEAVY, *READING[:2], *RUNNING) == []


@pytest.mark.slow
def test_a_dry_run_loads_no_target_of_a_plugin_without_settings(tmp_path):
    targets = ("mmc_bench_plugins.ft.method", "mmc_bench_plugins.resnet.backbone", "mmc_bench_plugins.box_cue.dataset")
    assert loaded(command("run", "--dry-run"), tmp_path, *targets) == []


@pytest.mark.slow
def test_a_run_says_what_it_will_do_before_it_imports_torch(tmp_path):
    announced = (
        "from mmc_bench.running.lines import LineDisplay\n"
        "def announce(self, line):\n"
        "    assert line.startswith('suite quick: 24 cells, 0 cached, 24 to run; 3 of 3 pretrainings')\n"
        "    raise SystemExit\n"
        "LineDisplay.announce = announce\n"
        "try:\n"
        "    import mmc_bench\n"
        "    mmc_bench.run(progress=lambda line: None)\n"
        "    raise AssertionError('nothing was announced')\n"
        "except SystemExit:\n"
        "    pass"
    )
    assert loaded(announced, tmp_path, "torch", "torchvision", "timm", "pandas") == []


@pytest.mark.slow
@pytest.mark.skipif(may_have_gpu(), reason="there is a GPU's driver, and torch says what it can do")
@pytest.mark.parametrize(
    "given", ["", "set='cbft.epochs=3'", "suite=dict(suite)", "suite='mine.yaml'", "suite='repair-curve'"]
)
def test_a_run_imports_torch_to_check_parameters_only_where_they_are_not_the_default_suite_s(tmp_path, given):
    started = (
        "import os, sys, yaml, mmc_bench\n"
        "class EndsAtTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            os.write(1, b'LOADED torch')\n"
        "            os._exit(0)\n"
        "sys.meta_path.insert(0, EndsAtTorch())\n"
        "from mmc_bench.engines.local import LocalEngine\n"
        "from mmc_bench.plugin.registry import Registry\n"
        "suite = yaml.safe_load(Registry.discover().suites['quick'][0].read_text())\n"
        "open('mine.yaml', 'w').write(yaml.safe_dump(suite))\n"
        "def start(*arguments):\n"
        "    raise SystemExit\n"
        "LocalEngine.run = start\n"
        "try:\n"
        f"    mmc_bench.run(methods=['cbft', 'lpft'], progress=lambda line: None, {given})\n"
        "    raise AssertionError('no worker was started')\n"
        "except SystemExit:\n"
        "    pass"
    )
    assert loaded(started, tmp_path, "torch") == (["torch"] if given else [])


@pytest.mark.skipif(may_have_gpu(), reason="there is a GPU's driver, and torch says what it can do")
def test_without_a_gpus_driver_the_device_is_known_without_torch(tmp_path):
    code = "from mmc_bench.running.devices import resolve_device\nassert resolve_device('auto') == 'cpu'"
    assert loaded(code, tmp_path, "torch") == []


@pytest.mark.slow
def test_a_worker_loads_nothing_that_takes_long_but_torch_until_a_job_needs_it(tmp_path):
    unneeded = [name for name in HEAVY if name != "torch"]
    code = "import mmc_bench.stages.job, mmc_bench.engines.worker, mmc_bench.data.sources as sources\n"
    assert loaded(code + "sources.load_digits()", tmp_path, *unneeded) == []


def test_digits_are_those_of_scikit_learn_s_own_reader(monkeypatch):
    import torch

    from mmc_bench.data import sources

    quickly = sources.load_digits()
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    for one, other in zip(quickly, sources.load_digits()):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
