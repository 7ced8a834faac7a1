"""Steps that are captured once and replayed: the same numbers, and what cannot be captured goes on without.

A tape of operations stands in for CUDA graphs.
"""

from types import SimpleNamespace

import pytest
import torch
from helpers.tape import Tape
from test_budgets import EPOCHS, STEPS, N
from test_budgets import registry as registry
from test_budgets import run as run
from test_speed_promises import short, task_of
from torch import nn

from mmc_bench.data.micro_batches import cut_into
from mmc_bench.landscape.batchnorm import reestimate_batchnorm
from mmc_bench.landscape.paths import evaluate_path, linear_path
from mmc_bench.landscape.quadratic import train_bend
from mmc_bench.results.making import Compilation
from mmc_bench.results.settings import QuadraticSettings
from mmc_bench.stages.assembly import Assembly
from mmc_bench.training import Progress, Training, cross_entropy, graphs
from mmc_bench.training.graphs import Graphs, graphs_are_on, graphs_on


@pytest.fixture
def use_tape(monkeypatch):
    """Return what lets all that a GPU would replay be replayed from a tape after two calls, or never; and what did."""
    made = []

    def use(captures=True, recorder=None):
        made.clear()

        def on(device, *generators):
            made.append(Graphs(recorder or Tape(), generators))
            return made[-1]

        monkeypatch.setattr(graphs, "WARM_UP_CALLS", 2 if captures else 10**9)
        for place in ("mmc_bench.training.training", "mmc_bench.landscape.paths"):
            monkeypatch.setattr(f"{place}.graphs_on", on)
        return made

    return use


