"""What methods reach along an axis of a suite: scores by method, value of the axis and seed."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from mmc_bench.report.rows import PRETRAINED, Statistic, note_of, statistic_of, values_of_cell, values_of_model
from mmc_bench.report.tables import csv_text
from mmc_bench.results.jobs import Cell
from mmc_bench.results.records import CellRecord, PretrainRecord
from mmc_bench.results.scores import CellScores, ModelScores

#: What is shown along an axis, as `mmc_bench.report.rows.COLUMNS` has it: fractions, and the cue reliance.
SHOWN = ("NC", "RC", "cue_reliance")

#: The columns of `SHOWN` by value of the axis and seed.
Scores = Mapping[float, Mapping[int, Mapping[str, float]]]


@dataclass(frozen=True)
class AxisCurves:
    """One setting of a suite along one of its axes.

    `axis` is its key (``"data.clean_images"``). `scores` are by method, the pretrained models first. The label of the
    dataset says where other axes stand.
    """

    axis: str
    dataset: str
    backbone: str
    cue_rate: float
    num_classes: int
    scores: Mapping[str, Scores]

    @property
    def name(self) -> str:
        """The axis without its section or plugin: ``"clean_images"``."""
        return self.axis.rpartition(".")[2]

    @property
    def values(self) -> list[float]:
        """The values of the axis that have records, ascending."""
        return sorted({*chain.from_iterable(self.scores.values())})

    def seeds_of(self, method: str) -> tuple[int, ...]:
        """Return the seeds of which a method has a record at each of its values."""
        return tuple(sorted(set.intersection(*map(set, self.scores[method].values()))))

    def along(self, method: str, column: str, seeds: Iterable[int] | None = None) -> dict[float, Statistic]:
        """Return the mean and deviation of one of `SHOWN` at each value with records, ascending.

        They are over these seeds, as far as a value has them, or over all.
        """
        wanted = None if seeds is None else {*seeds}
        along = {}
        for value, own in sorted(self.scores[method].items()):
            found = [scores[column] for seed, scores in own.items() if wanted is None or seed in wanted]
            if found and (statistic := statistic_of(found)):
                along[value] = statistic
        return along

    def as_csv(self) -> str:
        """Return every point of every method: means over seeds and their deviations."""
        columns = [name for column in SHOWN for name in (column, f"{column}_std")]
        head = ("dataset", "backbone", "cue_rate", "method", "axis", "value", "seeds", *columns)
        return csv_text(head, self._lines())

    def _lines(self) -> Iterator[dict[str, Any]]:
        place = {"dataset": self.dataset, "backbone": self.backbone, "cue_rate": self.cue_rate, "axis": self.axis}
        for method, points in self.scores.items():
            along = {column: self.along(method, column) for column in SHOWN}
            for value in sorted(points):
                line = {**place, "method": method, "value": value, "seeds": " ".join(map(str, sorted(points[value])))}
                for column in SHOWN:
                    line |= {column: along[column][value].mean, f"{column}_std": along[column][value].std}
                yield line


def is_logarithmic(values: Iterable[float]) -> bool:
    """Whether values are far enough apart for their ratios to matter: all above 0, and the largest twice the least."""
    values = [*values]
    return min(values) > 0 and max(values) >= 2 * min(values)


def axis_curves(
    points: Sequence[tuple[Mapping[str, Any], Sequence[Cell]]],
    cells: Iterable[CellRecord | CellScores],
    models: Iterable[PretrainRecord | ModelScores],
) -> list[AxisCurves]:
    """Gather records along each axis that has numbers for values, setting by setting; those on counterfactuals alone.

    Parameters
    ----------
    points
        The cells at each combination of the axes' values, which are by key.
    """
    made = {record.key: record for record in cells}
    before = {record.key: record for record in models}
    labels = _method_labels(cell for _, own in points for cell in own)
    curves: dict[tuple[str, str, str, float], dict[str, dict[float, dict[int, Any]]]] = {}
    classes: dict[tuple[str, str, str, float], int] = {}
    for axis in _numeric_axes([values for values, _ in points]):
        for values, own in points:
            rest = {key: value for key, value in values.items() if key != axis}
            note = f" ({note_of(rest, rest)})" if rest else ""
            for cell in own:
                start, record = cell.pretraining, made.get(cell.key)
                model = before.get(start.key)
                if record is None or model is None or start.cue_rate is None:
                    continue
                place = (axis, start.dataset.name + note, start.network, start.cue_rate)
                scores, classes[place] = curves.setdefault(place, {PRETRAINED: {}}), record.num_classes
                for name, found in (
                    (PRETRAINED, values_of_model(model)),
                    (labels[cell.method.distribution, cell.method.name], values_of_cell(record)),
                ):
                    scores.setdefault(name, {}).setdefault(values[axis], {})[start.seed] = found
    found_curves = (AxisCurves(*place, classes[place], scores) for place, scores in curves.items())
    return [curve for curve in found_curves if len(curve.values) > 1]


def _numeric_axes(values: Sequence[Mapping[str, Any]]) -> list[str]:
    def is_number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    return [axis for axis in (values[0] if values else ()) if all(is_number(point[axis]) for point in values)]


def _method_labels(cells: Iterable[Cell]) -> dict[tuple[str, str], str]:
    """Return a label for each method, by its distribution and name: the name, and whose it is where several have it."""
    methods = {(cell.method.distribution, cell.method.name) for cell in cells}
    counts = Counter(name for _, name in methods)
    return {(whose, name): name if counts[name] == 1 else f"{whose}:{name}" for whose, name in methods}
