"""Deep feature reweighting (Kirichenko et al., 2022b), their DFR on validation data."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils import assert_all_finite
from torch import nn

from mmc_bench import BaseConfig, Choice
from mmc_bench.training import Backbone, Task, frozen_features

from .batched import sparse_regressions

# A class's weights and, in the last column, its intercept; a row for each of K classes, of F + 1 numbers.
Rows = np.ndarray

# A set of regressions, one for each class: the images' rows and C.
Fit = tuple[np.ndarray, float]


class DeepFeatureReweighting:
    """Keep the backbone, and put the mean of sparse logistic regressions on group-balanced clean images at its end.

    Groups are (label, environment); all clean images are of one environment, so the groups are the classes. Where the
    authors halve their held-out set to choose C, it is chosen on `task.validation`. Features are standardised by the
    clean set, as in their later code (izmailovpavel/spurious_feature_learning, dfr_evaluate_spurious.py,
    `dfr_on_validation_eval`). With more than two classes scikit-learn's liblinear fits one class against the rest: the
    logits' order is the prediction, but their softmax is not calibrated.
    """

    class Config(BaseConfig):
        """The strengths are both of the authors' grids, for Waterbirds and for CelebA (`C_OPTIONS` of
        PolinaKirichenko/deep_feature_reweighting, dfr_evaluate_spurious.py), since neither is of as many classes or of
        as few images as here; `retrains` is its `num_retrains` of `dfr_on_validation_eval`.

        A search tries them one by one, and thus leaves the choice between them to its own rule.
        """

        strengths: Annotated[
            tuple[Annotated[float, Field(gt=0)], ...],
            Choice([3.0], [1.0], [0.7], [0.3], [0.1], [0.07], [0.03], [0.01], [0.003]),
        ] = Field(
            (3.0, 1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01, 0.003),
            min_length=1,
            description="C, inverse L1 strengths, to choose from",
        )
        retrains: int = Field(20, ge=1, description="regressions, each on a balanced subset of its own, to average")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the model with its new last layer."""
        random = np.random.default_rng(int(torch.randint(2**31, (), generator=task.generator, device=task.device)))
        scaler = StandardScaler()
        inputs = scaler.fit_transform(frozen_features(task.model, task.clean).cpu().double().numpy())
        labels = task.clean.labels.cpu().numpy()
        held_out = scaler.transform(frozen_features(task.model, task.validation).cpu().double().numpy())
        held_out_labels = task.validation.labels.cpu().numpy()

        def fitted(fits: list[Fit]) -> list[Rows]:
            if task.device.type == "cuda":  # MPS has no float64
                return fitted_at_once(inputs, labels, task.num_classes, fits, random, task.device)
            return [one_against_rest(inputs[s], labels[s], task.num_classes, c, random) for s, c in fits]

        subset, strengths = balanced_subset(labels, random), self.config.strengths
        candidates = zip(strengths, fitted([(subset, strength) for strength in strengths]), strict=True)
        strength, _ = max(candidates, key=lambda candidate: class_accuracies(candidate[1], held_out, held_out_labels))
        subsets = [balanced_subset(labels, random) for _ in range(self.config.retrains)]
        rows = np.mean(fitted([(subset, strength) for subset in subsets]), axis=0)
        write(task.model.get_classifier(), rows, scaler)
        return task.model


def balanced_subset(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return rows of labels (N,): of each class that occurs, as many at random as the rarest of them has."""
    classes, counts = np.unique(labels, return_counts=True)
    return np.concatenate([random.permutation(np.flatnonzero(labels == k))[: counts.min()] for k in classes])


def one_against_rest(
    inputs: np.ndarray, labels: np.ndarray, num_classes: int, strength: float, random: np.random.Generator
) -> Rows:
    """Fit min_w ‖w‖₁ + C Σ_i log(1 + exp(-y_i wᵀ(x_i, 1))), y_i = ±1, for each class against the rest.

    As in liblinear, the intercept is penalised too. A class without an image gets the intercept -log n, about the
    log-odds of one image beside n.
    """
    rows = np.zeros((num_classes, inputs.shape[1] + 1))
    for k in range(num_classes):
        mine = labels == k
        if not mine.any():
            rows[k, -1] = -np.log(len(labels))
        elif not mine.all():
            seed = int(random.integers(2**31))
            fitted = LogisticRegression(l1_ratio=1.0, C=strength, solver="liblinear", random_state=seed)
            fitted.fit(inputs, mine)
            rows[k] = np.append(fitted.coef_[0], fitted.intercept_[0])
    return rows


def fitted_at_once(
    inputs: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    fits: list[Fit],
    random: np.random.Generator,
    device: torch.device,
) -> list[Rows]:
    """Return what `one_against_rest` finds in each of the fits, whose subsets have the same classes and sizes.

    On a device that computes in float64, all regressions are solved together. They differ from liblinear's by the
    tolerance at which that stops. It solves what is left: all sets in which a regression has no unique solution, say.
    """
    assert_all_finite(inputs)
    subsets = np.stack([subset for subset, _ in fits])  # (P, n)
    classes = np.unique(labels[subsets[0]])
    repeated = np.repeat(subsets, len(classes), axis=0)  # (P·K, n), of the K classes that occur
    signs = np.where(labels[repeated] == np.tile(classes, len(fits))[:, None], 1.0, -1.0)
    strengths = np.repeat([strength for _, strength in fits], len(classes))
    found, solved = sparse_regressions(*(torch.from_numpy(x).to(device) for x in (inputs, repeated, signs, strengths)))
    rows = np.zeros((len(fits), num_classes, inputs.shape[1] + 1))
    rows[:, :, -1] = -np.log(subsets.shape[1])  # of a class without an image
    rows[:, classes] = found.view(len(fits), len(classes), -1).cpu().numpy() if len(classes) > 1 else 0.0
    for index in np.flatnonzero(~solved.view(len(fits), -1).all(1).cpu().numpy()):
        subset, strength = fits[index]
        rows[index] = one_against_rest(inputs[subset], labels[subset], num_classes, strength, random)
    return list(rows)


def class_accuracies(rows: Rows, inputs: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the accuracy on the worst class that occurs, the authors' criterion, and on all, which breaks ties."""
    correct = (inputs @ rows[:, :-1].T + rows[:, -1]).argmax(1) == labels
    return min(correct[labels == k].mean() for k in np.unique(labels)), correct.mean()


def write(layer: nn.Linear, rows: Rows, scaler: StandardScaler) -> None:
    """Write rows for standardised features (x - μ)/σ into a layer for features x: W/σ, and b - (W/σ)μ."""
    weight = rows[:, :-1] / scaler.scale_
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(rows[:, -1] - weight @ scaler.mean_))
