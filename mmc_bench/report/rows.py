"""Records as table rows: means and standard deviations over seeds, the pretrained model first."""

import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Any, TypeVar

from mmc_bench.report.other_cue import growth, with_reliance
from mmc_bench.results.canonical import canonical_json
from mmc_bench.results.jobs import Cell, Pretraining, rate_in_words
from mmc_bench.results.metrics import GroupMetrics, Metrics
from mmc_bench.results.records import CellRecord, PretrainRecord
from mmc_bench.results.scores import CellScores, ModelScores, SplitScores

PRETRAINED = "pretrained"
DEFAULT = "default"
ACCURACIES = ("NC", "C", "RC", "RI", "worst_split")
#: The columns of barriers, and the split that each is the height on.
BARRIERS, BARRIERS_OF_GROUPS = {"barrier_C": "C", "barrier_NC": "NC"}, {"barrier": "all"}
INTERVENED = ("NC", "RC", "RI")  # splits that an intervention makes of C
OMITTED = re.compile(r"^(data|recipe|connect|images)\.|parameters\.")  # parts of a field that labels leave out
DIGEST = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")  # labels show its beginning
COLUMNS = (*ACCURACIES, "cue_reliance", "barrier_C", "barrier_NC", "seconds")
#: The columns of datasets whose test images come in groups.
GROUP_COLUMNS = ("worst_group", "mean", "aligned", "conflicting", "barrier", "seconds")


#: Further values of records, by their keys and columns; None where a measure is not defined.
Measures = Mapping[str, Mapping[str, float | None]]
NO_MEASURES: Measures = MappingProxyType({})

AnyScores = CellRecord | CellScores | PretrainRecord | ModelScores
OneCell = TypeVar("OneCell", CellRecord, CellScores, CellRecord | CellScores)


@dataclass(frozen=True)
class Statistic:
    """Mean and standard deviation (n - 1) over seeds; the latter is None for one seed."""

    mean: float
    std: float | None


