"""Jobs and records as trackers of experiments log them: flat names, one value each."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from mmc_bench.results.jobs import Job, Pair, Pretraining, kind_of

__all__ = ["EpochFigures", "figures_of", "kind_of", "learning_curve_of", "settings_of"]


def settings_of(job: Job) -> dict[str, Any]:
    """Return what a job is, and the settings that decide its result, under flat names.

    Returns
    -------
    dict
        For example ``{"dataset": "stripes", "seed": 0, "pretrain.epochs": 20, "method": "mine", "method.lr": .1}``.
        The parameters of plugins are those that were given explicitly. A pair has those of its first model, and under
        ``second.…`` those in which its second differs.
    """
    if isinstance(job, Pretraining):
        rate = {} if job.cue_rate is None else {"cue_rate": job.cue_rate}
        settings: dict[str, Any] = {**rate, "seed": job.seed}
        for name, plugin in (("dataset", job.dataset), ("backbone", job.backbone)):
            settings |= {name: plugin.name, **_flat(name, plugin.parameters)}
        return settings | _flat("data", job.data.content()) | _flat("pretrain", job.recipe.content())
    if isinstance(job, Pair):
        first, second = settings_of(job.first), settings_of(job.second)
        return first | {f"second.{name}": value for name, value in second.items() if first.get(name) != value}
    return settings_of(job.pretraining) | {"method": job.method.name, **_flat("method", job.method.parameters)}


def figures_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a record (plain data) that are worth a chart, under flat names.

    Returns
    -------
    dict
        ``accuracy/SET`` (a fraction) and ``loss/SET`` (nats) for the splits NC, C, RC and RI, or for each group of test
        images (``group LABEL-ATTRIBUTE``), and for ``train`` and ``validation``; ``barrier/PATH/SPLIT``, the height of
        the loss barrier (nats) on each path measured; and
        ``seconds`` of the whole job. A pair of models has no accuracies of its own.
    """
    figures: dict[str, float] = {}
    metrics = dict(record.get("metrics", {}))
    for group in metrics.pop("groups", ()):
        metrics[f"group {group['label']}-{group['attribute']}"] = group
    for name, score in metrics.items():
        figures |= {f"accuracy/{name}": score["accuracy"], f"loss/{name}": score["loss"]}
    for name, path in record.get("comparison", record).get("paths", {}).items():
        if len(path["test"]["t"]) > 2:  # between two points, which are the ends, nothing is measured
            figures |= {f"barrier/{name}/{split}": found["loss"] for split, found in path["test"]["barriers"].items()}
    return {**figures, "seconds": sum(record["timing"]["seconds"].values())}


def learning_curve_of(record: Mapping[str, Any]) -> list[dict[str, float]]:
    """Return the accuracies of each epoch of a pretraining's record, ``learning curve/SET``; nothing for another's."""
    return [
        {f"learning curve/{name}": value for name, value in point.items() if name != "train_loss" and value is not None}
        for point in record.get("curve", ())
    ]


class EpochFigures:
    """What one job's events say of its training."""

    def __init__(self) -> None:
        self._stage = ""
        self._epochs: dict[str, int] = defaultdict(int)

    def read(self, event: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
        """Return the figures of an epoch under flat names, and its number, from 1; no figures where it is none.

        They are ``training/STAGE/loss`` and ``training/STAGE/images_per_second``, where they are finite. A stage may
        train more than once, and its epochs are counted through.
        """
        self._stage = event.get("stage", self._stage)
        if "epoch" in event:
            self._epochs[self._stage] += 1
        figures = {
            f"training/{self._stage}/{name}": event[name]
            for name in ("loss", "images_per_second")
            if math.isfinite(event.get(name, math.nan))
        }
        return self._epochs[self._stage], figures


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items()}
