"""Paths, BatchNorm statistics, barriers and invariances, against loops in float64."""

import copy

import pytest
import torch
from timm.layers import EvoNorm2dB0
from torch import nn

from mmc_bench import UserError
from mmc_bench.data.micro_batches import cut_into
from mmc_bench.landscape.barriers import barrier, connectivity, mode_connected
from mmc_bench.landscape.batchnorm import reestimate_batchnorm
from mmc_bench.landscape.effects import effects
from mmc_bench.landscape.invariance import invariances
from mmc_bench.landscape.measure import PathImages, measure_paths
from mmc_bench.landscape.paths import end_scores, evaluate_path, linear_path, set_parameters
from mmc_bench.results.metrics import SPLITS, Score
from mmc_bench.results.settings import ConnectSettings
from mmc_bench.training import Progress, evaluate
from mmc_bench.training.checks import check_same_architecture


def score(loss, accuracy=0.5):
    return Score(loss=loss, accuracy=accuracy)


def statistics_by_hand(model, images, batch_size):
    """Set each BatchNorm layer's statistics to the average over images of their batch's mean and variance."""
    model = copy.deepcopy(model).train()
    layers = [model.norm1, model.norm2]
    seen = [[], []]
    for inputs, layer in zip(seen, layers):
        layer.register_forward_pre_hook(lambda _, arguments, inputs=inputs: inputs.append(arguments[0]))
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            model(images.storage[start : start + batch_size])
    for inputs, layer in zip(seen, layers):
        for channel in range(layer.num_features):
            mean = variance = 0.0
            for batch in inputs:
                values = batch[:, channel].flatten().tolist()
                centre = sum(values) / len(values)
                spread = sum((value - centre) ** 2 for value in values) / (len(values) - 1)
                mean += centre * len(batch) / len(images)
                variance += spread * len(batch) / len(images)
            layer.running_mean[channel], layer.running_var[channel] = mean, variance
        layer._forward_pre_hooks.clear()
    return model.eval()


def same_statistics(model, other, tolerance=1e-10):
    return all(
        torch.allclose(getattr(model, norm).running_mean, getattr(other, norm).running_mean, rtol=tolerance)
        and torch.allclose(getattr(model, norm).running_var, getattr(other, norm).running_var, rtol=tolerance)
        for norm in ("norm1", "norm2")
    )


# --- BatchNorm


def test_reestimated_statistics_are_the_average_over_images_with_an_uneven_last_batch(tiny_net, image_set):
    model, images = tiny_net(), image_set(23)
    expected = statistics_by_hand(model, images, 10)  # batches of 10, 10 and 3
    reestimate_batchnorm(model, images, batch_size=10)
    assert same_statistics(model, expected)


def test_reestimated_statistics_are_not_torchs_average_over_batches(tiny_net, image_set):
    images = image_set(23)
    images.storage[20:] += 3  # the last, small batch stands out
    ours, torchs = tiny_net(), tiny_net()
    reestimate_batchnorm(ours, images, batch_size=10)
    for norm in (torchs.norm1, torchs.norm2):
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        for x, _ in images.in_order(10):
            torchs.train()(x)
    assert same_statistics(ours, statistics_by_hand(ours, images, 10))
    assert not same_statistics(ours, torchs, tolerance=0.05)


def test_reestimated_statistics_do_not_depend_on_the_ones_before(tiny_net, image_set):
    models = [tiny_net(), tiny_net()]
    models[1].norm1.running_mean += 50
    models[1].norm2.running_var *= torch.inf
    for model in models:
        reestimate_batchnorm(model, image_set(20), batch_size=8)
    assert same_statistics(*models, tolerance=0)


def test_reestimation_leaves_modes_momenta_and_parameters_as_they_were(tiny_net, image_set):
    model = tiny_net().train()
    model.norm1.eval()
    model.norm1.momentum, model.norm2.momentum = 0.3, None
    parameters = [parameter.clone() for parameter in model.parameters()]
    reestimate_batchnorm(model, image_set(20), batch_size=8)
    assert model.training and model.norm2.training and not model.norm1.training
    assert (model.norm1.momentum, model.norm2.momentum) == (0.3, None)
    assert all(torch.equal(now, before) for now, before in zip(model.parameters(), parameters))


def test_statistics_gathered_in_parts_are_those_of_whole_batches(tiny_net, image_set):
    model, images, sizes = tiny_net(), image_set(23), []
    model.unused = torch.nn.BatchNorm2d(2)
    expected = statistics_by_hand(model, images, 10)
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    with cut_into(4):
        reestimate_batchnorm(model, images, batch_size=10)
    assert same_statistics(model, expected) and max(sizes) == 3
    assert model.norm1.training and not model.norm1._forward_pre_hooks
    assert torch.equal(model.unused.running_var, torch.ones(2))


