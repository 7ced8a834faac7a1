"""Rows to compare with: pooled and balanced ERM, training from scratch, pooled last layers, averaged weights."""

import copy

import pytest
import torch
from helpers.pooling import (
    CLEAN,
    HAS_CUE,
    WrittenOutSGD,
    assert_same_state,
    make_method,
    paired_rows,
    pairs_of_rows,
    pooled_task,
)
from torch.nn import functional as F

from mmc_bench.errors import UserError
from mmc_bench.plugin.registry import Registry

STEPS = {"epochs": 3, "batch_size": 4, "lr": 0.02}


@pytest.fixture
def make_task(tiny_net, image_set):
    return lambda **replaced: pooled_task(tiny_net, image_set, **replaced)


# --- pooled ERM


def test_pooled_erm_equals_a_hand_written_loop_with_half_the_loss_for_each_set(make_task):
    task = make_task()
    images, model = task.clean.storage, copy.deepcopy(task.model)
    sgd = WrittenOutSGD(model, STEPS["lr"], steps=9)
    for clean, cued in pairs_of_rows(3, 4, torch.Generator().manual_seed(7)):
        log_p = model(images[[11 + row for row in cued] + clean]).log_softmax(1)
        labels = [int(task.cued.labels[row]) for row in cued] + [int(task.clean.labels[row]) for row in clean]
        losses = [-log_p[place, label] for place, label in enumerate(labels)]
        cued_loss, clean_loss = losses[: len(cued)], losses[len(cued) :]
        sgd.minimise((sum(cued_loss) / len(cued_loss) + sum(clean_loss) / len(clean_loss)) / 2)
    assert sgd.done == 9
    assert_same_state(make_method("erm-pooled", **STEPS).fine_tune(make_task()), model)


def test_pooled_erm_is_what_is_left_of_a_penalty_of_weight_0(make_task):
    penalised = make_method("coral", **STEPS, penalty_weight=0.0)
    assert_same_state(make_method("erm-pooled", **STEPS).fine_tune(make_task()), penalised.fine_tune(make_task()))


# --- balanced ERM


@pytest.mark.parametrize("name", ["erm-class-balanced", "erm-group-balanced"])
def test_balanced_erm_equals_a_hand_written_loop_over_groups(make_task, name):
    task = make_task()
    labels = task.clean.labels.tolist() + task.cued.labels.tolist()
    environments = [0] * CLEAN + HAS_CUE
    groups = labels if name == "erm-class-balanced" else list(zip(environments, labels))
    images, model, generator = task.clean.storage, copy.deepcopy(task.model), torch.Generator().manual_seed(7)
    sgd = WrittenOutSGD(model, STEPS["lr"], steps=9)
    chances = [1 / groups[CLEAN:].count(group) for group in groups[CLEAN:]]
    for rows in paired_rows(3, 4, chances, generator):
        losses = F.cross_entropy(model(images[rows]), torch.tensor([labels[row] for row in rows]), reduction="none")
        members = {}
        for loss, row in zip(losses, rows):
            members.setdefault(groups[row], []).append(loss)
        sgd.minimise(sum(sum(own) / len(own) for own in members.values()) / len(members))
    assert_same_state(make_method(name, **STEPS).fine_tune(make_task()), model, 1e-6)


# --- training from scratch


def test_training_from_scratch_equals_a_hand_written_loop_on_a_new_network(make_task, tiny_net):
    task = make_task(_untrained=lambda: tiny_net(5))
    images, model = task.clean.storage, tiny_net(5).train()
    sgd = WrittenOutSGD(model, 0.02, 30)
    generator = torch.Generator().manual_seed(7)
    for _ in range(10):
        order = torch.randperm(11, generator=generator).tolist()
        for rows in (order[:4], order[4:8], order[8:]):
            sgd.minimise(F.cross_entropy(model(images[rows]), task.clean.labels[rows]))
    torch.manual_seed(7)
    result = make_method("from-scratch", epochs=10, batch_size=4, lr=0.02).fine_tune(task)
    assert result is not task.model
    assert_same_state(result, model)


