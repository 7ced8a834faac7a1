"""What a record must keep to beyond its schema: numbers that follow from one another, and those that cannot be."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmc_bench.landscape.barriers import barrier, mode_connected
from mmc_bench.landscape.invariance import TOLERANCE, invariances
from mmc_bench.plugin.specs import NAME
from mmc_bench.results.jobs import PluginRef, Pretraining
from mmc_bench.results.making import Provenance, Timing
from mmc_bench.results.metrics import SPLITS, GroupMetrics, Metrics, Score
from mmc_bench.results.records import CellRecord, Connectivity, Invariance, PretrainRecord, TrialRecord
from mmc_bench.seeds import DRAWS, derive_seed

FIRST_YEAR = 2020
DISTRIBUTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def problems_of_pretraining(record: PretrainRecord, test_images: int | None) -> Iterator[str]:
    """Yield what is wrong with a pretraining's record, a clause each.

    Parameters
    ----------
    test_images
        Number of test images, where it is known.
    """
    p = record.pretraining
    yield from _problems_of_plugins(p, (p.dataset, p.backbone), record.provenance)
    yield from _problems_of_timing(record.timing, "pretrain")
    yield from _problems_of_counts(record.metrics, test_images)
    yield from _problems_of_invariances(record.invariance, record.metrics, TOLERANCE)
    if p.checkpoint is not None or p.start is not None:
        yield "has weights that were trained elsewhere, and the leaderboard compares methods on models of its recipes"
    elif len(record.curve) != p.recipe.epochs:
        yield f"has a learning curve of {len(record.curve)} epochs, and was trained for {p.recipe.epochs}"


def problems_of_cell(record: CellRecord, before: PretrainRecord | None, test_images: int | None) -> Iterator[str]:
    """Yield what is wrong with a cell's record, a clause each.

    Parameters
    ----------
    before
        The record of its pretraining, where that is there.
    test_images
        Number of test images, where it is known.
    """
    p, method = record.cell.pretraining, record.cell.method
    yield from _problems_of_plugins(p, (p.dataset, p.backbone, method), record.provenance)
    yield from _problems_of_timing(record.timing, "fine_tune")
    yield from _problems_of_counts(record.metrics, test_images)
    yield from _problems_of_parameters(method, record.parameters)
    yield from _problems_of_invariances(record.invariance, record.metrics, record.paths["linear"].test.tolerance)
    points = record.cell.connect.points
    for name, path in record.paths.items():
        yield from _problems_of_path(f"the {name} path", path.test, points, test_images)
        if path.train is not None:
            yield from _problems_of_path(f"the {name} path on training images", path.train, points, None)
    yield from _problems_of_ends(record)
    yield from _problems_of_effects(record, before)
    if before is not None and before.num_classes != record.num_classes:
        yield f"says {record.num_classes} classes, and its pretraining {before.num_classes}"


def problems_of_trial(record: TrialRecord) -> Iterator[str]:
    """Yield what is wrong with a trial's record, a clause each."""
    p, method = record.trial.pretraining, record.trial.method
    yield from _problems_of_plugins(p, (p.dataset, p.backbone, method), record.provenance)
    yield from _problems_of_timing(record.timing, "data" if record.diverged else "fine_tune")
    yield from _problems_of_parameters(method, record.parameters)


def _problems_of_plugins(p: Pretraining, plugins: Sequence[PluginRef], provenance: Provenance) -> Iterator[str]:
    for plugin in plugins:
        if not NAME.fullmatch(plugin.name):
            yield f"names a plugin {plugin.name!r}, and names match {NAME.pattern}"
        if not DISTRIBUTION.fullmatch(plugin.distribution):
            yield f"names a distribution {plugin.distribution!r}, and names match {DISTRIBUTION.pattern}"
    if provenance.plugins != {f"{plugin.distribution}:{plugin.name}": plugin.version for plugin in plugins}:
        yield "has a provenance that names other plugins or versions than its cell"
    if provenance.seeds.get("experiment") != p.seed:
        yield f"has a provenance of seed {provenance.seeds.get('experiment')}, and a cell of {p.seed}"
    for what, seed in provenance.seeds.items():
        start = p.data_seed if what in DRAWS else p.seed
        if what != "experiment" and seed != derive_seed(what, start):
            yield f"has a seed of {seed} for {what!r}, which does not follow from {start}"


def _problems_of_timing(timing: Timing, stage: str) -> Iterator[str]:
    if timing.started.year < FIRST_YEAR:
        yield f"says that it was started in {timing.started.year}, before there was mmc-bench"
    if stage not in timing.seconds:
        yield f"says no seconds of its stage {stage!r}"
    for name, value in (*timing.seconds.items(), *timing.parts.items()):
        if value < 0:
            yield f"took {value} seconds for {name!r}"


