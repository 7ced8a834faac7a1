"""Stage 4: the paths from θ_C to θ_FT, and those between two pretrained models."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import torch

from mmc_bench.data.splits import ExperimentData
from mmc_bench.landscape.barriers import invariances, mechanistically_similar
from mmc_bench.landscape.compare import Ground, Scores, ground_of, measure_paths, scores_of
from mmc_bench.landscape.patterns import pattern_distance
from mmc_bench.results.jobs import Cell, ConnectSettings, Pair, PluginRef, Pretraining
from mmc_bench.results.records import SPLITS, Comparison, Metrics, PairRecord, PathRecord, Timing
from mmc_bench.seeds import derive_seed
from mmc_bench.stages.provenance import experiment_seeds, provenance
from mmc_bench.stages.workshop import Report, Workshop
from mmc_bench.training import Backbone, Progress
from mmc_bench.training.precision import arithmetic

#: The paths that are trained.
BENT = ("quadratic", "quadratic-nc")


def connect(
    cell: Cell,
    pretrained: Backbone,
    fine_tuned: Backbone,
    data: ExperimentData,
    metrics: tuple[Metrics, Metrics],
    workshop: Workshop,
) -> dict[str, PathRecord]:
    """Return the paths of a cell; the linear one is always among them.

    `metrics` are those of the two models: what they hold is not computed again.
    """
    settings = cell.connect.model_copy(update={"paths": tuple(dict.fromkeys(("linear", *cell.connect.paths)))})
    ground = ground_of(data, settings)
    models = pretrained, fine_tuned
    known = [{name: getattr(model, name) for name in SPLITS} for model in metrics]
    scores = [scores_of(model, ground, of_test) for model, of_test in zip(models, known, strict=True)]
    generator_of = _generators(workshop, cell.pretraining.seed)
    return measure_paths(*models, ground, settings, (scores[0], scores[1]), generator_of, Progress())


def compare(
    first: Backbone,
    second: Backbone,
    ground: Ground,
    settings: ConnectSettings,
    workshop: Workshop,
    seed: int,
    known: tuple[Scores, Scores] = ({}, {}),
) -> tuple[Comparison, Progress]:
    """Return all that two models are compared by, and the progress of what was trained on the way."""
    scores = scores_of(first, ground, known[0]), scores_of(second, ground, known[1])
    progress = Progress()
    paths = measure_paths(first, second, ground, settings, scores, _generators(workshop, seed), progress)
    mechanisms = invariances(scores[0]), invariances(scores[1])
    comparison = Comparison(
        scores={name: (scores[0][name], scores[1][name]) for name in ground.sets},
        invariance=mechanisms,
        similar=mechanistically_similar(*mechanisms),
        paths=paths,
        pattern_distance=pattern_distance(first, second, ground.sets["C"]),
    )
    return comparison, progress


def compare_pair(pair: Pair, workshop: Workshop, report: Report) -> PairRecord:
    """Compare two pretrained models, save the record, and return it."""
    started, clock = datetime.now(UTC), time.perf_counter()
    data = workshop.data(pair.data)
    (first, first_record), (second, second_record) = (
        workshop.pretrained(end, data) for end in (pair.first, pair.second)
    )
    known = tuple(
        {name: getattr(record.metrics, name) for name in SPLITS if _shares_tests(end, pair.data)}
        for end, record in ((pair.first, first_record), (pair.second, second_record))
    )
    ground = ground_of(data, pair.connect)
    seconds = {"data": time.perf_counter() - clock}
    clock = time.perf_counter()
    report({"stage": "connect"})
    with arithmetic(workshop.precision, workshop.device):
        comparison, progress = compare(
            first, second, ground, pair.connect, workshop, pair.data.seed, (known[0], known[1])
        )
    seconds["connect"] = time.perf_counter() - clock
    made = workshop.store.done(pair)
    if isinstance(made, PairRecord):  # by another run, while this one slept and lost its lease
        return made
    references = {reference.name: reference for end in (pair.first, pair.second) for reference in plugins_of(end)}
    record = PairRecord(
        key=pair.key,
        pair=pair,
        weights_sha256=(first_record.weights_sha256, second_record.weights_sha256),
        num_classes=data.num_classes,
        comparison=comparison,
        timing=Timing(
            started=started,
            seconds=seconds,
            images_per_second=progress.images / progress.seconds if progress.seconds else None,
        ),
        provenance=provenance(
            workshop.device,
            workshop.precision,
            workshop.threads,
            references.values(),
            {**experiment_seeds(pair.data.seed), **path_seeds(pair.connect, pair.data.seed)},
        ),
    )
    workshop.store.save(record)
    return record


def _generators(workshop: Workshop, seed: int) -> Callable[[str], torch.Generator]:
    """Return what seeds everything for a path, by its name."""
    return lambda name: workshop.seed_everything(f"path {name}", seed)[1]


def path_seeds(settings: ConnectSettings, seed: int) -> dict[str, int]:
    """Return the derived seeds of the paths that draw at random, as records keep them."""
    return {f"path {name}": derive_seed(f"path {name}", seed) for name in settings.paths if name in BENT}


def plugins_of(pretraining: Pretraining) -> tuple[PluginRef, PluginRef]:
    """Return the plugins behind a pretraining."""
    return pretraining.dataset, pretraining.backbone


def _shares_tests(end: Pretraining, data: Pretraining) -> bool:
    """Tell whether a model was scored on the very test splits of `data`: they follow from these alone."""
    return (end.dataset, end.images, end.seed) == (data.dataset, data.images, data.seed)
