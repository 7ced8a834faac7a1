"""Steps that are captured once and replayed: the same numbers, and what cannot be captured goes on without.

A tape of operations stands in for CUDA graphs.
"""

import pytest
import torch
from helpers.tape import Tape
from test_budgets import EPOCHS, STEPS, N
from test_budgets import registry as registry
from test_budgets import run as run
from test_speed_promises import short, task_of
from torch import nn

from mmc_bench.landscape.batchnorm import reestimate_batchnorm
from mmc_bench.landscape.measure import PathImages, measure_paths
from mmc_bench.landscape.paths import evaluate_path, linear_path
from mmc_bench.landscape.quadratic import train_bend
from mmc_bench.results.metrics import SPLITS
from mmc_bench.results.settings import ConnectSettings, QuadraticSettings
from mmc_bench.system.tally import Tally, tallied
from mmc_bench.training import Progress, Training, cross_entropy, graphs
from mmc_bench.training.evaluate import evaluate_sets
from mmc_bench.training.graphs import Graphs
from mmc_bench.training.passes import note_pass


@pytest.fixture
def use_tape(monkeypatch):
    """Return what lets all that a GPU would replay be replayed from a tape after two calls, or never; and what did."""
    made = []

    def use(captures=True, recorder=None):
        made.clear()

        def on(device):
            made.append(Graphs(recorder or Tape()))
            return made[-1]

        monkeypatch.setattr(graphs, "WARM_UP_CALLS", 2 if captures else 10**9)
        for place in ("mmc_bench.training.training", "mmc_bench.landscape.paths"):
            monkeypatch.setattr(f"{place}.graphs_on", on)
        return made

    return use


def training_of(net, images, lr=0.1, epochs=3, progress=None):
    settings = {"lr": lr, "epochs": epochs, "batch_size": 4, "generator": torch.Generator().manual_seed(0)}
    return Training(net, images, progress=progress or Progress(), **settings)


def equal(model, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def close(model, other):
    return all(torch.allclose(value, other.state_dict()[name], atol=1e-6) for name, value in model.state_dict().items())


@pytest.mark.slow
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
        return training_of(Dropping(), image_set(12, dtype=torch.float32)).fit()

    use_tape(captures=False)
    called = trained()
    made = use_tape()
    assert equal(trained(), called) and made[0].replays == 7


def test_the_schedule_is_followed_and_a_learning_curve_is_the_same(tiny_net, image_set, use_tape):
    def curve():
        points, training = [], training_of(tiny_net(), image_set(11), epochs=4)
        training.fit(lambda *point: points.append([value.item() for value in point]))
        return points, float(training.optimizer.param_groups[0]["lr"])

    (plain, rate), _ = curve(), use_tape()
    replayed, last = curve()
    assert rate == pytest.approx(last, abs=1e-9) == 0
    assert torch.allclose(torch.tensor(plain), torch.tensor(replayed), atol=1e-6)


def test_captured_steps_find_that_momentum_was_reset(tiny_net, image_set, use_tape):
    def trained():
        training = training_of(tiny_net(), image_set(12), epochs=6)

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
    assert equal(trained(), called) and made[0].replays == 18 - 2


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
        self.error, self.attempts = error, 0

    def capture(self, call, pool):
        self.attempts += 1

        def failing():
            call()
            raise self.error

        return super().capture(failing, pool)


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
        events = []
        progress = Progress(events.append)
        training = training_of(tiny_net(), image_set(12), progress=progress)
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


class Interrupted(Tape):
    """Says when it captures, so that a step can break off."""

    captures = False

    def capture(self, call, pool):
        self.captures = True
        try:
            return super().capture(call, pool)
        finally:
            self.captures = False


def test_a_capture_that_breaks_off_leaves_no_gradients_and_counts_nothing(tiny_net, image_set, use_tape):
    def trained(breaks_off):
        recorder, counts = Interrupted(), Tally()
        use_tape(recorder=recorder)
        training = training_of(tiny_net(), image_set(12))

        def step(x, y):
            outputs = training.logits(x)
            note_pass(outputs)
            loss = cross_entropy(outputs, y)
            loss.backward()
            if breaks_off and recorder.captures:
                raise RuntimeError("no")
            training.update(loss)

        with tallied(counts):
            for x, y in training.batches():
                training.take(step, x, y)
        return training.model, counts.passes

    (broken_off, counts), (whole, wanted) = trained(True), trained(False)
    assert equal(broken_off, whole) and counts == wanted == (36, 36, 0)


def test_steps_follow_weights_that_are_replaced(tiny_net, image_set, use_tape):
    def trained():
        training = training_of(tiny_net(), image_set(12))

        def step(x, y):
            training.minimise(cross_entropy(training.logits(x), y))

        for x, y in training.batches():
            if training.step == 5:
                weight = training.model.conv.weight
                weight.data = torch.zeros_like(weight)
            training.take(step, x, y)
        return training.model

    use_tape(captures=False)
    called, made = trained(), use_tape()
    assert equal(trained(), called) and made[0].replays == 3 + 2


def test_steps_follow_what_trains_and_another_step(tiny_net, image_set, use_tape):
    def trained():
        training = training_of(tiny_net(), image_set(12), epochs=6)

        def step(x, y):
            training.minimise(cross_entropy(training.logits(x), y))

        def other(x, y):
            training.minimise(2 * cross_entropy(training.logits(x), y))

        for x, y in training.batches():
            if training.step == 5:
                training.model.norm1.eval()
            if training.step == 10:
                training.model.head.requires_grad_(False)
            training.take(other if training.step == 15 else step, x, y)
        return training.model

    use_tape(captures=False)
    called, made = trained(), use_tape()
    assert equal(trained(), called) and made[0].replays == 3 * (5 - 2) + 2


@pytest.mark.parametrize("first_has_a_curve", [True, False])
def test_a_second_fit_has_a_curve_of_its_own(tiny_net, image_set, use_tape, first_has_a_curve):
    made, points = use_tape(), []
    training = training_of(tiny_net(), image_set(12), lr=1e-9)
    if not first_has_a_curve:
        training.fit()
    for _ in range(2):
        training.fit(lambda *point: points.append([value.item() for value in point]))
    assert made[0].replays > 9 and points[0] == pytest.approx(points[-1], abs=0.1) and points[0][0] > 0.5


def test_a_weight_may_get_its_first_gradient_late(tiny_net, image_set, use_tape):
    def trained():
        training = training_of(tiny_net(), image_set(12))
        training.model.head.requires_grad_(False)
        for x, y in training.batches():
            training.model.head.requires_grad_(training.step > 4)
            training.minimise(cross_entropy(training.logits(x), y))
        return training.model

    plain, _ = trained(), use_tape()
    assert close(trained(), plain)


def test_compiled_code_in_a_captured_step_has_no_graphs_of_its_own(tiny_net, image_set, use_tape, monkeypatch):
    ways = []
    for name in ("compiled", "fused"):
        way = lambda forward, name=name: ways.append(name) or forward  # noqa: E731
        monkeypatch.setattr(f"mmc_bench.training.training.{name}", way)
    monkeypatch.setattr("mmc_bench.training.training.is_worth_compiling", lambda *_: True)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: ways.append("marked"))
    use_tape()
    training_of(tiny_net(), image_set(12)).fit()
    assert ways == ["fused"] * 3  # two calls and the capture


