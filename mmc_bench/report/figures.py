"""Figures: the four splits of every method as bars, and the curves along paths."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

from mmc_bench.report.rows import Row
from mmc_bench.report.style import Figure, styled
from mmc_bench.results.records import SPLITS, CellRecord, ConnectionRecord, Connectivity, PathRecord

# Okabe and Ito's colours keep apart for colour-blind readers; markers and hatches do so in grey print.
STYLES = {
    "NC": ("#0072B2", "o", "", "no cue"),
    "C": ("#009E73", "s", "//", "cue"),
    "RC": ("#E69F00", "^", "..", "randomised cue"),
    "RI": ("#D55E00", "D", "xx", "randomised image"),
}
LONGEST_NAME = 160


def draw_bars(rows: Sequence[Row]) -> Figure:
    """Draw the accuracy on the four splits for each row of one setting; whiskers are standard deviations.

    A repaired model has NC, C and RC alike, and RI at chance, the dashed line.
    """
    with styled():
        figure = Figure(figsize=(max(5.6, 0.85 * len(rows) + 1.6), 3.6), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / len(SPLITS)
        for offset, split in enumerate(SPLITS):
            color, _, hatch, meaning = STYLES[split]
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
                label=f"{split} ({meaning})",
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
        axes.set_title(f"{first.dataset}, {first.backbone}, cue rate {first.cue_rate:g}", fontsize=10)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def draw_path(record: CellRecord, label: str) -> Figure:
    """Draw accuracy and loss on the four splits along the straight path from θ_C to θ_FT; the label is its title."""
    path = record.paths["linear"].test
    barriers = "   ".join(f"{split} {path.barriers[split].loss:.2f}" for split in SPLITS)
    ends = "from pretrained (0) to fine-tuned (1)"
    return _draw_paths({"test": PathRecord(test=path)}, SPLITS, f"{label}\nloss barriers: {barriers}", ends)


def draw_connection(record: ConnectionRecord, splits: Sequence[str]) -> Figure:
    """Draw accuracy and loss along every path between two checkpoints; training images as dashed lines."""
    ends = record.connection
    dashed = "\ndashed: training images" if ends.connect.train_images else ""
    title = f"A: {ends.first.label}\nB: {ends.second.label}{dashed}"
    return _draw_paths(record.comparison.paths, splits, title, "from A (0) to B (1)")


def _draw_paths(paths: Mapping[str, PathRecord], splits: Sequence[str], title: str, ends: str) -> Figure:
    with styled():
        figure = Figure(figsize=(7.2, 2.3 * len(paths) + 1.1), layout="constrained")
        panels = figure.subplots(len(paths), 2, squeeze=False, sharey="col")
        for (name, path), row in zip(paths.items(), panels, strict=True):
            _draw_curves(row, path.test, splits, {"markersize": 4, "linewidth": 1.4})
            if path.train:
                _draw_curves(row, path.train, splits, {"marker": "", "linewidth": 1.0, "linestyle": "--"})
            row[0].set_ylabel(f"{name}\naccuracy (%)")
            row[0].set_ylim(0, 103)
            row[1].set_ylabel("loss (nats)")
            row[1].set_ylim(bottom=0)
            for axes in row:
                axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        for axes in panels[-1]:
            axes.set_xlabel(f"t,  {ends}")
        figure.suptitle(title, fontsize=9)
        handles = panels[0, 0].get_lines()[: len(splits)]
        labels = [f"{split} ({STYLES[split][3]})" for split in splits]
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _draw_curves(row: Sequence[Any], path: Connectivity, splits: Sequence[str], style: Mapping[str, Any]) -> None:
    for split in splits:
        color, marker, *_ = STYLES[split]
        curve = path.splits[split]
        row[0].plot(path.t, [100 * value for value in curve.accuracy], **{"color": color, "marker": marker, **style})
        row[1].plot(path.t, curve.loss, **{"color": color, "marker": marker, **style})


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str], numbers: str = "") -> list[Path]:
    """Write a figure once for each format, its numbers where that is ``"csv"``, and return the paths."""
    paths = []
    for suffix in formats:
        path = folder / f"{slug(name)}.{suffix}"
        paths.append(path)
        if suffix == "csv":
            path.write_text(numbers, encoding="utf-8")
            continue
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
