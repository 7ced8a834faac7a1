"""The toolkit for methods: the update step, features, losses, evaluation.

A method is given a `Task`, and its training loop is its loss::

    training = task.training(lr=0.01, epochs=20, batch_size=256)
    for x, y in training.batches():
        training.minimise(cross_entropy(training.logits(x), y))
    return task.model
"""

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.system.devices import in_float64, widest_float
from mmc_bench.training.backbone import Backbone, features
from mmc_bench.training.descent import Descent, adam, constant, cosine, stepped
from mmc_bench.training.evaluate import evaluate
from mmc_bench.training.interpolation import interpolated
from mmc_bench.training.precision import (
    cross_entropy,
    environment_risks,
    equal_chances,
    full_precision,
    group_losses,
)
from mmc_bench.training.probe import frozen_features, linear_probe
from mmc_bench.training.progress import NonFiniteLossError, Progress
from mmc_bench.training.task import Method, Task
from mmc_bench.training.training import Training

__all__ = [
    "Backbone",
    "CuedImages",
    "Descent",
    "Method",
    "NonFiniteLossError",
    "Progress",
    "Task",
    "Training",
    "adam",
    "constant",
    "cosine",
    "cross_entropy",
    "environment_risks",
    "equal_chances",
    "evaluate",
    "features",
    "frozen_features",
    "full_precision",
    "group_losses",
    "in_float64",
    "interpolated",
    "linear_probe",
    "stepped",
    "widest_float",
]