@pytest.mark.parametrize("optimizer", [None, torch.optim.Adam])
def test_where_captures_failed_compiled_code_has_no_graphs_of_its_own(
    tiny_net, image_set, use_tape, monkeypatch, optimizer
):
    ways, recorder = [], Tape()
    recorder.why_not = "it failed"
    for name in ("compiled", "fused"):
        way = lambda forward, name=name: ways.append(name) or forward  # noqa: E731
        monkeypatch.setattr(f"mmc_bench.training.training.{name}", way)
    monkeypatch.setattr("mmc_bench.training.training.is_worth_compiling", lambda *_: True)
    use_tape(recorder=recorder)
    settings = {"lr": 0.1, "epochs": 1, "batch_size": 4, "generator": torch.Generator().manual_seed(0)}
    Training(tiny_net(), image_set(12), progress=Progress(), optimizer=optimizer, **settings).fit()
    assert ways == ["fused"] * 3


def test_what_came_of_bends_is_noted_with_the_path(tiny_net, image_set, use_tape, monkeypatch):
    images, events = image_set(12), []
    settings = ConnectSettings(paths=("quadratic",), points=3, quadratic=QuadraticSettings(epochs=2, batch_size=4))
    sets = PathImages(dict.fromkeys(SPLITS, images), images, images, images, images, lambda scores: scores)
    ends = tiny_net(0).eval(), tiny_net(1).eval()

    def measured(recorder):
        use_tape(recorder=recorder)
        monkeypatch.setattr("mmc_bench.landscape.paths.graphs_on", lambda device: None)
        progress, scores = Progress(events.append), evaluate_sets(ends[0], sets.sets)
        measure_paths(*ends, sets, settings, (scores, scores), lambda _: torch.Generator().manual_seed(0), progress)
        return progress

    assert measured(Tape()).is_replayed and not events
    assert measured(Failing(RuntimeError("no"))).why_not_replayed == "RuntimeError: no"
    assert [event["once"] for event in events] == [True]


def test_a_layer_that_a_pass_runs_twice_has_the_statistics_of_a_plain_loop(tiny_net, image_set):
    class Shared(type(tiny_net())):
        def forward_features(self, x):
            return super().forward_features(self.norm1(self.stem(x).relu())[:, :2])

    def estimated(graphs=None):
        torch.manual_seed(0)
        net = Shared().double()
        reestimate_batchnorm(net, image_set(11), 4, graphs)
        return net

    assert equal(estimated(), estimated(Graphs(Tape())))