def test_a_layer_that_is_used_twice_gets_the_statistics_that_it_would_get_anyhow(tiny_net, image_set):
    whole, parts = tiny_net(), tiny_net()
    for model in (whole, parts):
        model.stem = torch.nn.Sequential(model.stem, model.norm1)
    reestimate_batchnorm(whole, image_set(20), batch_size=10)
    with cut_into(4):
        reestimate_batchnorm(parts, image_set(20), batch_size=10)
    assert same_statistics(parts, whole)


@pytest.mark.parametrize("parts", [1, 4])
def test_a_layer_s_uses_in_one_pass_weigh_as_many_images_as_each_batch_has(image_set, parts):
    class Twice(nn.Module):
        """Normalises images, and what is 5 above them."""

        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(2).double()

        def forward(self, x):
            return self.norm(x) + self.norm(x + 5)

    model, images = Twice(), image_set(23)
    with cut_into(parts):
        reestimate_batchnorm(model, images, batch_size=10)
    assert torch.allclose(model.norm.running_mean, images.storage.mean((0, 2, 3)) + 2.5)


def test_layers_other_than_batchnorm_run_in_eval_mode(tiny_net, image_set):
    model = tiny_net().train()
    expected = statistics_by_hand(model, image_set(20), 8)
    model.stem = torch.nn.Sequential(model.stem, torch.nn.Dropout(0.9))
    reestimate_batchnorm(model, image_set(20), batch_size=8)
    assert same_statistics(model, expected)


# --- the path


@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
def test_interpolation_is_linear_in_every_parameter_and_leaves_the_ends_alone(tiny_net, t):
    start, end, between = tiny_net(0), tiny_net(1), tiny_net(2)
    before = [copy.deepcopy(model) for model in (start, end, between)]
    set_parameters(between, linear_path(start, end)(t))
    for name, parameter in between.named_parameters():
        first, last = (dict(model.named_parameters())[name] for model in before[:2])
        assert torch.allclose(parameter, (1 - t) * first + t * last, rtol=1e-12, atol=1e-15)
    for model, kept in ((start, before[0]), (end, before[1])):
        assert all(torch.equal(now, then) for now, then in zip(model.parameters(), kept.parameters()))
    assert same_statistics(between, before[2], tolerance=0)


def test_a_path_has_statistics_of_its_own_at_its_ends_and_inside(tiny_net, image_set):
    start, end = tiny_net(0).eval(), tiny_net(1).eval()
    splits = {"NC": image_set(30, 4), "C": image_set(30, 5)}
    training = image_set(40, 6)
    ends = [end_scores(model, splits, training, {}) for model in (start, end)]
    before = copy.deepcopy(start.state_dict()), copy.deepcopy(end.state_dict())
    ts, scores = evaluate_path(linear_path(start, end), end, splits, training, 5, (ends[0], ends[1]))
    assert ts == [0.0, 0.25, 0.5, 0.75, 1.0]
    for name, split in splits.items():
        for t, found in zip(ts, scores[name], strict=True):
            between = copy.deepcopy(start)
            with torch.no_grad():
                for gamma, last in zip(between.parameters(), end.parameters()):
                    gamma.copy_((1 - t) * gamma + t * last)
            expected = evaluate(statistics_by_hand(between, training, 40), split)
            assert found.accuracy == expected.accuracy
            assert found.loss == pytest.approx(expected.loss, rel=1e-9)
    for model, state in zip((start, end), before):
        assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())


def test_the_ends_of_a_path_between_networks_without_statistics_have_the_scores_that_are_known(image_set):
    network = nn.Sequential(nn.Flatten(), nn.Linear(2 * 6 * 6, 3)).double()
    splits = {"NC": image_set(30, 4), "C": image_set(30, 5)}
    known = {"NC": score(1.5, 0.25)}
    found = end_scores(network, splits, image_set(20, 6), known)
    assert found == {"NC": known["NC"], "C": evaluate(network, splits["C"])}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "permuted"])
