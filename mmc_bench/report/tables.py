"""Tables and reports as Markdown, CSV, JSON, LaTeX and HTML."""

import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = "–"
EMPHASISED = re.compile(r"\*\*(.+?)\*\*")
TEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


@dataclass(frozen=True)
class TextTable:
    """Lines of text below headers; text between double asterisks is emphasised.

    Parameters
    ----------
    words
        The number of columns, from the left, that hold words; the others hold numbers.
    title, note
        What stands above the table, in parts: the note in parentheses.
    """

    headers: Sequence[str]
    lines: Sequence[Sequence[str]]
    words: int = 1
    title: Sequence[str] = ()
    note: str = ""

    def as_md(self) -> str:
        """Return a title and a Markdown table."""
        from tabulate import tabulate

        lines = [[one_line(cell).replace("|", r"\|") for cell in line] for line in self.lines]
        alignment = ("left",) * self.words + ("right",) * (len(self.headers) - self.words)
        table = tabulate(lines, self.headers, tablefmt="pipe", disable_numparse=True, colalign=alignment)
        return f"**{' · '.join(map(one_line, self.title))}**{self._noted}\n\n{table}" if self.title else table

    def as_latex(self) -> str:
        """Return a comment and a tabular, which needs the package booktabs."""
        head, *lines = (f"{' & '.join(_tex(cell) for cell in line)} \\\\" for line in (self.headers, *self.lines))
        columns = "l" * self.words + "r" * (len(self.headers) - self.words)
        rules = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", head, "\\midrule", *lines]
        title = [f"% {', '.join(map(one_line, [*self.title, *[self.note] * bool(self.note)]))}"] * bool(self.title)
        return "\n".join([*title, *rules, "\\bottomrule", "\\end{tabular}"])

    def as_html(self) -> str:
        """Return a title and a table, all text escaped."""
        title = f"<h3>{_marked_up(' · '.join(self.title) + self._noted)}</h3>\n" if self.title else ""
        head = "".join(f"<th>{_marked_up(header)}</th>" for header in self.headers)
        body = "".join(f"<tr>{''.join(f'<td>{_marked_up(cell)}</td>' for cell in line)}</tr>\n" for line in self.lines)
        return f"{title}<table>\n<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{body}</tbody>\n</table>"

    @property
    def _noted(self) -> str:
        return f" ({self.note})" if self.note else ""


@dataclass(frozen=True)
class Report:
    """One result in all forms.

    Parameters
    ----------
    blocks
        Paragraphs and tables for people; text between double asterisks is emphasised.
    columns, lines
        The flat lines of the CSV by column; what a line lacks is left empty.
    content
        The JSON, as plain data.
    """

    blocks: Sequence[str | TextTable]
    columns: Sequence[str]
    lines: Iterable[Mapping[str, Any]]
    content: Any

    def render(self, form: str) -> str:
        """Return the report in one of `FORMATS`."""
        if form == "csv":
            return csv_text(self.columns, self.lines)
        if form == "json":
            return json.dumps(self.content, indent=1, allow_nan=False) + "\n"
        return "\n\n".join(PARAGRAPHS[form](b) if isinstance(b, str) else TABLES[form](b) for b in self.blocks) + "\n"


TABLES: dict[str, Callable[[TextTable], str]] = {
    "md": TextTable.as_md,
    "latex": TextTable.as_latex,
    "html": TextTable.as_html,
}
PARAGRAPHS: dict[str, Callable[[str], str]] = {
    "md": str,
    "latex": lambda text: "\n".join(f"% {line}".rstrip() for line in EMPHASISED.sub(r"\1", text).split("\n")),
    "html": lambda text: f"<p>{_marked_up(text)}</p>",
}
FORMATS = ("md", "csv", "json", "latex", "html")


def csv_text(columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    """Return a CSV with a header; what a line lacks is left empty.

    Raises
    ------
    ValueError
        When a line has a column that is not among `columns`.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def one_line(text: str) -> str:
    """Return text without line breaks and runs of spaces."""
    return " ".join(text.split())


def rounded(value: float, digits: int, sign: str = "") -> str:
    """Return a number with so many digits and no negative zero; ``sign="+"`` writes the plus, too."""
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def of_seeds(label: str, seeds: Sequence[int], every: Sequence[int]) -> str:
    """Return a row's label, with its seeds where they are not those that the table's note names."""
    if tuple(seeds) == tuple(every):
        return label
    own = f"seeds {' '.join(map(str, seeds))}" if seeds else "other seeds at each value"
    return f"{label} ({own})"


def yes_or_no(value: bool | None) -> str:
    """Return a verdict in a word; an unknown one is `ABSENT`."""
    return ABSENT if value is None else "yes" if value else "no"


def _tex(text: str) -> str:
    escaped = "".join(TEX.get(character, character) for character in one_line(text))
    return EMPHASISED.sub(r"\\textbf{\1}", escaped)


def _marked_up(text: str) -> str:
    return EMPHASISED.sub(r"<b>\1</b>", html.escape(one_line(text)))
