"""Deep feature reweighting (Kirichenko et al., 2022b), their DFR on validation data."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from mmc_bench import BaseConfig, Choice
from mmc_bench.training import Backbone, Task, frozen_features

# A class's weights and, in the last column, its intercept; a row for each of K classes, of F + 1 numbers.
Rows = np.ndarray


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

        subset = balanced_subset(labels, random)
        candidates = [
            (strength, one_against_rest(inputs[subset], labels[subset], task.num_classes, strength, random))
            for strength in self.config.strengths
        ]
        strength, _ = max(candidates, key=lambda candidate: class_accuracies(candidate[1], held_out, held_out_labels))
        subsets = [balanced_subset(labels, random) for _ in range(self.config.retrains)]
        rows = np.mean(
            [one_against_rest(inputs[s], labels[s], task.num_classes, strength, random) for s in subsets], axis=0
        )
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
