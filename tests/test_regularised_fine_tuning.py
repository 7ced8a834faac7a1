"""Fine-tuning with L2-SP, with mixup and after pruning, against loops in float64."""

import copy
import dataclasses
import math

import pytest
import torch
from mmc_bench_plugins.fine_pruning.method import pruned_accuracies
from mmc_bench_plugins.l2_sp.method import penalty, shared_and_head
from mmc_bench_plugins.mixup.method import mixed_loss
from torch.distributions import Beta

from mmc_bench.plugin.registry import Registry
from mmc_bench.training import Progress, Task, frozen_features

NAMES = ["l2-sp", "mixup", "fine-pruning"]


@pytest.fixture
def make_task(tiny_net, image_set):
    """Return a maker of tasks on tiny data in float64; the task's generator starts at seed 7, as does torch's."""

    def make(seed=7):
        pretrained, validation = tiny_net(1).eval().requires_grad_(False), image_set(40, 2)
        inputs = frozen_features(
            pretrained, validation
        ).double()  # a layer and labels with which pruning costs accuracy
        pretrained.head.weight.copy_(torch.eye(3, 5) - 0.3).div_(inputs.std(0) + 0.01)
        pretrained.head.bias.copy_(-pretrained.head.weight @ inputs.mean(0))
        predicted = pretrained(validation.storage).argmax(1)
        torch.manual_seed(seed)
        return Task(
            model=copy.deepcopy(pretrained).train().requires_grad_(True),
            pretrained=pretrained,
            clean=image_set(11, 1),
            validation=dataclasses.replace(validation, labels=predicted),
            num_classes=3,
            device=torch.device("cpu"),
            generator=torch.Generator().manual_seed(seed),
            progress=Progress(),
        )

    return make


def make_method(name, **parameters):
    offer = Registry.discover().get("method", name)
    return offer.make(offer.configure(parameters))


def batches(task, epochs, batch_size):
    """Yield what the methods draw: the rows of each batch, in a new order each epoch."""
    for _ in range(epochs):
        yield from torch.randperm(len(task.clean), generator=task.generator).split(batch_size)


def descend(model, gradients, velocities, lr, decay):
    """One step of SGD with momentum .9: v ← .9v + g + decay·θ; θ ← θ - lr·v."""
    with torch.no_grad():
        for p, v, g in zip(model.parameters(), velocities, gradients, strict=True):
            v.mul_(0.9).add_(g + decay * p)
            p.sub_(lr * v)


def cross_entropies(outputs, labels):
    return torch.stack([row.logsumexp(0) - row[y] for row, y in zip(outputs, labels.tolist())])


def assert_same_state(model, expected, tolerance):
    for (name, value), wanted in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.allclose(value, wanted, rtol=tolerance, atol=tolerance), name


# --- L2-SP


def test_the_penalty_is_on_weights_by_their_distance_from_the_start_and_the_heads_from_zero(tiny_net):
    model, start = tiny_net(0), tiny_net(1)
    expected = 0.0
    for name, factor in (("stem.weight", 0.3), ("conv.weight", 0.3), ("head.weight", 0.7)):
        now, before = model.get_parameter(name).flatten().tolist(), start.get_parameter(name).flatten().tolist()
        origin = [0.0] * len(now) if name == "head.weight" else before
        expected += factor / 2 * sum((a - b) ** 2 for a, b in zip(now, origin))
    shared, head = shared_and_head(model)
    value = penalty(shared, shared_and_head(start)[0], head, 0.3, 0.7)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_l2_sp_equals_a_hand_written_loop(make_task):
    task, settings = make_task(), {"lr": 0.05, "epochs": 3, "batch_size": 4}
    model = copy.deepcopy(task.model)
    velocities = [torch.zeros_like(p) for p in model.parameters()]
    for done, rows in enumerate(batches(task, 3, 4)):
        loss = cross_entropies(model(task.clean.storage[rows]), task.clean.labels[rows]).mean()
        gradients = dict(zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters()))))
        for name in ("stem.weight", "conv.weight"):
            gradients[name] = gradients[name] + 2.0 * (model.get_parameter(name) - task.pretrained.get_parameter(name))
        gradients["head.weight"] = gradients["head.weight"] + 0.5 * model.head.weight
        descend(model, gradients.values(), velocities, 0.05 * (1 + math.cos(math.pi * done / 9)) / 2, decay=0.0)
    result = make_method("l2-sp", alpha=2.0, beta=0.5, **settings).fine_tune(make_task())
    assert_same_state(result, model, 1e-9)
    free = make_method("l2-sp", alpha=0.0, beta=0.0, **settings).fine_tune(make_task())
    assert not torch.allclose(free.conv.weight, model.conv.weight, atol=1e-4)


# --- mixup


def test_the_mixed_loss_is_the_cross_entropy_with_mixed_labels_of_mixed_images(tiny_net, image_set):
    model, images, share = tiny_net(0).eval(), image_set(6), 0.3
    partners, labels = torch.tensor([3, 1, 0, 5, 2, 4]), images.labels.tolist()
    expected = 0.0
    for i, j in enumerate(partners.tolist()):
        mixed = share * images.storage[i] + (1 - share) * images.storage[j]
        scores = model(mixed[None])[0].log_softmax(0).tolist()
        target = [share * (labels[i] == k) + (1 - share) * (labels[j] == k) for k in range(3)]
        expected -= sum(t * s for t, s in zip(target, scores)) / 6
    value = mixed_loss(model, images.storage, images.labels, partners, torch.tensor(share, dtype=torch.float64))
    assert value.item() == pytest.approx(expected, rel=1e-10)


