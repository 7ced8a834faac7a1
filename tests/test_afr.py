"""Automatic feature reweighting: its weights, its objective and its early stopping, against loops in float64."""

import copy
import math

import pytest
import torch
from mmc_bench_plugins.afr.method import example_weights, last_layer, objective, scores

from mmc_bench.plugin.registry import Registry
from mmc_bench.training import Progress, Task, frozen_features


@pytest.fixture
def task(tiny_net, image_set):
    pretrained = tiny_net(1).eval().requires_grad_(False)
    return Task(
        model=copy.deepcopy(pretrained).train().requires_grad_(True),
        pretrained=pretrained,
        clean=image_set(20, 1),
        validation=image_set(30, 4),
        num_classes=3,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(7),
        progress=Progress(),
    )


def make_method(**parameters):
    offer = Registry.discover().get("method", "afr")
    return offer.make(offer.configure(parameters))


def softmax(row):
    exponentials = [math.exp(value) for value in row]
    return [e / sum(exponentials) for e in exponentials]


def weights_by_hand(outputs, labels, gamma):
    """μ_i ∝ β_{y_i} exp(-γ p_i), β_y one over the number of its images, summing to 1."""
    raw = [math.exp(-gamma * softmax(row)[y]) / labels.count(y) for row, y in zip(outputs, labels)]
    return [value / sum(raw) for value in raw]


def outputs_by_hand(layer, inputs):
    return [[sum(w * v for w, v in zip(row, [*x, 1.0])) for row in layer] for x in inputs]


def objective_by_hand(layer, start, inputs, labels, weights, pull):
    outputs = outputs_by_hand(layer, inputs)
    loss = -sum(w * math.log(softmax(row)[y]) for w, row, y in zip(weights, outputs, labels))
    return loss + pull * sum((a - b) ** 2 for r, s in zip(layer, start) for a, b in zip(r, s))


@pytest.mark.parametrize("gamma", [0.0, 4.0, 20.0])
def test_the_weights_are_those_of_the_formula(gamma):
    outputs = 2 * torch.randn(11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0] * 6 + [1] * 4 + [2])
    expected = weights_by_hand(outputs.tolist(), labels.tolist(), gamma)
    assert example_weights(outputs, labels, torch.tensor(gamma)).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_objective_is_that_of_the_formula_for_each_layer_of_its_own():
    generator = torch.Generator().manual_seed(0)
    layers = torch.randn(4, 3, 6, dtype=torch.float64, generator=generator)
    inputs, labels = torch.randn(7, 5, dtype=torch.float64, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2, 2])
    weights = torch.rand(4, 7, dtype=torch.float64, generator=generator)
    pulls = torch.tensor([0.0, 0.1, 0.3, 2.0], dtype=torch.float64)
    values = objective(layers, layers[0], inputs, labels, weights, pulls)
    for r, value in enumerate(values.tolist()):
        parts = (layers[r], layers[0], inputs, labels, weights[r])
        expected = objective_by_hand(*(part.tolist() for part in parts), pulls[r].item())
        assert value == pytest.approx(expected, rel=1e-12)


def score_by_hand(layer, inputs, labels):
    """Return the accuracy on the worst class that occurs, and on all."""
    right = [max(range(3), key=row.__getitem__) == y for row, y in zip(outputs_by_hand(layer, inputs), labels)]
    classes = [[r for r, y in zip(right, labels) if y == k] for k in set(labels)]
    return min(sum(c) / len(c) for c in classes), sum(right) / len(right)


@pytest.mark.parametrize("present", [[0, 1, 2], [0, 2]])
def test_layers_are_ordered_by_their_worst_class_then_by_all_images(present):
    generator = torch.Generator().manual_seed(0)
    layers = torch.randn(40, 3, 6, generator=generator)
    inputs = torch.randn(60, 5, generator=generator)
    labels = torch.tensor(present)[torch.randint(len(present), (60,), generator=generator)]
    expected = [score_by_hand(layer, inputs.tolist(), labels.tolist()) for layer in layers.tolist()]
    got = scores(layers, inputs, labels).tolist()
    assert sorted(range(40), key=got.__getitem__) == sorted(range(40), key=expected.__getitem__)
    assert len({worst for worst, _ in expected}) < len(set(expected))  # some worst classes tie


def descended_by_hand(task, gamma, pull, lr, epochs, clip):
    """Yield the layer after each step of gradient descent, with derivatives and their clipping written out."""
    inputs, labels = frozen_features(task.pretrained, task.clean).double(), task.clean.labels.tolist()
    start = last_layer(task.pretrained.head).double()
    weights = weights_by_hand(outputs_by_hand(start.tolist(), inputs.tolist()), labels, gamma)
    layer = start.clone()
    for _ in range(epochs):
        gradient = 2 * pull * (layer - start)
        for i, row in enumerate(outputs_by_hand(layer.tolist(), inputs.tolist())):
            for k, probability in enumerate(softmax(row)):
                gradient[k] += weights[i] * (probability - (labels[i] == k)) * torch.cat([inputs[i], torch.ones(1)])
        norm = math.sqrt(sum(value**2 for row in gradient.tolist() for value in row))
        layer = layer - lr * gradient * (clip / norm if norm > clip else 1.0)
        yield layer


@pytest.mark.slow
@pytest.mark.parametrize("clip", [0.05, 1.0])
def test_the_returned_layer_is_the_first_best_of_all_steps_of_all_pairs(task, clip):
    gammas, pulls, lr, epochs = (0.0, 6.0), (0.0, 0.5), 0.3, 12
    held_out, labels = frozen_features(task.pretrained, task.validation).tolist(), task.validation.labels.tolist()
    paths = [list(descended_by_hand(task, g, p, lr, epochs, clip)) for g in gammas for p in pulls]
    candidates = [(step, run) for step in range(epochs) for run in range(4)]
    order = {(s, r): score_by_hand(paths[r][s].tolist(), held_out, labels) for s, r in candidates}
    best = max(candidates, key=order.__getitem__)  # the first of equals
    assert best[0] not in (0, epochs - 1) and len(set(order.values())) > 2

    method = make_method(gammas=gammas, pulls=pulls, lr=lr, epochs=epochs, clip=clip)
    model = method.fine_tune(task)
    assert torch.allclose(last_layer(model.head).double(), paths[best[1]][best[0]], rtol=1e-4, atol=1e-5)
    before, after = task.pretrained.state_dict(), model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"head.weight", "head.bias"}


@pytest.mark.slow
def test_the_defaults_are_the_authors_for_waterbirds():
    config = make_method().config
    assert (config.lr, config.epochs, config.clip, config.pulls) == (0.01, 500, 1.0, (0.0, 0.1, 0.2, 0.3))
    assert config.gammas == (4.0, 8.0, 12.0, 16.0, 20.0)
    assert all(field.description for field in type(config).model_fields.values())