def test_a_model_and_itself_have_a_barrier_of_exactly_zero(tiny_net, image_set, kind):
    model = tiny_net(0, torch.float32)
    model(image_set(30, 9, torch.float32).batch(slice(None))[0])  # running statistics unlike the re-estimated ones
    sets = {name: image_set(30, seed, torch.float32) for seed, name in enumerate(SPLITS)}
    images = PathImages(sets, *[image_set(40, 6, torch.float32)] * 4, test_scores=dict)
    ends = end_scores(model, sets, images.batchnorm, {}), end_scores(model, sets, images.batchnorm, {})
    settings = ConnectSettings(paths=(kind,), points=7)
    path = measure_paths(model, model, images, settings, ends, lambda name: torch.Generator(), Progress())[kind].test
    assert {(barrier.loss, barrier.accuracy) for barrier in path.barriers.values()} == {(0.0, 0.0)}
    assert path.mechanistically_connected
    assert abs(path.splits["NC"].loss[0] - evaluate(model, sets["NC"]).loss) > 1e-3


def two_of(middle, changed=None):
    """Return a network with this layer in its middle, and one that differs from it in a buffer of the layer."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(2, 4, 3), middle, nn.Flatten(), nn.Linear(64, 3)).eval()
    second = copy.deepcopy(first)
    if changed:
        second.get_buffer(changed).add_(1)
    return first, second


def paths_between(first, second, images, paths=("linear",)):
    sets = PathImages(dict.fromkeys(SPLITS, images), *[images] * 4, test_scores=dict)
    settings = ConnectSettings(paths=paths, points=3)
    ends = tuple(end_scores(model, sets.sets, images, {}) for model in (first, second))
    return measure_paths(first, second, sets, settings, ends, lambda name: torch.Generator(), Progress())


@pytest.mark.parametrize(
    ("layer", "buffer"),
    [
        (nn.InstanceNorm2d(4, track_running_stats=True), "1.running_mean"),
        (EvoNorm2dB0(4), "1.running_var"),
        (nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)), "1.parametrizations.weight.0._u"),
    ],
)
def test_buffers_that_nothing_reestimates_lie_between_those_of_the_ends_in_both_directions(image_set, layer, buffer):
    images = image_set(20, dtype=torch.float32)
    first, second = two_of(layer, buffer)
    middle = copy.deepcopy(first)
    middle.get_buffer(buffer).lerp_(second.get_buffer(buffer), 0.5)
    there, back = (paths_between(*ends, images)["linear"].test for ends in ((first, second), (second, first)))
    assert there.splits["NC"].loss == pytest.approx(back.splits["NC"].loss[::-1])
    assert there.splits["NC"].loss[1] == pytest.approx(evaluate(middle, images).loss)
    assert there.splits["NC"].loss[0] != there.splits["NC"].loss[1]
    assert paths_between(*two_of(layer), images)["linear"].test.barriers["NC"].loss == 0


@pytest.mark.parametrize("buffer", ["1.running_mean", "1.running_var", "1.num_batches_tracked"])
def test_ends_may_differ_in_batchnorm_statistics_and_in_counts(image_set, buffer):
    ends = two_of(nn.BatchNorm2d(4), buffer)
    assert paths_between(*ends, image_set(20, dtype=torch.float32))["linear"].test.barriers["NC"].loss == 0


def test_models_of_different_architecture_are_refused_and_the_first_odd_weight_named(tiny_net):
    wider, renamed = tiny_net(), tiny_net()
    wider.reset_classifier(4)
    renamed.top = renamed.head
    check_same_architecture(tiny_net(0), tiny_net(1))
    with pytest.raises(UserError, match=r"'head\.weight' has shape \(4, 5\), the first model's \(3, 5\)"):
        check_same_architecture(tiny_net(), wider)
    with pytest.raises(UserError, match=r"'top\.weight' has shape \(3, 5\), the first model's None"):
        check_same_architecture(tiny_net(), renamed)


# --- barriers and connectivity


@pytest.mark.parametrize("seed", range(5))
def test_a_barrier_is_the_largest_height_over_the_chord_on_uneven_points(seed):
    generator = torch.Generator().manual_seed(seed)
    inner = torch.rand(4, generator=generator, dtype=torch.float64).sort().values.tolist()
    ts = [0.0, *inner, 1.0]
    losses, accuracies = (torch.rand(6, generator=generator, dtype=torch.float64).tolist() for _ in range(2))
    loss_height = accuracy_height = 0.0  # at the ends
    for t, loss, accuracy in zip(ts, losses, accuracies):
        loss_height = max(loss_height, loss - ((1 - t) * losses[0] + t * losses[-1]))
        accuracy_height = max(accuracy_height, ((1 - t) * accuracies[0] + t * accuracies[-1]) - accuracy)
    found = barrier(ts, [score(*pair) for pair in zip(losses, accuracies)])
    assert found.loss == pytest.approx(loss_height, abs=1e-12)
    assert found.accuracy == pytest.approx(accuracy_height, abs=1e-12)


def test_a_drop_in_accuracy_is_a_positive_barrier_and_a_rise_is_none():
    drop = barrier([0, 0.5, 1], [score(1, 0.9), score(3, 0.2), score(1, 0.7)])
    assert (drop.loss, drop.accuracy) == (pytest.approx(2.0), pytest.approx(0.6))
    rise = barrier([0, 0.5, 1], [score(1, 0.5), score(0.2, 0.9), score(1, 0.5)])
    assert (rise.loss, rise.accuracy) == (0.0, 0.0)


def test_a_path_on_its_chord_has_no_barrier_and_ends_that_differ_make_none():
    ts = [index / 10 for index in range(11)]
    found = barrier(ts, [score(3 - 2 * t, 0.1 + 0.8 * t) for t in ts])
    assert (found.loss, found.accuracy) == (pytest.approx(0, abs=1e-12), pytest.approx(0, abs=1e-12))


def test_mode_connected_means_no_loss_above_the_lower_end_by_more_than_the_tolerance():
    def connected(*losses):
        return mode_connected([score(loss) for loss in losses], tolerance=0.1)

    assert connected(1.0, 1.09, 1.05)
    assert not connected(1.0, 1.11, 1.05)
    assert not connected(1.0, 1.0, 1.2)  # an end is a point of the path
    assert not connected(1.2, 1.1, 1.0)
    assert connected(1.0, 0.1, 1.0)


def test_mechanistically_connected_means_connected_on_every_split():
    flat, hill = [score(1.0)] * 3, [score(1.0), score(2.0, 0.3), score(1.0)]
    ts = [0.0, 0.5, 1.0]
    others = {"RC": flat, "RI": flat}
    everywhere = connectivity(ts, {"NC": flat, "C": flat, **others})
    assert everywhere.mechanistically_connected and all(everywhere.mode_connected.values())
    partly = connectivity(ts, {"NC": flat, "C": hill, **others})
    assert partly.mode_connected == {"NC": True, "C": False, "RC": True, "RI": True}
    assert not partly.mechanistically_connected
    assert partly.barriers["NC"].loss == 0 and partly.barriers["C"].loss == 1.0
    assert partly.splits["C"].loss == (1.0, 2.0, 1.0) and partly.splits["C"].accuracy == (0.5, 0.3, 0.5)
    assert partly.t == (0.0, 0.5, 1.0)


def test_invariance_compares_the_loss_with_and_without_each_intervention_on_the_cued_image():
    scores = {"NC": score(0.54, 0.9), "C": score(0.5, 0.95), "RC": score(0.56, 0.6), "RI": score(0.1, 1.0)}
    found = invariances(scores, tolerance=0.05)
    verdicts = {name: (each.split, each.invariant) for name, each in found.items()}
    assert verdicts == {
        "remove cue": ("NC", True),
        "randomise cue": ("RC", False),
        "randomise image": ("RI", True),
    }
    assert {each.loss_without for each in found.values()} == {0.5}
    assert found["randomise cue"].loss_with == 0.56
    assert found["randomise cue"].accuracy_change == pytest.approx(-0.35)


def test_effects_are_changes_of_loss_and_accuracy_and_shares_of_predictions_that_flip():
    scores = (
        {"C": score(0.5, 0.9), "NC": score(1.5, 0.6), "RC": score(0.75, 0.8), "RI": score(0.5, 0.9)},
        {"C": score(0.25, 1.0), "NC": score(0.5, 0.9), "RC": score(5.25, 0.1), "RI": score(0.25, 1.0)},
    )
    predictions = (
        {"C": [0, 1, 2, 0], "NC": [1, 1, 0, 0], "RC": [0, 1, 2, 1], "RI": [0, 1, 2, 0]},
        {"C": [0, 1, 2, 0], "NC": [2, 1, 2, 0], "RC": [1, 2, 0, 1], "RI": [0, 1, 2, 1]},
    )
    found = effects(scores, tuple({name: torch.tensor(p) for name, p in of.items()} for of in predictions))
    assert list(found) == ["remove cue", "randomise cue", "randomise image"]
    assert [effect.split for effect in found.values()] == ["NC", "RC", "RI"]
    assert [effect.loss_changes for effect in found.values()] == [(1.0, 0.25), (0.25, 5.0), (0.0, 0.0)]
    assert found["randomise cue"].accuracy_changes == pytest.approx((-0.1, -0.9))
    assert [effect.flips for effect in found.values()] == [(0.5, 0.25), (0.25, 1.0), (0.0, 0.25)]
    assert [effect.flips_of_both for effect in found.values()] == [0.25, 0.25, 0.0]
