"""Datasets whose images come in groups: their sets, their scores, and every command on them."""

import numpy as np
import pytest
import torch
from helpers.networks import TinyNet
from helpers.numbered_images import derived, fake_dataset
from plugins.grouped import TinyGroups

from mmc_bench import UserError
from mmc_bench.data.groups import derive_groups
from mmc_bench.landscape.measure import path_images
from mmc_bench.results.metrics import GroupMetrics, GroupScore, Score
from mmc_bench.results.selections import TriedParameters, winners_of
from mmc_bench.results.settings import ConnectSettings, DataSettings
from mmc_bench.stages.score import score, worst_group
from mmc_bench.training.evaluate import evaluate_with_predictions


@pytest.fixture
def dataset():
    made = TinyGroups()
    made.load(None)
    return made


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return TinyNet(channels=3).eval()


def groups_in(images):
    return list(zip(images.labels.tolist(), images.cues.tolist(), strict=True))


# --- the sets


def test_training_images_are_the_pretraining_set_as_they_are_and_its_groups_tell_the_environments(dataset):
    data = derive_groups(dataset, DataSettings(), seed=0)
    assert sorted(data.pretraining.index.tolist()) == (~dataset.validation).nonzero()[:, 0].tolist()
    own, _ = data.pretraining.batch(slice(5))
    assert torch.allclose(own, dataset.train.images[data.pretraining.index[:5]] / 127.5 - 1, atol=1e-6)
    pairs = groups_in(data.pretraining)
    for pair, environment in zip(pairs, data.environments.tolist(), strict=True):
        together = sum(other == pair for other in pairs) * len(pairs)
        alone = sum(y == pair[0] for y, _ in pairs) * sum(a == pair[1] for _, a in pairs)
        assert environment == (together > alone)
    assert {0, 1} == {*data.environments.tolist()}


def test_the_clean_set_has_as_many_images_of_each_group_and_half_of_the_validation_images_are_left(dataset):
    data = derive_groups(dataset, DataSettings(), seed=0)
    counts = [groups_in(data.clean).count(group) for group in {*groups_in(data.clean)}]
    assert len({*counts}) == 1 and counts[0] >= 1
    shown = [{*images.index.tolist()} for images in (data.pretraining, data.clean, data.validation)]
    assert not (shown[0] & shown[1] or shown[0] & shown[2] or shown[1] & shown[2])
    assert data.clean_environments.tolist() == [int(y == a) for y, a in groups_in(data.clean)]
    bounded = derive_groups(dataset, DataSettings(clean_images=len(counts), validation_images=5), seed=0)
    assert sorted(groups_in(bounded.clean)) == sorted({*groups_in(data.clean)}) and len(bounded.validation) == 5


def test_each_group_of_the_validation_images_is_halved_so_that_clean_and_validation_set_have_all_of_them(dataset):
    dataset.train.labels[:], dataset.train.cues[:] = torch.arange(150) % 2, 0
    dataset.train.cues[:4], dataset.train.cues[4:7] = 1, 2  # groups of 2, 2, 2 and 1
    dataset.validation[:] = torch.arange(150) < 50
    dataset.test.labels.clamp_(max=1)
    for seed in range(3):
        data = derive_groups(dataset, DataSettings(), seed=seed)
        counted = {pair: groups_in(data.validation).count(pair) for pair in {*groups_in(data.validation)}}
        assert counted == {(0, 0): 10, (1, 0): 11, (0, 1): 1, (1, 1): 1, (0, 2): 1}
        assert sorted(groups_in(data.clean)) == [(y, a) for y in (0, 1) for a in (0, 1, 2)]


def test_what_is_aligned_and_weighs_the_mean_is_told_from_all_listed_training_images_whatever_the_seed(dataset):
    for hold_out in (False, True):
        if hold_out:
            del dataset.validation
        listed = torch.ones(150, dtype=torch.bool) if hold_out else ~dataset.validation
        pairs = [pair for pair, own in zip(groups_in(dataset.train), listed.tolist(), strict=True) if own]
        for seed in range(3):
            data = derive_groups(dataset, DataSettings(pretrain_images=30), seed=seed)
            for group in data.groups:
                assert group.train_images == pairs.count((group.label, group.attribute))
                assert group.aligned == (group.label == group.attribute)


def test_a_fifth_of_each_groups_training_images_is_held_out_where_none_are_for_validation(dataset):
    del dataset.validation
    data = derive_groups(dataset, DataSettings(), seed=1)
    every = groups_in(dataset.train)
    for pair in {*every}:
        assert groups_in(data.pretraining).count(pair) == every.count(pair) - round(every.count(pair) / 5)
    assert data.clean.joined(data.pretraining).storage is data.pretraining.storage


def keep_one_of_each_group(dataset):
    first = {pair: row for row, pair in reversed([*enumerate(groups_in(dataset.train))])}
    dataset.validation[:] = False
    dataset.validation[[*first.values()]] = True


@pytest.mark.parametrize(
    ("spoil", "settings", "message"),
    [
        (lambda d: d.test.cues.fill_(-1), {}, "the test images have attributes that are not whole numbers from 0 on"),
        (lambda d: d.train.labels.fill_(7), {}, "the training images have labels outside 0 to 2"),
        (lambda d: d.train.labels.fill_(0), {}, "class 1 has test images and no training images"),
        (lambda d: d.validation.fill_(False), {}, "150 training and 0 validation images are too few"),
        (keep_one_of_each_group, {}, "9 validation images, one a group, are too few for a clean and a validation set"),
        (lambda d: None, {"pretrain_images": 101}, "100 training and 50 validation images are too few for 101"),
        (lambda d: None, {"clean_images": 2}, "2 clean images are too few for one of each of"),
    ],
)
def test_images_that_make_no_experiment_are_refused(dataset, spoil, settings, message):
    spoil(dataset)
    with pytest.raises(UserError, match=message):
        derive_groups(dataset, DataSettings(**settings), seed=0)


