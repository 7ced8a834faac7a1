"""Stage 4: the paths from θ_C to θ_FT, and those between two pretrained models."""

from collections.abc import Callable

import torch

from mmc_bench.data.splits import ExperimentData
from mmc_bench.landscape.effects import effects
from mmc_bench.landscape.invariance import invariances, mechanistically_similar
from mmc_bench.landscape.measure import PathImages, Scores, measure_paths, path_images
from mmc_bench.landscape.paths import end_scores
from mmc_bench.landscape.patterns import pattern_distance
from mmc_bench.results.jobs import Cell
from mmc_bench.results.metrics import GroupMetrics, Metrics
from mmc_bench.results.records import Comparison, PathRecord
from mmc_bench.results.settings import ConnectSettings
from mmc_bench.seeds import derive_seed
from mmc_bench.stages.resources import Resources
from mmc_bench.training import Backbone, Progress
from mmc_bench.training.evaluate import evaluate_sets

#: The paths that are trained.
BENT = ("quadratic", "quadratic-nc")


def connect(
    cell: Cell,
    pretrained: Backbone,
    fine_tuned: Backbone,
    data: ExperimentData,
    metrics: tuple[Metrics | GroupMetrics, Metrics | GroupMetrics],
    resources: Resources,
    made_from: str,
    progress: Progress,
) -> dict[str, PathRecord]:
    """Return the paths of a cell; the linear one is always among them.

    `metrics` are those of the two models as they are, and `made_from` is the checksum of the pretrained weights. What
    became of CUDA graphs is noted in `progress`.
    """
    settings = cell.connect.with_changes(paths=tuple(dict.fromkeys(("linear", *cell.connect.paths))))
    images = path_images(data, settings)

    def scores_at_end(model: Backbone, own: Metrics | GroupMetrics) -> Scores:
        return end_scores(model, images.sets, images.batchnorm, data.scores_of_sets(own))

    start = "start of paths", made_from, settings.batchnorm_images, settings.train_images
    ends = (
        resources.once(lambda: scores_at_end(pretrained, metrics[0]), *start),
        scores_at_end(fine_tuned, metrics[1]),
    )
    generator_of = _generators(resources, cell.pretraining.seed)
    return measure_paths(pretrained, fine_tuned, images, settings, ends, generator_of, progress)


def compare(
    first: Backbone,
    second: Backbone,
    images: PathImages,
    settings: ConnectSettings,
    resources: Resources,
    seed: int,
    progress: Progress,
) -> Comparison:
    """Return all that two models are compared by; what is trained on the way is noted in `progress`."""
    predictions: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = {}, {}
    scores = evaluate_sets(first, images.sets, predictions[0]), evaluate_sets(second, images.sets, predictions[1])
    ends = (
        end_scores(first, images.sets, images.batchnorm, scores[0]),
        end_scores(second, images.sets, images.batchnorm, scores[1]),
    )
    paths = measure_paths(first, second, images, settings, ends, _generators(resources, seed), progress)
    mechanisms = invariances(scores[0]), invariances(scores[1])
    return Comparison(
        scores={name: (scores[0][name], scores[1][name]) for name in images.sets},
        invariance=mechanisms,
        similar=mechanistically_similar(*mechanisms),
        effects=effects(scores, predictions),
        paths=paths,
        pattern_distance=pattern_distance(first, second, images.sets["C"]),
    )


def _generators(resources: Resources, seed: int) -> Callable[[str], torch.Generator]:
    """Return what seeds everything for a path, by its name."""
    return lambda name: resources.seed_everything(f"path {name}", seed)[1]


def path_seeds(settings: ConnectSettings, seed: int) -> dict[str, int]:
    """Return the derived seeds of the paths that draw at random, as records keep them."""
    return {f"path {name}": derive_seed(f"path {name}", seed) for name in settings.paths if name in BENT}
