"""Measures of predictions on single images, against scikit-learn, torchmetrics, and loops."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, brier_score_loss, recall_score, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, multiclass_auroc, multiclass_calibration_error

from mmc_bench import UserError
from mmc_bench.report.columns import check_columns, columns_named
from mmc_bench.report.measures import (
    auroc,
    brier_score,
    calibration_error,
    class_accuracies,
    flips,
    group_accuracies,
    measured,
    worst_class,
)
from mmc_bench.results.predictions import Predictions


def predictions(probabilities, label, split="C", group=None):
    """Return predictions of probabilities (n, K) as they are kept."""
    probabilities = np.asarray(probabilities, dtype=np.float32)
    label, n = np.asarray(label), len(label)
    return Predictions(
        split=np.full(n, split),
        image=np.arange(n),
        label=label,
        cue=np.full(n, -1),
        group=np.full(n, -1) if group is None else np.asarray(group),
        predicted=probabilities.argmax(1),
        probabilities=probabilities,
    )


@pytest.fixture(params=[2, 3, 10], ids="{} classes".format)
def drawn(request):
    """Return predictions that are right more often than not, of unequal classes, with ties among the probabilities."""
    number, n = request.param, 400
    draw = np.random.default_rng(number)
    label = draw.integers(number, size=n) * draw.integers(2, size=n)
    logits = draw.normal(size=(n, number)).round(1) + 2 * np.eye(number)[label]
    return predictions(torch.tensor(logits).float().softmax(1).numpy(), label)


def test_measures_are_those_of_scikit_learn(drawn):
    number = drawn.probabilities.shape[1]
    label, probabilities = drawn.label, drawn.probabilities.astype(np.float64)
    recalls = recall_score(label, drawn.predicted, average=None)
    assert np.allclose(class_accuracies(drawn), recalls) and math.isclose(worst_class(drawn), min(recalls))
    summed = probabilities / probabilities.sum(1, keepdims=True)  # in float32, rounding keeps the sums from 1
    theirs = brier_score_loss(label, summed, labels=range(number), scale_by_half=False)
    assert math.isclose(brier_score(drawn), theirs, rel_tol=1e-6)
    if number == 2:
        assert math.isclose(auroc(drawn), roc_auc_score(label, probabilities[:, 1]))
    else:
        one_hot = np.eye(number)[label]
        assert math.isclose(auroc(drawn), roc_auc_score(one_hot, probabilities, average="macro"))


def test_measures_are_those_of_torchmetrics(drawn):
    number = drawn.probabilities.shape[1]
    probabilities, label = torch.tensor(drawn.probabilities), torch.tensor(drawn.label)
    theirs = multiclass_calibration_error(probabilities, label, number, n_bins=15, norm="l1")
    assert math.isclose(calibration_error(drawn), theirs, abs_tol=1e-6)
    area = binary_auroc(probabilities[:, 1], label) if number == 2 else multiclass_auroc(probabilities, label, number)
    assert math.isclose(auroc(drawn), area, abs_tol=1e-6)


def test_the_calibration_error_has_fifteen_bins_with_their_upper_ends():
    tops = [1.0, 1.0, 14 / 16, 0.96875, 0.5, 0.5625, 0.75]
    right = [True, False, True, True, False, True, False]
    found = predictions([[top, 1 - top] for top in tops], [0 if one else 1 for one in right])
    bins = {}
    for top, one in zip(tops, right, strict=True):
        bins.setdefault(math.ceil(Fraction(top) * 15), []).append((top, one))
    gaps = [abs(sum(top for top, _ in own) - sum(one for _, one in own)) for own in bins.values()]
    assert {15, 8} <= bins.keys() and math.isclose(calibration_error(found), sum(gaps) / len(tops))


def test_a_class_without_images_counts_in_no_mean():
    found = predictions([[0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.3, 0.1, 0.6]], [1, 1, 2])
    assert np.isnan(class_accuracies(found)[0]) and worst_class(found) == 1
    areas = [roc_auc_score(found.label == k, found.probabilities[:, k]) for k in (1, 2)]
    assert math.isclose(auroc(found), np.mean(areas))
    assert auroc(predictions([[0.2, 0.8], [0.7, 0.3]], [1, 1])) is None


def test_groups_have_accuracies_of_their_own(drawn):
    group = np.arange(len(drawn)) % 7
    found = group_accuracies(predictions(drawn.probabilities, drawn.label, group=group))
    for one in range(7):
        own = group == one
        assert math.isclose(found[one], accuracy_score(drawn.label[own], drawn.predicted[own]))


def test_flips_are_counted_image_by_image():
    before, after = predictions(np.eye(4), range(4)), predictions(np.eye(4)[[0, 2, 1, 3]], range(4), "RC")
    changed = [a != b for a, b in zip(after.predicted, before.predicted, strict=True)]
    assert flips(after, before) == sum(changed) / 4 == 0.5


def test_only_the_columns_that_are_asked_for_are_measured(drawn):
    assert measured(drawn, ["ece_C", "auroc_RC", "flips_RC"]) == {"ece_C": calibration_error(drawn)}


def test_a_measure_alone_stands_for_it_on_every_split():
    assert columns_named(["RC", "ece", "flips"], is_grouped=False) == [
        *("RC", "ece_NC", "ece_C", "ece_RC", "ece_RI", "flips_RC", "flips_RI"),
    ]
    assert columns_named(["RC", "ece", "flips"], is_grouped=True) == ["ece_all", "ece_aligned", "ece_conflicting"]


def test_what_is_asked_of_a_second_cue_alone_stands_for_it_on_every_split():
    assert columns_named(["other_growth"], is_grouped=False) == ["other_growth_NC", "other_growth_C"]


@pytest.mark.parametrize(
    ("word", "kinds", "says"),
    [
        ("eec", (False,), "unknown column 'eec': did you mean ece?"),
        ("brier-rc", (True, False), "did you mean brier_RC"),
        ("ece_all", (False,), "column 'ece_all' is of datasets with groups, and none is selected"),
        ("flips", (True,), "column 'flips' is of datasets with counterfactuals, and none is selected"),
    ],
)
def test_a_word_that_names_no_column_is_refused_in_a_sentence(word, kinds, says):
    with pytest.raises(UserError, match=says.replace("?", r"\?")):
        check_columns([word], kinds)
