"""The methods and the toolkit under them, against explicit computations in float64."""

import copy
import dataclasses
import inspect
import math

import pytest
import torch
from mmc_bench_plugins.cbft.method import barrier_loss, draw_path_positions
from torch.nn import functional as F

from mmc_bench import MethodSpec
from mmc_bench.plugin.registry import Registry
from mmc_bench.training import NonFiniteLossError, Progress, Task, Training, evaluate, linear_probe
from mmc_bench.training.task import UndeclaredDataError


@pytest.fixture(scope="module")
def registry():
    return Registry.discover()


@pytest.fixture
def make_method(registry):
    def make(name, **parameters):
        offer = registry.get("method", name)
        return offer.make(offer.configure(parameters))

    return make


@pytest.fixture
def make_task(tiny_net, image_set):
    """Return a maker of tasks on tiny data; the task's generator starts at seed 7, as does torch's."""

    def make(dtype=torch.float64, needs=(), **replaced):
        pretrained = tiny_net(1, dtype).eval().requires_grad_(False)
        task = {
            "model": copy.deepcopy(pretrained).train().requires_grad_(True),
            "pretrained": pretrained,
            "clean": image_set(10, 1, dtype),
            "validation": image_set(40, 2, dtype),
            "num_classes": 3,
            "device": torch.device("cpu"),
            "generator": torch.Generator().manual_seed(7),
            "progress": Progress(),
            "needs": frozenset(needs),
            "_cued": image_set(14, 3, dtype),
            "_fully_cued": image_set(13, 4, dtype),
            "_all_fully_cued": image_set(16, 5, dtype),
        }
        torch.manual_seed(7)
        return Task(**{**task, **replaced})

    return make


class HandMadeSGD:
    """v ← .9·v + g + weight_decay·θ; θ ← θ - lr·v, with the learning rate on a cosine from `lr` to 0."""

    def __init__(self, parameters, lr, steps, weight_decay=1e-4):
        self.parameters = list(parameters)
        self.velocities = [torch.zeros_like(p) for p in self.parameters]
        self.lr, self.steps, self.weight_decay = lr, steps, weight_decay

    @torch.no_grad()
    def step(self, gradients, done):
        lr = self.lr * (1 + math.cos(math.pi * done / self.steps)) / 2
        for p, v, g in zip(self.parameters, self.velocities, gradients, strict=True):
            v.mul_(0.9).add_(g + self.weight_decay * p)
            p.sub_(lr * v)


def assert_same_state(model, expected, tolerance=1e-10):
    states = model.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], rtol=tolerance, atol=tolerance), name


# --- scoring


def test_a_score_is_the_mean_over_images_one_by_one_in_eval_mode(tiny_net, image_set):
    model, images = tiny_net(), image_set(103)  # more than one batch, the last one smaller
    slow = copy.deepcopy(model).eval()
    correct, loss = 0, 0.0
    for image, label in zip(images.storage, images.labels.tolist()):
        logits = slow(image[None])[0].tolist()
        correct += max(range(3), key=logits.__getitem__) == label
        loss -= logits[label] - math.log(sum(map(math.exp, logits)))
    score = evaluate(model.train(), images)
    assert score.accuracy == correct / 103
    assert score.loss == pytest.approx(loss / 103, rel=1e-6)
    assert model.training
    assert_same_state(model, slow, tolerance=0)


# --- naive fine-tuning and the loop


def fine_tuned_by_hand(task, lr, epochs, batch_size, generator):
    model = copy.deepcopy(task.model).train()
    steps = task.clean.steps(batch_size)
    optimizer = HandMadeSGD(model.parameters(), lr, epochs * steps)
    for epoch in range(epochs):
        order = torch.randperm(len(task.clean), generator=generator).tolist()
        for step in range(steps):
            rows = order[step * batch_size : (step + 1) * batch_size]
            x, y = task.clean.storage[rows], task.clean.labels[rows]
            loss = -F.log_softmax(model(x), 1)[range(len(rows)), y].mean()
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            optimizer.step(gradients, done=epoch * steps + step)
    return model


@pytest.mark.parametrize(("name", "lr"), [("ft-large", 0.1), ("ft-medium", 0.01), ("ft-small", 0.001)])
def test_ft_equals_a_hand_written_loop(make_method, make_task, name, lr):
    task = make_task()
    expected = fine_tuned_by_hand(task, lr, 3, 4, torch.Generator().manual_seed(7))
    model = make_method(name, epochs=3, batch_size=4).fine_tune(task)
    assert_same_state(model, expected)


