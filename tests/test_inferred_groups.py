"""EIIL, LfF and SPARE, which infer what is hard from a biased model: against loops in float64."""

import copy
import math
from itertools import product

import numpy as np
import pytest
import torch
from helpers.pooling import CLEAN, CUED, WrittenOutSGD, assert_same_state, make_method, paired_rows, pooled_task
from mmc_bench_plugins.eiil.method import scale_gradients
from mmc_bench_plugins.lff.method import MovingAverages, generalised
from mmc_bench_plugins.spare.method import clustered
from torch.nn import functional as F

STEPS = {"epochs": 3, "batch_size": 4}


@pytest.fixture
def make_task(tiny_net, image_set):
    return lambda **replaced: pooled_task(tiny_net, image_set, **replaced)


def pool(task):
    """Return the images and labels of both sets, clean ones first."""
    return task.clean.storage, task.clean.labels.tolist() + task.cued.labels.tolist()


def softmax(row):
    exponentials = [math.exp(value) for value in row]
    return [e / sum(exponentials) for e in exponentials]


# --- EIIL


def test_the_scale_gradient_of_an_image_is_that_of_its_cross_entropy():
    logits = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    for z, y, gradient in zip(logits, labels, scale_gradients(logits, labels)):
        up, down = (-math.log(softmax([(1 + d) * value for value in z.tolist()])[y]) for d in (1e-6, -1e-6))
        assert gradient.item() == pytest.approx((up - down) / 2e-6, rel=1e-7, abs=1e-9)


def test_no_other_environments_break_invariance_more_than_those_inferred():
    logits = 2 * torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1, 2] * 3)
    gradients = scale_gradients(logits, labels).tolist()

    def objective(environment):  # the mean of both penalties, for q of 0 and 1; it is convex in q
        first = sum(g for g, one in zip(gradients, environment) if one) / 9
        second = sum(g for g, one in zip(gradients, environment) if not one) / 9
        return (first**2 + second**2) / 2

    inferred = [g > 0 for g in gradients]
    assert 0 < sum(inferred) < 9
    assert objective(inferred) == pytest.approx(max(map(objective, product([False, True], repeat=9))), rel=1e-12)


def test_the_authors_climb_by_adam_ends_in_the_inferred_environments():
    logits = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([0, 1, 2] * 4)
    gradients = scale_gradients(logits, labels)
    w = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    adam = torch.optim.Adam([w], lr=0.05)
    for _ in range(400):
        q = w.sigmoid()
        penalties = (gradients * q).mean() ** 2, (gradients * (1 - q)).mean() ** 2
        (-(penalties[0] + penalties[1]) / 2).backward()
        adam.step(), adam.zero_grad()
    found, inferred = (w > 0).tolist(), (gradients > 0).tolist()
    assert found in (inferred, [not one for one in inferred])


@pytest.mark.parametrize("group_step_size", [0.01, 2.0])
def test_eiil_equals_a_hand_written_loop(make_task, group_step_size):
    task = make_task()
    images, labels = pool(task)
    model, generator = copy.deepcopy(task.model), torch.Generator().manual_seed(7)
    groups = []
    for row in range(CLEAN + CUED):
        z = task.pretrained(images[row : row + 1])[0].tolist()
        gradient = sum(p * value for p, value in zip(softmax(z), z)) - z[labels[row]]
        groups.append((gradient > 0, labels[row]))
    assert len({environment for environment, _ in groups}) == 2
    q = {group: 1 / len(set(groups)) for group in groups}
    sgd = WrittenOutSGD(model, 0.02, 9)
    chances = [1 / groups[CLEAN:].count(group) for group in groups[CLEAN:]]
    for rows in paired_rows(3, 4, chances, generator):
        losses = F.cross_entropy(model(images[rows]), torch.tensor([labels[row] for row in rows]), reduction="none")
        own = {g: [loss for loss, row in zip(losses, rows) if groups[row] == g] for g in q}
        means = {g: sum(of) / len(of) if of else torch.zeros(()) for g, of in own.items()}
        q = {g: q[g] * math.exp(group_step_size * means[g].item()) for g in q}
        q = {g: weight / sum(q.values()) for g, weight in q.items()}
        sgd.minimise(sum(q[g] * means[g] for g in q))
    result = make_method("eiil", **STEPS, lr=0.02, group_step_size=group_step_size).fine_tune(make_task())
    assert_same_state(result, model, 1e-6)  # q begins in float32


# --- LfF


def test_the_generalised_cross_entropy_is_that_of_the_formula_with_its_gradient():
    losses = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64, requires_grad=True)
    values = generalised(losses, 0.7)
    assert values.tolist() == pytest.approx([(1 - math.exp(-loss) ** 0.7) / 0.7 for loss in losses.tolist()], rel=1e-12)
    (gradient,) = torch.autograd.grad(values.sum(), losses)  # p^q times that of the cross-entropy
    assert gradient.tolist() == pytest.approx([math.exp(-loss) ** 0.7 for loss in losses.tolist()], rel=1e-12)


def test_averages_begin_with_the_first_loss_and_are_divided_by_the_largest_of_the_class():
    averages = MovingAverages(torch.tensor([0, 0, 1]), 2, memory=0.7)
    assert averages.update(torch.tensor([0]), torch.tensor([4.0])).tolist() == [1.0]
    assert averages.update(torch.tensor([1, 2]), torch.tensor([2.0, 9.0])).tolist() == [0.5, 1.0]
    assert averages.update(torch.tensor([0]), torch.tensor([0.0])).tolist() == [1.0]  # .7 · 4 is the largest still
    assert averages.update(torch.tensor([1]), torch.tensor([1.0])).tolist() == pytest.approx([1.7 / 2.8])