def equal(model, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def close(model, other):
    return all(torch.allclose(value, other.state_dict()[name], atol=1e-6) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "name", ["ft-medium", "cbft", "cbft-no-barrier", "cbft-no-invariance", "ft-sam", "fine-pruning"]
)
def test_methods_replay_their_steps_to_the_same_weights(registry, tiny_net, image_set, use_tape, name):
    method, net, images = short(registry, name, batch_size=4, epochs=6), tiny_net(0), image_set(24)
    plain = method.fine_tune(task_of(net, images))
    use_tape(captures=False)
    called = method.fine_tune(task_of(net, images))
    made = use_tape()
    replayed = method.fine_tune(task_of(net, images))
    assert sum(one.replays for one in made) >= 6 and not any(one.why_not for one in made)
    assert equal(replayed, called) and close(replayed, plain)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("ft-medium", (2 * N, 0, 0, STEPS, 2 * N, 2 * N)),
        ("cbft", (2 * N, 2 * N, 0, 2 * STEPS, 5 * N, 5 * N)),
        ("ft-sam", (2 * N, 0, 0, STEPS, 4 * N, 4 * N)),
    ],
)
def test_replays_are_counted_as_calls_are(run, use_tape, monkeypatch, method, expected):
    made = use_tape()
    monkeypatch.setattr(graphs, "WARM_UP_CALLS", 1)
    counts = run(method, epochs=EPOCHS, batch_size=N // 5)[1]
    assert sum(one.replays for one in made) > 0
    steps = EPOCHS * -(-N // (N // 5))
    assert counts == (*expected[:3], expected[3] // STEPS * steps, *expected[4:])


def test_dropout_draws_anew_in_each_replay(tiny_net, image_set, use_tape):
    class Dropping(type(tiny_net())):
        def forward_features(self, x):
            return nn.functional.dropout(super().forward_features(x), 0.5, self.training)

    def trained():
        torch.manual_seed(1)
        net, generator = Dropping(), torch.Generator().manual_seed(0)
        images = image_set(12, dtype=torch.float32)
        settings = {"lr": 0.1, "epochs": 3, "batch_size": 4, "generator": generator}
        return Training(net, images, progress=Progress(), **settings).fit()

    use_tape(captures=False)
    called = trained()
    made = use_tape()
    assert equal(trained(), called) and made[0].replays == 7


def test_the_schedule_is_followed_and_a_learning_curve_is_the_same(tiny_net, image_set, use_tape):
    def curve():
        points, generator = [], torch.Generator().manual_seed(0)
        training = Training(
            tiny_net(), image_set(12), lr=0.1, epochs=4, batch_size=4, generator=generator, progress=Progress()
        )
        training.fit(lambda *point: points.append([value.item() for value in point]))
        return points, float(training.optimizer.param_groups[0]["lr"])

    (plain, rate), _ = curve(), use_tape()
    replayed, last = curve()
    assert rate == pytest.approx(last, abs=1e-9) == 0
    assert torch.allclose(torch.tensor(plain), torch.tensor(replayed), atol=1e-6)


def test_after_momentum_was_reset_steps_are_captured_anew(tiny_net, image_set, use_tape):
    def trained():
        generator = torch.Generator().manual_seed(0)
        training = Training(
            tiny_net(), image_set(12), lr=0.1, epochs=6, batch_size=4, generator=generator, progress=Progress()
        )

        def step(x, y):
            training.minimise(cross_entropy(training.logits(x), y))

        for x, y in training.batches():
            if training.step == 9:
                training.forget_momentum()
            training.take(step, x, y)
        return training.model

    use_tape(captures=False)
    called = trained()
    made = use_tape()
    assert equal(trained(), called) and made[0].replays == 18 - 2 * 2


def test_bends_replay_their_steps_at_each_step_s_own_point(tiny_net, image_set, use_tape):
    def bend():
        settings = QuadraticSettings(epochs=3, batch_size=4, lr=0.1)
        ends = tiny_net(0).eval(), tiny_net(1).eval()
        return train_bend(*ends, image_set(12), settings, torch.Generator().manual_seed(3), Progress())

    plain, _ = bend(), use_tape(captures=False)
    called, made = bend(), use_tape()
    replayed = bend()
    assert made[0].replays == 7
    assert all(map(torch.equal, replayed, called))
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(replayed, plain, strict=True))


def test_paths_replay_scores_and_statistics(tiny_net, image_set, use_tape):
    start, end, sets = tiny_net(0).eval(), tiny_net(1).eval(), {"NC": image_set(9), "C": image_set(9, seed=1)}
    ends = (dict.fromkeys(sets),) * 2

    def scores():
        progress = Progress()
        found = evaluate_path(linear_path(start, end), end, sets, image_set(9), 6, ends, progress)[1]
        return [(one.accuracy, one.loss) for name in sets for one in found[name][1:-1]], progress

    (plain, progress), made = scores(), use_tape()
    assert not progress.is_replayed
    replayed, progress = scores()
    assert progress.is_replayed and made[0].replays == 4 * 3 - 2 * 2 and not made[0].why_not
    assert torch.allclose(torch.tensor(replayed), torch.tensor(plain), rtol=1e-9)


def test_statistics_weigh_batches_of_all_sizes_by_their_images(tiny_net, image_set):
    images, plain, replayed = image_set(11), tiny_net(), tiny_net()
    reestimate_batchnorm(plain, images, 4)
    reestimate_batchnorm(replayed, images, 4, Graphs(Tape()))
    assert close(plain, replayed) and [one.momentum for one in (replayed.norm1, replayed.norm2)] == [0.1, 0.1]


class Failing(Tape):
    """Fails in the midst of a capture."""

    def __init__(self, error):
        self.error = error

    def capture(self, call, generators):
        def failing():
            call()
            raise self.error

        return super().capture(failing, generators)


def waiting_step(training):
    def step(x, y):
        loss = cross_entropy(training.logits(x), y)
        if loss.item() < 1e9:
            training.minimise(loss)

    return step


@pytest.mark.parametrize(
    ("recorder", "step_of", "why"),
    [
        (Failing(RuntimeError("operation not permitted\nmore")), None, "RuntimeError: operation not permitted"),
        (Tape(), waiting_step, "a step waits for the device"),
    ],
    ids=["failed capture", "wait"],
)
def test_steps_that_cannot_be_captured_go_on_without_and_a_run_says_why(
    tiny_net, image_set, use_tape, recorder, step_of, why
):
    def trained():
        events, generator = [], torch.Generator().manual_seed(0)
        progress = Progress(events.append)
        training = Training(
            tiny_net(), image_set(12), lr=0.1, epochs=3, batch_size=4, generator=generator, progress=progress
        )
        if step_of is None:
            training.fit()
        else:
            for x, y in training.batches():
                training.take(step_of(training), x, y)
        return training.model, progress, [event["note"] for event in events if "note" in event]

    use_tape(captures=False)
    called = trained()[0]
    use_tape(recorder=recorder)
    model, progress, notes = trained()
    assert equal(model, called)
    assert notes == [f"CUDA graphs failed, and steps run without: {why}"]
    assert progress.why_not_replayed == why and not progress.is_replayed


def test_memory_that_runs_out_while_capturing_is_no_failed_capture(tiny_net, image_set, use_tape):
    use_tape(recorder=Failing(torch.OutOfMemoryError("CUDA out of memory")))
    generator = torch.Generator().manual_seed(0)
    training = Training(
        tiny_net(), image_set(12), lr=0.1, epochs=3, batch_size=4, generator=generator, progress=Progress()
    )
    with pytest.raises(torch.OutOfMemoryError):
        training.fit()


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
    used.replayed(Graphs(Tape(), replays=3))
    failed.replayed(Graphs(Tape(), why_not="it waits"))
    assert compilation(unused) is None
    assert compilation(used, unused) == Compilation(graphs=True)
    assert compilation(failed, used) == Compilation(graphs=True, why_no_graphs="it waits")
