"""Unfolding a suite into cells: pure, and without importing any plugin's target."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from mmc_bench.errors import UserError, nearest
from mmc_bench.plugin.offers import Offer
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.jobs import PROTOCOLS, Cell, Job, OwnWeights, Pair, PluginRef, Pretraining, Trial, models_of
from mmc_bench.results.settings import Recipe
from mmc_bench.results.versions import versions_of_stages
from mmc_bench.suites.axes import combinations, setting_of, suite_at
from mmc_bench.suites.grouped import needs_counterfactuals, rates_of, refuse_counterfactuals
from mmc_bench.suites.settings import refuse_unused
from mmc_bench.suites.tuning import Tuning, tunings_of

if TYPE_CHECKING:
    from mmc_bench.suites.suite import PairEnd, Suite

MOST_JOBS = 1_000_000  # more takes minutes to unfold, and is a mistake


@dataclass(frozen=True)
class Plan:
    """Every pretraining, trial, cell and pair of a suite, each once, in the order in which they run.

    The cells of `tunings` get their parameters from trials: `mmc_bench.running.tuning.resolved` adds those whose trials
    are done, and tells by `searched` what became of each ranked cell of a tuned method: the cell that it is in each
    protocol that has one by now. `points` are the plans of the single combinations of the axes' values, where the suite
    has axes.
    """

    suite: "Suite"
    pretrainings: tuple[Pretraining, ...]
    cells: tuple[Cell, ...]
    offers: tuple[tuple[Offer, PluginRef], ...]
    pairs: tuple[Pair, ...] = ()
    tunings: tuple[Tuning, ...] = ()
    searched: tuple[Mapping[str, Cell], ...] = ()
    points: "tuple[Point, ...]" = ()

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """The trials of all methods, each once."""
        return tuple({trial.key: trial for tuning in self.tunings for trial in tuning.jobs}.values())

    @cached_property
    def protocols(self) -> dict[str, tuple[Cell, ...]]:
        """The cells of each protocol, each once, where methods are tuned; of those whose trials are done by now."""
        if not self.searched:
            return {}
        cells = {protocol: [own[protocol] for own in self.searched if protocol in own] for protocol in PROTOCOLS}
        return {protocol: tuple({cell.key: cell for cell in own}.values()) for protocol, own in cells.items()}

    @cached_property
    def ranked_pretrainings(self) -> tuple[Pretraining, ...]:
        """The pretrainings but those that trials alone start from."""
        tried_on = {trial.pretraining.key for trial in self.trials}
        ranked: tuple[Cell | Pair, ...] = (*self.cells, *self.pairs)
        needed = {model.key for job in ranked for model in models_of(job)}
        return tuple(job for job in self.pretrainings if job.key in needed or job.key not in tried_on)

    @property
    def results(self) -> tuple[Trial | Cell | Pair, ...]:
        """What the pretrainings are for."""
        return (*self.trials, *self.cells, *self.pairs)

    def note_of(self, job: Job) -> str:
        """Return the values of the axes at which a job stands, for people: ``" (clean_images=100)"``.

        Of a cell whose parameters trials have chosen, these are its model's.
        """
        return next((self._notes[key] for one in (job, *models_of(job)) if (key := one.key) in self._notes), "")

    @cached_property
    def _notes(self) -> dict[str, str]:
        values: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for point in self.points:
            for job in (*point.plan.pretrainings, *point.plan.results):
                values[job.key].append(point.values)
        notes = {}
        for key, own in values.items():
            fixed = [axis for axis, value in own[0].items() if all(other[axis] == value for other in own)]
            note = ", ".join(f"{axis.rpartition('.')[2]}={own[0][axis]}" for axis in fixed)
            notes[key] = f" ({note})" if note else ""
        return notes


@dataclass(frozen=True)
class Point:
    """One combination of the axes' values, by key, and the plan of the suite with these in force."""

    values: Mapping[str, Any]
    plan: Plan


def make_plan(
    suite: "Suite",
    registry: Registry,
    images: Mapping[str, str] | None = None,
    checkpoint: OwnWeights | None = None,
    start: OwnWeights | None = None,
) -> Plan:
    """Unfold `suite` into pretrainings, cells and pairs; without methods and pairs, into pretrainings alone.

    Where it has axes, it is unfolded at each combination of their values, one after another.

    Parameters
    ----------
    suite
        What to run.
    registry
        Where its names are looked up.
    images
        Identity of the images behind each source that `--data` replaces; other sources are torchvision's.
    checkpoint
        Weights that take the place of a pretraining.
    start
        Weights that a pretraining begins with.

    Raises
    ------
    UserError
        When a name is unknown or ambiguous, parameters are given for a plugin that does not exist, or an axis has a key
        or value that is not allowed, or is of a plugin that the suite does not run. When a suite that compares
        pretrained models is given a checkpoint.
    NothingSelectedError
        When a glob matches nothing.
    """
    images = images or {}
    if not suite.axes:
        return _unfolded(suite, registry, images, checkpoint, start)
    _check_size(suite, chosen_offers(suite, registry))
    points = [
        Point(values, _unfolded(suite_at(suite, values), registry, images, checkpoint, start))
        for values in combinations(suite)
    ]
    plan = _merged(suite, points)
    refuse_unused([setting_of(key, [*values]) for key, values in suite.axes.items()], [one for one, _ in plan.offers])
    return plan


