"""The columns of tables: those of records, and measures of kept predictions on each split."""

from collections.abc import Iterable, Sequence
from itertools import chain

from mmc_bench.errors import UserError, nearest
from mmc_bench.report.other_cue import OTHER_COLUMNS, OTHER_FAMILIES
from mmc_bench.report.rows import COLUMNS, GROUP_COLUMNS
from mmc_bench.results.metrics import GROUP_SPLITS, SPLITS

#: Measures of what a model predicts on the images of one split (`mmc_bench.report.measures`).
MEASURES = ("worst_class", "ece", "brier", "auroc")

#: The splits whose predictions are compared with those on another, image by image.
FLIPS, FLIPS_FROM = ("RC", "RI"), "C"


def measure_columns(is_grouped: bool) -> dict[str, tuple[str, ...]]:
    """Return the columns of each measure, where test images come in groups or have counterfactuals."""
    splits = GROUP_SPLITS if is_grouped else SPLITS
    found = {name: tuple(f"{name}_{split}" for split in splits) for name in MEASURES}
    return found if is_grouped else {**found, "flips": tuple(f"flips_{split}" for split in FLIPS)}


def columns_named(words: Iterable[str], is_grouped: bool) -> list[str]:
    """Return the columns that words name in tables of one kind; a measure alone, for example, is it on every split."""
    measures = measure_columns(is_grouped)
    of_records = GROUP_COLUMNS if is_grouped else (*COLUMNS, "worst_group", *OTHER_COLUMNS)
    own = dict.fromkeys((*of_records, *chain(*measures.values())))
    families = {name: tuple(one for one in OTHER_COLUMNS if one.startswith(f"{name}_")) for name in OTHER_FAMILIES}
    named = [column for word in words for column in {**measures, **families}.get(word, (word,))]
    return [column for column in dict.fromkeys(named) if column in own]


def check_columns(words: Sequence[str], kinds: Iterable[bool] = (False, True)) -> None:
    """Refuse a word that names no column.

    Parameters
    ----------
    kinds
        Whether test images come in groups, for each kind of table that there is.

    Raises
    ------
    UserError
        When a word names no column of these tables.
    """
    kinds = [*kinds]
    for word in words:
        if not any(columns_named([word], is_grouped) for is_grouped in (False, True)):
            measures = [measure_columns(is_grouped) for is_grouped in (False, True)]
            names = [name for found in measures for name in (*found, *chain(*found.values()))]
            known = [*COLUMNS, *OTHER_FAMILIES, *OTHER_COLUMNS, *GROUP_COLUMNS, *names]
            raise UserError(f"unknown column {word!r}: {nearest(word, known)}")
        if not any(columns_named([word], is_grouped) for is_grouped in kinds):
            which = "groups" if kinds == [False] else "counterfactuals"
            raise UserError(f"column {word!r} is of datasets with {which}, and none is selected")
