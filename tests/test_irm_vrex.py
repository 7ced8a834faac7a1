"""IRM and V-REx: their penalties against formulas in float64, and their loops against slow ones."""

import copy
import math

import numpy as np
import pytest
import torch
from mmc_bench_plugins.irm import method as irm
from mmc_bench_plugins.irm.method import irm_penalty, scale_gradient
from mmc_bench_plugins.vrex import method as vrex
from mmc_bench_plugins.vrex.method import variance
from torch.nn import functional as F

from mmc_bench.plugin.registry import Registry
from mmc_bench.training import Progress, Task

METHODS = ["irm", "vrex"]


def batch(n, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(classes, (n,), generator=generator)


# --- penalties


def loss_by_hand(rows, labels, scale):
    """Return the mean cross-entropy of scaled logits, image by image."""
    total = 0.0
    for row, label in zip(rows, labels):
        exponentials = [math.exp(scale * value) for value in row]
        total -= math.log(exponentials[label] / sum(exponentials))
    return total / len(rows)


def test_the_scale_gradient_is_the_slope_of_the_loss_in_a_common_factor_of_all_logits():
    logits, labels = batch(9)
    above, below = (loss_by_hand(logits.tolist(), labels.tolist(), 1 + step) for step in (1e-6, -1e-6))
    assert scale_gradient(logits, labels).item() == pytest.approx((above - below) / 2e-6, rel=1e-8)


def autograd_penalty(logits, labels):
    """The penalty as its authors write it: gradients of a dummy scale, kept for differentiating again."""
    scale = torch.ones((), dtype=logits.dtype, requires_grad=True)
    gradients = [
        torch.autograd.grad(F.cross_entropy(logits[half] * scale, labels[half]), scale, create_graph=True)[0]
        for half in (slice(0, None, 2), slice(1, None, 2))
    ]
    return gradients[0] * gradients[1]


@pytest.mark.parametrize("n", [2, 3, 8, 11])
def test_the_irm_penalty_and_its_gradient_equal_those_of_a_dummy_scale(n):
    logits, labels = batch(n, seed=n)
    penalty, expected = irm_penalty(logits, labels), autograd_penalty(logits, labels)
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-12)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (penalty, expected)]
    assert torch.allclose(*gradients, rtol=1e-10, atol=1e-14)
    assert torch.autograd.gradcheck(lambda z: irm_penalty(z, labels), logits)


def test_the_irm_penaltys_gradient_in_a_networks_weights_equals_the_one_through_two_derivatives(tiny_net, image_set):
    model, images = tiny_net().train(), image_set(12)
    gradients = [
        torch.autograd.grad(penalty(model(images.storage), images.labels), list(model.parameters()))
        for penalty in (irm_penalty, autograd_penalty)
    ]
    for gradient, expected in zip(*gradients):
        assert torch.allclose(gradient, expected, rtol=1e-9, atol=1e-13)


def test_the_irm_penalty_estimates_the_squared_gradient_without_bias():
    # Over all ordered pairs of images, the mean product of their gradients is an average of exact terms.
    logits, labels = batch(6)
    single = [scale_gradient(logits[i : i + 1], labels[i : i + 1]).item() for i in range(6)]
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    mean = sum(irm_penalty(logits[[i, j]], labels[[i, j]]).item() for i, j in pairs) / len(pairs)
    assert mean == pytest.approx((sum(single) ** 2 - sum(g * g for g in single)) / 30, rel=1e-12)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_variance_is_that_of_the_losses_over_environments(count):
    risks = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = variance(risks)
    assert value.item() == pytest.approx(np.var(risks.tolist()), rel=1e-12, abs=1e-18)
    (gradient,) = torch.autograd.grad(value, risks)
    assert torch.allclose(gradient, 2 / count * (risks - risks.mean()), rtol=1e-12)


# --- the loops


@pytest.fixture
def make_task(tiny_net, image_set):
    """Return a maker of tasks on tiny data in float64; the generator starts at seed 7."""

    def make(seed=7):
        pretrained = tiny_net(1).eval().requires_grad_(False)
        return Task(
            model=copy.deepcopy(pretrained).train().requires_grad_(True),
            pretrained=pretrained,
            clean=image_set(11, 1),
            validation=image_set(5, 2),
            num_classes=3,
            device=torch.device("cpu"),
            generator=torch.Generator().manual_seed(seed),
            progress=Progress(),
            needs=frozenset({"cued"}),
            _cued=image_set(14, 3),
        )

    return make


def make_method(name, **parameters):
    offer = Registry.discover().get("method", name)
    return offer.make(offer.configure(parameters))


