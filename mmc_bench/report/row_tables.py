"""Rows as a report: a table for each dataset, backbone and cue rate."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from mmc_bench.report.columns import check_columns, columns_named, measure_columns
from mmc_bench.report.other_cue import GROWTH, OTHER_COLUMNS
from mmc_bench.report.protocols import in_words
from mmc_bench.report.rows import ACCURACIES, COLUMNS, GROUP_COLUMNS, Row, Statistic
from mmc_bench.report.tables import ABSENT, Report, TextTable, of_seeds, one_line, rounded
from mmc_bench.results.jobs import rate_in_words

HEADERS = {
    "worst_split": "worst split",
    "cue_reliance": "cue reliance",
    "barrier_C": "barrier C",
    "barrier_NC": "barrier NC",
    "worst_group": "worst group",
    **{
        column: column.replace("_", " ")
        for column in chain(OTHER_COLUMNS, *measure_columns(False).values(), *measure_columns(True).values())
    },
}
#: Columns that are shown in per cent.
PER_CENT = (*ACCURACIES, *GROUP_COLUMNS[:4], "gap")
#: The same of columns for each split.
PER_CENT_OF_A_SPLIT = ("worst_class_", "ece_", "flips_")

PLACE = ("dataset", "backbone", "cue_rate", "method", "seeds")
TUNED = ("protocol", "gap", "gap_std")


def render(rows: Sequence[Row], form: str, columns: Sequence[str] = ()) -> str:
    """Return rows in one of `FORMATS`.

    For people, accuracies are in per cent, as mean ± standard deviation. CSV and JSON have fractions: a column for
    each mean and one for its deviation, or ``{"mean": …, "std": …}``. Rows whose images come
    in groups have columns and tables of their own.

    Parameters
    ----------
    columns
        The columns to show (`mmc_bench.report.columns.columns_named`), instead of those of records.

    Raises
    ------
    UserError
        When one is a column of none of the rows.
    """
    if columns:
        check_columns(columns, {row.cue_rate is None for row in rows})
        rows = [replace(row, values=_named(row, columns)) for row in rows]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        title = [one_line(row.dataset), one_line(row.backbone), rate_in_words(row.cue_rate)]
        groups.setdefault((*title, *([in_words(row)] if row.protocol else [])), []).append(row)
    tuned = any(row.protocol for row in rows)
    names = dict.fromkeys(name for row in rows for name in row.values)
    return Report(
        blocks=[block for title, group in groups.items() for block in _blocks(group, bool(columns), *title)],
        columns=[*PLACE, *[*TUNED] * tuned, *chain.from_iterable((name, f"{name}_std") for name in names)],
        lines=map(_flat, rows),
        content=[row.as_dict() for row in rows],
    ).render(form)


def _named(row: Row, words: Sequence[str]) -> dict[str, Statistic | None]:
    return {column: row.values.get(column) for column in columns_named(words, row.cue_rate is None)}


def _blocks(rows: Sequence[Row], is_chosen: bool, *title: str) -> Iterator[str | TextTable]:
    """Yield the table of rows; without a choice of columns, a second one where images have a second cue."""
    usual = GROUP_COLUMNS if rows[0].cue_rate is None else COLUMNS
    columns = tuple(rows[0].values) if is_chosen else usual
    yield _table(rows, [*columns, *["gap"] * (rows[0].protocol is not None)], *title)
    of_other_cue = [name for name in OTHER_COLUMNS if any(name in row.values for row in rows)]
    if of_other_cue and not is_chosen:
        yield _table(rows, ["cue_reliance", *of_other_cue], *title, "two cues")
        yield from _growth(rows)


def _table(rows: Sequence[Row], columns: Sequence[str], *title: str) -> TextTable:
    every = max((row.seeds for row in rows), key=len)
    lines = []
    for row in rows:
        values = {**row.values, "gap": row.gap}
        lines.append([of_seeds(row.method, row.seeds, every), *(_cell(name, values.get(name)) for name in columns)])
    note = f"mean ± standard deviation over seeds {' '.join(map(str, every))}" if len(every) > 1 else f"seed {every[0]}"
    return TextTable(["method", *(HEADERS.get(name, name) for name in columns)], lines, title=title, note=note)


def _growth(rows: Sequence[Row]) -> Iterator[str]:
    """Say under which methods the reliance on a second cue grew, where several seeds tell."""
    clauses = []
    for split, name in GROWTH.items():
        found = [(row.method, value) for row in rows if (value := row.values.get(name)) and value.std is not None]
        grew = [f"{method} ({_cell(name, value)})" for method, value in found if value.mean > (value.std or 0)]
        clauses += [f"on {split} under {', '.join(grew) or 'no method'}"] * bool(found)
    if clauses:
        yield f"Reliance on the other cue grew by more than its standard deviation over seeds {'; '.join(clauses)}."


def shown(column: str, mean: float | None, spread: float | None, sign: str = "") -> str:
    """Return a column's mean and spread for people: ``"54.0 ± 1.2"``, accuracies in per cent."""
    if mean is None:
        return ABSENT
    is_share = column in PER_CENT or column.startswith(PER_CENT_OF_A_SPLIT)
    digits_of = {"seconds": 1, "brier": 3, "auroc": 3}  # the last two are often near an end of their range
    scale, digits = (100, 1) if is_share else (1, digits_of.get(column.partition("_")[0], 2))
    text = rounded(scale * mean, digits, sign)
    return text if spread is None else f"{text} ± {rounded(scale * spread, digits)}"


def _cell(column: str, value: Statistic | None) -> str:
    return shown(column, value.mean, value.std, "+" if column in GROWTH.values() else "") if value else ABSENT


def _flat(row: Row) -> dict[str, Any]:
    place = {name: getattr(row, name) for name in PLACE} | {"seeds": " ".join(map(str, row.seeds))}
    values = {name: value and value.mean for name, value in row.values.items()}
    gap = {} if row.protocol is None else {"protocol": row.protocol, "gap": row.gap and row.gap.mean}
    if row.gap:
        gap["gap_std"] = row.gap.std
    return place | gap | values | {f"{name}_std": value and value.std for name, value in row.values.items()}