@dataclass(frozen=True)
class Row:
    """One method on one pretraining setting. A missing statistic has no meaning there, or no record.

    `cue_rate` is None, and values have `GROUP_COLUMNS`, where test images come in groups. Elsewhere they have
    `COLUMNS`, and ``worst_group`` where records tell it; where the dataset has further test sets, the accuracies on
    these, and `OTHER_COLUMNS` where they tell the reliance on a second cue (`mmc_bench.report.other_cue`).
    `loss_differences` has for each split but C how far its loss lies from that on C, above or below, in nats.
    `worst_by_seed` has the accuracy on the worst split, or group, and `keys` name the records, by seed. Where methods
    are tuned, `protocol` says what chose the parameters, and `gap` is what the worst gains where the choice may know
    the cue (`mmc_bench.report.protocols`).
    """

    dataset: str
    backbone: str
    cue_rate: float | None
    method: str
    seeds: tuple[int, ...]
    num_classes: int
    values: Mapping[str, Statistic | None]
    loss_differences: Mapping[str, Statistic] = field(default_factory=dict)
    worst_by_seed: Mapping[int, float] = field(default_factory=dict)
    keys: Mapping[int, str] = field(default_factory=dict)
    protocol: str | None = None
    gap: Statistic | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the row as ``--format json`` prints it."""
        values = {**self.values, **({"gap": self.gap} if self.protocol else {})}
        statistics_ = {
            name: None if value is None else {"mean": value.mean, "std": value.std} for name, value in values.items()
        }
        return {
            "dataset": self.dataset,
            "backbone": self.backbone,
            "cue_rate": self.cue_rate,
            "method": self.method,
            **({"protocol": self.protocol} if self.protocol else {}),
            "seeds": list(self.seeds),
            **statistics_,
        }


def make_rows(
    cells: Iterable[CellRecord | CellScores],
    pretrained: Iterable[PretrainRecord | ModelScores],
    measures: Measures = NO_MEASURES,
) -> list[Row]:
    """Gather records into rows.

    Records are averaged only over the seed: cells that differ in anything else get rows of their own, whose
    labels say what differs. Order: settings as they come, in each the pretrained model, then the methods as
    they come.

    Parameters
    ----------
    measures
        Further columns, of the records that have them.
    """
    cells, pretrained = list(cells), list(pretrained)
    settings: dict[str, Pretraining] = {}
    setting_of: dict[str, str] = {}  # of each pretraining: cells share them
    for pretraining in [*(record.pretraining for record in pretrained), *(r.cell.pretraining for r in cells)]:
        if pretraining.key not in setting_of:
            setting_of[pretraining.key] = _setting_key(pretraining)
            settings.setdefault(setting_of[pretraining.key], pretraining)
    models: dict[str, list[PretrainRecord | ModelScores]] = defaultdict(list)
    for before in pretrained:
        models[setting_of[before.key]].append(before)
    labels, methods = _setting_labels(settings), _by_method(cells, setting_of)
    started_from = {before.key: before for before in pretrained}

    def values_of(cell: CellRecord | CellScores) -> dict[str, float | None]:
        return values_of_cell(cell, started_from.get(cell.cell.pretraining.key))

    rows: list[Row] = []
    for key, pretraining in settings.items():
        place = (*labels[key], pretraining.cue_rate)
        if models[key]:
            rows.append(_row(place, PRETRAINED, models[key], _seed_of_model, values_of_model, measures))
        rows += [_row(place, name, own, _seed_of_cell, values_of, measures) for name, own in methods.get(key, ())]
    return rows


def cell_labels(cells: Iterable[CellRecord]) -> dict[str, str]:
    """Return a label for every cell, by key: its place and method, each with what tells it from the others."""
    return {key: " · ".join(names) for key, names in cell_names(cells).items()}


def cell_names(cells: Iterable[CellRecord]) -> dict[str, tuple[str, str]]:
    """Return the place and the method of every cell, by key, each with what tells it from the others."""
    records = {record.key: record for record in cells}
    setting_of = {r.cell.pretraining.key: _setting_key(r.cell.pretraining) for r in records.values()}
    labels = _setting_labels({setting_of[r.cell.pretraining.key]: r.cell.pretraining for r in records.values()})
    names = {}
    for setting, methods in _by_method(records.values(), setting_of).items():
        for method, own in methods:
            for record in own:
                p = record.cell.pretraining
                names[record.key] = f"{' '.join(labels[setting])} {rate_in_words(p.cue_rate)} seed {p.seed}", method
    return names


def cue_reliance(ri_accuracy: float, num_classes: int) -> float:
    """Return (RI - 1/K) / (1 - 1/K): 0 at chance, 1 when the cue alone decides; it can be negative."""
    chance = 1 / num_classes
    return (ri_accuracy - chance) / (1 - chance)


def _row(
    place: tuple[str, str, float | None],
    method: str,
    records: Sequence[Any],
    seed_of: Callable[[Any], int],
    values_of: Callable[[Any], dict[str, float | None]],
    measures: Measures,
) -> Row:
    records = sorted(records, key=seed_of)
    values = [{**values_of(record), **measures.get(record.key, {})} for record in records]
    names = dict.fromkeys(chain(*values))
    columns = {name: statistic_of([value.get(name) for value in values]) for name in names}
    if columns["worst_group"] is None:
        del columns["worst_group"]
    dataset, backbone, cue_rate = place
    seeds = tuple(map(seed_of, records))
    losses = {} if cue_rate is None else _loss_differences([record.metrics for record in records])
    headline = "worst_group" if cue_rate is None else "worst_split"
    worst = {seed: value[headline] or 0.0 for seed, value in zip(seeds, values, strict=True)}
    keys = {seed: record.key for seed, record in zip(seeds, records, strict=True)}
    return Row(dataset, backbone, cue_rate, method, seeds, records[0].num_classes, columns, losses, worst, keys)


def _loss_differences(metrics: Sequence[Metrics | SplitScores]) -> dict[str, Statistic]:
    differences = {split: [abs(getattr(one, split).loss - one.C.loss) for one in metrics] for split in INTERVENED}
    return {split: statistic for split, own in differences.items() if (statistic := statistic_of(own))}


def statistic_of(values: Sequence[float | None]) -> Statistic | None:
    """Return the mean and deviation of values, or None where one is missing."""
    present = [value for value in values if value is not None]
    if len(present) < len(values):
        return None
    spread = statistics.stdev(present) if len(present) > 1 else None
    return Statistic(statistics.fmean(present), spread)


def _scores(record: AnyScores) -> dict[str, float | None]:
    metrics = record.metrics
    if isinstance(metrics, GroupMetrics):
        return {**dict.fromkeys(GROUP_COLUMNS[:4]), **metrics.accuracies}
    accuracy = {name: getattr(metrics, name).accuracy for name in ("NC", "C", "RC", "RI")}
    worst = min(accuracy["NC"], accuracy["C"], accuracy["RC"])
    reliance = cue_reliance(accuracy["RI"], record.num_classes)
    return {**accuracy, "worst_split": worst, "cue_reliance": reliance, **_other_scores(record)}


def _other_scores(record: AnyScores) -> dict[str, float]:
    """Return the accuracies on the dataset's further test sets, and the reliance on a second cue."""
    metrics = record.metrics
    if isinstance(metrics, GroupMetrics) or not metrics.others:
        return {}
    others = {name: score.accuracy for name, score in metrics.others.items()}
    return with_reliance(others, {"NC": metrics.NC.accuracy, "C": metrics.C.accuracy}, record.num_classes)


