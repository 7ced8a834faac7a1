"""What captures and replays calls: each form once, nothing twice, and what a GPU is left in when that fails."""

import warnings
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from helpers.tape import Tape
from test_cuda_graphs import Failing, training_of
from test_cuda_graphs import use_tape as use_tape
from torch import nn

from mmc_bench.data.micro_batches import cut_into
from mmc_bench.results.making import Compilation
from mmc_bench.stages.assembly import Assembly
from mmc_bench.system.tally import Tally, tallied
from mmc_bench.training import Progress, graphs
from mmc_bench.training.evaluate import evaluate_with_predictions
from mmc_bench.training.graphs import Graphs, graphs_are_on, graphs_on
from mmc_bench.training.passes import note_pass


def test_a_process_in_which_a_capture_failed_captures_no_more_and_says_why(tiny_net, image_set, use_tape):
    recorder = Failing(torch.OutOfMemoryError("CUDA out of memory"))
    before, first = Graphs(recorder), Graphs(recorder)
    for one in (first, before, Graphs(recorder)):
        found = [one.run(lambda x: (x + 1,), torch.ones(1))[0].item() for _ in range(graphs.WARM_UP_CALLS + 2)]
        assert found == [2.0] * len(found) and one.replays == 0
        assert one.why_not == "OutOfMemoryError: CUDA out of memory" and recorder.attempts == 1
    use_tape(recorder=recorder)
    training = training_of(tiny_net(), image_set(12), progress=(progress := Progress()))
    training.fit()
    assert progress.why_not_replayed == "OutOfMemoryError: CUDA out of memory"


def test_what_a_failed_capture_has_allocated_is_free_when_the_step_is_called_instead():
    held, alive = [], []

    class Recorder(Tape):
        captures = False

        def capture(self, call, pool):
            self.captures = True
            return call()

    recorder = Recorder()

    def step(x):
        alive.extend(one() is not None for one in held)
        if recorder.captures and not held:
            result = Freed()
            held.append(weakref.ref(result))
            raise RuntimeError("no")
        return (x,)

    own = Graphs(recorder)
    for _ in range(graphs.WARM_UP_CALLS + 1):
        own.run(step, torch.ones(1))
    assert alive == [False]


class Freed:
    """Something that a weak reference can follow."""


def test_a_capture_that_is_interrupted_is_the_last_one(monkeypatch):
    monkeypatch.setattr(graphs, "WARM_UP_CALLS", 1)
    recorder = Failing(KeyboardInterrupt())
    own, counts = Graphs(recorder), Tally()
    with tallied(counts), pytest.raises(KeyboardInterrupt):
        for _ in range(2):
            own.run(lambda x: note_pass(x) or (x,), torch.ones(4))
    assert counts.passes == (4, 0, 0) and Graphs(recorder).why_not == "a capture was interrupted"


@pytest.mark.parametrize("replayed", [True, False])
def test_images_are_scored_without_gradients(tiny_net, image_set, replayed):
    grads, net = [], tiny_net()
    net.register_forward_hook(lambda *_: grads.append(torch.is_grad_enabled()))
    evaluate_with_predictions(net, image_set(4), graphs=Graphs(Tape()) if replayed else None)
    assert grads == [False]


def test_nothing_is_captured_into_memory_whose_captures_are_gone(monkeypatch):
    monkeypatch.setattr(graphs, "WARM_UP_CALLS", 1)
    pools, taken = iter(range(9)), []

    class Recorder(Tape):
        def pool(self):
            return next(pools)

        def capture(self, call, pool):
            taken.append(pool)
            return super().capture(call, pool)

    own, weight = Graphs(Recorder()), nn.Parameter(torch.ones(2))
    for _ in range(2):
        for form in (1, 2):
            for _ in range(2):
                own.run(lambda x: (x * weight.detach(),), torch.ones(2), form=form, places=(weight,))
        weight.data = torch.ones(2)
    assert len(taken) == 4 and taken[0] == taken[1] != taken[2] == taken[3]


def test_one_training_s_captures_are_dropped_when_another_captures(monkeypatch):
    monkeypatch.setattr(graphs, "WARM_UP_CALLS", 1)
    recorder = Tape()
    first, second = Graphs(recorder), Graphs(recorder)
    for calls, own in ((2, first), (2, second), (1, second), (1, first)):
        for _ in range(calls):
            assert own.run(lambda x: (x + 1,), torch.ones(1))[0].item() == 2
    assert (first.replays, second.replays) == (1, 2)  # the last call warms up again


def test_inputs_of_other_types_and_layouts_have_graphs_of_their_own(monkeypatch):
    monkeypatch.setattr(graphs, "WARM_UP_CALLS", 1)
    own, x = Graphs(Tape()), torch.arange(6.0).reshape(2, 3)
    for one in (x, x.double(), x.t().contiguous().t()) * 3:
        (found,) = own.run(lambda x: (x.as_strided((6,), (1,)).double() / 3,), one)
        assert found.tolist() == (one.as_strided((6,), (1,)).double() / 3).tolist()
    assert own.replays == 3 * 2


def test_weights_that_have_moved_are_followed():
    weight, own = nn.Parameter(torch.ones(2)), Graphs(Tape())

    def run(x):
        return own.run(lambda x: (x * weight.detach(),), torch.full((2,), x), places=(weight,))[0].tolist()

    graphs_before = [run(float(x)) for x in range(graphs.WARM_UP_CALLS + 2)]
    assert graphs_before == [[x, x] for x in range(graphs.WARM_UP_CALLS + 2)] and own.replays == 2
    weight.data = torch.full((2,), 5.0)
    assert run(3.0) == [15.0, 15.0] and own.replays == 2