def test_ft_by_steps_drops_to_a_tenth_after_two_and_four_fifths_of_the_epochs(make_method, make_task, monkeypatch):
    rates = []

    def watched(training):
        for _ in training.batches():
            rates.append(training.optimizer.param_groups[0]["lr"])
            training.update(torch.zeros(()))
        return training.model

    monkeypatch.setattr(Training, "fit", watched)
    task = make_task()
    make_method("ft-large", epochs=5, batch_size=4, schedule="steps").fine_tune(task)
    steps = task.clean.steps(4)
    assert rates == pytest.approx([0.1] * 2 * steps + [0.01] * 2 * steps + [0.001] * steps)


def test_the_defaults_are_the_papers(make_method):
    assert dict(make_method("ft-medium").config) == {"lr": 0.01, "epochs": 20, "batch_size": 256, "schedule": "cosine"}
    assert dict(make_method("llr").config) == {"lr": 30.0, "epochs": 100, "batch_size": 256}
    lpft = dict(make_method("lpft").config)
    assert (lpft["probe_lr"], lpft["lrs"], lpft["epochs"]) == (30.0, (0.01, 0.001, 0.0001), 20)
    cbft = dict(make_method("cbft").config)
    assert (cbft["lr"], cbft["epochs"], cbft["barrier_loss"], cbft["invariance_weight"]) == (
        0.01,
        20,
        1.0,
        1.0,
    )
    assert cbft["path_position"] == "truncated"


def test_a_loss_that_is_no_number_ends_the_training_and_names_its_step(make_task, image_set):
    task = make_task()
    images = image_set(8)
    images.storage[5] = torch.inf
    training = dataclasses.replace(task, clean=images).training(lr=0.1, epochs=2, batch_size=4)
    with pytest.raises(NonFiniteLossError, match=r"the loss became nan at step [12] \(epoch 1\)"):
        training.fit()


# --- last-layer retraining


def probed_by_hand(model, images, lr, epochs, batch_size, generator):
    """Train a new last layer while running the frozen backbone again for every batch."""
    model = copy.deepcopy(model).eval()
    model.reset_classifier(3)
    layer = list(model.head.parameters())
    steps = math.ceil(len(images) / batch_size)
    optimizer = HandMadeSGD(layer, lr, epochs * steps, weight_decay=0.0)
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator).tolist()
        for step in range(steps):
            rows = order[step * batch_size : (step + 1) * batch_size]
            loss = F.cross_entropy(model(images.storage[rows]), images.labels[rows])
            optimizer.step(torch.autograd.grad(loss, layer), done=epoch * steps + step)
    return model


def test_a_probe_on_cached_features_equals_training_with_the_backbone_run_every_step(make_task):
    task = make_task(torch.float32)
    expected = probed_by_hand(task.model, task.clean, 1.0, 5, 4, torch.Generator().manual_seed(7))
    torch.manual_seed(7)
    model = linear_probe(
        task.model,
        task.clean,
        epochs=5,
        lr=1.0,
        batch_size=4,
        generator=task.generator,
        progress=task.progress,
    )
    assert_same_state(model, expected, tolerance=1e-5)


def test_llr_replaces_the_last_layer_and_nothing_else(make_method, make_task):
    task = make_task(torch.float32)
    model = make_method("llr", epochs=3, batch_size=4).fine_tune(task)
    before, after = task.pretrained.state_dict(), model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}


# --- linear probing, then fine-tuning


