"""Rows as a report: a table for each dataset, backbone and cue rate."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from mmc_bench.report.rows import ACCURACIES, COLUMNS, Row, Statistic
from mmc_bench.report.tables import ABSENT, Report, Table, one_line, rounded

HEADERS = {
    "worst_split": "worst split",
    "cue_reliance": "cue reliance",
    "barrier_C": "barrier C",
    "barrier_NC": "barrier NC",
}
PLACE = ("dataset", "backbone", "cue_rate", "method", "seeds")


def render(rows: Sequence[Row], form: str) -> str:
    """Return rows in one of `FORMATS`.

    For people, accuracies are in per cent, as mean ± standard deviation. CSV and JSON have fractions: a column for
    each mean and one for its deviation, or ``{"mean": …, "std": …}``.
    """
    groups: dict[tuple[str, str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((one_line(row.dataset), one_line(row.backbone), row.cue_rate), []).append(row)
    return Report(
        blocks=[_table(group, place[0], place[1], f"cue rate {place[2]:g}") for place, group in groups.items()],
        columns=[*PLACE, *chain.from_iterable((name, f"{name}_std") for name in COLUMNS)],
        lines=map(_flat, rows),
        content=[row.as_dict() for row in rows],
    ).render(form)


def _table(rows: Sequence[Row], *title: str) -> Table:
    every = max((row.seeds for row in rows), key=len)
    lines = []
    for row in rows:
        # A mean over fewer seeds than its neighbours' must not pass for theirs.
        partial = f" (seeds {' '.join(map(str, row.seeds))})" if row.seeds != every else ""
        lines.append([row.method + partial, *(_cell(name, row.values[name]) for name in COLUMNS)])
    note = f"mean ± standard deviation over seeds {' '.join(map(str, every))}" if len(every) > 1 else f"seed {every[0]}"
    return Table(["method", *(HEADERS.get(name, name) for name in COLUMNS)], lines, title=title, note=note)


def _cell(column: str, value: Statistic | None) -> str:
    if value is None:
        return ABSENT
    scale, digits = (100, 1) if column in ACCURACIES else (1, 1 if column == "seconds" else 2)
    text = rounded(scale * value.mean, digits)
    return text if value.std is None else f"{text} ± {rounded(scale * value.std, digits)}"


def _flat(row: Row) -> dict[str, Any]:
    place = {name: getattr(row, name) for name in PLACE} | {"seeds": " ".join(map(str, row.seeds))}
    values = {name: value and value.mean for name, value in row.values.items()}
    return place | values | {f"{name}_std": value and value.std for name, value in row.values.items()}