def test_weights_that_a_backbone_freezes_stay_as_they_are_drawn(make_task, tiny_net):
    def frozen_stem():
        network = tiny_net(5)
        network.stem.requires_grad_(False)
        return network

    result = make_method("from-scratch", **STEPS).fine_tune(make_task(_untrained=frozen_stem))
    drawn = frozen_stem()
    assert torch.equal(result.stem.weight, drawn.stem.weight)
    assert not torch.equal(result.head.weight, drawn.head.weight)


def test_a_task_made_by_hand_has_no_network_to_start_from(make_task):
    with pytest.raises(UserError, match="no backbone"):
        make_method("from-scratch").fine_tune(make_task())


# --- the last layer on both sets


def test_a_pooled_last_layer_equals_training_with_the_backbone_run_every_step(make_task):
    task = make_task(dtype=torch.float32)  # as features are kept
    images, model = task.clean.storage.double(), copy.deepcopy(task.model).eval()
    torch.manual_seed(7)
    model.reset_classifier(3)
    model.double()
    sgd = WrittenOutSGD(model.head, 0.5, 9, weight_decay=0.0)
    for clean, cued in pairs_of_rows(3, 4, torch.Generator().manual_seed(7)):
        risks = [
            F.cross_entropy(model(images[[offset + row for row in rows]]), own.labels[rows])
            for rows, own, offset in ((clean, task.clean, 0), (cued, task.cued, 11))
        ]
        sgd.minimise((risks[0] + risks[1]) / 2)
    task = make_task(dtype=torch.float32)
    result = make_method("llr-pooled", epochs=3, batch_size=4, lr=0.5).fine_tune(task)
    assert_same_state(result.double(), model, 1e-5)
    assert torch.equal(result.conv.weight, task.pretrained.conv.weight.double())


def test_the_backbone_runs_once_for_every_image_of_a_pooled_last_layer(make_task):
    task, seen = make_task(dtype=torch.float32), []
    task.model.stem.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    make_method("llr-pooled", epochs=5, batch_size=4).fine_tune(task)
    assert sum(seen) == 25


# --- averaged weights


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_averaged_weights_lie_on_the_line_and_their_statistics_are_of_the_clean_images(make_task, alpha):
    tuned = make_method("ft-medium", **STEPS).fine_tune(make_task())
    task = make_task()
    result = make_method("wise-ft", **STEPS, alpha=alpha).fine_tune(task)
    start = task.pretrained.state_dict()
    for name, weight in tuned.named_parameters():
        expected = (1 - alpha) * start[name] + alpha * weight
        assert torch.allclose(result.get_parameter(name), expected, rtol=1e-12, atol=1e-12)
    maps = result.stem(task.clean.storage[:11])  # what the first BatchNorm sees, over the whole set
    running = copy.deepcopy(result).norm1
    assert torch.allclose(running.running_mean, maps.mean((0, 2, 3)), rtol=0.05, atol=0.02)
    assert not torch.allclose(running.running_mean, start["norm1.running_mean"], rtol=0.05, atol=0.02)


def test_the_statistics_of_averaged_weights_are_means_over_batches(make_task):
    task = make_task()
    result = make_method("wise-ft", epochs=1, batch_size=11, alpha=0.5).fine_tune(task)
    maps = result.stem(task.clean.storage[:11]).transpose(0, 1).flatten(1)
    assert torch.allclose(result.norm1.running_mean, maps.mean(1), rtol=1e-9)
    assert torch.allclose(result.norm1.running_var, maps.var(1), rtol=1e-9)


# --- what they have in common


def test_controls_declare_what_they_use():
    needs = {name: Registry.discover().get("method", name).spec.needs for name in ("from-scratch", "wise-ft")}
    assert not any(needs.values())
    assert Registry.discover().get("method", "erm-group-balanced").spec.needs == {"cued", "environments"}