# --- the scores


def test_worst_group_and_mean_are_those_that_published_papers_compute(dataset, network):
    data = derive_groups(dataset, DataSettings(), seed=0)
    metrics, _ = score(network, data, data.pretraining)
    with torch.no_grad():
        predicted = network(dataset.test.images / 127.5 - 1).argmax(1).numpy()
    y, a = dataset.test.labels.numpy(), dataset.test.cues.numpy()
    ty, ta = data.pretraining.labels.numpy(), data.pretraining.cues.numpy()
    groups = sorted({*zip(y.tolist(), a.tolist(), strict=True)})
    accuracies = [(predicted == y)[(y == label) & (a == attribute)].mean() for label, attribute in groups]
    shares = [np.mean((ty == label) & (ta == attribute)) for label, attribute in groups]
    assert metrics.worst_group.accuracy == pytest.approx(min(accuracies))
    assert metrics.mean_accuracy == pytest.approx(np.average(accuracies, weights=shares))
    assert metrics.splits["all"].accuracy == pytest.approx((predicted == y).mean())
    assert metrics.splits["aligned"].accuracy == pytest.approx((predicted == y)[y == a].mean())
    assert metrics.splits["conflicting"].accuracy == pytest.approx((predicted == y)[y != a].mean())


def group(accuracy, train, test, aligned=True, attribute=0):
    place = {"label": 0, "attribute": attribute, "aligned": aligned}
    return GroupScore(accuracy=accuracy, loss=1.0, train_images=train, test_images=test, **place)


def test_groups_without_training_images_count_by_their_test_images_and_an_empty_split_is_left_out():
    known, own = group(0.5, 90, 10), Score(accuracy=1, loss=0)
    unseen = group(0.8, 0, 30, attribute=1)
    assert GroupMetrics(groups=(known, unseen), train=own, validation=own).mean_accuracy == pytest.approx(0.725)
    seen = GroupMetrics(groups=(known, group(0.8, 10, 30)), train=own, validation=own)
    assert seen.mean_accuracy == pytest.approx(0.53) and seen.splits.keys() == {"all", "aligned"}


def test_paths_are_measured_once_on_each_group_and_told_of_all_aligned_and_conflicting_images(dataset, network):
    data = derive_groups(dataset, DataSettings(), seed=0)
    images = path_images(data, ConnectSettings(train_images=20))
    test = [found for name, found in images.sets.items() if not name.startswith("train ")]
    assert sorted(row for found in test for row in found.index.tolist()) == [*range(80)]
    assert {"train all", "train aligned", "train conflicting"} <= images.sets.keys()
    scores = {name: evaluate_with_predictions(network, found)[0] for name, found in images.sets.items()}
    told = images.test_scores(scores)
    assert told.keys() == {"all", "aligned", "conflicting"}
    for name, found in data.watched.items():
        whole, _ = evaluate_with_predictions(network, found)
        assert told[name].accuracy == whole.accuracy and told[name].loss == pytest.approx(whole.loss)


def test_trials_are_chosen_on_all_validation_images_and_on_their_worst_group(dataset, network):
    data = derive_groups(dataset, DataSettings(), seed=0)
    scores = {name: evaluate_with_predictions(network, own)[0] for name, own in data.validation_splits.items()}
    told = data.trial_scores(scores)
    whole, predicted = evaluate_with_predictions(network, data.validation)
    right, pairs = predicted == data.validation.labels, groups_in(data.validation)
    of_each = [np.mean([r for r, own in zip(right.tolist(), pairs, strict=True) if own == pair]) for pair in pairs]
    assert told["all"].accuracy == whole.accuracy and told["worst_group"].accuracy == pytest.approx(min(of_each))

    def trial(mean, worst):
        scores = {"all": Score(accuracy=mean, loss=1), "worst_group": Score(accuracy=worst, loss=1)}
        return TriedParameters(parameters={}, validation=scores)

    assert winners_of([trial(0.8, 0.3), trial(0.9, 0.1), trial(0.7, 0.6)]) == {"clean": 1, "counterfactual": 2}


class Guess(torch.nn.Module):
    """Two pixels of number and cue make three logits."""

    def forward(self, x):
        number, cue = x[:, 0].sum((1, 2)), x[:, 1].sum((1, 2))
        return torch.stack([number, cue - 1, -number], dim=1)


def test_datasets_with_cues_have_the_worst_group_of_label_and_cue_on_rc():
    data = derived(fake_dataset(test=90))
    metrics, predictions = score(Guess(), data, data.pretraining)
    right = (predictions["RC"] == data.splits["RC"].labels).tolist()
    pairs = groups_in(data.splits["RC"])
    of_each = [np.mean([r for r, own in zip(right, pairs, strict=True) if own == pair]) for pair in pairs]
    assert max(of_each) > 0 and worst_group(data, metrics, predictions) == pytest.approx(min(of_each))


@pytest.mark.parametrize(
    ("cue_groups", "groups"),
    [(lambda cues: cues // 2, 6), (lambda cues: None, None), (None, 9)],
)
def test_a_dataset_says_which_cues_make_groups(cue_groups, groups):
    dataset = fake_dataset(test=90)
    if cue_groups:
        dataset.cue_groups = cue_groups
    found = derived(dataset).rc_groups
    assert (None if found is None else len(found.unique())) == groups