def test_losses_that_are_all_0_make_no_nan():
    averages = MovingAverages(torch.tensor([0, 0]), 2, memory=0.7)
    assert averages.update(torch.tensor([0, 1]), torch.zeros(2)).tolist() == [0.0, 0.0]


def test_lff_equals_a_hand_written_loop_with_two_optimisers(make_task):
    task = make_task()
    images, labels = pool(task)
    debiased, biased = copy.deepcopy(task.model), copy.deepcopy(task.model)
    adams = [torch.optim.Adam(model.parameters(), lr=0.01) for model in (debiased, biased)]
    averages, done = [{}, {}], 0
    for rows in paired_rows(3, 4, [1.0] * CUED, torch.Generator().manual_seed(7)):
        log_p = [model(images[rows]).log_softmax(1) for model in (debiased, biased)]
        own = [[-p[place, labels[row]] for place, row in enumerate(rows)] for p in log_p]
        for average, losses in zip(averages, own):
            before = dict(average)
            for row, loss in zip(rows, losses):
                average[row] = 0.7 * before[row] + 0.3 * loss.item() if row in before else loss.item()
        relative = [
            [average[row] / max(v for other, v in average.items() if labels[other] == labels[row]) for row in rows]
            for average in averages
        ]
        weights = [b / (b + d + 1e-8) for d, b in zip(*relative)]
        losses = [
            sum(w * loss for w, loss in zip(weights, own[0])) / len(rows),
            sum((1 - torch.exp(-loss) ** 0.7) / 0.7 for loss in own[1]) / len(rows),
        ]
        for adam, loss in zip(adams, losses):
            adam.param_groups[0]["lr"] = 0.01 * (1 + math.cos(math.pi * done / 9)) / 2
            adam.zero_grad(), loss.backward(), adam.step()
        done += 1
    assert done == 9
    result = make_method("lff", **STEPS, lr=0.01).fine_tune(make_task())
    # Adam divides by gradients' sizes: where one is 0 but for rounding, so it magnifies.
    assert_same_state(result, debiased, 1e-6)


# --- SPARE


def two_clouds(sizes, gap, seed=0):
    """Return points around two places `gap` apart, so many around each."""
    random = np.random.default_rng(seed)
    return np.concatenate([random.normal(gap * place, 1.0, (size, 3)) for place, size in enumerate(sizes)])


def test_the_number_of_clusters_is_the_one_with_the_best_silhouette():
    points = two_clouds([20, 5], gap=50)
    clusters, silhouette = clustered(points, most=5, seed=0)
    assert clusters.tolist() in ([0] * 20 + [1] * 5, [1] * 20 + [0] * 5)
    distances = [[math.dist(a, b) for b in points] for a in points]
    values = []
    for i, own in enumerate(clusters):
        to = {k: [distances[i][j] for j in range(25) if clusters[j] == k and j != i] for k in (0, 1)}
        inside, outside = (sum(to[k]) / len(to[k]) for k in (own, 1 - own))
        values.append((outside - inside) / max(inside, outside))
    assert silhouette == pytest.approx(sum(values) / 25, rel=1e-9)


@pytest.mark.parametrize(("gap", "power"), [(500, 1), (3, 2)])
def test_weights_are_one_over_the_clusters_size_to_a_power_that_is_larger_where_clusters_are_blurred(gap, power):
    points, labels = two_clouds([20, 5, 12], gap), np.array([0] * 25 + [1] * 12)
    weights = make_method("spare").weights(points, labels, seed=0)
    clusters, silhouette = clustered(points[:25], 5, 0)
    assert (silhouette < 0.9) == (power == 2)
    raw = [1 / clusters.tolist().count(own) ** power for own in clusters]
    assert weights[:25].tolist() == pytest.approx([w / sum(raw) / 2 for w in raw], rel=1e-9)
    assert weights[25:].sum() == pytest.approx(0.5)


@pytest.mark.parametrize("points", [np.zeros((4, 3)), np.zeros((1, 3)), np.eye(2)])
def test_too_few_distinct_points_are_one_cluster(points):
    clusters, silhouette = clustered(points, 5, 0)
    assert set(clusters.tolist()) == {0} and silhouette == 1.0


@pytest.mark.slow
def test_spare_equals_a_hand_written_loop(make_task):
    task = make_task()
    images, labels = pool(task)
    model, generator = copy.deepcopy(task.model), torch.Generator().manual_seed(7)
    seed = int(torch.randint(2**31, (), generator=generator))
    outputs = np.array([softmax(task.pretrained(images[row : row + 1])[0].tolist()) for row in range(CLEAN + CUED)])
    weights = make_method("spare").weights(outputs.astype(np.float32), np.array(labels), seed).tolist()
    assert len(set(weights)) > 3
    sgd = WrittenOutSGD(model, 0.02, 9)
    for rows in paired_rows(3, 4, weights[CLEAN:], generator):
        losses = F.cross_entropy(model(images[rows]), torch.tensor([labels[row] for row in rows]), reduction="none")
        half = len(rows) // 2
        clean = sum(weights[row] * loss for row, loss in zip(rows[:half], losses[:half])) * CLEAN / half
        cued = sum(weights[CLEAN:]) * sum(losses[half:]) / half
        sgd.minimise(clean + cued)
    assert_same_state(make_method("spare", **STEPS, lr=0.02).fine_tune(make_task()), model, 1e-6)
