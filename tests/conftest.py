"""Fixtures that several files share: folders of a test's own, a tiny network, image sets, a plain cell."""

import gc
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import count, groupby, islice
from pathlib import Path

import pytest
from filelock import FileLock

from mmc_bench.results.jobs import Cell, PluginRef, Pretraining
from mmc_bench.results.settings import ConnectSettings, DataSettings, Recipe
from mmc_bench.system.processes import available_cores

# torch takes seconds to import: fixtures import it where they need it, so that other tests start at once.

#: With all that tests import, looking for garbage after every 700 new objects takes a fifth of the processor time.
gc.set_threshold(50_000)

#: More would wait for each other on busy cores, milliseconds in every operation; what tests start has no more either.
os.environ["OMP_NUM_THREADS"] = "1"

#: Numbers the folders that stand for the user's.
HOMES = count()


def pytest_xdist_auto_num_workers(config):
    """One process more than there are cores, up to four: slow tests wait, for naps, clusters and dead runs."""
    return min(4, available_cores() + (config.option.markexpr != "not slow"))


def pytest_collection_modifyitems(items):
    """Let every worker begin with what takes long, so that none is left alone with it at the end.

    At first each has a stretch of the list, all of one length; later it takes over what others have not begun. A file's
    slow tests stay together, since they share what its fixtures make.
    """
    slow = [item for item in items if item.get_closest_marker("slow")]
    quick = iter([item for item in items if not item.get_closest_marker("slow")])
    files = [list(tests) for _, tests in groupby(slow, key=lambda item: item.path)]
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    length = -(-len(items) // workers)
    ordered = []
    for n in range(workers):
        stretch = [test for tests in files[n::workers] for test in tests]
        ordered += stretch + list(islice(quick, max(0, length - len(stretch))))
    items[:] = ordered + list(quick)


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory, monkeypatch):
    """Keep every test away from the user's data and decoded images; few make the folders that they are given."""
    home = tmp_path_factory.getbasetemp() / f"home{next(HOMES)}"
    monkeypatch.setenv("MMC_BENCH_CACHE", str(home / "cache"))
    monkeypatch.setenv("MMC_BENCH_DATA", str(home / "data"))


@pytest.fixture
def forgotten_plugins(monkeypatch):
    """Forget the modules of plugins that a test imports, and keep it away from the user's plugins."""
    monkeypatch.delenv("MMC_BENCH_PLUGINS", raising=False)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if "plugin" in name:  # numpy and torch do not survive a second import
            del sys.modules[name]


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small gain nothing from more, and lose much where the cores are busy."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Return a maker of folders that all workers of a test run share: ``made_once(name, make)``.

    The first to ask has `make(folder)` fill it; nobody may write to it after that.
    """
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def get(name, make):
        folder = root / f"once-{name}"
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                part = tmp_path_factory.mktemp(name)
                make(part)
                part.rename(folder)
        return folder

    return get


FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run --hide-scrollbars --window-size=1400,900"
)


@pytest.fixture(scope="session")
def chromium():
    """Return a driver of a headless Chromium of this machine."""
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("the page is tried in Chromium, and chromium or chromedriver is not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    yield browser
    browser.quit()


@pytest.fixture
def tiny_net():
    """Return a maker of tiny networks with random weights and BatchNorm statistics."""
    import torch
    from helpers.networks import TinyNet
    from torch import nn

    def make(seed=0, dtype=torch.float64):
        torch.manual_seed(seed)
        net = TinyNet().to(dtype)
        for norm in (net.norm1, net.norm2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
        return net

    return make


@pytest.fixture
def image_set():
    """Return a maker of sets of `n` random 2x6x6 images of three classes, without cues."""
    import torch

    from mmc_bench.data.cued_images import CuedImages

    def make(n, seed=0, dtype=torch.float64, labels=None):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(3, (n,), generator=generator) if labels is None else torch.tensor(labels)
        images = torch.randn(n, 2, 6, 6, generator=generator, dtype=dtype)
        images += labels[:, None, None, None] * 0.3  # something to learn
        cues = torch.full((n,), -1)
        return CuedImages(images, torch.arange(n), labels, cues, lambda images, cue: images)

    return make


@pytest.fixture
def apple(monkeypatch):
    """Return a function that moves images to a stand-in for Apple's GPU, which is there meanwhile."""
    from helpers.pretended_gpu import NAME, pretended_gpu

    from mmc_bench.system import devices

    monkeypatch.setattr(devices, "APPLE", NAME)

    def there(images):
        own = {name: getattr(images, name).to(NAME) for name in ("storage", "index", "labels", "cues")}
        return replace(images, **own)

    with pretended_gpu():
        yield there