def _merged(suite: "Suite", points: Sequence[Point]) -> Plan:
    """Return the plans of all points as one: what several have in common is there once."""
    plans = [point.plan for point in points]

    def once(name: str) -> Any:
        return tuple({job.key: job for plan in plans for job in getattr(plan, name)}.values())

    offers = {
        (offer.spec.kind, offer.qualified_name, reference.canonical): (offer, reference)
        for plan in plans
        for offer, reference in plan.offers
    }
    tunings: dict[str, Tuning] = {}
    for tuning in (tuning for plan in plans for tuning in plan.tunings):
        same = tunings.setdefault(tuning.selection.key, tuning)
        tunings[tuning.selection.key] = same.with_cells(tuning.cells)
    return Plan(
        suite=suite,
        pretrainings=once("pretrainings"),
        cells=once("cells"),
        offers=tuple(offers.values()),
        pairs=once("pairs"),
        tunings=tuple(tunings.values()),
        points=tuple(points),
    )


def chosen_offers(suite: "Suite", registry: Registry) -> dict[str, list[Offer]]:
    """Return what a suite's lists select, by kind; raises like `make_plan`."""
    named = {"dataset": suite.datasets, "backbone": suite.backbones, "method": suite.methods}
    return {kind: registry.select(kind, names) for kind, names in named.items()}


def _unfolded(
    suite: "Suite",
    registry: Registry,
    images: Mapping[str, str],
    checkpoint: OwnWeights | None,
    start: OwnWeights | None,
) -> Plan:
    """Unfold a suite at one combination of its axes' values."""
    if checkpoint and suite.pairs:
        raise UserError(f"suite {suite.name} compares pretrained models with one another: it takes no checkpoint")
    chosen = chosen_offers(suite, registry)
    _check_size(suite, chosen)
    _check_parameter_owners(suite, registry, chosen)
    refuse_counterfactuals(suite, chosen)
    references = {
        kind: [(offer, offer.reference(_parameters_of(suite, offer))) for offer in offers]
        for kind, offers in chosen.items()
    }
    pretrainings = []
    for (dataset, dataset_ref), (_, backbone_ref) in product(references["dataset"], references["backbone"]):
        for cue_rate, seed in product(rates_of(dataset, _unique(suite.cue_rates)), _unique(suite.seeds)):
            pretrainings.append(
                Pretraining(
                    versions=versions_of_stages("pretrain", "score"),
                    dataset=dataset_ref,
                    images={source: images.get(source, "original") for source in dataset.spec.sources},
                    data=suite.data,
                    backbone=backbone_ref,
                    cue_rate=cue_rate,
                    recipe=Recipe() if checkpoint else suite.pretrain,
                    seed=seed,
                    checkpoint=checkpoint,
                    start=start,
                )
            )
    versions = versions_of_stages("fine-tune", "score", "connect")
    cells = tuple(
        Cell(versions=versions, pretraining=pretraining, method=method_ref, connect=suite.connect)
        for pretraining in pretrainings
        for method, method_ref in references["method"]
        if pretraining.cue_rate is not None or not needs_counterfactuals(method)
    )
    offers = tuple(pair for pairs in references.values() for pair in pairs)
    pairs, ends = _pairs(suite, pretrainings, references["dataset"], images)
    tunings = tunings_of(cells, references, suite.tune) if suite.tune else ()
    tried = [trial.pretraining for tuning in tunings for trial in tuning.jobs]
    everything = {pretraining.key: pretraining for pretraining in (*tried, *pretrainings, *ends)}
    return Plan(suite, tuple(everything.values()), cells, offers, pairs, tunings)


