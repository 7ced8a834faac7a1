"""The update step and the loops over batches, against plain torch loops, to the bit."""

import pytest
import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from mmc_bench.training import Descent, NonFiniteLossError, Progress, Training, adam, constant, cosine, stepped

SCHEDULES = {
    "cosine": (cosine, lambda optimizer, steps: CosineAnnealingLR(optimizer, T_max=steps)),
    "stepped": (stepped((0.4, 0.8), 0.1), lambda optimizer, steps: MultiStepLR(optimizer, [4, 7], gamma=0.1)),
    "constant": (constant, lambda optimizer, steps: None),
}


@pytest.fixture
def training_of():
    """Return a maker of trainings of three epochs of three batches; the generator starts at seed 3."""

    def make(net, images, **settings):
        generator = torch.Generator().manual_seed(3)
        settings = {"lr": 0.1, "epochs": 3, "batch_size": 4, "progress": Progress(), **settings}
        return Training(net, images, generator=generator, **settings)

    return make


def assert_same_weights(model, other):
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("settings", [{}, {"momentum": 0.0, "weight_decay": 0.0}])
def test_a_training_equals_a_plain_loop(tiny_net, image_set, training_of, name, settings):
    images, ours, plain = image_set(11), tiny_net().train(), tiny_net().train()
    schedule, torchs = SCHEDULES[name]
    training = training_of(ours, images, schedule=schedule, **settings)
    for x, y in training.batches():
        training.minimise(F.cross_entropy(training.logits(x), y))

    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, **{"momentum": 0.9, "weight_decay": 1e-4, **settings})
    scheduler, generator = torchs(optimizer, 9), torch.Generator().manual_seed(3)
    for _ in range(3):
        for x, y in images.shuffled(4, generator):
            optimizer.zero_grad()
            F.cross_entropy(plain(x), y).backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
    assert_same_weights(ours, plain)
    assert not torch.equal(ours.stem.weight, tiny_net().stem.weight)


def test_fit_minimises_the_cross_entropy_and_returns_the_model_in_training_mode(tiny_net, image_set, training_of):
    images, ours, plain = image_set(11), tiny_net().eval(), tiny_net().train()
    training = training_of(plain, images)
    for x, y in training.batches():
        training.minimise(F.cross_entropy(training.logits(x), y))
    assert training_of(ours, images).fit() is ours
    assert ours.training
    assert_same_weights(ours, plain)


def test_fit_reports_the_means_over_an_epochs_images(tiny_net, image_set, training_of):
    images, told, slow = image_set(11), [], tiny_net().train()
    training_of(tiny_net(), images).fit(lambda *means: told.append(tuple(map(float, means))))
    training, sums = training_of(slow, images), [[0.0, 0.0] for _ in range(3)]
    for x, y in training.batches():
        outputs = slow(x)
        loss = F.cross_entropy(outputs, y)
        sums[training.epoch][0] += loss.item() * len(y)
        sums[training.epoch][1] += (outputs.argmax(1) == y).sum().item()
        training.minimise(loss)
    for means, totals in zip(told, sums, strict=True):
        assert means == pytest.approx([total / 11 for total in totals], rel=1e-6)


def test_paired_rows_pass_over_the_own_images_and_draw_as_many_others_by_their_chances(
    tiny_net, image_set, training_of
):
    training, steps = training_of(tiny_net(), image_set(11), epochs=200), []
    for rows in training.paired_rows(torch.tensor([1.0, 0.0, 3.0])):
        steps.append(rows.chunk(2))
        training.update(torch.zeros(()))
    assert [len(own) for own, _ in steps[:3]] == [4, 4, 3]
    for epoch in range(200):
        assert sorted(row for own, _ in steps[3 * epoch : 3 * epoch + 3] for row in own.tolist()) == list(range(11))
    drawn = torch.cat([others for _, others in steps]).tolist()
    assert set(drawn) == {11, 13} and len(drawn) == 2200
    assert abs(drawn.count(13) / 2200 - 0.75) < 0.05  # 5 standard deviations


def test_a_pass_is_one_step_of_the_schedule_and_of_progress_however_many_updates_it_makes(
    tiny_net, image_set, training_of
):
    told, rates, model = [], [], tiny_net().train()
    progress = Progress(lambda event: told.append(event["loss"]))
    training = training_of(model, image_set(11), progress=progress)
    before = [(training.epoch, training.step)]
    for x, y in training.batches():
        rates.append(training.optimizer.param_groups[0]["lr"])
        before.append((training.epoch, training.step))
        training.minimise(F.cross_entropy(model(x), y))
        training.minimise(0 * model(x).sum() + 7)
    assert before == [(0, 0), (0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5), (2, 6), (2, 7), (2, 8)]
    assert (training.step, training.steps, training.steps_per_epoch) == (9, 9, 3)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    schedule, expected = CosineAnnealingLR(optimizer, T_max=9), []
    for _ in range(9):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step(), schedule.step()
    assert rates == expected
    assert told == [7.0] * 3  # the loss of each pass's last update
    assert progress.images == 33