def fine_tuned_by_hand(name, task, lr, epochs, batch_size, penalty_weight, jump):
    """Train with losses, penalties and Adam written out, and Adam's moments anew when the weight rises, at `jump`."""
    model, generator = copy.deepcopy(task.model), torch.Generator().manual_seed(7)
    cued, done = task.cued.stream(batch_size, generator), 0
    steps = epochs * math.ceil(len(task.clean) / batch_size)
    for _ in range(epochs):
        order = torch.randperm(len(task.clean), generator=generator)
        for rows in order.split(batch_size):
            x_nc, y_nc = task.clean.storage[rows], task.clean.labels[rows]
            x_c, y_c = next(cued)
            if done in (0, jump):
                moments = [[torch.zeros_like(p), torch.zeros_like(p)] for p in model.parameters()]
                since = 0
            logits = model(torch.cat([x_c, x_nc]))
            halves = (logits[: len(y_c)], y_c), (logits[len(y_c) :], y_nc)
            losses = [F.cross_entropy(z, y) for z, y in halves]
            if name == "irm":
                penalty = sum(autograd_penalty(z, y) for z, y in halves) / 2
            else:
                penalty = ((losses[0] - losses[1]) / 2) ** 2
            weight = penalty_weight if done >= jump else 1.0
            loss = sum(losses) / 2 + weight * penalty
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            since, rate = since + 1, lr * (1 + math.cos(math.pi * done / steps)) / 2
            with torch.no_grad():
                for p, g, (mean, square) in zip(model.parameters(), gradients, moments, strict=True):
                    mean.mul_(0.9).add_(0.1 * g)
                    square.mul_(0.999).add_(0.001 * g**2)
                    p.sub_(rate * mean / (1 - 0.9**since) / ((square / (1 - 0.999**since)).sqrt() + 1e-8))
            done += 1
    return model


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("annealing", "weight", "jump"), [(0.5, 8.0, 4), (0.5, 0.25, 4), (0, 8.0, 0), (1, 8.0, 9), (0.2, 8.0, 2)]
)
def test_the_loop_equals_a_hand_written_one_with_a_new_optimiser_at_the_jump(make_task, name, annealing, weight, jump):
    settings = {"lr": 0.02, "epochs": 3, "batch_size": 4, "penalty_weight": weight}
    expected = fine_tuned_by_hand(name, make_task(), jump=jump, **settings)
    task = make_task()
    model = make_method(name, annealing=annealing, **settings).fine_tune(task)
    # The penalties are computed in float32.
    for (key, value), wanted in zip(model.state_dict().items(), expected.state_dict().values()):
        assert torch.allclose(value, wanted, rtol=1e-4, atol=1e-5), key
    assert (model.stem.weight - task.pretrained.stem.weight).abs().max() > 1e-3


@pytest.mark.parametrize("name", METHODS)
def test_clearing_the_momentum_matters(make_task, name):
    settings = {"lr": 0.02, "epochs": 3, "batch_size": 4, "penalty_weight": 8.0}
    expected = fine_tuned_by_hand(name, make_task(), jump=4, **settings)
    other = fine_tuned_by_hand(name, make_task(), jump=5, **settings)
    assert not torch.allclose(expected.stem.weight, other.stem.weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_each_step_is_one_forward_pass_over_both_environments_cued_first(make_task, name):
    task, seen = make_task(), []
    task.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    make_method(name, epochs=2, batch_size=4).fine_tune(task)
    assert [len(x) for x in seen] == [8, 8, 7, 6, 8, 7]  # of 14 cued images, the fourth batch has two
    clean, cued = ({tuple(image.flatten().tolist()) for image in images.storage} for images in (task.clean, task.cued))
    for epoch in (seen[:3], seen[3:]):
        parts = [x.split([len(x) - n, n]) for x, n in zip(epoch, (4, 4, 3))]
        first, second = ([tuple(image.flatten().tolist()) for x in side for image in x] for side in zip(*parts))
        assert set(first) <= cued
        assert len(second) == 11 and set(second) == clean


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_weights_to_the_bit(make_task, name):
    runs = [make_method(name, epochs=2, batch_size=4).fine_tune(make_task(seed)) for seed in (7, 7, 8)]
    first, again, other = ([value.clone() for value in run.state_dict().values()] for run in runs)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not all(torch.equal(a, b) for a, b in zip(first, other))


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_larger_penalty_weight_lowers_the_penalty(make_task, name):
    def penalty(weight):
        task = make_task()
        settings = {"lr": 0.02, "epochs": 30, "batch_size": 14}
        model = make_method(name, penalty_weight=weight, **settings).fine_tune(task)
        parts = [(model(images.storage), images.labels) for images in (task.cued, task.clean)]
        if name == "vrex":
            return variance(torch.stack([F.cross_entropy(z, y) for z, y in parts])).item()
        return sum(scale_gradient(z, y).item() ** 2 for z, y in parts)

    assert penalty(100.0) < penalty(0.0)


@pytest.mark.parametrize(("name", "module", "penalty"), [("irm", irm, "irm_penalty"), ("vrex", vrex, "variance")])
def test_penalties_are_computed_in_float32_under_autocast(monkeypatch, make_task, name, module, penalty):
    kinds, original = set(), getattr(module, penalty)

    def noting(values, *rest):
        kinds.add(values.dtype)
        result = original(values, *rest)
        kinds.add(result.dtype)
        return result

    monkeypatch.setattr(module, penalty, noting)
    task = make_task()
    task.model.float()
    for images in (task.clean, task.cued):
        object.__setattr__(images, "storage", images.storage.float())
    monkeypatch.setattr(task.model, "forward", torch.autocast("cpu", torch.bfloat16)(task.model.forward))
    assert task.model(task.clean.storage).dtype == torch.bfloat16
    make_method(name, epochs=1, batch_size=4).fine_tune(task)
    assert kinds == {torch.float32}


# --- what they declare


def test_the_defaults_are_domainbeds_and_the_papers():
    shared = {"lr": 0.001, "epochs": 20, "batch_size": 256, "annealing": 0.1}
    assert dict(make_method("irm").config) == {**shared, "penalty_weight": 100.0}
    assert dict(make_method("vrex").config) == {**shared, "penalty_weight": 10.0}


@pytest.mark.parametrize("name", METHODS)
def test_both_declare_the_cued_set_and_describe_their_parameters(name):
    assert Registry.discover().get("method", name).spec.needs == {"cued"}
    fields = type(make_method(name)).Config.model_fields
    assert all(field.description for field in fields.values())
