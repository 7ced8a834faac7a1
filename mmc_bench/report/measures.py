"""Measures of what a model predicts on single test images: classes, calibration, ranking, flips."""

from collections.abc import Callable, Collection, Mapping

import numpy as np
import numpy.typing as npt

from mmc_bench.report.columns import FLIPS, FLIPS_FROM
from mmc_bench.results.predictions import Predictions

#: Equally wide bins of the top probability, for the calibration error.
BINS = 15


def class_accuracies(predictions: Predictions) -> npt.NDArray[np.float64]:
    """Return the accuracy (K,) on the images of each label; NaN where there are none."""
    return _accuracies(predictions, predictions.label, predictions.probabilities.shape[1])


def group_accuracies(predictions: Predictions) -> npt.NDArray[np.float64]:
    """Return the accuracy on the images of each group, all of which are in one; NaN where a group has none here."""
    return _accuracies(predictions, predictions.group)


def _accuracies(predictions: Predictions, codes: npt.NDArray[np.int64], least: int = 0) -> npt.NDArray[np.float64]:
    """Return the accuracy on the images of each code (n,), at least so many, counted from 0."""
    images = np.bincount(codes, minlength=least)
    correct = np.bincount(codes, predictions.predicted == predictions.label, minlength=least)
    accuracies = np.full(len(images), np.nan)
    np.divide(correct, images, out=accuracies, where=images > 0)
    return accuracies


def worst_class(predictions: Predictions) -> float:
    """Return the lowest of the `class_accuracies`."""
    return float(np.nanmin(class_accuracies(predictions)))


def calibration_error(predictions: Predictions) -> float:
    """Return the expected calibration error (Guo et al., 2017, equation 3).

    Images are put into `BINS` equally wide bins (a, b] of their top probability. In each, its mean is compared with the
    accuracy; the differences are averaged, weighted by the bins' shares of the images.
    """
    top = predictions.probabilities.max(1).astype(np.float64)
    bins = np.digitize(top, np.linspace(0, 1, BINS + 1)[1:-1], right=True)
    correct = predictions.predicted == predictions.label
    return float(np.abs(np.bincount(bins, top - correct, minlength=BINS)).sum() / len(top))


def brier_score(predictions: Predictions) -> float:
    """Return the mean over images of the squared errors of the probabilities, summed over classes: 0 to 2."""
    errors = predictions.probabilities.astype(np.float64)
    errors[np.arange(len(errors)), predictions.label] -= 1
    return float((errors**2).sum(1).mean())


def auroc(predictions: Predictions) -> float | None:
    """Return the area under the ROC curve: of each class against the rest, averaged; of two classes, of the second.

    It is the probability that an image of the class gets a higher one for it than another image, ties counting half.
    Classes without images are left out; None where all images are of one class.
    """
    from scipy.stats import rankdata

    number = predictions.probabilities.shape[1]
    images = np.bincount(predictions.label, minlength=number)  # (K,)
    classes = [1] if number == 2 else np.flatnonzero(images)
    others = len(predictions) - images[classes]
    if not (others * images[classes]).all():
        return None
    ranks = rankdata(predictions.probabilities[:, classes], axis=0)  # (n, classes)
    own = (ranks * (predictions.label[:, None] == classes)).sum(0)
    areas = (own - images[classes] * (images[classes] + 1) / 2) / (images[classes] * others)
    return float(areas.mean())


def flips(predictions: Predictions, without: Predictions) -> float:
    """Return the share of images that two splits predict as different classes."""
    return float((predictions.predicted != without.predicted).mean())


#: Measures of one split, by the names of `mmc_bench.report.columns.MEASURES`.
_OF_A_SPLIT: Mapping[str, Callable[[Predictions], float | None]] = {
    "worst_class": worst_class,
    "ece": calibration_error,
    "brier": brier_score,
    "auroc": auroc,
}


def measured(predictions: Predictions, columns: Collection[str]) -> dict[str, float | None]:
    """Return those of the columns that are measures of a split that there is."""
    splits = predictions.splits
    names = {f"{name}_{split}": (measure, split) for name, measure in _OF_A_SPLIT.items() for split in splits}
    found = {column: measure(splits[split]) for column, (measure, split) in names.items() if column in columns}
    if FLIPS_FROM in splits:
        changed = {f"flips_{split}": split for split in FLIPS if split in splits}
        found |= {c: flips(splits[split], splits[FLIPS_FROM]) for c, split in changed.items() if c in columns}
    return found
