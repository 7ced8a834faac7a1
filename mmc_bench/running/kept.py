"""Predictions that are kept of selected records: measures of them, and frames."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from mmc_bench.errors import UserError
from mmc_bench.report.columns import columns_named, measure_columns
from mmc_bench.report.rows import NO_MEASURES, AnyScores, Measures
from mmc_bench.results.store import Store
from mmc_bench.system.streams import tell

if TYPE_CHECKING:
    import pandas as pd

    from mmc_bench.results.predictions import Predictions

HOW = "mmc-bench run --keep-predictions"

#: What a record is of, and its ``key``, by columns that are alike for all of its rows.
Place = dict[str, Any]
#: Predictions, and what each is of.
Kept = list[tuple[Place, "Predictions"]]


def measures_of(store: Store, records: Sequence[AnyScores], words: Collection[str]) -> Measures:
    """Return the measures among the columns that words name, of the records whose predictions are kept.

    Raises
    ------
    UserError
        When there are such measures, and no predictions.
    """
    wanted = _measures(words)
    if not wanted or not records:
        return NO_MEASURES
    found = found_measures(store, records, wanted)
    lacking = len(records) - len(found)
    if not found:
        raise UserError(
            f"no predictions are kept in {store.root}, and {wanted[0]} is computed from them: {HOW} makes them"
        )
    if lacking:
        tell(f"mmc-bench: {lacking} of {len(records)} records have no predictions: {HOW} makes them")
    return found


def found_measures(store: Store, records: Sequence[AnyScores], columns: Collection[str]) -> Measures:
    """Return these measures of the records whose predictions are kept."""
    from mmc_bench.report.measures import measured

    kept = ((record.key, store.find_predictions(record.key)) for record in records)
    return {key: measured(predictions, columns) for key, predictions in kept if predictions is not None}


def all_measures(is_grouped: bool) -> list[str]:
    """Return all columns that are measures, where test images come in groups or have counterfactuals."""
    return [*chain(*measure_columns(is_grouped).values())]


def kept_predictions(store: Store, places: Iterable[Place]) -> Kept:
    """Return the predictions that are kept, each with what it is of.

    Raises
    ------
    UserError
        When there are none.
    """
    kept = [(place, found) for place in places if (found := store.find_predictions(place["key"])) is not None]
    if not kept:
        raise UserError(f"no predictions are kept in {store.root}: {HOW} makes them")
    return kept


def frame_of_images(kept: Kept) -> "pd.DataFrame":
    """Return a frame with a row for each image and split of each record."""
    import pandas as pd

    parts = []
    for _, one in kept:
        cues = one.cue.reshape(len(one), -1)  # (n, numbers of a code)
        names = ["cue"] if one.cue.ndim == 1 else [f"cue_{number}" for number in range(cues.shape[1])]
        codes = {name: cues[:, number] for number, name in enumerate(names)}
        classes = {f"probability_{k}": one.probabilities[:, k] for k in range(one.probabilities.shape[1])}
        image = {"split": one.split, "image": one.image, "label": one.label, **codes, "group": one.group}
        parts.append(pd.DataFrame({**image, "predicted": one.predicted, **classes}))
    images = pd.concat(parts, ignore_index=True).astype({"split": "category"})
    places = pd.DataFrame([place for place, _ in kept])
    words = dict.fromkeys(("dataset", "backbone", "method", "key"), "category")
    repeated = places.astype(words).loc[places.index.repeat([len(one) for _, one in kept])].reset_index(drop=True)
    return pd.concat([repeated, images], axis=1)


def frame_of_classes(kept: Kept) -> "pd.DataFrame":
    """Return a frame with the accuracy of each record on the images of each split and label."""
    import pandas as pd

    from mmc_bench.report.measures import class_accuracies

    rows = []
    for place, one in kept:
        for split, images in one.splits.items():
            accuracies = class_accuracies(images)
            for label, count in sorted(Counter(images.label.tolist()).items()):
                figures = {"label": label, "images": count, "accuracy": accuracies[label]}
                rows.append({**place, "split": split, **figures})
    return pd.DataFrame(rows)


def frame_of_groups(kept: Kept) -> "pd.DataFrame":
    """Return a frame with the accuracy of each record on each group of label and cue of RC, or label and attribute."""
    import pandas as pd

    from mmc_bench.report.measures import group_accuracies

    rows = []
    for place, one in kept:
        images = one.rows(one.group >= 0)
        for group, accuracy in enumerate(group_accuracies(images).tolist()):
            own = images.rows(images.group == group)
            is_one_cue = own.cue.ndim == 1 and (own.cue == own.cue[0]).all()
            cue = own.cue[0].item() if is_one_cue else None
            figures = {"group": group, "label": int(own.label[0]), "cue": cue, "images": len(own), "accuracy": accuracy}
            rows.append({**place, **figures})
    return pd.DataFrame(rows)


def _measures(words: Collection[str]) -> list[str]:
    columns = [column for is_grouped in (False, True) for column in columns_named(words, is_grouped)]
    measures = {*all_measures(False), *all_measures(True)}
    return [column for column in dict.fromkeys(columns) if column in measures]