def test_mixup_equals_a_hand_written_loop_with_one_share_a_batch(make_task):
    task = make_task()
    model = copy.deepcopy(task.model)
    velocities = [torch.zeros_like(p) for p in model.parameters()]
    shares = Beta(torch.tensor(0.4), torch.tensor(0.4)).sample((9,)).tolist()
    for done, rows in enumerate(batches(task, 3, 4)):
        x, y = task.clean.storage[rows], task.clean.labels[rows]
        order, share = torch.randperm(len(y), generator=task.generator), shares[done]
        outputs = model(share * x + (1 - share) * x[order])
        loss = (share * cross_entropies(outputs, y) + (1 - share) * cross_entropies(outputs, y[order])).mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        descend(model, gradients, velocities, 0.05 * (1 + math.cos(math.pi * done / 9)) / 2, decay=1e-4)
    assert len({round(share, 3) for share in shares}) > 5
    result = make_method("mixup", alpha=0.4, lr=0.05, epochs=3, batch_size=4).fine_tune(make_task())
    assert_same_state(result, model, 1e-5)  # shares are float32


# --- fine-pruning


def accuracies_by_hand(task):
    """Return the order of pruning and the validation accuracy after each, with the pruned features set to 0."""
    clean = frozen_features(task.pretrained, task.clean).tolist()
    activity = [sum(abs(value) for value in column) / len(column) for column in zip(*clean)]
    order = sorted(range(len(activity)), key=activity.__getitem__)
    accuracies = []
    for n in range(len(order)):
        inputs = frozen_features(task.pretrained, task.validation).double()
        for feature in order[:n]:
            inputs[:, feature] = 0
        predicted = task.pretrained.head(inputs).argmax(1)
        accuracies.append(sum(predicted == task.validation.labels).item() / len(inputs))
    return order, accuracies


def test_the_accuracies_are_those_without_the_least_active_features(make_task):
    task = make_task()
    order, expected = accuracies_by_hand(task)
    inputs, labels = frozen_features(task.pretrained, task.validation), task.validation.labels
    assert pruned_accuracies(task.pretrained.head, inputs, labels, torch.tensor(order)) == pytest.approx(expected)
    assert len(set(expected)) > 2, expected


@pytest.mark.parametrize("tolerance", [0.0, 0.02, 0.1, 0.3, 1.0])
def test_pruning_stops_before_validation_accuracy_has_fallen_too_far_and_lasts_through_fine_tuning(
    make_task, tolerance
):
    order, accuracies = accuracies_by_hand(make_task())
    pruned = 0
    while pruned + 1 < len(order) and (accuracies[0] - accuracies[pruned + 1]) / accuracies[0] <= tolerance:
        pruned += 1
    model = make_method("fine-pruning", tolerance=tolerance, lr=0.05, epochs=3, batch_size=4).fine_tune(make_task())
    columns = {column for column in range(5) if (model.head.weight[:, column] == 0).all()}
    assert columns == set(order[:pruned])


def test_fine_pruning_fine_tunes_what_is_left_as_if_the_pruned_features_were_not_there(make_task):
    task = make_task()
    order, _ = accuracies_by_hand(task)
    keep = torch.ones(5, dtype=torch.float64)
    keep[order[:4]] = 0
    model = copy.deepcopy(task.model)
    model.head.weight.data *= keep
    velocities = [torch.zeros_like(p) for p in model.parameters()]
    for done, rows in enumerate(batches(task, 3, 4)):
        inputs = model.forward_head(model.forward_features(task.clean.storage[rows]), pre_logits=True) * keep
        loss = cross_entropies(model.head(inputs), task.clean.labels[rows]).mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        descend(model, gradients, velocities, 0.05 * (1 + math.cos(math.pi * done / 9)) / 2, decay=1e-4)
    result = make_method("fine-pruning", tolerance=1.0, lr=0.05, epochs=3, batch_size=4).fine_tune(make_task())
    assert_same_state(result, model, 1e-9)


# --- what all three share


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_weights_to_the_bit(make_task, name):
    runs = [make_method(name, epochs=2, batch_size=4).fine_tune(make_task(seed)).state_dict() for seed in (7, 7, 8)]
    same = [all(torch.equal(a, b) for a, b in zip(runs[0].values(), run.values())) for run in runs[1:]]
    assert same == [True, False]


@pytest.mark.parametrize(
    ("name", "own"),
    [("l2-sp", {"alpha": 0.1, "beta": 0.01}), ("mixup", {"alpha": 1.0}), ("fine-pruning", {"tolerance": 0.1})],
)
def test_the_defaults_are_those_of_all_fine_tuning_and_the_authors(name, own):
    method = make_method(name)
    assert dict(method.config) == {"lr": 0.01, "epochs": 20, "batch_size": 256, **own}
    assert all(field.description for field in type(method).Config.model_fields.values())
