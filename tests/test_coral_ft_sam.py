"""Deep CORAL and sharpness-aware fine-tuning: their terms against loops in float64, and their loops too."""

import copy
import math

import pytest
import torch
from mmc_bench_plugins.coral.method import coral_penalty
from mmc_bench_plugins.ft_sam.method import worst_neighbour
from torch.nn import functional as F

from mmc_bench.plugin.registry import Registry
from mmc_bench.training import Progress, Task


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


def sgd_by_hand(model, lr):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)


def cosine_by_hand(optimizer, lr, done, steps):
    optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * done / steps)) / 2


def assert_same_state(model, expected, tolerance=1e-9):
    for (name, value), wanted in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.allclose(value, wanted, rtol=tolerance, atol=tolerance), name


# --- CORAL


def features_of(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, 4, generator=generator, dtype=torch.float64) * (1 + seed) + seed).requires_grad_()


def moments_by_hand(rows):
    """Return the means and unbiased covariances of rows of features, summed up one by one."""
    n, size = len(rows), len(rows[0])
    mean = [sum(row[i] for row in rows) / n for i in range(size)]
    covariance = [
        [sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in rows) / (n - 1) for j in range(size)]
        for i in range(size)
    ]
    return mean, covariance


def penalty_by_hand(rows_c, rows_nc):
    (mean_c, covariance_c), (mean_nc, covariance_nc) = moments_by_hand(rows_c), moments_by_hand(rows_nc)
    size = len(mean_c)
    means = sum((a - b) ** 2 for a, b in zip(mean_c, mean_nc)) / size
    pairs = [(covariance_c[i][j], covariance_nc[i][j]) for i in range(size) for j in range(size)]
    return means + sum((a - b) ** 2 for a, b in pairs) / size**2


@pytest.mark.parametrize(("n_c", "n_nc"), [(2, 2), (7, 5), (3, 12)])
def test_the_coral_penalty_is_the_distance_of_means_and_covariances(n_c, n_nc):
    f_c, f_nc = features_of(n_c, 1), features_of(n_nc, 2)
    assert coral_penalty(f_c, f_nc).item() == pytest.approx(penalty_by_hand(f_c.tolist(), f_nc.tolist()), rel=1e-12)
    assert torch.autograd.gradcheck(coral_penalty, (f_c, f_nc))


def test_the_coral_penalty_is_not_rounded_under_autocast():
    f_c, f_nc = (features_of(20, seed).detach().float() for seed in (1, 2))
    expected = penalty_by_hand(f_c.tolist(), f_nc.tolist())
    with torch.autocast("cpu", torch.bfloat16):
        assert coral_penalty(f_c, f_nc).item() == pytest.approx(expected, rel=1e-5)


def coral_by_hand(task, lr, epochs, batch_size, penalty_weight):
    """Train with one pass over both environments, whose features are compared row by row."""
    model, generator = copy.deepcopy(task.model), torch.Generator().manual_seed(7)
    cued, done = task.cued.stream(batch_size, generator), 0
    steps = epochs * math.ceil(len(task.clean) / batch_size)
    optimizer = sgd_by_hand(model, lr)
    for _ in range(epochs):
        for rows in torch.randperm(len(task.clean), generator=generator).split(batch_size):
            x_c, y_c = next(cued)
            x_nc, y_nc = task.clean.storage[rows], task.clean.labels[rows]
            f = model.forward_head(model.forward_features(torch.cat([x_c, x_nc])), pre_logits=True)
            f_c, f_nc = f[: len(y_c)], f[len(y_c) :]
            losses = F.cross_entropy(model.head(f_c), y_c) + F.cross_entropy(model.head(f_nc), y_nc)
            loss = losses / 2 + penalty_weight * penalty_by_hand(list(f_c), list(f_nc))
            cosine_by_hand(optimizer, lr, done, steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
    return model


@pytest.mark.slow
@pytest.mark.parametrize("penalty_weight", [0.0, 1.0, 20.0])
def test_coral_equals_a_hand_written_loop(make_task, penalty_weight):
    settings = {"lr": 0.02, "epochs": 3, "batch_size": 4, "penalty_weight": penalty_weight}
    expected = coral_by_hand(make_task(), **settings)
    task = make_task()
    assert_same_state(make_method("coral", **settings).fine_tune(task), expected)
    assert (task.model.stem.weight - task.pretrained.stem.weight).abs().max() > 1e-3


# --- FT-SAM


def weights_and_gradients(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (3, 2), "b": (5,), "c": (1,)}
    return (
        {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()},
        tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes.values()),
    )


