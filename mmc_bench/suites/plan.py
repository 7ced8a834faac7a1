"""Unfolding a suite into cells: pure, and without importing any plugin's target."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

from mmc_bench.errors import UserError, nearest
from mmc_bench.plugin.registry import Offer, Registry
from mmc_bench.results.jobs import Cell, Pair, PluginRef, Pretraining, Trial, models_of
from mmc_bench.results.versions import versions_of_stages
from mmc_bench.suites.tuning import Tuning, tunings_of

if TYPE_CHECKING:
    from mmc_bench.suites.suite import PairEnd, Suite

MOST_JOBS = 1_000_000  # more takes minutes to unfold, and is a mistake


@dataclass(frozen=True)
class Plan:
    """Every pretraining, trial, cell and pair of a suite, each once, in the order in which they run.

    The cells of `tunings` get their parameters from trials: `mmc_bench.running.tuning.resolved` adds those whose trials
    are done, and tells by `protocols` which cells are of which protocol, where methods are tuned.
    """

    suite: "Suite"
    pretrainings: tuple[Pretraining, ...]
    cells: tuple[Cell, ...]
    offers: tuple[tuple[Offer, PluginRef], ...]
    pairs: tuple[Pair, ...] = ()
    tunings: tuple[Tuning, ...] = ()
    protocols: Mapping[str, tuple[Cell, ...]] = field(default_factory=dict)

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """The trials of all methods, each once."""
        return tuple({trial.key: trial for tuning in self.tunings for trial in tuning.jobs}.values())

    @property
    def results(self) -> tuple[Trial | Cell | Pair, ...]:
        """What the pretrainings are for."""
        return (*self.trials, *self.cells, *self.pairs)


def make_plan(suite: "Suite", registry: Registry, images: Mapping[str, str] | None = None) -> Plan:
    """Unfold `suite` into pretrainings, cells and pairs; without methods and pairs, into pretrainings alone.

    Parameters
    ----------
    suite
        What to run.
    registry
        Where its names are looked up.
    images
        Identity of the images behind each source that `--data` replaces; other sources are torchvision's.

    Raises
    ------
    UserError
        When a name is unknown or ambiguous, or parameters are given for a plugin that does not exist.
    NothingSelectedError
        When a glob matches nothing.
    """
    images = images or {}
    chosen = {
        kind: registry.select(kind, names)
        for kind, names in (
            ("dataset", suite.datasets),
            ("backbone", suite.backbones),
            ("method", suite.methods),
        )
    }
    _check_size(suite, chosen)
    _check_parameter_owners(suite, registry, chosen)
    references = {
        kind: [(offer, offer.reference(_parameters_of(suite, offer))) for offer in offers]
        for kind, offers in chosen.items()
    }
    pretrainings = []
    for (dataset, dataset_ref), (_, backbone_ref), cue_rate, seed in product(
        references["dataset"], references["backbone"], _unique(suite.cue_rates), _unique(suite.seeds)
    ):
        pretrainings.append(
            Pretraining(
                versions=versions_of_stages("pretrain", "score"),
                dataset=dataset_ref,
                images={source: images.get(source, "original") for source in dataset.spec.sources},
                data=suite.data,
                backbone=backbone_ref,
                cue_rate=cue_rate,
                recipe=suite.pretrain,
                seed=seed,
            )
        )
    versions = versions_of_stages("fine-tune", "score", "connect")
    cells = tuple(
        Cell(versions=versions, pretraining=pretraining, method=method_ref, connect=suite.connect)
        for pretraining in pretrainings
        for _, method_ref in references["method"]
    )
    offers = tuple(pair for pairs in references.values() for pair in pairs)
    pairs, ends = _pairs(suite, pretrainings, references["dataset"], images)
    tunings = tunings_of(cells, references["method"], suite.tune) if suite.tune else ()
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
