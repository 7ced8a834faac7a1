"""Deep feature reweighting: its regressions, its choice of C and the layer it writes, against loops in float64."""

import copy
import math

import numpy as np
import pytest
import torch
from mmc_bench_plugins.dfr import method as dfr
from mmc_bench_plugins.dfr.method import balanced_subset, class_accuracies, one_against_rest

from mmc_bench.plugin.registry import Registry
from mmc_bench.training import Progress, Task, frozen_features


@pytest.fixture
def make_task(tiny_net, image_set):
    """Return a maker of tasks on tiny data in float64; the generator starts at the seed given."""

    def make(seed=7, **replaced):
        pretrained = tiny_net(1).eval().requires_grad_(False)
        task = {
            "model": copy.deepcopy(pretrained).train().requires_grad_(True),
            "pretrained": pretrained,
            "clean": image_set(40, 1),
            "validation": image_set(30, 2),
            "num_classes": 3,
            "device": torch.device("cpu"),
            "generator": torch.Generator().manual_seed(seed),
            "progress": Progress(),
        }
        return Task(**{**task, **replaced})

    return make


@pytest.fixture
def make_method():
    def make(**parameters):
        offer = Registry.discover().get("method", "dfr")
        return offer.make(offer.configure(parameters))

    return make


def objective(row, inputs, signs, strength):
    """‖w‖₁ + C Σ log(1 + exp(-y wᵀ(x, 1))), image by image; the intercept is the last of w."""
    total = sum(abs(w) for w in row)
    for x, sign in zip(inputs, signs):
        total += strength * math.log1p(math.exp(-sign * sum(w * v for w, v in zip(row, [*x, 1.0]))))
    return total


def minimiser(inputs, signs, strength, steps=4000):
    """Minimise the same by proximal gradient steps: descend the logistic loss, then shrink each weight."""
    design = np.column_stack([inputs, np.ones(len(inputs))])
    size = 4 / (strength * np.linalg.norm(design, 2) ** 2)
    row = np.zeros(design.shape[1])
    for _ in range(steps):
        pull = signs / (1 + np.exp(signs * (design @ row)))
        row = row + size * strength * design.T @ pull
        row = np.sign(row) * np.maximum(np.abs(row) - size, 0)
    return row


@pytest.mark.parametrize("strength", [1.0, 0.1])
def test_each_class_gets_the_sparse_logistic_regression_against_the_rest(strength):
    random = np.random.default_rng(0)
    labels = np.arange(30) % 3
    inputs = random.normal(size=(30, 4)) + np.eye(4)[labels]
    rows = one_against_rest(inputs, labels, 3, strength, random)
    for k, row in enumerate(rows):
        signs = np.where(labels == k, 1.0, -1.0)
        expected = minimiser(inputs, signs, strength)
        assert row == pytest.approx(expected, abs=0.01)
        values = [objective(r.tolist(), inputs.tolist(), signs.tolist(), strength) for r in (row, expected)]
        assert values[0] == pytest.approx(values[1], rel=1e-4)
    assert (rows == 0).any()


def test_a_class_without_an_image_is_unlikely_whatever_the_input():
    inputs, labels = np.random.default_rng(0).normal(size=(12, 4)), np.arange(12) % 2
    rows = one_against_rest(inputs, labels, 3, 1.0, np.random.default_rng(0))
    assert rows[2].tolist() == [0, 0, 0, 0, -math.log(12)]


def test_a_balanced_subset_has_as_many_of_each_class_as_the_rarest_and_another_draw_has_others():
    labels = np.array([0] * 20 + [3] * 5 + [1] * 9)
    random = np.random.default_rng(0)
    first, second = balanced_subset(labels, random), balanced_subset(labels, random)
    for rows in (first, second):
        assert len(set(rows.tolist())) == 15
        assert np.bincount(labels[rows]).tolist() == [5, 5, 0, 5]
    assert set(first) != set(second)


def test_candidates_are_compared_by_their_worst_class_then_by_all_images():
    rows = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.5]])
    inputs = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 0], [1, 0]], dtype=float)
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    assert class_accuracies(rows, inputs, labels) == (0.5, 5 / 7)


@pytest.fixture
def fits(monkeypatch):
    """Note every set of regressions: the strength C, the labels it saw and the rows that came out."""
    seen = []

    def noting(inputs, labels, num_classes, strength, random):
        rows = one_against_rest(inputs, labels, num_classes, strength, random)
        seen.append((strength, labels, rows))
        return rows

    monkeypatch.setattr(dfr, "one_against_rest", noting)
    return seen


def standardised(images, task):
    """Standardise features by the clean set's mean and deviation (n, not n - 1), one by one (a constant has 1)."""
    clean = frozen_features(task.pretrained, task.clean).double().tolist()
    columns = list(zip(*clean))
    means = [sum(column) / len(column) for column in columns]
    spreads = [math.sqrt(sum((v - m) ** 2 for v in column) / len(column)) or 1.0 for column, m in zip(columns, means)]
    rows = frozen_features(task.pretrained, images).double().tolist()
    return np.array([[(v - m) / s for v, m, s in zip(row, means, spreads)] for row in rows])


def test_the_layer_gives_the_mean_of_the_regressions_on_standardised_features(make_method, make_task, fits, image_set):
    task, fresh = make_task(), image_set(9, 5)
    model = make_method(retrains=3).fine_tune(task)
    mean = sum(rows for _, _, rows in fits[-3:]) / 3
    inputs = standardised(fresh, task)
    expected = [[sum(w * v for w, v in zip(row, [*x, 1.0])) for row in mean] for x in inputs]
    assert model.eval()(fresh.storage).detach().numpy() == pytest.approx(np.array(expected), rel=1e-4, abs=1e-5)
    before, after = task.pretrained.state_dict(), model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"head.weight", "head.bias"}


def test_the_strength_is_the_one_whose_worst_class_on_validation_is_best(make_method, make_task, fits):
    task, strengths = make_task(), (0.001, 0.05, 1.0, 0.02)
    make_method(strengths=strengths, retrains=2).fine_tune(task)
    inputs, labels = standardised(task.validation, task), task.validation.labels.tolist()
    scores = []
    for _, _, rows in fits[:4]:
        right = [(rows[:, :-1] @ x + rows[:, -1]).argmax() == y for x, y in zip(inputs, labels)]
        classes = [[r for r, y in zip(right, labels) if y == k] for k in range(3)]
        scores.append((min(sum(c) / len(c) for c in classes), sum(right)))
    assert len(set(scores)) > 1 and scores.index(max(scores)) != 0
    assert [strength for strength, _, _ in fits] == [*strengths, *[strengths[scores.index(max(scores))]] * 2]
    assert all(len(set(np.bincount(labels))) == 1 for _, labels, _ in fits)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_layer_to_the_bit(make_method, make_task):
    first, again, other = (make_method(retrains=2).fine_tune(make_task(seed)).head.weight for seed in (7, 7, 8))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_clean_set_that_lacks_a_class_gives_a_finite_layer(make_method, make_task, image_set):
    task = make_task(clean=image_set(20, 1, labels=[0, 1] * 10))
    model = make_method().fine_tune(task).eval()
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert not (model(image_set(30, 5).storage).argmax(1) == 2).all()


@pytest.mark.slow
def test_the_defaults_are_the_authors(make_method):
    assert dict(make_method().config) == {
        "strengths": (3.0, 1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01, 0.003),
        "retrains": 20,
    }
    assert all(field.description for field in type(make_method()).Config.model_fields.values())
