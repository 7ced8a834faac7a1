"""No plugin changes what comes after it in its process: what it changed is put back, and it is named."""

import json
import locale
import logging
import os
import random
import signal
import sys
import warnings
from dataclasses import asdict, dataclass
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import Bench, Result
from helpers.plugins import write_source
from torch import nn
from torch.nn import functional

from mmc_bench.system.process_state import ProcessState, as_if_fresh, kept

CHANGES = {
    "torch's default dtype to torch.float64": lambda: torch.set_default_dtype(torch.float64),
    "torch's default device to meta": lambda: torch.set_default_device("meta"),
    "torch's default device to cpu": lambda: torch.device("cpu").__enter__(),
    "torch's number of threads to 3": lambda: torch.set_num_threads(3),
    "torch's gradient mode to False": lambda: torch.set_grad_enabled(False),
    "torch's gradient mode to False ": lambda: torch.no_grad().__enter__(),
    "torch's deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "torch's deterministic algorithms ": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "torch's cudnn_benchmark to True": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "torch's cudnn_deterministic to True": lambda: setattr(torch.backends.cudnn, "deterministic", True),
    "torch's cudnn_enabled to False": lambda: setattr(torch.backends.cudnn, "enabled", False),
    "torch's precision of float32": lambda: torch.set_float32_matmul_precision("medium"),
    "torch's precision of float32 ": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "torch's precision of float32  ": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "torch's allow_bf16_reduced_precision_reduction to False": lambda: setattr(
        torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False
    ),
    "torch's mkldnn_enabled to False": lambda: torch.backends.mkldnn.set_flags(False),
    "torch's nnpack_enabled to False": lambda: torch.backends.nnpack.set_flags(False),
    "torch's flash attention to False": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "torch's autocast": lambda: torch.autocast("cpu", torch.bfloat16).__enter__(),
    "torch's anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "torch's treatment of denormal numbers": lambda: torch.set_flush_denormal(True),
    "torch's print options": lambda: torch.set_printoptions(precision=2),
    "hooks on all modules or optimisers": lambda: nn.modules.module.register_module_forward_hook(print),
    "hooks on saved tensors": lambda: torch.autograd.graph.saved_tensors_hooks(abs, abs).__enter__(),
    "torch.nn.functional.relu": lambda: setattr(functional, "relu", torch.sigmoid),
    "torch.nn.modules.linear.Linear.forward": lambda: setattr(nn.Linear, "forward", lambda self, x: x),
    "torch.nn.modules.conv.Conv2d.__call__": lambda: setattr(nn.Conv2d, "__call__", lambda self, x: x),
    "torch.optim.sgd.sgd": lambda: setattr(sys.modules["torch.optim.sgd"], "sgd", print),
    "torch.autograd.backward": lambda: setattr(torch.autograd, "backward", print),
    "torch.nn.modules.linear.F": lambda: setattr(nn.modules.linear, "F", torch),
    "torch._C._nn.cross_entropy_loss": lambda: setattr(torch._C._nn, "cross_entropy_loss", print),
    "json.dumps": lambda: setattr(json, "dumps", str),
    "NumPy's error state": lambda: np.seterr(all="raise"),
    "NumPy's print options": lambda: np.set_printoptions(precision=1),
    "the working directory": lambda: os.chdir("/"),
    "environment variable OMP_NUM_THREADS": lambda: os.environ.update(OMP_NUM_THREADS="7"),
    "environment variable HOME": lambda: os.environ.pop("HOME"),
    "warnings filters": lambda: warnings.simplefilter("error"),
    "warnings filters ": lambda: warnings.filterwarnings("error", message="lr_scheduler"),
    "the root logger": lambda: logging.disable(),
    "the root logger ": lambda: logging.getLogger().setLevel(7),
    "signal handlers": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "a pending alarm": lambda: signal.alarm(1000),
    "the umask to 0o177": lambda: os.umask(0o177),
    "the locale": lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C"),
    "sys.path": lambda: sys.path.insert(0, "elsewhere"),
    "the recursion limit to 54321": lambda: sys.setrecursionlimit(54321),
}


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """Whatever a test changes, others find nothing of it; and each begins as a run does."""
    monkeypatch.setenv("HOME", "somewhere")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with as_if_fresh():
        yield


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_plugin_changes_is_put_back_and_named(change):
    said = []
    with kept("method mine", said.append):
        CHANGES[change]()
    assert len(said) == 1
    assert said[0].startswith(f"method mine changed {change.strip()}")
    assert said[0].endswith(", which was put back")
    with kept("nobody", said.append):
        pass
    assert len(said) == 1