def _pairs(
    suite: "Suite",
    grid: list[Pretraining],
    datasets: list[tuple[Offer, PluginRef]],
    images: Mapping[str, str],
) -> tuple[tuple[Pair, ...], list[Pretraining]]:
    """Return the pairs of models that a suite compares, each once, and their ends."""

    def moved(pretraining: Pretraining, end: "PairEnd") -> Pretraining:
        changes: dict[str, Any] = {
            name: value for name in ("cue_rate", "seed") if (value := getattr(end, name)) is not None
        }
        if end.dataset is not None:
            found = [pair for pair in datasets if end.dataset in (pair[0].spec.name, pair[0].qualified_name)]
            if not found:
                known = [offer.spec.name for offer, _ in datasets]
                raise UserError(f"pairs name dataset {end.dataset!r}, not of this suite: {nearest(end.dataset, known)}")
            offer, reference = found[0]
            sources = {source: images.get(source, "original") for source in offer.spec.sources}
            changes |= {"dataset": reference, "images": sources}
        return pretraining.with_changes(**changes) if changes else pretraining

    pairs: dict[str, Pair] = {}
    for spec, pretraining in product(suite.pairs, grid):
        first, second = moved(pretraining, spec.first), moved(pretraining, spec.second)
        data = first if spec.data is None else moved(first, spec.data)
        if first.key != second.key:
            pair = Pair(
                versions=versions_of_stages("connect"), first=first, second=second, data=data, connect=suite.connect
            )
            pairs[pair.key] = pair
    return tuple(pairs.values()), [end for pair in pairs.values() for end in (pair.first, pair.second)]


def shard(plan: Plan, part: int, parts: int) -> Plan:
    """Return one of `parts` plans that together hold each cell and pair of `plan` once.

    What starts from one pretrained model stays together, and these groups are dealt in turn. Where there are fewer
    of them than parts, the cells and pairs themselves are dealt, and a pretraining comes with every part that needs
    it; so do the trials that the parameters of its cells come from. What is in a part depends on the whole plan alone,
    not on what is done already.

    Parameters
    ----------
    part
        Which one, from 1 to `parts`.
    """
    groups: dict[str, list[Pretraining | Cell | Pair]] = {}
    ranked: tuple[Cell | Pair, ...] = (*plan.cells, *plan.pairs)
    for result in ranked:
        groups.setdefault(models_of(result)[0].key, []).append(result)
    needed = {model.key for result in plan.results for model in models_of(result)}
    for pretraining in plan.pretrainings:
        if pretraining.key not in needed:
            groups[pretraining.key] = [pretraining]
    hands = list(groups.values())
    if len(hands) < parts:
        hands = [[job] for hand in hands for job in hand]
    dealt = [job for hand in hands[part - 1 :: parts] for job in hand]
    tunings = tuple(own for tuning in plan.tunings if (own := tuning.among({job.key for job in dealt})))
    tried = [trial for tuning in tunings for trial in tuning.jobs]
    keys = {model.key for job in (*dealt, *tried) for model in (job, *models_of(job))}
    return replace(
        plan,
        pretrainings=tuple(job for job in plan.pretrainings if job.key in keys),
        cells=tuple(job for job in plan.cells if job.key in keys),
        pairs=tuple(job for job in plan.pairs if job.key in keys),
        tunings=tunings,
    )


def _unique(values: tuple[Any, ...]) -> list[Any]:
    return list(dict.fromkeys(values))


def _parameters_of(suite: "Suite", offer: Offer) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for pattern, values in suite.parameters.items():
        if any(fnmatchcase(name, pattern) for name in (offer.spec.name, offer.qualified_name)):
            parameters.update(values)
    return parameters


def _check_size(suite: "Suite", chosen: Mapping[str, list[Offer]]) -> None:
    """Refuse a grid that would only fill the memory."""
    settings = len(chosen["dataset"]) * len(chosen["backbone"]) * len(suite.cue_rates)
    jobs = settings * len(suite.seeds) * (1 + len(chosen["method"]) + len(suite.pairs))
    if suite.tune:
        jobs += settings * len(suite.tune.seeds) * (1 + suite.tune.trials * len(chosen["method"]))
    jobs *= prod(map(len, suite.axes.values()))
    if jobs > MOST_JOBS:
        raise UserError(f"suite {suite.name} has {jobs:,} pretrainings, cells and pairs: make several suites of it")


def _check_parameter_owners(suite: "Suite", registry: Registry, chosen: Mapping[str, list[Offer]]) -> None:
    """Refuse parameters whose owner no plugin offers: they would be ignored in silence."""
    known = {
        name
        for kind, offers in chosen.items()
        for offer in [*offers, *registry.offers(kind)]
        for name in (offer.spec.name, offer.qualified_name)
    }
    for pattern in suite.parameters:
        if not any(fnmatchcase(name, pattern) or _is_member(pattern, name) for name in known):
            raise UserError(f"parameters for {pattern!r}, which no plugin offers: {nearest(pattern, known)}")


def _is_member(name: str, family: str) -> bool:
    return family.endswith("/*") and fnmatchcase(name, family)