def test_each_counts_the_images_of_the_first_tensor_and_draws_anew_for_each_epoch():
    weight, progress = torch.nn.Parameter(torch.zeros(2)), Progress()
    descent = Descent([weight], lr=0.1, epochs=2, steps_per_epoch=3, progress=progress)
    epochs = iter([[torch.zeros(5), (torch.zeros(4), 1), ((torch.zeros(3), 2), (torch.zeros(9), 2))]] * 2)
    seen = []
    for batch in descent.each(lambda: next(epochs)):
        seen.append(batch)
        descent.minimise(weight.sum())
    assert len(seen) == 6 and progress.images == 24


def test_gradients_are_dropped_after_every_update():
    weight = torch.nn.Parameter(torch.ones(2))
    weight.sum().backward()  # of another time
    descent = Descent([weight], lr=0.5, epochs=1, steps_per_epoch=2, progress=Progress(), momentum=0, weight_decay=0)
    assert weight.grad is None
    for _ in descent.each(lambda: [torch.zeros(1)] * 2):
        descent.minimise(3 * weight.sum())
        assert weight.grad is None
    assert weight.tolist() == pytest.approx([1 - 0.5 * 3 - 0.25 * 3] * 2)  # the cosine is half-way down at step 2


def test_an_update_follows_the_gradients_that_the_weights_hold():
    weight = torch.nn.Parameter(torch.ones(2))
    descent = Descent([weight], lr=0.5, epochs=1, steps_per_epoch=1, progress=Progress(), weight_decay=0)
    for _ in descent.each(lambda: [torch.zeros(1)]):
        weight.grad = torch.tensor([2.0, 4.0])
        descent.update(torch.zeros(()))
    assert weight.tolist() == [0.0, -1.0]


def test_another_optimiser_makes_the_steps_at_the_scheduled_rates_and_weight_decay():
    weight, rates = torch.nn.Parameter(torch.ones(2)), []
    settings = {"lr": 0.5, "epochs": 2, "steps_per_epoch": 1, "progress": Progress(), "weight_decay": 0.25}
    descent = Descent([weight], optimizer=adam, **settings)
    for _ in descent.each(lambda: [torch.zeros(1)]):
        rates.append(descent.optimizer.param_groups[0]["lr"])
        before = weight.tolist()
        descent.minimise((torch.tensor([1.0, 100.0]) * weight).sum())
        moved = [b - a for a, b in zip(weight.tolist(), before)]
        assert moved == pytest.approx([rates[-1]] * 2, rel=0.01)  # Adam's step does not grow with the gradient
    assert rates == pytest.approx([0.5, 0.25])
    assert descent.optimizer.defaults["weight_decay"] == 0.25


def test_forgotten_momentum_does_not_move_the_weights_any_further():
    weight = torch.nn.Parameter(torch.ones(1))
    descent = Descent(
        [weight], lr=1.0, epochs=1, steps_per_epoch=3, progress=Progress(), weight_decay=0, schedule=constant
    )
    seen = []
    for _ in descent.each(lambda: [torch.zeros(1)] * 3):
        if descent.step == 2:
            descent.forget_momentum()
        descent.minimise((weight if descent.step == 0 else 0 * weight).sum())
        seen.append(weight.item())
    assert seen == pytest.approx([0.0, -0.9, -0.9])


def test_pairs_go_on_with_the_others_from_epoch_to_epoch(tiny_net, image_set, training_of):
    clean, cued, model = image_set(10, 1), image_set(14, 2), tiny_net().train()
    training = training_of(model, clean, epochs=2)
    seen = []
    for (x, y), (x_other, y_other) in training.pairs(cued):
        seen.append((x, y, x_other, y_other))
        training.minimise(F.cross_entropy(model(x), y))
    generator = torch.Generator().manual_seed(3)
    stream, expected = cued.stream(4, generator), []
    for _ in range(2):
        for x, y in clean.shuffled(4, generator):
            expected.append((x, y, *next(stream)))
    assert len(seen) == 6
    assert all(torch.equal(a, b) for one, other in zip(seen, expected, strict=True) for a, b in zip(one, other))


def test_a_loss_that_is_no_number_ends_the_epoch_with_its_step(tiny_net, image_set, training_of):
    model = tiny_net().train()
    training = training_of(model, image_set(11))
    with pytest.raises(NonFiniteLossError, match=r"the loss became nan at step 5 \(epoch 2\)"):
        for x, y in training.batches():
            loss = F.cross_entropy(model(x), y)
            training.minimise(loss * float("nan") if training.step == 4 else loss)
    assert training.step == 6  # no step waits to be checked


def test_logits_and_features_are_float32_or_better(tiny_net, image_set, training_of):
    images = image_set(4, dtype=torch.float32)
    x, _ = images.batch(slice(None))
    training = training_of(tiny_net(0, torch.float32), images)
    with torch.autocast("cpu", torch.bfloat16):
        assert training.model(x).dtype == torch.bfloat16
        assert training.logits(x).dtype == training.features(x).dtype == torch.float32
    double = training_of(tiny_net(), image_set(4))
    assert double.logits(x.double()).dtype == double.features(x.double()).dtype == torch.float64
    pooled = double.model.forward_features(x.double()).mean((2, 3))
    assert torch.equal(double.features(x.double()), pooled)
