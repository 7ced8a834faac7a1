"""Figures along an axis of a suite: what each method reaches at each value."""

from collections.abc import Mapping
from typing import Any

from mmc_bench.report.style import Figure, styled  # before matplotlib, whose import it guards

# isort: split
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from mmc_bench.report.axis_curves import SHOWN, AxisCurves, is_logarithmic
from mmc_bench.report.figures import STYLES, accuracy_axis, chance_handle
from mmc_bench.report.rows import PRETRAINED

# Okabe and Ito's colours without the faint yellow, and grey; markers and dashes tell apart what shares one.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7F7F7F")
MARKERS = "os^DvPX*"
DASHES = ("-", "--", ":")
MODEL: Any = {"color": "black", "marker": "", "linewidth": 1.6}
HALF: Any = {"color": "black", "linestyle": "--", "linewidth": 1.0}


def draw_axis(curves: AxisCurves) -> Figure:
    """Draw NC, RC and the cue reliance of every method along an axis; bands are mean ± standard deviation over seeds.

    The dashed line is half of the pretrained models' cue reliance.
    """
    with styled({"lines.linewidth": 1.4, "axes.titlesize": 10}):
        figure = Figure(figsize=(10.2, 3.6), layout="constrained")
        panels = figure.subplots(1, len(SHOWN))
        looks = _looks(curves)
        for axes, column in zip(panels, SHOWN, strict=True):
            scale = 1 if column == "cue_reliance" else 100
            for method, look in looks.items():
                _draw_line(axes, curves, method, column, scale, look)
            _finish(axes, curves)
        for axes, split in zip(panels, SHOWN[:2], strict=False):
            accuracy_axis(axes, curves.num_classes)
            axes.set_title(f"{split} ({STYLES[split][3]})")
            axes.set_ylabel("test accuracy (%)")
        model = curves.along(PRETRAINED, SHOWN[-1])
        panels[-1].plot(list(model), [one.mean / 2 for one in model.values()], label="half of pretrained", **HALF)
        panels[-1].axhline(0, color="black", linewidth=0.6)
        panels[-1].set_title("cue reliance")
        figure.suptitle(f"{curves.dataset}, {curves.backbone}, cue rate {curves.cue_rate:g}", fontsize=10)
        handles, _ = panels[-1].get_legend_handles_labels()
        figure.legend(handles=[*handles, chance_handle()], loc="outside right center", fontsize=8.5)
    return figure


def _looks(curves: AxisCurves) -> dict[str, Mapping[str, Any]]:
    methods = [name for name in curves.scores if name != PRETRAINED]
    looks: dict[str, Mapping[str, Any]] = {PRETRAINED: MODEL}
    for place, name in enumerate(methods):
        dashes = DASHES[place // len(COLORS) % len(DASHES)]
        looks[name] = {
            "color": COLORS[place % len(COLORS)],
            "marker": MARKERS[place % len(MARKERS)],
            "linestyle": dashes,
        }
    return looks


def _draw_line(axes: Axes, curves: AxisCurves, method: str, column: str, scale: float, look: Mapping[str, Any]) -> None:
    along = curves.along(method, column)
    x, mean = list(along), [scale * one.mean for one in along.values()]
    axes.plot(x, mean, label=method, markersize=4, **look)
    spread = [scale * (one.std or 0) for one in along.values()]
    low, high = ([one + sign * std for one, std in zip(mean, spread, strict=True)] for sign in (-1, 1))
    axes.fill_between(x, low, high, color=look["color"], alpha=0.1, linewidth=0)


def _finish(axes: Axes, curves: AxisCurves) -> None:
    if is_logarithmic(curves.values):
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(curves.values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(curves.values, [f"{value:g}" for value in curves.values])
    axes.set_xlabel(curves.name.replace("_", " "))