def test_the_worst_neighbour_is_the_papers_closed_form():
    theta, gradients = weights_and_gradients()
    flat = ([x for v in values for x in v.view(-1).tolist()] for values in (theta.values(), gradients))
    pairs = list(zip(*flat))
    norm = math.sqrt(sum((abs(w) * g) ** 2 for w, g in pairs))
    expected = [w + 0.3 * abs(w) ** 2 * g / norm for w, g in pairs]
    moved = worst_neighbour(theta, gradients, 0.3)
    assert torch.cat([m.view(-1) for m in moved.values()]).tolist() == pytest.approx(expected, rel=1e-10)
    assert list(moved) == list(theta) and all(m.requires_grad and m.is_leaf for m in moved.values())


def test_no_step_of_the_same_scaled_length_gains_more_to_first_order():
    theta, gradients = weights_and_gradients()
    gradient, weights = (torch.cat([v.view(-1) for v in values]) for values in (gradients, theta.values()))
    step = torch.cat([m.detach().view(-1) for m in worst_neighbour(theta, gradients, 0.3).values()]) - weights
    assert (step / weights).norm().item() == pytest.approx(0.3, rel=1e-9)
    directions = torch.randn(1000, len(weights), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    others = 0.3 * weights.abs() * directions / directions.norm(dim=1, keepdim=True)
    assert (step @ gradient) >= (others @ gradient).max()


def test_without_a_gradient_the_worst_neighbour_is_the_point_itself():
    theta, gradients = weights_and_gradients()
    moved = worst_neighbour(theta, tuple(torch.zeros_like(g) for g in gradients), 2.0)
    assert all(torch.equal(moved[name], theta[name]) for name in theta)


def ft_sam_by_hand(task, lr, epochs, batch_size, rho):
    """Train by moving a copy of the network to θ + ε; the copy's running statistics are thrown away with it."""
    model, generator, done = copy.deepcopy(task.model), torch.Generator().manual_seed(7), 0
    steps = epochs * math.ceil(len(task.clean) / batch_size)
    optimizer = sgd_by_hand(model, lr)
    for _ in range(epochs):
        for rows in torch.randperm(len(task.clean), generator=generator).split(batch_size):
            x, y = task.clean.storage[rows], task.clean.labels[rows]
            gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
            scaled = torch.cat([(p.abs() * g).view(-1) for p, g in zip(model.parameters(), gradients)])
            moved = copy.deepcopy(model)
            with torch.no_grad():
                for p, g in zip(moved.parameters(), gradients):
                    p += rho * p**2 * g / scaled.norm()
            worst = torch.autograd.grad(F.cross_entropy(moved(x), y), list(moved.parameters()))
            cosine_by_hand(optimizer, lr, done, steps)
            for p, g in zip(model.parameters(), worst):
                p.grad = g
            optimizer.step()
            done += 1
    return model


@pytest.mark.parametrize("rho", [0.1, 2.0])
def test_ft_sam_equals_a_hand_written_loop_with_statistics_from_the_first_pass_alone(make_task, rho):
    settings = {"lr": 0.02, "epochs": 3, "batch_size": 4, "rho": rho}
    expected = ft_sam_by_hand(make_task(), **settings)
    model = make_method("ft-sam", **settings).fine_tune(make_task())
    assert_same_state(model, expected)
    assert model.norm1.num_batches_tracked == expected.norm1.num_batches_tracked == 9


@pytest.mark.slow
def test_ft_sam_without_a_neighbourhood_is_naive_fine_tuning(make_task):
    settings = {"lr": 0.02, "epochs": 3, "batch_size": 4}
    plain = make_method("ft-medium", **settings).fine_tune(make_task())
    assert_same_state(make_method("ft-sam", rho=0.0, **settings).fine_tune(make_task()), plain)
    sharp = make_method("ft-sam", rho=2.0, **settings).fine_tune(make_task())
    assert not torch.allclose(sharp.stem.weight, plain.stem.weight, atol=1e-4)


# --- what they declare


def test_the_defaults_are_domainbeds_and_the_authors():
    shared = {"lr": 0.01, "epochs": 20, "batch_size": 256}
    assert dict(make_method("coral").config) == {**shared, "penalty_weight": 1.0}
    assert dict(make_method("ft-sam").config) == {**shared, "rho": 2.0}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "needs"), [("coral", {"cued"}), ("ft-sam", set())])
def test_they_declare_what_they_use_and_describe_their_parameters(name, needs):
    assert Registry.discover().get("method", name).spec.needs == needs
    assert all(field.description for field in type(make_method(name)).Config.model_fields.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coral", "ft-sam"])
def test_the_same_seed_gives_the_same_weights_to_the_bit(make_task, name):
    runs = [make_method(name, epochs=2, batch_size=4).fine_tune(make_task(seed)) for seed in (7, 7, 8)]
    first, again, other = ([value.clone() for value in run.state_dict().values()] for run in runs)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not all(torch.equal(a, b) for a, b in zip(first, other))
