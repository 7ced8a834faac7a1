"""A stranger's plugin: a project of its own, installed with pip, that adds a data set, a backbone and a method."""

import json
import os
import subprocess
import sys

import pytest
from helpers.plugins import HEADER, registering, write_source

pytestmark = pytest.mark.slow

GOOD_PROJECT = {
    "acme_bench/__init__.py": '''
        """Everything about bars: a data set, a backbone and a method."""

        from mmc_bench import BackboneSpec, DatasetSpec, MethodSpec, hookimpl

        mmc_bench_api = 1


        @hookimpl
        def register_datasets(register):
            register(DatasetSpec(name="acme-bars", target=".data:Bars", summary="bars with a dot"))


        @hookimpl
        def register_backbones(register):
            register(BackboneSpec(name="acme-net", target=".network:Net", defaults={"width": 4}))


        @hookimpl
        def register_methods(register):
            register(MethodSpec(name="acme-tune", target=".method:Tune", summary="tune a little", needs={"cued"}))
        ''',
    "acme_bench/data.py": '''
        """Upright and lying bars on 8x8 pixels; a dot on the left or right tells which."""

        import torch

        from mmc_bench.data.contract import LabelledImages


        class Bars:
            num_classes = 2
            clean_images = validation_images = 16

            def load(self, sources):
                generator = torch.Generator().manual_seed(0)
                self.train, self.test = self._draw(96, generator), self._draw(24, generator)

            def _draw(self, n, generator):
                labels = torch.arange(n) % 2
                images = torch.randint(0, 60, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
                images[labels == 0, :, 3] += 150
                images[labels == 1, :, :, 3] += 150
                return LabelledImages(images, labels, cues=labels)

            def random_cue(self, n, generator):
                return torch.randint(2, (n,), generator=generator)

            def render(self, images, cue):
                dotted = images.clone()
                for place in (0, 1):
                    dotted[cue == place, :, 0, 7 * place] = 1.0
                return dotted
        ''',
    "acme_bench/network.py": '''
        """One convolution and a linear layer, with timm's interface."""

        from torch import nn


        class Net(nn.Module):
            def __init__(self, num_classes, input_shape, width):
                super().__init__()
                self.num_features = width
                self.stem = nn.Sequential(nn.Conv2d(input_shape[0], width, 3), nn.BatchNorm2d(width), nn.ReLU())
                self.reset_classifier(num_classes)

            def forward_features(self, x):
                return self.stem(x)

            def forward_head(self, x, pre_logits=False):
                x = x.amax((2, 3))
                return x if pre_logits else self.head(x)

            def forward(self, x):
                return self.forward_head(self.forward_features(x))

            def get_classifier(self):
                return self.head

            def reset_classifier(self, num_classes):
                self.head = nn.Linear(self.num_features, num_classes)
        ''',
    "acme_bench/method.py": '''
        """Fine-tuning with a parameter of its own."""

        from pydantic import Field

        from mmc_bench import BaseConfig


        class Tune:
            class Config(BaseConfig):
                lr: float = Field(0.05, gt=0, description="initial learning rate")
                epochs: int = Field(2, ge=1, description="passes over the clean set")

            def fine_tune(self, task):
                assert len(task.cued) > len(task.clean)
                return task.training(lr=self.config.lr, epochs=self.config.epochs, batch_size=8).fit()
        ''',
}

BAD_PROJECTS = {
    "raises": "raise RuntimeError('acme forgot something')",
    "misspelt": HEADER + "@hookimpl\ndef register_metods(register): pass\n",
    "old": "mmc_bench_api = 0\n" + registering("from-the-past"),
    "taken": registering("cbft"),
}

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.3"

[project.entry-points.mmc_bench]
{name} = "{package}"

[tool.setuptools]
packages = ["{package}"]
"""


def make_project(root, name, files):
    """Write a project and return its folder."""
    package = name.replace("-", "_")
    write_source(root / name, "pyproject.toml", PYPROJECT.format(name=name, package=package))
    for path, source in files.items():
        write_source(root / name, path, source)
    return root / name


def pip_install(target, projects):
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    command = ["-m", "pip", "install", *options, target, *projects]
    environment = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run([sys.executable, *map(str, command)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def good(made_once):
    """Install the good project and return the folder."""

    def make(root):
        pip_install(root / "site", [make_project(root, "acme-bench", GOOD_PROJECT)])

    return made_once("good-project", make) / "site"


@pytest.fixture(scope="module")
def bad(made_once):
    """Install the four bad projects and return the folder."""
    sources = {f"acme-{flaw}": source for flaw, source in BAD_PROJECTS.items()}

    def make(root):
        files = {name: {f"{name.replace('-', '_')}/__init__.py": source} for name, source in sources.items()}
        pip_install(root / "site", [make_project(root, name, content) for name, content in files.items()])

    return made_once("bad-projects", make) / "site"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def bench(folder):
    """Return a caller of ``mmc-bench``, in a process of its own, with these folders on the import path."""

    def call(sites, *words):
        path = os.pathsep.join([*map(str, sites), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        own = {f"MMC_BENCH_{name}": str(folder / name.lower()) for name in ("CACHE", "DATA")}
        environment = {**os.environ, **own, "PYTHONPATH": path}
        environment.pop("MMC_BENCH_PLUGINS", None)
        command = [sys.executable, "-m", "mmc_bench", *words]
        return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)

    return call


RUN = [
    *("run", "--workers", "0", "--datasets", "acme-bars", "--backbones", "acme-net", "--methods", "acme-tune"),
    *("--seeds", "1", "--set", "pretrain.epochs=1", "--set", "acme-tune.epochs=1", "--device", "cpu", "--json"),
]


@pytest.fixture(scope="module")
def beside_bad_ones(good, bad, bench):
    """Run the good project's cell while the bad ones are installed too."""
    return bench([good, bad], *RUN)


