"""Figures: the four splits of every method as bars, and the curves along paths."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import log, nan
from pathlib import Path
from typing import Any

from mmc_bench.report.style import Figure, styled  # before matplotlib, whose import it guards

# isort: split
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from mmc_bench.report.curves import OwnScores, own_scores_of_cell, own_scores_of_pair, splits_of
from mmc_bench.report.rows import Row
from mmc_bench.results.jobs import rate_in_words
from mmc_bench.results.metrics import SPLITS
from mmc_bench.results.records import CellRecord, ConnectionRecord, Connectivity, PathRecord, PretrainRecord

# Okabe and Ito's colours keep apart for colour-blind readers; markers and hatches do so in grey print.
STYLES = {
    "NC": ("#0072B2", "o", "", "no cue"),
    "C": ("#009E73", "s", "//", "cue"),
    "RC": ("#E69F00", "^", "..", "randomised cue"),
    "RI": ("#D55E00", "D", "xx", "randomised image"),
}
#: The same for splits and columns of images that come in groups, whose names say what they are.
GROUP_STYLES = {
    "worst_group": ("#D55E00", "D", "xx", ""),
    "mean": ("#0072B2", "o", "", ""),
    "all": ("#0072B2", "o", "", ""),
    "aligned": ("#009E73", "s", "//", ""),
    "conflicting": ("#E69F00", "^", "..", ""),
}
EVERY_STYLE = STYLES | GROUP_STYLES
BARS_OF_GROUPS = ("worst_group", "mean", "aligned", "conflicting")
#: A checkpoint with its own BatchNorm statistics, at the end of a path.
OWN_MARK: Any = {"marker": "D", "linestyle": "", "markersize": 6.5, "markerfacecolor": "none", "clip_on": False}
OWN_LABEL = "checkpoint with its own\nBatchNorm statistics"
CHANCE: Any = {"color": "black", "linestyle": ":", "linewidth": 0.8}
#: From this many times the loss of guessing on, an axis of losses is logarithmic above that loss.
STEEP = 3
STEEP_NOTE = "logarithmic above chance"
LONGEST_NAME = 160


def described(split: str) -> str:
    """Return a split or column with its meaning, for legends: ``"NC (no cue)"``, ``"worst group"``."""
    meaning = EVERY_STYLE[split][3]
    return f"{split} ({meaning})" if meaning else split.replace("_", " ")


def draw_bars(rows: Sequence[Row]) -> Figure:
    """Draw the accuracy on the four splits for each row of one setting; whiskers are standard deviations.

    A repaired model has NC, C and RC alike, and RI at chance, the dashed line. Where images come in groups, bars are
    the worst group, the mean, and the aligned and the conflicting images.
    """
    with styled():
        figure = Figure(figsize=(max(5.6, 0.85 * len(rows) + 1.6), 3.6), layout="constrained")
        axes = figure.subplots()
        bars = BARS_OF_GROUPS if rows[0].cue_rate is None else SPLITS
        width = 0.8 / len(bars)
        for offset, split in enumerate(bars):
            color, _, hatch, _ = EVERY_STYLE[split]
            values = [row.values[split] for row in rows]
            axes.bar(
                [index + (offset - 1.5) * width for index in range(len(rows))],
                [100 * value.mean if value else 0 for value in values],
                width,
                yerr=[100 * value.std if value and value.std is not None else nan for value in values],
                color=color,
                hatch=hatch,
                edgecolor="white",
                error_kw={"linewidth": 0.8, "capsize": 2},
                label=described(split),
            )
        axes.axhline(100 / rows[0].num_classes, color="black", linestyle="--", linewidth=0.8, label="chance")
        axes.set_xticks(range(len(rows)), [row.method.replace(" (", "\n(") for row in rows])
        axes.tick_params(axis="x", length=0)
        if len(rows) > 5:
            for label in axes.get_xticklabels():
                label.set(rotation=20, ha="right", rotation_mode="anchor")
        axes.grid(visible=False, axis="x")
        axes.set_ylim(0, 105)
        axes.set_ylabel("test accuracy (%)")
        first = rows[0]
        axes.set_title(f"{first.dataset}, {first.backbone}, {rate_in_words(first.cue_rate)}", fontsize=10)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def draw_path(record: CellRecord, label: str, pretrained: PretrainRecord | None = None) -> Figure:
    """Draw accuracy and loss on the four splits along the straight path from θ_C to θ_FT; the label is its title.

    `pretrained` is the record of θ_C, for the marks of the two models' own scores.
    """
    path = record.paths["linear"].test
    splits = splits_of(path)
    heights = {split: path.height(split) for split in splits}
    barriers = "   ".join(f"{split} {height.loss:.2f}" for split, height in heights.items() if height)
    title = f"{label}\nloss barriers: {barriers}" if barriers else f"{label}\nonly the ends were measured"
    own = {"test": own_scores_of_cell(record, pretrained)}
    ends = "from pretrained (0) to fine-tuned (1)"
    return _draw_paths({"test": PathRecord(test=path)}, splits, title, ends, own, record.num_classes)


def draw_connection(record: ConnectionRecord, splits: Sequence[str]) -> Figure:
    """Draw accuracy and loss along every path between two checkpoints; training images as dashed lines."""
    ends = record.connection
    dashed = "\ndashed: training images" if ends.connect.train_images else ""
    title = f"A: {ends.first.label}\nB: {ends.second.label}{dashed}"
    own = {part: own_scores_of_pair(record.comparison, part) for part in ("test", "training")}
    return _draw_paths(record.comparison.paths, splits, title, "from A (0) to B (1)", own, record.num_classes)


def _draw_paths(
    paths: Mapping[str, PathRecord],
    splits: Sequence[str],
    title: str,
    ends: str,
    own: Mapping[str, OwnScores],
    num_classes: int,
) -> Figure:
    highest = max(loss for path in paths.values() for loss in _losses(path, splits, own))
    with styled():
        figure = Figure(figsize=(7.2, 2.3 * len(paths) + 1.1), layout="constrained")
        panels = figure.subplots(len(paths), 2, squeeze=False, sharey="col")
        for (name, path), row in zip(paths.items(), panels, strict=True):
            _draw_curves(row, path.test, splits, own["test"], {"markersize": 4, "linewidth": 1.4})
            if path.train:
                dashed = {"marker": "", "linewidth": 1.0, "linestyle": "--"}
                _draw_curves(row, path.train, splits, own["training"], dashed)
            row[0].set_ylabel(f"{name}\naccuracy (%)")
            row[1].set_ylabel("loss (nats)" + f"\n{STEEP_NOTE}" * is_steep(highest, num_classes))
            accuracy_axis(row[0], num_classes)
            loss_axis(row[1], highest, num_classes)
            for axes in row:
                axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        for axes in panels[-1]:
            axes.set_xlabel(f"t,  {ends}")
        figure.suptitle(title, fontsize=9)
        handles = panels[0, 0].get_lines()[: len(splits)]
        labels = [described(split) for split in splits]
        notes = [chance_handle(), *[own_handle()] * any(own.values())]
        labels += [str(handle.get_label()).replace("\n", " ") for handle in notes]
        figure.legend([*handles, *notes], labels, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _losses(path: PathRecord, splits: Sequence[str], own: Mapping[str, OwnScores]) -> Iterator[float]:
    for measured in filter(None, (path.test, path.train)):
        for split in splits:
            yield from measured.splits[split].loss
    for scores in own.values():
        yield from (score.loss for split in splits for score in scores.get(split, ()))


def _draw_curves(
    row: Sequence[Any], path: Connectivity, splits: Sequence[str], own: OwnScores, style: Mapping[str, Any]
) -> None:
    for split in splits:
        color, marker, *_ = EVERY_STYLE[split]
        curve = path.splits[split]
        row[0].plot(path.t, [100 * value for value in curve.accuracy], **{"color": color, "marker": marker, **style})
        row[1].plot(path.t, curve.loss, **{"color": color, "marker": marker, **style})
    # After all curves, whose handles come first in the legend.
    for split in splits:
        if scores := own.get(split):
            ends = (path.t[0], path.t[-1])
            row[0].plot(ends, [100 * score.accuracy for score in scores], color=EVERY_STYLE[split][0], **OWN_MARK)
            row[1].plot(ends, [score.loss for score in scores], color=EVERY_STYLE[split][0], **OWN_MARK)


def accuracy_axis(axes: Axes, num_classes: int | None) -> None:
    """Let an axis show accuracies (%), and the accuracy of guessing among so many classes as a line."""
    axes.set_ylim(0, 103)
    axes.set_yticks([0, 25, 50, 75, 100])
    if num_classes:
        axes.axhline(100 / num_classes, **CHANCE)


def is_steep(highest: float, num_classes: int) -> bool:
    """Tell whether an axis of losses (nats) up to the highest is logarithmic above the loss of guessing."""
    return highest > STEEP * log(num_classes)


def loss_axis(axes: Axes, highest: float, num_classes: int) -> None:
    """Let an axis show losses (nats) up to the highest, and the loss of guessing, ln K, as a line.

    A path can lead far above that loss, where its height says little, while all that models have learnt lies below:
    a steep axis is linear below ln K and logarithmic above.
    """
    chance = log(num_classes)
    axes.axhline(chance, **CHANCE)
    if not is_steep(highest, num_classes):
        axes.set_ylim(0, 1.05 * max(highest, chance))
        return
    axes.set_yscale("symlog", linthresh=chance, linscale=2)
    axes.set_ylim(0, 1.3 * highest)
    axes.yaxis.set_major_locator(FixedLocator(_steep_ticks(chance, highest)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _steep_ticks(chance: float, highest: float) -> list[float]:
    """Return 0, half of chance's loss or what is near it, and round numbers above it, six at most."""
    below = [0.0, float(f"{chance / 2:.1g}")]
    decades = range(len(f"{highest:.0f}"))
    above = [step * 10.0**decade for decade in decades for step in ((1, 3) if highest < 1e3 else (1,))]
    above = [tick for tick in above if 1.2 * chance < tick <= 1.3 * highest]
    return [*below, *above[:: -(-len(above) // 6)]]


def chance_handle() -> Line2D:
    """Return the legend's entry for the line of `accuracy_axis` and `loss_axis`."""
    return Line2D([], [], label="chance", **CHANCE)


def own_handle() -> Line2D:
    """Return the legend's entry for marks of checkpoints with their own BatchNorm statistics."""
    return Line2D([], [], color="black", label=OWN_LABEL, **OWN_MARK)


def save(
    figure: Figure | None, folder: Path, name: str, formats: Sequence[str], numbers: str = "", numbers_name: str = ""
) -> list[Path]:
    """Write a figure once for each format, its numbers where that is ``"csv"``, and return the paths.

    Without a figure, ``"csv"`` is the only format.
    `numbers_name` is the name of the numbers' file, by default that of the figure's.
    """
    paths = []
    for suffix in formats:
        path = folder / f"{slug((suffix == 'csv' and numbers_name) or name)}.{suffix}"
        paths.append(path)
        if suffix == "csv":
            path.write_text(numbers, encoding="utf-8")
            continue
        assert figure is not None
        with styled():
            figure.savefig(path, metadata={"Date": None} if suffix == "svg" else None)
    return paths


def file_names(labels: Mapping[str, str]) -> dict[str, str]:
    """Return a file name for each key's label; those that would be alike or too long end in digits of the key."""
    names = {key: slug(label) for key, label in labels.items()}
    counts = Counter(name.lower() for name in names.values())  # some file systems know no capitals
    return {
        key: name if counts[name.lower()] == 1 and len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{key[:8]}"
        for key, name in names.items()
    }


def slug(text: str) -> str:
    """Return `text` as a file name that is safe everywhere."""
    return re.sub(r"[^A-Za-z0-9.=-]+", "-", text).strip("-.")