def test_inference_mode_that_a_plugin_keeps_is_left_and_stays_left_when_it_lets_go():
    said, held = [], [torch.inference_mode()]
    with kept("method mine", said.append):
        held[0].__enter__()
    assert said == ["method mine changed torch's inference mode to True, which was put back"]
    weight = nn.Parameter(torch.ones(1))
    (weight * 2).sum().backward()
    held.clear()
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()


def test_several_changes_are_one_sentence():
    said = []
    with kept("method mine", said.append), pytest.raises(ZeroDivisionError):
        torch.set_default_dtype(torch.float64)
        os.environ.update(A="1", B="2")
        1 / 0  # noqa: B018
    assert said == [
        "method mine changed torch's default dtype to torch.float64 and environment variables A, B, which was put back"
    ]


def test_of_several_plugins_each_is_named_for_its_own_change():
    said = []
    for who, change in {"a": lambda: os.chdir("/"), "b": str, "c": lambda: torch.set_grad_enabled(False)}.items():
        with kept(f"plugin {who}", said.append):
            change()
    assert said == [
        "plugin a changed the working directory to /, which was put back",
        "plugin c changed torch's gradient mode to False, which was put back",
    ]


def test_code_that_came_with_one_plugin_is_kept_from_the_next(monkeypatch):
    said = []
    module = ModuleType("mmc_bench_late")
    module.helper = print
    with kept("plugin early", said.append):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    with kept("plugin late", said.append):
        module.helper = repr
    assert said == ["plugin late changed mmc_bench_late.helper, which was put back"]