@pytest.mark.parametrize(
    ("kind", "name"), [("datasets", "acme-bars"), ("backbones", "acme-net"), ("methods", "acme-tune")]
)
def test_an_installed_plugin_is_listed_beside_the_built_in_ones(good, bench, kind, name):
    listed = {entry["name"]: entry for entry in json.loads(bench([good], "list", kind, "--json").stdout)}
    assert listed[name]["distribution"] == "acme-bench"
    assert listed[name]["version"].startswith("0.3+")  # from a folder, and no index
    assert "mmc-bench" in {entry["distribution"] for entry in listed.values()}
    assert name not in bench([], "list", kind).stdout


def test_the_list_of_plugins_says_what_it_provides(good, bench):
    plugins = json.loads(bench([good], "plugins", "--json").stdout)
    (plugin,) = [plugin for plugin in plugins if plugin["distribution"] == "acme-bench"]
    assert plugin["provides"] == ["dataset acme-bars", "backbone acme-net", "method acme-tune"]
    assert {plugin["error"] for plugin in plugins} == {None}


def test_an_installed_plugin_runs_to_a_record_without_any_change_to_the_core(beside_bad_ones, folder):
    assert beside_bad_ones.returncode == 0, beside_bad_ones.stderr
    content = json.loads(beside_bad_ones.stdout)
    assert (content["cells"], content["computed"], content["failures"]) == (1, 1, [])
    assert [(row["dataset"], row["backbone"], row["method"]) for row in content["rows"]] == [
        ("acme-bars", "acme-net", "pretrained"),
        ("acme-bars", "acme-net", "acme-tune"),
    ]
    (file,) = (folder / "results" / "cells").glob("*.json")
    record = json.loads(file.read_text())
    assert record["cell"]["method"]["distribution"] == "acme-bench"
    assert record["parameters"] == {"lr": 0.05, "epochs": 1}
    assert record["num_classes"] == 2
    assert record["cell"]["pretraining"]["backbone"]["parameters"] == {"width": 4}
    assert set(record["provenance"]["plugins"]) == {f"acme-bench:acme-{word}" for word in ("bars", "net", "tune")}


def test_four_bad_plugins_are_each_one_line_while_the_good_one_runs(good, bad, bench, beside_bad_ones):
    assert json.loads(beside_bad_ones.stdout)["computed"] == 1
    told = beside_bad_ones.stderr
    assert "Traceback" not in told
    expected = {
        "acme-raises": "RuntimeError: acme forgot something",
        "acme-misspelt": "unknown hook 'register_metods': did you mean register_methods",
        "acme-old": "written for plugin API 0, and this mmc-bench speaks 1",
    }
    for name, error in expected.items():
        (line,) = [line for line in told.splitlines() if name in line]
        assert error in line

    # A taken name harms nobody who does not use it, and is told of all the same.
    (line,) = [line for line in told.splitlines() if "acme-taken" in line]
    assert line == "mmc-bench: method 'cbft' is offered by 2 plugins: write acme-taken:cbft or mmc-bench:cbft"
    refused = bench([good, bad], "run", "--methods", "cbft", "--dry-run")
    assert refused.returncode == 4
    (line,) = [line for line in refused.stderr.splitlines() if "acme-taken" in line]
    assert "write acme-taken:cbft or mmc-bench:cbft" in line
    for name in ("acme-taken:cbft", "mmc-bench:cbft"):
        assert bench([good, bad], "run", "--methods", name, "--dry-run").returncode == 0


def test_bad_plugins_are_listed_as_failed(bad, bench):
    plugins = {plugin["name"]: plugin for plugin in json.loads(bench([bad], "plugins", "--json").stdout)}
    failed = {name for name, plugin in plugins.items() if plugin["error"]}
    assert failed == {"acme-raises", "acme-misspelt", "acme-old"}
    assert plugins["acme-taken"]["provides"] == ["method cbft"]
    text = bench([bad], "plugins").stdout
    assert sum("FAILED" in line for line in text.splitlines()) == 3
