"""The toolkit for methods: the SGD loop, schedules, cached features, evaluation.

Everything a method needs is here::

    from mmc_bench.training import cosine, features, fit, sgd
"""

from mmc_bench.training.evaluate import evaluate
from mmc_bench.training.loop import cosine, fit, sgd, stepped
from mmc_bench.training.precision import cross_entropy, full_precision
from mmc_bench.training.probe import features, linear_probe
from mmc_bench.training.progress import NonFiniteLossError, Progress
from mmc_bench.training.task import Task

__all__ = [
    "NonFiniteLossError",
    "Progress",
    "Task",
    "cosine",
    "cross_entropy",
    "evaluate",
    "features",
    "fit",
    "full_precision",
    "linear_probe",
    "sgd",
    "stepped",
]