def _problems_of_parameters(method: PluginRef, in_force: Mapping[str, Any]) -> Iterator[str]:
    """Compare the parameters that were given with those in force; only numbers, since others may be rewritten."""
    for name, given in method.parameters.items():
        if name not in in_force:
            yield f"was given the parameter {name!r}, which is not among those in force"
        elif isinstance(given, (int, float)) and in_force[name] != given:
            yield f"was given {name} = {given}, and {in_force[name]} was in force"


def _problems_of_counts(metrics: Metrics | GroupMetrics, test_images: int | None) -> Iterator[str]:
    others = metrics.others if isinstance(metrics, Metrics) else {}
    for split, score in (*metrics.splits.items(), *others.items()):
        if not _is_share(score.accuracy, test_images):
            yield f"has an accuracy of {score.accuracy} on {split}, which is no number of {test_images} test images"


def _is_share(accuracy: float, images: int | None) -> bool:
    return images is None or math.isclose(accuracy * images, round(accuracy * images), abs_tol=1e-6)


def _problems_of_invariances(
    found: Mapping[str, Invariance], metrics: Metrics | GroupMetrics, tolerance: float
) -> Iterator[str]:
    wanted = invariances(metrics.splits, tolerance)
    if found.keys() != wanted.keys():
        yield f"has the interventions {sorted(found)}, and not {sorted(wanted)}"
        return
    for name, own in found.items():
        numbers = ("loss_without", "loss_with", "accuracy_change")
        same = all(_equal(getattr(own, field), getattr(wanted[name], field)) for field in numbers)
        if not same or (own.split, own.invariant) != (wanted[name].split, wanted[name].invariant):
            yield f"has an invariance to {name!r} that does not follow from its scores"


def _problems_of_path(name: str, path: Connectivity, points: int, test_images: int | None) -> Iterator[str]:
    if len(path.t) != points or path.t[0] != 0 or path.t[-1] != 1 or list(path.t) != sorted(set(path.t)):
        yield f"has positions on {name} that are not {points} from 0 to 1, each greater than the last"
        return
    if not path.splits.keys() == path.barriers.keys() == path.mode_connected.keys() == set(SPLITS):
        yield f"has other splits on {name} than {', '.join(SPLITS)}"
        return
    for split, curve in path.splits.items():
        scores = [Score(accuracy=a, loss=b) for a, b in zip(curve.accuracy, curve.loss, strict=True)]
        found, wanted = path.barriers[split], barrier(path.t, scores)
        if not (_equal(found.accuracy, wanted.accuracy) and _equal(found.loss, wanted.loss)):
            yield f"has a barrier on {name} for {split} that does not follow from its curve"
        if path.mode_connected[split] != mode_connected(scores, path.tolerance):
            yield f"has a verdict on {name} for {split} that does not follow from its curve"
        if not all(_is_share(value, test_images) for value in curve.accuracy):
            yield f"has an accuracy on {name} for {split} that is no number of {test_images} test images"
    if path.mechanistically_connected != all(path.mode_connected.values()):
        yield f"has a verdict on {name} that does not follow from those on the splits"


def _problems_of_ends(record: CellRecord) -> Iterator[str]:
    """Compare the ends of paths, which all lead from one model to the other."""
    linear = record.paths["linear"].test.splits
    for name, path in record.paths.items():
        for split, curve in path.test.splits.items():
            for end, what in ((0, "start"), (-1, "end")):
                if curve.accuracy[end] != linear[split].accuracy[end] or curve.loss[end] != linear[split].loss[end]:
                    yield f"has a {name} path on {split} whose {what} is not that of the linear path"


def _problems_of_effects(record: CellRecord, before: PretrainRecord | None) -> Iterator[str]:
    """Compare what interventions change with the scores of the two models."""
    metrics = (before.metrics if before else None, record.metrics)
    for name, effect in record.effects.items():
        for of_model, loss, accuracy in zip(metrics, effect.loss_changes, effect.accuracy_changes, strict=True):
            if of_model is None or effect.split not in SPLITS:
                continue
            end, start = of_model.splits[effect.split], of_model.splits["C"]
            if not (_equal(loss, end.loss - start.loss) and _equal(accuracy, end.accuracy - start.accuracy)):
                yield f"has an effect of {name!r} that does not follow from the scores"
        if effect.flips_of_both > min(effect.flips):
            yield f"has more predictions that {name!r} flips in both models than in one"


def _equal(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12)
