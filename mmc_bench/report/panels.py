"""Figures of many panels: curves of one cue rate in one colour, in rows and columns as the paper has them."""

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mmc_bench.report.curves import Line, Panels
from mmc_bench.report.figures import STYLES
from mmc_bench.report.style import styled

# A sequential palette, made for colour-blind readers too; its lightest part is too faint on white.
PALETTE = "viridis"
LIGHTEST = 0.86
MARKERS = "osD^vPX*"
PANEL = (1.95, 1.55)  # inches
LEARNING_TITLES = {"train": "training accuracy"}


def draw_panels(panels: Panels) -> Figure:
    """Draw every line in its row and column; bands are mean ± standard deviation over seeds."""
    with styled({"lines.linewidth": 1.4, "axes.titlesize": 9, "axes.titleweight": "bold"}):
        width, height = PANEL[0] * len(panels.columns) + 1.6, PANEL[1] * len(panels.rows) + 0.95
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(len(panels.rows), len(panels.columns), sharex=True, sharey=True, squeeze=False)
        looks = _looks(panels)
        for line in panels.lines:
            _draw_line(grid[panels.rows.index(line.row)][panels.columns.index(line.column)], line, looks[line.cue_rate])
        for axes, column in zip(grid[0], panels.columns, strict=True):
            axes.set_title(_title(column, panels))
        for axes, row in zip(grid[:, 0], panels.rows, strict=True):
            axes.set_ylabel(_broken(row), fontweight="bold")
        for axes in grid.flat:
            _finish(axes, panels)
        figure.suptitle("\n".join(wrap(panels.title, int(12 * width))), fontsize=10)
        figure.supxlabel(panels.x_label, fontsize=9)
        figure.supylabel(f"{panels.part} accuracy (%)".strip(), fontsize=9)
        _legend(figure, looks)
    return figure


def _looks(panels: Panels) -> dict[float, dict[str, Any]]:
    """Return the colour and marker of each cue rate: the higher, the darker."""
    palette, rates = matplotlib.colormaps[PALETTE], panels.cue_rates
    steps = max(1, len(rates) - 1)
    return {
        rate: {"color": palette(LIGHTEST * (1 - index / steps)), "marker": MARKERS[index % len(MARKERS)]}
        for index, rate in enumerate(rates)
    }


def _draw_line(axes: Axes, line: Line, look: Mapping[str, Any]) -> None:
    percent = [100 * value for value in line.mean]
    # Learning curves are long: a marker at some points is enough to tell them apart.
    every = max(1, len(percent) // 10)
    axes.plot(line.x, percent, markersize=3.5, markevery=every, label=f"{line.cue_rate:g}", **look)
    if line.std is not None:
        low = [100 * (mean - std) for mean, std in zip(line.mean, line.std, strict=True)]
        high = [100 * (mean + std) for mean, std in zip(line.mean, line.std, strict=True)]
        axes.fill_between(line.x, low, high, color=look["color"], alpha=0.2, linewidth=0)


def _title(column: str, panels: Panels) -> str:
    if panels.x == "epoch":
        return LEARNING_TITLES.get(column) or f"test accuracy, {column}\n({STYLES[column][3]})"
    return f"{column} ({STYLES[column][3]})"


def _finish(axes: Axes, panels: Panels) -> None:
    axes.set_ylim(0, 103)
    axes.set_yticks([0, 25, 50, 75, 100])
    if panels.x == "t":
        axes.set_xlim(-0.04, 1.04)
        axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))


def _legend(figure: Figure, looks: Mapping[float, Mapping[str, Any]]) -> None:
    handles = [Line2D([], [], markersize=4.5, label=f"{rate:g}", **look) for rate, look in looks.items()]
    figure.legend(handles=handles, title="cue rate", title_fontsize=9, loc="outside right center", fontsize=9)


def _broken(row: str) -> str:
    """Return a row's name in short lines."""
    return "\n".join(line for part in row.replace(", ", ",\n").split("\n") for line in wrap(part, 18))