@pytest.mark.slow
@pytest.mark.parametrize("relabelled", [False, True])
def test_lpft_returns_the_candidate_that_is_best_on_validation(make_method, make_task, image_set, relabelled):
    clean = image_set(24, 1, torch.float32)
    # Relabelled, the validation set agrees with the clean one nowhere, and the least trained model wins.
    labels = ((clean.labels + 1) % 3 if relabelled else clean.labels).tolist()
    validation = image_set(24, 1, torch.float32, labels)
    validation.storage.copy_(clean.storage)
    task = make_task(torch.float32, clean=clean, validation=validation)
    lrs, settings = (0.3, 1e-5, 0.1), {"probe_lr": 0.1, "probe_epochs": 1, "epochs": 10, "batch_size": 8}

    generator = torch.Generator().manual_seed(7)
    start = probed_by_hand(task.model, clean, 0.1, 1, 8, generator)
    probed = make_task(torch.float32, clean=clean, model=start)
    candidates = [fine_tuned_by_hand(probed, lr, 10, 8, generator) for lr in lrs]
    accuracies = [evaluate(candidate, validation).accuracy for candidate in candidates]
    best = accuracies.index(max(accuracies))
    assert accuracies.count(max(accuracies)) == 1 and best == (1 if relabelled else 0)

    torch.manual_seed(7)
    model = make_method("lpft", lrs=lrs, **settings).fine_tune(task)
    assert_same_state(model, candidates[best], tolerance=1e-3)


# --- CBFT


def path_by_hand(model, pretrained, t):
    """Return a network whose parameters are γ(t) = (1-t)θ + tθ_C."""
    between = copy.deepcopy(model)
    with torch.no_grad():
        for gamma, theta, theta_c in zip(between.parameters(), model.parameters(), pretrained.parameters()):
            gamma.copy_((1 - t) * theta + t * theta_c)
    return between


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("bound", [0.2, 5.0])  # below and above the path's loss
def test_the_barrier_losss_gradient_is_that_of_the_path_times_one_minus_t(tiny_net, image_set, t, bound):
    model, pretrained = tiny_net(0).train(), tiny_net(1).eval()
    images = image_set(12)
    x, y = images.storage, images.labels
    loss = barrier_loss(model, pretrained, x, y, t, bound)
    loss.backward()

    between = path_by_hand(model, pretrained, t)
    cross_entropy = F.cross_entropy(between(x), y)
    assert (cross_entropy > bound) == (bound == 0.2)
    expected = torch.autograd.grad((bound - cross_entropy).abs(), list(between.parameters()))
    assert loss.item() == pytest.approx(abs(bound - cross_entropy.item()), rel=1e-12)
    for parameter, gradient in zip(model.parameters(), expected):
        assert torch.allclose(parameter.grad, (1 - t) * gradient, rtol=1e-9, atol=1e-12)