def test_values_that_cannot_be_compared_disturb_nothing(monkeypatch):
    class Odd:
        __hash__ = None

        def __eq__(self, other):
            return other.answer  # an AttributeError

    said = []
    module = ModuleType("mmc_bench.odd")
    module.state, module.helper = Odd(), print
    module.Kind = type("Kind", (), {"size": 1.5, "state": Odd(), "__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with kept("method mine", said.append):
        module.state, module.helper, module.Kind.size = None, repr, float("1.5")
    assert said == ["method mine changed mmc_bench.odd.helper, which was put back"]


def test_what_a_process_that_is_lent_computes_with_is_usual_and_its_owner_gets_his_own_back():
    torch.set_default_dtype(torch.float64)
    np.seterr(divide="raise")
    random.seed(5)
    expected = random.Random(5).random()
    with as_if_fresh():
        assert torch.get_default_dtype() is torch.float32
        assert np.geterr()["divide"] == "warn"
        random.random(), torch.rand(3)
    assert torch.get_default_dtype() is torch.float64
    assert np.geterr()["divide"] == "raise"
    assert random.random() == expected


def test_drawing_random_numbers_and_importing_libraries_is_no_change():
    said = []
    with kept("method mine", said.append):
        random.random(), np.random.rand(2), torch.rand(2)
        torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1).step()
        import sklearn.linear_model  # noqa: F401
    assert said == []


def test_the_states_are_read_and_compared_in_a_few_thousand_calls():
    """Around every call of a plugin, this must cost little: counted, not timed."""
    ProcessState.now().put_back()
    calls = []
    with kept("method mine", print):
        pass
    sys.setprofile(lambda frame, event, argument: calls.append(event) if event in ("call", "c_call") else None)
    try:
        with kept("method mine", print):
            pass
    finally:
        sys.setprofile(None)
    assert 1000 < len(calls) < 20_000


PLUGIN = """
import os, sys
from mmc_bench import MethodSpec, hookimpl

@hookimpl
def register_methods(register):
    register(MethodSpec(name="rude", target=":Rude", summary="changes its process"))
    register(MethodSpec(name="loads-images", target=":LoadsImages", summary="reads batches in a process"))
    register(MethodSpec(name="z-fits", target=":Fits", summary="fine-tunes"))
    register(MethodSpec(name="a-spoils", target=":Spoils", summary="changes its data"))
    register(MethodSpec(name="honest", target=":Honest", summary="uses what torch offers"))

class Rude:
    def fine_tune(self, task):
        import torch
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(7)
        torch.nn.functional.relu = torch.sigmoid
        torch.Tensor.relu = torch.sigmoid
        os.chdir("/")
        torch.backends.mkldnn.set_flags(False)
        return task.model

class Spoils:
    def fine_tune(self, task):
        _, y = task.clean.batch(slice(12))
        y.zero_()
        return task.model

class Honest:
    def fine_tune(self, task):
        import multiprocessing, torch
        model = torch.compile(task.model, backend="eager")
        kinds = torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam
        optimizers = [kind(model.parameters(), lr=0.01) for kind in kinds]
        for x, y in task.clean.shuffled(6, task.generator):
            for optimizer in optimizers:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
        queue = multiprocessing.Queue()
        queue.close()
        return model

class Fits:
    def fine_tune(self, task):
        return task.training(lr=0.05, epochs=2, batch_size=6).fit()

class LoadsImages:
    def fine_tune(self, task):
        from torch.utils.data import DataLoader, TensorDataset
        x, y = task.clean.batch(slice(12))
        seen = sum(len(labels) for _, labels in DataLoader(TensorDataset(x, y), batch_size=4, num_workers=1))
        assert seen == 12
        return task.model
"""


WANDERER = """
import os
from mmc_bench import ObserverSpec, hookimpl

@hookimpl
def register_observers(register):
    register(ObserverSpec(name="wanderer", target=":Wanderer"))

class Wanderer:
    def run_started(self, plan):
        os.chdir("..")
"""


@dataclass(frozen=True)
class Company:
    """One run of all methods above, told of by an observer; and the records of two of these methods in a run alone."""

    result: Result
    records: dict
    alone: dict

    def has_the_records_of(self, *methods):
        """Whether the run has those of a run of some methods alone: these, and their pretraining's."""
        names = [name for name, record in self.alone.items() if _method(record) in (None, *methods)]
        return len(names) == 1 + len(methods) and all(self.records[name] == self.alone[name] for name in names)


def _method(record):
    """Return the method of a cell, or None for a pretraining."""
    return record["cell"]["method"]["name"] if record.get("kind") == "cell" else None


@pytest.fixture(params=[0, 1], ids=str)
def company(request, made_once, capsys, monkeypatch):
    """Return such a run without a worker, and one with a worker."""
    workers = request.param
    methods = "a-spoils,honest,rude,tiny-ft,z-fits" + (",loads-images" if workers else "")

    def make(folder):
        bench = Bench(folder, capsys, monkeypatch)
        plugins = write_source(folder, "rude.py", PLUGIN), write_source(folder, "wanderer.py", WANDERER)
        words = ["run", "--suite", "tiny.yaml", "--seeds", "0", "--plugins-dir", plugins[0]]
        assert bench(*words, "--workers", 0, "--results", "alone", "--methods", "tiny-ft,z-fits").code == 0
        words += ["--plugins-dir", plugins[1], "--observe", "wanderer", "--workers", workers]
        result = bench.apart(*words, "--results", "here", "--methods", methods)
        (folder / "result.json").write_text(json.dumps(asdict(result)))

    bench = Bench(made_once(f"company-{workers}", make), capsys, monkeypatch)
    result = Result(**json.loads((bench.folder / "result.json").read_text()))
    assert (result.code, len(bench.records("alone"))) == (1, 3), result.err  # one method fails, as it should
    records = {name: record for name, record in bench.records("here").items() if ".failure" not in name}
    return Company(result, records, bench.records("alone"))


@pytest.mark.slow
def test_a_method_that_changes_its_process_changes_no_other_record_and_is_named(company):
    assert "rude" in company.result.out  # the table is found from any working directory
    assert company.has_the_records_of("tiny-ft", "z-fits")
    [own] = [record for record in company.records.values() if _method(record) == "rude"]
    [before] = [record for record in company.records.values() if _method(record) is None]
    for split in ("NC", "C", "RC", "RI"):  # nor how its own model, which it left alone, is scored
        assert own["metrics"][split] == before["metrics"][split]
    [line] = [line for line in company.result.err.splitlines() if "method rude changed" in line]
    for change in ("default dtype to torch.float64", "number of threads to 7", "functional.relu", "working directory"):
        assert change in line
    assert line.endswith("which was put back")


@pytest.mark.slow
@pytest.mark.parametrize("company", [1], indirect=True)
def test_a_method_may_start_processes_and_leaves_none_behind(company):
    assert [record for record in company.records.values() if _method(record) == "loads-images"]
    assert "loads-images changed" not in company.result.err


@pytest.mark.slow
def test_changes_that_torch_makes_for_a_method_are_not_reported(company):
    assert [record for record in company.records.values() if _method(record) == "honest"]
    [told] = [line for line in company.result.err.splitlines() if "put back" in line]
    assert "method rude changed" in told


@pytest.mark.slow
def test_a_method_that_changes_its_data_in_place_fails_and_changes_no_other_record(company):
    said = "method a-spoils changed the labels of task.clean in place: work on a clone()"
    assert said in company.result.err
    assert company.has_the_records_of("z-fits")


@pytest.mark.slow
def test_the_table_is_found_though_an_observer_went_elsewhere(company):
    assert "tiny-ft" in company.result.out and "records in here/" in company.result.err


RC_FILES = {
    "text by LaTeX": "text.usetex: true\nfigure.dpi: 30\naxes.facecolor: red\nfont.size: 30\n",
    "broken": "\xff\xfe\n",
    "nonsense": "no colon\nfont.size: huge\n",
}


@pytest.fixture
def plain_figures(made_once, capsys, monkeypatch):
    """Return a folder with results and, in `plain`, their figures as no file of settings changes them."""

    def make(folder):
        bench = Bench(folder, capsys, monkeypatch)
        assert bench.tiny("--seeds", "0", "--methods", "tiny-still").code == 0
        assert bench.apart("plot", "--out", "plain", "--format", "svg").code == 0

    return made_once("plain-figures", make)


@pytest.mark.slow
@pytest.mark.parametrize("rc", RC_FILES)
def test_figures_depend_on_no_backend_and_no_matplotlibrc(bench, plain_figures, rc):
    (bench.folder / "matplotlibrc").write_text(RC_FILES[rc], encoding="latin-1")
    backend = {"MPLBACKEND": "module://no_such.inline" if rc == "text by LaTeX" else "none such"}
    words = ["plot", "--results", plain_figures / "results", "--out", "other", "--format", "svg"]
    other = bench.apart(*words, env=backend)
    assert other.code == 0, other.err
    names = sorted(path.name for path in (plain_figures / "plain").iterdir())
    assert len(names) == 2
    for name in names:
        assert (plain_figures / "plain" / name).read_bytes() == (bench.folder / "other" / name).read_bytes()


@pytest.mark.slow
def test_what_a_plugin_changes_when_it_is_imported_is_put_back_and_named(bench):
    source = "import os, warnings, torch\ntorch.set_default_dtype(torch.float64)\nos.chdir('/')\n"
    rude = write_source(bench.folder, "rude.py", source + PLUGIN)
    words = ["run", "--suite", "tiny.yaml", "--seeds", "0", "--methods", "z-fits", "--plugins-dir"]
    other = write_source(bench.folder, "other/rude.py", PLUGIN)
    assert bench(*words, other, "--workers", 0, "--results", "other").code == 0
    for workers, call in ((0, bench), (1, bench.apart)):
        result = call(*words, rude, "--workers", workers, "--results", str(workers))
        assert result.code == 0, result.err
        said = "plugin rude changed torch's default dtype to torch.float64 and the working directory to /"
        assert result.err.count(said) == 1
        metrics = [
            sorted(json.dumps(record["metrics"]) for record in bench.records(results).values())
            for results in ("other", str(workers))
        ]
        assert metrics[0] == metrics[1]
