"""How well a linear probe reads the cue from features (Alain & Bengio, 2017)."""

import warnings
from collections.abc import Mapping

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

#: Inverse strengths of the L2 penalty that are tried, the strongest first.
STRENGTHS = (0.001, 0.1, 10.0)

#: Of the training images, the share that chooses among them.
HELD_OUT = 0.2

#: Steps of L-BFGS; the optimum is the only one, and accuracies settle long before.
STEPS = 200


def readability(
    train: Mapping[str, torch.Tensor], classes: torch.Tensor, test: Mapping[str, torch.Tensor], wanted: torch.Tensor
) -> dict[str, float]:
    """Return the test accuracy of a linear probe on each stage's features.

    A probe is a multinomial logistic regression with an L2 penalty on standardised features. A fifth of the training
    images chooses the penalty; then it is fitted to all of them.

    Parameters
    ----------
    train, test
        Features (N, D) and (M, D) by stage.
    classes, wanted
        The class of each training and test image's cue, int64 of shapes (N,) and (M,).
    """
    with threadpool_limits(1):  # products this small gain nothing from more threads, and lose much on busy cores
        return {
            name: _accuracy(train[name].numpy(), classes.cpu().numpy(), test[name].numpy(), wanted.cpu().numpy())
            for name in train
        }


def _accuracy(train: np.ndarray, classes: np.ndarray, test: np.ndarray, wanted: np.ndarray) -> float:
    mean, scale = train.mean(0), train.std(0)
    scale[scale < 1e-6 * max(float(scale.max()), 1e-30)] = 1.0  # constant features
    train, test = (train - mean) / scale, (test - mean) / scale
    held = int(len(train) * HELD_OUT)
    probes = [_fitted(train[held:], classes[held:], strength) for strength in STRENGTHS]
    scores = [probe.score(train[:held], classes[:held]) for probe in probes]
    best = STRENGTHS[int(np.argmax(scores))]
    return float(_fitted(train, classes, best).score(test, wanted))


def _fitted(features: np.ndarray, classes: np.ndarray, strength: float) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=STEPS).fit(features, classes)
