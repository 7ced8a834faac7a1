"""Figures of many panels: curves of one cue rate in one colour, in rows and columns as the paper has them."""

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from mmc_bench.report.style import Figure, styled  # before matplotlib, whose import it guards

# isort: split
import matplotlib
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mmc_bench.report.curves import OWN, Average, Line, Panels
from mmc_bench.report.figures import (
    OWN_MARK,
    STEEP_NOTE,
    accuracy_axis,
    chance_handle,
    described,
    is_steep,
    loss_axis,
    own_handle,
)

# A sequential palette, made for colour-blind readers too; its lightest part is too faint on white.
PALETTE = "viridis"
LIGHTEST = 0.86
MARKERS = "os^vPX*p"
PANEL = (1.95, 1.55)  # inches
LEARNING_TITLES = {"train": "training accuracy"}
UNITS = {"accuracy": "%", "loss": "nats"}


def draw_panels(panels: Panels, measure: str = "accuracy") -> Figure:
    """Draw one measure of every line in its row and column; bands are mean ± standard deviation over seeds."""
    with styled({"lines.linewidth": 1.4, "axes.titlesize": 9, "axes.titleweight": "bold"}):
        width, height = PANEL[0] * len(panels.columns) + 1.6, PANEL[1] * len(panels.rows) + 0.95
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(len(panels.rows), len(panels.columns), sharex=True, sharey=True, squeeze=False)
        looks = _looks(panels)
        for line in panels.lines:
            axes = grid[panels.rows.index(line.row)][panels.columns.index(line.column)]
            _draw_line(axes, line, line.values[measure], 100 if measure == "accuracy" else 1, looks[line.cue_rate])
        for axes, column in zip(grid[0], panels.columns, strict=True):
            axes.set_title(_title(column, panels))
        for axes, row in zip(grid[:, 0], panels.rows, strict=True):
            axes.set_ylabel(_broken(row), fontweight="bold")
        for axes in grid.flat:
            _finish(axes, panels, measure)
        figure.suptitle("\n".join(wrap(panels.title, int(12 * width))), fontsize=10)
        figure.supxlabel(panels.x_label, fontsize=9)
        figure.supylabel(_y_label(panels, measure), fontsize=9)
        _legend(figure, panels, looks)
    return figure


def _looks(panels: Panels) -> dict[float | None, dict[str, Any]]:
    """Return the colour and marker of each cue rate: the higher, the darker."""
    palette, rates = matplotlib.colormaps[PALETTE], panels.cue_rates
    steps = max(1, len(rates) - 1)
    return {
        rate: {"color": palette(LIGHTEST * (1 - index / steps)), "marker": MARKERS[index % len(MARKERS)]}
        for index, rate in enumerate(rates)
    }


def _draw_line(axes: Axes, line: Line, along: Average, scale: float, look: Mapping[str, Any]) -> None:
    mean = [scale * value for value in along.mean]
    label = "groups" if line.cue_rate is None else f"{line.cue_rate:g}"
    if line.statistics == OWN:
        axes.plot(line.x, mean, label=f"{label}, own", color=look["color"], **OWN_MARK)
        return
    # Learning curves are long: a marker at some points is enough to tell them apart.
    axes.plot(line.x, mean, markersize=3.5, markevery=max(1, len(mean) // 10), label=label, **look)
    if along.std is not None:
        spread = [scale * value for value in along.std]
        low, high = ([one + sign * std for one, std in zip(mean, spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(line.x, low, high, color=look["color"], alpha=0.2, linewidth=0)


def _title(column: str, panels: Panels) -> str:
    if panels.x == "epoch":
        return LEARNING_TITLES.get(column) or f"test accuracy, {described(column)}".replace(" (", "\n(")
    return described(column)


def _y_label(panels: Panels, measure: str) -> str:
    is_cut = measure == "loss" and panels.num_classes and is_steep(_highest(panels, measure), panels.num_classes)
    note = f", {STEEP_NOTE}" if is_cut else ""
    return f"{panels.part} {measure} ({UNITS[measure]}{note})".strip()


def _finish(axes: Axes, panels: Panels, measure: str) -> None:
    if measure == "accuracy":
        accuracy_axis(axes, panels.num_classes)
    elif panels.num_classes:
        loss_axis(axes, _highest(panels, measure), panels.num_classes)
    if panels.x == "t":
        axes.set_xlim(-0.04, 1.04)
        axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))


def _highest(panels: Panels, measure: str) -> float:
    return max(value for line in panels.lines for value in line.values[measure].mean)


def _legend(figure: Figure, panels: Panels, looks: Mapping[float | None, Mapping[str, Any]]) -> None:
    rates = [(rate, look) for rate, look in looks.items() if rate is not None]  # none where images come in groups
    handles = [Line2D([], [], markersize=4.5, label=f"{rate:g}", **look) for rate, look in rates]
    notes = [own_handle()] if any(line.statistics == OWN for line in panels.lines) else []
    if panels.num_classes:
        notes.append(chance_handle())
    figure.legend(
        handles=[*handles, *notes],
        title="cue rate" if rates else None,
        title_fontsize=9,
        loc="outside right center",
        fontsize=9,
        alignment="left",
    )


def _broken(row: str) -> str:
    """Return a row's name in short lines."""
    return "\n".join(line for part in row.replace(", ", ",\n").split("\n") for line in wrap(part, 18))