def values_of_model(record: PretrainRecord | ModelScores) -> dict[str, float | None]:
    """Return the values of a row's columns of a pretrained model; it has no barriers."""
    names = BARRIERS_OF_GROUPS if isinstance(record.metrics, GroupMetrics) else BARRIERS
    seconds = {"seconds": record.timing.seconds.get("pretrain")}
    return {**_scores(record), **dict.fromkeys(names), **seconds, "worst_group": _worst_group(record)}


def values_of_cell(
    record: CellRecord | CellScores, before: PretrainRecord | ModelScores | None = None
) -> dict[str, float | None]:
    """Return the values of a row's columns of a cell; `before` is the model that it started from, if it is known."""
    names = BARRIERS_OF_GROUPS if isinstance(record.metrics, GroupMetrics) else BARRIERS
    heights = {name: record.paths["linear"].test.height(split) for name, split in names.items()}
    barriers = {name: height.loss if height else None for name, height in heights.items()}
    seconds = {"seconds": record.timing.seconds.get("fine_tune")}
    grown = growth(_other_scores(record), _other_scores(before)) if before else {}
    return {**_scores(record), **grown, **barriers, **seconds, "worst_group": _worst_group(record)}


def _worst_group(record: AnyScores) -> float | None:
    """Return the lowest accuracy of the groups of test images; None where a record does not tell it."""
    metrics = record.metrics
    return metrics.worst_group.accuracy if isinstance(metrics, GroupMetrics) else record.worst_group


def _seed_of_model(record: PretrainRecord | ModelScores) -> int:
    return record.pretraining.seed


def _seed_of_cell(record: CellRecord | CellScores) -> int:
    return record.cell.pretraining.seed


def _setting_key(pretraining: Pretraining) -> str:
    return canonical_json(pretraining.content("seed"))


def _method_key(cell: Cell) -> str:
    return f"[{cell.method.canonical},{cell.connect.canonical},{canonical_json(cell.versions)}]"


def _setting_labels(settings: Mapping[str, Pretraining]) -> dict[str, tuple[str, str]]:
    """Return (dataset, backbone) labels, the dataset's with whatever else tells two settings apart."""
    contents = {key: setting.content("seed") for key, setting in settings.items()}
    shown = {key: (s.dataset.name, s.network, s.cue_rate) for key, s in settings.items()}
    notes = differences(contents, shown)
    return {key: (s.dataset.name + notes[key], s.network) for key, s in settings.items()}


def _by_method(cells: Iterable[OneCell], setting_of: Mapping[str, str]) -> dict[str, list[tuple[str, list[OneCell]]]]:
    """Return cells by setting, those of one method together, with a label that distinguishes it in its setting."""
    found: dict[str, dict[str, list[OneCell]]] = defaultdict(lambda: defaultdict(list))
    for record in cells:
        found[setting_of[record.cell.pretraining.key]][_method_key(record.cell)].append(record)
    labelled = {}
    for setting, groups in found.items():
        examples = {key: records[0].cell for key, records in groups.items()}
        contents = {
            key: {
                "parameters": cell.method.parameters,
                "version": cell.method.version,
                "distribution": cell.method.distribution,
                "connect": cell.connect.content(),
                "stages": cell.versions,
            }
            for key, cell in examples.items()
        }
        notes = differences(contents, {key: cell.method.name for key, cell in examples.items()})
        labelled[setting] = [(examples[key].method.name + notes[key], records) for key, records in groups.items()]
    return labelled


def differences(contents: Mapping[str, Mapping[str, Any]], shown: Mapping[str, Any]) -> dict[str, str]:
    """Return, for things that would be shown alike, a note of the values in which they differ."""
    flat = {key: flattened(content) for key, content in contents.items()}
    alike = defaultdict(list)
    for key, label in shown.items():
        alike[label].append(key)
    notes = {}
    for keys in alike.values():
        differing = differing_fields([flat[key] for key in keys])
        for key in keys:
            note = note_of(flat[key], differing)
            notes[key] = f" ({note})" if note else ""
    return notes


def differing_fields(contents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the fields, by name, in which flattened contents differ."""
    fields = sorted({field for content in contents for field in content})
    return [field for field in fields if len({repr(content.get(field, DEFAULT)) for content in contents}) > 1]


def note_of(content: Mapping[str, Any], fields: Iterable[str]) -> str:
    """Return the values of some fields of flattened content as ``"lr=0.1, epochs=5"``."""
    values = {field: DIGEST.sub(r"\1", str(content.get(field, DEFAULT))) for field in fields}
    return ", ".join(f"{OMITTED.sub('', field)}={value}" for field, value in values.items())


def flattened(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested content as one mapping, whose names have dots between their parts."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            flat.update(flattened(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