def test_the_barrier_losss_gradient_agrees_with_finite_differences(tiny_net, image_set):
    model, pretrained = tiny_net(0).train(), tiny_net(1).eval()
    images, t, epsilon = image_set(12), 0.4, 1e-6

    def loss():
        return barrier_loss(model, pretrained, images.storage, images.labels, t, 1.0)

    loss().backward()
    for parameter in model.parameters():
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for index in {0, len(flat) // 2, len(flat) - 1}:
            before = flat[index].item()
            flat[index] = before + epsilon
            above = loss().item()
            flat[index] = before - epsilon
            below = loss().item()
            flat[index] = before
            assert gradient[index].item() == pytest.approx((above - below) / (2 * epsilon), rel=1e-5, abs=1e-8)


def test_the_barrier_loss_leaves_running_statistics_and_the_pretrained_model_alone(tiny_net, image_set):
    model, pretrained = tiny_net(0).train(), tiny_net(1).eval().requires_grad_(False)
    before, before_c = copy.deepcopy(model), copy.deepcopy(pretrained)
    images = image_set(12)
    barrier_loss(model, pretrained, images.storage, images.labels, 0.5, 1.0).backward()
    assert_same_state(model, before, tolerance=0)
    assert_same_state(pretrained, before_c, tolerance=0)
    assert all(parameter.grad is None for parameter in pretrained.parameters())
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_barrier_loss_normalises_by_the_batchs_own_statistics(tiny_net, image_set):
    images, t = image_set(12), 0.5
    losses = []
    for shift in (0.0, 100.0):
        model = tiny_net(0).train()
        model.norm1.running_mean += shift
        losses.append(barrier_loss(model, tiny_net(1).eval(), images.storage, images.labels, t, 1.0).item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("name", "settings", "cued_images"),
    [
        ("cbft", {}, "fully_cued"),
        ("cbft", {"held_out": True}, "all_fully_cued"),
        ("cbft-no-barrier", {}, "fully_cued"),
        ("cbft-no-invariance", {}, "fully_cued"),
        ("cbft-partly-cued", {}, "cued"),
    ],
)
def test_cbft_equals_a_hand_written_loop_of_alternating_steps(make_method, make_task, name, settings, cued_images):
    task = make_task(needs={cued_images.replace("all_", "").replace("_", "-")})
    epochs, batch_size, lr = 3, 4, 0.05
    model = copy.deepcopy(task.model)
    parameters = list(model.parameters())
    steps = task.clean.steps(batch_size)
    optimizer = HandMadeSGD(parameters, lr, epochs * steps)
    generator = torch.Generator().manual_seed(7)
    cued = getattr(task, cued_images).stream(batch_size, generator)
    positions = draw_path_positions("truncated", epochs * steps, generator)
    done = 0
    for epoch in range(epochs):
        for x_nc, y_nc in task.clean.shuffled(batch_size, generator):
            x_c, y_c = next(cued)
            if name != "cbft-no-barrier":
                t = positions[done]
                between = path_by_hand(model, task.pretrained, t)
                distance = (1.0 - F.cross_entropy(between(x_c), y_c)).abs()
                gradients = torch.autograd.grad(distance, list(between.parameters()))
                optimizer.step([(1 - t) * gradient for gradient in gradients], done)
            f_nc = model.forward_head(model.forward_features(x_nc), pre_logits=True)
            loss = F.cross_entropy(model.head(f_nc), y_nc)
            if epoch > 0 and name != "cbft-no-invariance":
                f_c = model.forward_head(model.forward_features(x_c), pre_logits=True)
                for k in set(y_c.tolist()) & set(y_nc.tolist()):
                    mean_c, mean_nc = f_c[y_c == k].mean(0), f_nc[y_nc == k].mean(0)
                    loss = loss + (mean_c / mean_c.norm() - mean_nc / mean_nc.norm()).square().sum() / 3
            optimizer.step(torch.autograd.grad(loss, parameters), done)
            done += 1
    result = make_method(name, epochs=epochs, batch_size=batch_size, lr=lr, **settings).fine_tune(task)
    assert_same_state(result, model, tolerance=1e-7)
    assert not torch.allclose(result.stem.weight, task.pretrained.stem.weight, atol=1e-3)


# --- the task


def test_the_cued_set_is_refused_to_a_method_that_does_not_declare_it(make_task):
    task = make_task()
    with pytest.raises(UndeclaredDataError, match=r"needs=\{\"cued\"\}"):
        _ = task.cued
    assert len(make_task(needs={"cued"}).cued) == 14


def test_environments_are_refused_to_a_method_that_does_not_declare_them(make_task):
    with pytest.raises(UndeclaredDataError, match=r"needs=\{\"cued\", \"environments\"\}"):
        _ = make_task(needs={"cued"}).environments
    with pytest.raises(UndeclaredDataError, match=r"needs=\{\"cued\", \"environments\"\}"):
        _ = make_task(needs={"cued"}).pool_attributes


def test_environments_are_those_of_cued_images_so_a_spec_declares_both():
    with pytest.raises(ValueError, match="and so 'cued' as well"):
        MethodSpec(name="m", target=":M", needs=frozenset({"environments"}))


def test_the_methods_that_train_on_cued_images_declare_it(registry):
    needy = {offer.spec.name for offer in registry.offers("method") if offer.spec.needs}
    cbft = {"cbft", "cbft-no-barrier", "cbft-no-invariance"}
    pooled = {"coral", "erm-class-balanced", "erm-group-balanced", "erm-pooled"}
    pooled |= {"eiil", "groupdro", "irm", "jtt", "lff", "lisa", "llr-pooled", "spare", "vrex"}
    assert needy == {*cbft, "cbft-partly-cued", *pooled}
    assert {name for name in needy if "fully-cued" in registry.get("method", name).spec.needs} == cbft


def test_fully_cued_images_are_refused_to_a_method_that_does_not_declare_them(make_task):
    for name in ("fully_cued", "all_fully_cued"):
        with pytest.raises(UndeclaredDataError, match=r"needs=\{\"fully-cued\"\}"):
            getattr(make_task(needs={"cued"}), name)


def test_a_task_has_no_place_for_test_images():
    fields = set(inspect.signature(Task).parameters)
    assert fields == {
        *("model", "pretrained", "clean", "validation", "num_classes"),
        *("device", "generator", "progress", "needs", "_untrained"),
        *("_cued", "_environments", "_clean_environments", "_cue_classes", "_fully_cued", "_all_fully_cued"),
    }
