"""What a suite may ask of datasets that have groups in place of counterfactuals."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from mmc_bench.errors import UserError
from mmc_bench.plugin.offers import Offer
from mmc_bench.plugin.specs import DatasetSpec, MethodSpec
from mmc_bench.results.settings import DataSettings

if TYPE_CHECKING:
    from mmc_bench.suites.suite import Suite

Rate = TypeVar("Rate")

#: Settings of the data that decide what cues images carry.
ABOUT_CUES = ("clean_set", "minority", "clean_cues")


def is_grouped(dataset: Offer) -> bool:
    """Tell whether a dataset's images come in groups, without counterfactuals."""
    return isinstance(dataset.spec, DatasetSpec) and dataset.spec.splits == "groups"


def rates_of(dataset: Offer, cue_rates: Sequence[Rate]) -> Sequence[Rate | None]:
    """Return the cue rates that a dataset is run at: one, which is None, where its images come as they are."""
    return [None] if is_grouped(dataset) else cue_rates


def needs_counterfactuals(method: Offer) -> bool:
    """Tell whether a method wants every image with its own cue, whatever the cue rate."""
    return isinstance(method.spec, MethodSpec) and "fully-cued" in method.spec.needs


def refuse_counterfactuals(suite: "Suite", chosen: Mapping[str, Sequence[Offer]]) -> None:
    """Refuse what a suite asks of a dataset without counterfactuals that only counterfactuals give.

    Raises
    ------
    UserError
        When there is such a thing; the message names the first. Single methods are left out instead (`about_left_out`).
    """
    for dataset in filter(is_grouped, chosen["dataset"]):
        for asked in _asked(suite, chosen["method"]):
            raise UserError(f"dataset {dataset.spec.name} has groups and no counterfactuals: {asked}")


def about_left_out(offers: Sequence[Offer]) -> str | None:
    """Say which of the chosen methods are not run on which of the chosen datasets, and why."""
    datasets = [offer.spec.name for offer in filter(is_grouped, offers)]
    methods = [offer.spec.name for offer in filter(needs_counterfactuals, offers)]
    if not (datasets and methods):
        return None
    has, need = ("has" if len(datasets) == 1 else "have"), ("needs" if len(methods) == 1 else "need")
    what = f"no counterfactuals, which {', '.join(methods)} {need}"
    return f"{', '.join(datasets)} {has} {what}: these cells are left out"


def _asked(suite: "Suite", methods: Sequence[Offer]) -> Iterator[str]:
    usual = DataSettings()
    for name in ABOUT_CUES:
        if (value := getattr(suite.data, name)) != getattr(usual, name):
            yield f"data.{name}={value} is about cues: leave it out"
    if "quadratic-nc" in suite.connect.paths:
        yield "the path quadratic-nc needs images without cues: leave it out of connect.paths"
    if suite.pairs:
        yield "pairs are compared on counterfactuals: leave them out"
    if methods and all(map(needs_counterfactuals, methods)):
        yield f"method {methods[0].spec.name} needs every image with its own cue"
