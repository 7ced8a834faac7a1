"""Rows as text: Markdown, CSV, JSON, LaTeX, HTML."""

import json
from collections.abc import Callable, Sequence
from html import escape

import pandas as pd

from mmc_bench.report.rows import ACCURACIES, COLUMNS, Row, Statistic

HEADERS = {
    "worst_split": "worst split",
    "cue_reliance": "cue reliance",
    "barrier_C": "barrier C",
    "barrier_NC": "barrier NC",
}


def render(rows: Sequence[Row], form: str) -> str:
    """Return the table in one of `FORMATS`."""
    return FORMATS[form](rows)


def markdown(rows: Sequence[Row]) -> str:
    """Return one Markdown table for each data set, backbone and cue rate."""
    blocks = []
    for (dataset, backbone, cue_rate), group in _grouped(rows):
        frame = _display(group)
        frame["method"] = frame["method"].str.replace("|", r"\|")
        table = frame.to_markdown(index=False, disable_numparse=True, colalign=_alignment(frame))
        blocks.append(f"**{dataset} · {backbone} · cue rate {cue_rate:g}** ({_seeds(group)})\n\n{table}\n")
    return "\n".join(blocks)


def csv(rows: Sequence[Row]) -> str:
    """Return one flat CSV: every statistic as a column for its mean and one for its deviation."""
    flat = []
    for row in rows:
        record = {
            "dataset": row.dataset,
            "backbone": row.backbone,
            "cue_rate": row.cue_rate,
            "method": row.method,
            "seeds": " ".join(map(str, row.seeds)),
        }
        for name, value in row.values.items():
            record[name] = value.mean if value else None
            record[f"{name}_std"] = value.std if value else None
        flat.append(record)
    return pd.DataFrame(flat).to_csv(index=False)


def as_json(rows: Sequence[Row]) -> str:
    """Return a JSON list of rows, every statistic as ``{"mean": …, "std": …}``, accuracies as fractions."""
    return json.dumps([row.as_dict() for row in rows], indent=1, allow_nan=False) + "\n"


def latex(rows: Sequence[Row]) -> str:
    """Return one LaTeX tabular for each group (it needs the package booktabs)."""
    blocks = []
    for (dataset, backbone, cue_rate), group in _grouped(rows):
        frame = _display(group)
        style = frame.style.hide(axis="index").format(escape="latex").format_index(axis=1, escape="latex")
        table = style.to_latex(hrules=True, column_format="l" + "r" * (len(frame.columns) - 1))
        blocks.append(f"% {dataset}, {backbone}, cue rate {cue_rate:g}, {_seeds(group)}\n{table}")
    return "\n".join(blocks)


def html(rows: Sequence[Row]) -> str:
    """Return one HTML table for each group; names are escaped."""
    blocks = []
    for (dataset, backbone, cue_rate), group in _grouped(rows):
        title = escape(f"{dataset} · {backbone} · cue rate {cue_rate:g} ({_seeds(group)})")
        blocks.append(f"<h3>{title}</h3>\n{_display(group).to_html(index=False, border=0)}\n")
    return "\n".join(blocks)


FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    "md": markdown,
    "csv": csv,
    "json": as_json,
    "latex": latex,
    "html": html,
}


def _grouped(rows: Sequence[Row]) -> list[tuple[tuple[str, str, float], list[Row]]]:
    groups: dict[tuple[str, str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((_one_line(row.dataset), _one_line(row.backbone), row.cue_rate), []).append(row)
    return list(groups.items())


def _display(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the rows as people read them: accuracies in per cent, mean ± standard deviation."""
    every = max((row.seeds for row in rows), key=len)
    table = []
    for row in rows:
        # A mean over fewer seeds than its neighbours' must not pass for theirs.
        partial = f" (seeds {' '.join(map(str, row.seeds))})" if row.seeds != every else ""
        cells = {"method": _one_line(row.method) + partial}
        for name in COLUMNS:
            cells[HEADERS.get(name, name)] = _cell(name, row.values[name])
        table.append(cells)
    return pd.DataFrame(table)


def _cell(column: str, value: Statistic | None) -> str:
    if value is None:
        return "–"
    scale, digits = (100, 1) if column in ACCURACIES else (1, 1 if column == "seconds" else 2)
    text = _rounded(scale * value.mean, digits)
    return text if value.std is None else f"{text} ± {_rounded(scale * value.std, digits)}"


def _one_line(name: str) -> str:
    return " ".join(name.split())


def _rounded(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0 turns -0.0 into 0.0


def _seeds(rows: Sequence[Row]) -> str:
    seeds = max((row.seeds for row in rows), key=len)
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"mean ± standard deviation over seeds {' '.join(map(str, seeds))}"


def _alignment(frame: pd.DataFrame) -> tuple[str, ...]:
    return ("left", *("right",) * (len(frame.columns) - 1))
