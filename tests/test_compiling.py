"""Compiling, which may fail: a training then goes on without, the run says so once, and records say what came of it."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch._dynamo import config as dynamo
from torch._dynamo.backends.common import aot_autograd

from mmc_bench.data.micro_batches import cut_into
from mmc_bench.results.jobs import Cell
from mmc_bench.results.making import Compilation, Timing
from mmc_bench.running.lines import LineDisplay
from mmc_bench.stages import assembly
from mmc_bench.stages.assembly import Assembly
from mmc_bench.training import Progress, Training, compiled
from mmc_bench.training.compiled import WORTHWHILE_STEPS, Compiler, UncompiledError, why_uncompiled


def as_it_is(graph, inputs):
    return graph.forward


def without_compiler(graph, inputs):
    raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\n\nSet VERBOSE=1")


#: What each compiler of torch's fails at; by default torch compiles the backward pass when it first comes.
FAILING = {
    "forward": without_compiler,
    "backward": aot_autograd(fw_compiler=as_it_is, bw_compiler=without_compiler),
}


def compiler(backend):
    """Return what compiles functions without TorchInductor, whose C++ takes ten seconds to compile."""
    torch.compiler.reset()
    return lambda forward: torch.compile(forward, backend=backend, dynamic=False)


@pytest.fixture
def trained(tiny_net, image_set, monkeypatch):
    """Return what trains a small network by a compiler, or by none, and returns it with its progress and events."""

    def train(compiler=None):
        events = []
        monkeypatch.setattr("mmc_bench.training.training.is_worth_compiling", lambda *_: compiler is not None)
        monkeypatch.setattr("mmc_bench.training.training.compiled", compiler)
        monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)
        generator, progress = torch.Generator().manual_seed(0), Progress(events.append)
        settings = {"lr": 0.1, "epochs": 2, "batch_size": 4, "generator": generator}
        return Training(tiny_net(), image_set(12), progress=progress, **settings).fit(), progress, events

    return train


@pytest.mark.slow
@pytest.mark.parametrize("place", FAILING)
def test_a_training_that_cannot_be_compiled_goes_on_without_and_says_why_once(trained, place):
    plain, _, _ = trained()
    model, progress, events = trained(compiler(FAILING[place]))
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    reason = "RuntimeError: Failed to find C compiler. Please specify via CC environment variable"
    assert progress.compiler.why_not == reason and not progress.compiler.compiled
    notes = [event for event in events if "note" in event]
    assert notes == [{"note": f"compiling failed, and trainings go on without: {reason}", "once": True}]
    assert len(events) == 1 + 2  # and the two epochs


@pytest.mark.slow
def test_code_of_others_compiles_under_its_own_settings(trained):
    before = dynamo.suppress_errors, dynamo.recompile_limit, dynamo.fail_on_recompile_limit_hit
    trained(compiler(without_compiler))
    trained(compiler(as_it_is))
    assert (dynamo.suppress_errors, dynamo.recompile_limit, dynamo.fail_on_recompile_limit_hit) == before
    with pytest.raises(Exception, match="Failed to find C compiler"):
        torch.compile(lambda x: x + 1, backend=without_compiler)(torch.ones(1))


@pytest.mark.slow
def test_an_error_of_the_network_itself_is_raised_as_it_is(tiny_net, image_set, trained, monkeypatch):
    def fails(*_):
        raise ValueError("my layer")

    monkeypatch.setattr("helpers.networks.TinyNet.forward_features", fails)
    with pytest.raises(ValueError, match="my layer"):
        trained(compiler(as_it_is))


def test_memory_that_runs_out_while_compiling_is_no_failed_compilation():
    def forward(model, x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Compiler().run(lambda forward: forward, forward, None, torch.ones(1))


def scaled(factor, x):
    return factor * x


@pytest.mark.slow
def test_the_ninth_variant_is_compiled_as_well():
    graphs = []

    def counted(graph, inputs):
        graphs.append(graph)
        return graph.forward

    own, compile_ = Compiler(), compiler(counted)
    for factor in range(11, 23):  # a number is part of the code
        assert own.run(compile_, scaled, factor, torch.ones(1)).item() == factor
    assert len(graphs) == 12 > dynamo.recompile_limit


def test_beyond_the_most_variants_a_training_says_that_it_runs_without(monkeypatch):
    monkeypatch.setattr(compiled, "MOST_VARIANTS", 2)
    monkeypatch.setattr(compiled, "_settings", compiled._settings.__wrapped__)
    own, compile_ = Compiler(), compiler(as_it_is)
    own.run(compile_, scaled, 11, torch.ones(1))
    own.run(compile_, scaled, 12, torch.ones(1))
    with pytest.raises(UncompiledError, match="this process compiled 2 variants of the same function before"):
        own.run(compile_, scaled, 13, torch.ones(1))


def test_only_calls_that_compile_count_for_its_seconds():
    own, compile_ = Compiler(), compiler(as_it_is)
    own.run(compile_, scaled, 11, torch.ones(1))
    seconds = own.seconds
    own.run(compile_, scaled, 11, torch.ones(1))
    assert own.seconds == seconds > 0
    with pytest.raises(UncompiledError):
        own.run(lambda forward: 1 / 0, scaled, 11, torch.ones(1))
    assert own.seconds > seconds


def test_images_a_second_are_those_without_the_time_of_compiling(monkeypatch):
    monkeypatch.setattr("mmc_bench.training.progress.time.perf_counter", iter([100.0, 150.0]).__next__)
    events = []
    progress = Progress(events.append)
    for _ in progress.epochs(1):
        progress.compiler.seconds += 40.0
        progress.step(torch.tensor(0.5), 20)
    assert progress.seconds == 10.0 and events[0]["images_per_second"] == 2.0


def test_what_is_not_worth_compiling_has_a_reason_on_a_gpu_alone(monkeypatch):
    assert why_uncompiled("cpu", 1) is None and why_uncompiled("cuda", WORTHWHILE_STEPS) is None
    assert "2000 steps" in why_uncompiled("cuda", WORTHWHILE_STEPS - 1)
    with cut_into(2):
        assert "memory ran out" in why_uncompiled("cuda", WORTHWHILE_STEPS)
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    assert "turns compiling off" in why_uncompiled("cuda", WORTHWHILE_STEPS)


def test_a_run_says_it_once(cell: Cell):
    said = []
    display, other = LineDisplay(said.append), cell.with_changes(method=cell.method.with_changes(name="other"))
    for job in (cell, other):
        display.event(job, {"note": "compiling failed", "once": True})
        display.event(job, {"note": "something else"})
    assert [line.rpartition(": ")[2] for line in said] == ["compiling failed", "something else", "something else"]


@pytest.fixture
def recorded(cell, monkeypatch):
    """Return what tells what the weights' origin and the record say of a training's compilation."""
    made_by = SimpleNamespace(model_copy=lambda update: None)
    monkeypatch.setattr(assembly, "provenance_of", lambda *_: made_by)
    monkeypatch.setattr(assembly, "WeightsOrigin", SimpleNamespace)

    def compilations(progress):
        made, later = Assembly(cell, SimpleNamespace(), {}), Assembly(cell, SimpleNamespace(), {})
        made.trained(progress)
        later.kept(made.origin())  # by a run that finds the weights
        return [made.origin().compilation, *(one.record(SimpleNamespace).timing.compilation for one in (made, later))]

    return compilations


def test_records_say_what_came_of_compiling(recorded):
    progress = Progress()
    assert recorded(progress) == [None] * 3  # as on a CPU
    progress.compiler.seconds, progress.compiler.compiled = 31.5, True
    assert recorded(progress) == [Compilation(compiled=True, seconds=31.5)] * 3
    progress = Progress()
    progress.compiler.runs_without("too short")
    progress.compiler.runs_without("for another reason")
    assert recorded(progress) == [Compilation(compiled=False, seconds=0, why_not="too short")] * 3


def test_records_without_a_gpu_do_not_mention_it():
    timing = Timing(started="2026-01-02T00:00:00Z", seconds={})
    assert "compilation" not in json.loads(timing.model_dump_json())
    told = timing.model_copy(update={"compilation": Compilation(compiled=True, seconds=3.0)})
    assert Timing.model_validate_json(told.model_dump_json()) == told and told != timing
