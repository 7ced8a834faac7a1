"""The picture of what became of the cue: how well it is read, stage by stage, a panel a method."""

from collections.abc import Sequence
from math import ceil
from typing import Any

from mmc_bench.report.style import Figure, styled  # before matplotlib, whose import it guards

# isort: split
from matplotlib.axes import Axes

from mmc_bench.mechanisms.verdicts import HIDDEN, KEPT, REMOVED, UNLINKED
from mmc_bench.report.figures import CHANCE
from mmc_bench.report.probed import CUE_FREE, ProbedSetting
from mmc_bench.report.rows import PRETRAINED, statistic_of
from mmc_bench.results.probes import Hold

# Okabe and Ito's colours.
COLORS = {KEPT: "#D55E00", HIDDEN: "#E69F00", UNLINKED: "#CC79A7", REMOVED: "#009E73"}
OTHER = "#7F7F7F"
#: θ_C and θ_NC, which every panel has.
REFERENCES: dict[str, Any] = {
    PRETRAINED: {"color": "black", "linewidth": 1.0, "label": "pretrained with the cue"},
    CUE_FREE: {"color": "black", "linewidth": 1.0, "linestyle": "--", "label": "pretrained without it"},
}
MOST_COLUMNS = 4


def draw_probed(setting: ProbedSetting) -> Figure:
    """Draw for each method how well a linear probe reads the cue from each stage, between the two references.

    Bands span the seeds. A panel's title has the word, and the numbers that it rests on.
    """
    names = [*setting.by_name]
    columns = min(len(names), MOST_COLUMNS)
    lines = ceil(len(names) / columns)
    with styled({"axes.titlesize": 9}):
        figure = Figure(figsize=(max(4.2, 2.5 * columns + 0.6), 2.5 * lines + 1.1), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for place, axes in enumerate(panels.flat):
            if place >= len(names):
                axes.set_visible(False)
                continue
            _draw_panel(axes, setting, names[place])
            if place + columns >= len(names):
                axes.tick_params(axis="x", labelbottom=True)
        for axes in panels[:, 0]:
            axes.set_ylabel("cue read (%)")
        figure.suptitle(", ".join(setting.title), fontsize=10)
        figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _draw_panel(axes: Axes, setting: ProbedSetting, name: str) -> None:
    stages = [*setting.models[0].own.read]
    for reference, look in REFERENCES.items():
        _draw_line(axes, setting.holds[reference], stages, look)
    words = {model.verdict.word for model in setting.by_name[name]}
    color = COLORS.get(words.pop() or "", OTHER) if len(words) == 1 else OTHER
    _draw_line(axes, setting.holds[name], stages, {"color": color, "linewidth": 2.2, "marker": "o", "markersize": 4})
    axes.axhline(100 * setting.models[0].own.chance, label="chance", **CHANCE)
    axes.set_title(f"{name}: {setting.words(name)}\n{_numbers(setting, name)}")
    axes.set_ylim(0, 105)
    axes.set_xticks(range(len(stages)), stages, rotation=40, ha="right", rotation_mode="anchor", fontsize=7.5)


def _draw_line(axes: Axes, holds: Sequence[Hold], stages: Sequence[str], look: dict[str, Any]) -> None:
    values = [[100 * hold.read[stage] for hold in holds] for stage in stages]
    axes.plot(range(len(stages)), [sum(own) / len(own) for own in values], **look)
    if len(holds) > 1:
        low, high = [min(own) for own in values], [max(own) for own in values]
        axes.fill_between(range(len(stages)), low, high, color=look["color"], alpha=0.12, linewidth=0)


def _numbers(setting: ProbedSetting, name: str) -> str:
    flips = statistic_of([hold.flips for hold in setting.holds[name]])
    barrier = statistic_of([model.barrier for model in setting.by_name[name]])
    shown = [f"flips {100 * flips.mean:.0f} %"] if flips else []
    return ", ".join([*shown, f"barrier {barrier.mean:.2f}"] if barrier else shown)