def test_a_form_and_a_shape_have_graphs_of_their_own(monkeypatch):
    monkeypatch.setattr(graphs, "WARM_UP_CALLS", 1)
    own = Graphs(Tape())
    for _ in range(3):
        for n, factor in ((2, 3), (2, 5), (4, 3)):
            (found,) = own.run(lambda x, factor=factor: (x * factor,), torch.ones(n), form=factor)
            assert found.tolist() == [factor] * n
    assert own.replays == 3 * 2


def test_outputs_stay_as_they_are_after_later_replays(monkeypatch):
    monkeypatch.setattr(graphs, "WARM_UP_CALLS", 1)
    own = Graphs(Tape())
    found = [own.run(lambda x: (x + 1,), torch.tensor(float(x)))[0] for x in range(5)]
    assert torch.stack(found).tolist() == [1, 2, 3, 4, 5]


def test_steps_are_replayed_on_a_gpu_alone_with_memory_to_spare_unless_turned_off(monkeypatch):
    assert graphs_are_on("cuda:1") and not graphs_are_on("cpu") and not graphs_are_on("mps")
    assert graphs_on("cpu") is None
    with cut_into(2):
        assert not graphs_are_on("cuda")
    monkeypatch.setenv(graphs.SWITCH, "1")
    assert not graphs_are_on("cuda")


def test_records_say_what_came_of_graphs(cell):
    def compilation(*progresses):
        assembly = Assembly(cell, SimpleNamespace(), {})
        for progress in progresses:
            assembly.replayed(progress)
        return assembly._compilation

    unused, used, failed = Progress(), Progress(), Progress()
    used.replayed(SimpleNamespace(replays=3, why_not=None))
    failed.replayed(SimpleNamespace(replays=0, why_not="it waits"))
    assert compilation(unused) is None
    assert compilation(used, unused) == Compilation(graphs=True)
    assert compilation(failed, used) == Compilation(graphs=True, why_no_graphs="it waits")


class FakeCuda:
    """What a recorder asks of torch.cuda, without a GPU; `log` has what it was asked."""

    def __init__(self, fails=None):
        self.log, self.mode, self.fails = [], 0, fails
        state = SimpleNamespace(
            clone_state=lambda: "state before", graphsafe_set_state=lambda state: self.log.append(state)
        )
        self.default_generators = [state]

    def Stream(self, device):
        return SimpleNamespace(device=torch.device("cuda", 0), wait_stream=lambda other: self.log.append("side waits"))

    def current_stream(self, device):
        return SimpleNamespace(wait_stream=lambda other: self.log.append("current waits"))

    @contextmanager
    def stream(self, stream):
        try:
            yield
        finally:
            self.log.append("stream left")

    @contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        if self.fails == "to begin":
            raise RuntimeError("CUDA error: out of memory")
        yield
        if self.fails == "to end":
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def CUDAGraph(self):
        return SimpleNamespace(replay=lambda: self.log.append("replay"), reset=lambda: self.log.append("reset"))

    def graph_pool_handle(self):
        return (0, 1)

    def get_sync_debug_mode(self):
        return self.mode

    def set_sync_debug_mode(self, mode):
        self.mode = mode
        warnings.warn(
            "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations",
            stacklevel=2,
        )


@pytest.fixture
def gpu(monkeypatch):
    """Return a recorder of a pretended GPU, and its log."""

    def make(**options):
        cuda = FakeCuda(**options)
        for name in [name for name in dir(cuda) if not name.startswith("_")]:
            monkeypatch.setattr(torch.cuda, name, getattr(cuda, name), raising=False)
        end = lambda device, pool: cuda.log.append(("ended", device, pool))  # noqa: E731
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end, raising=False)
        return graphs._Gpu(torch.device("cuda")), cuda

    return make


def test_waiting_is_told_by_torch_s_own_warning_alone(gpu):
    recorder, cuda = gpu()
    assert recorder.waits(lambda: (1,)) == ((1,), False)
    assert recorder.waits(lambda: (warnings.warn("called a synchronizing CUDA operation (…)", stacklevel=2),))[1]
    with pytest.warns(UserWarning, match="of the step's own"):
        recorder.waits(lambda: (warnings.warn("of the step's own", stacklevel=2),))
    assert cuda.mode == 0  # as before


def test_what_was_begun_on_the_side_stream_is_waited_for_though_a_call_fails(gpu):
    recorder, cuda = gpu()
    with pytest.raises(ZeroDivisionError):
        recorder.warm_up(lambda: 1 / 0)
    assert cuda.log == ["side waits", "stream left", "current waits"]


@pytest.mark.parametrize("fails", ["to begin", "to end"])
def test_a_capture_that_cuda_breaks_off_leaves_streams_generators_and_memory_in_order(gpu, fails):
    recorder, cuda = gpu(fails=fails)
    with pytest.raises(RuntimeError, match="CUDA error"):
        recorder.capture(lambda: (1,), recorder.pool())
    assert cuda.log == ["stream left", "state before", "reset", ("ended", 0, (0, 1))]
    recorder, cuda = gpu()
    outputs, replay = recorder.capture(lambda: (1,), recorder.pool())
    replay()
    assert outputs == (1,) and cuda.log == ["stream left", "replay"]