@pytest.fixture
def cell():
    """Return a cell as plain data; its plugins need not exist."""
    pretraining = Pretraining(
        versions={"pretrain": "1", "score": "1"},
        dataset=PluginRef(name="digits-box", distribution="mmc-bench", version="1+abc", parameters={"size": 3}),
        images={"digits": "original"},
        data=DataSettings(clean_images=20, validation_images=20, pretrain_images=100),
        backbone=PluginRef(name="resnet8", distribution="mmc-bench", version="1+def", parameters={"blocks": 1}),
        cue_rate=0.9,
        recipe=Recipe(epochs=2, curve_images=10),
        seed=3,
    )
    method = PluginRef(name="ft", distribution="mmc-bench", version="1+123", parameters={"lr": 0.1})
    return Cell(
        versions={"fine-tune": "1", "score": "1", "connect": "1"},
        pretraining=pretraining,
        method=method,
        connect=ConnectSettings(points=3, batchnorm_images=10),
    )


PLUGINS = Path(__file__).parent / "plugins"

TINY_SUITE = """
datasets: [tiny-set]
backbones: [tiny-net]
methods: [tiny-ft, tiny-still]
cue_rates: [0.9]
seeds: [0, 1]
threads: 1
pretrain: {epochs: 2, batch_size: 12, lr: 0.05}
connect: {points: 4}
"""


@dataclass(frozen=True)
class Result:
    """What a command line left behind."""

    code: int
    out: str
    err: str


class Bench:
    """A folder with a tiny suite, and `mmc-bench` in it, in this process or in one of its own."""

    def __init__(self, folder, capsys, monkeypatch):
        self.folder, self._capsys, self._monkeypatch = folder, capsys, monkeypatch
        if not (folder / "tiny.yaml").exists():
            (folder / "tiny.yaml").write_text(TINY_SUITE)

    def __call__(self, *words):
        """Run a command in this process."""
        from mmc_bench.cli.main import run_command_line

        self._monkeypatch.chdir(self.folder)
        self._monkeypatch.setattr(sys, "argv", ["mmc-bench", *map(str, words)])
        self._monkeypatch.setenv("MMC_BENCH_PLUGINS", str(PLUGINS))
        self._capsys.readouterr()
        code = run_command_line()
        return Result(code, *self._capsys.readouterr())

    def tiny(self, *words):
        """Run the tiny suite in this process."""
        return self("run", "--suite", "tiny.yaml", "--workers", 0, *words)

    def start(self, *words, executable_arguments=("-m", "mmc_bench"), **options):
        """Start a command, or another Python program, in a process of its own."""
        environment = {**os.environ, "MMC_BENCH_PLUGINS": str(PLUGINS), **options.pop("env", {})}
        return subprocess.Popen(
            [sys.executable, *executable_arguments, *map(str, words)],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def apart(self, *words, **options):
        """Run a command in a process of its own."""
        process = self.start(*words, **options)
        out, err = process.communicate(timeout=180)
        return Result(process.returncode, out, err)

    def records(self, results="results"):
        """Return all records by file name, without what may differ between runs: timing and provenance."""
        found = {}
        for path in sorted((self.folder / results).rglob("*.json")):
            content = json.loads(path.read_text())
            content.pop("timing", None), content.pop("provenance", None)
            found[path.name] = content
        return found

    def predictions(self, results="results"):
        """Return the content of all files of predictions by file name."""
        return {path.name: path.read_bytes() for path in sorted((self.folder / results / "predictions").iterdir())}


@pytest.fixture
def bench(tmp_path, capsys, monkeypatch):
    return Bench(tmp_path, capsys, monkeypatch)
