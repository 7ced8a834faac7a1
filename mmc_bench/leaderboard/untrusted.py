"""Untrusted text from records and submissions, made harmless for where it is shown."""

import re

from mmc_bench.system.streams import printable

LONGEST = 200
#: What Markdown, and GitHub's kind of it, gives a meaning within a line: markup, code, maths, links, references.
MEANINGFUL = re.compile(r"[\\`*_{}\[\]()|~#$:!^=]")
ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
#: A spreadsheet takes a field that begins so for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def markdown(text: str) -> str:
    """Return text that a line of Markdown, or a table's cell, shows as it is: no markup, HTML, link or mention."""
    line = printable(text)
    line = line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
    line = MEANINGFUL.sub(r"\\\g<0>", line).translate(ENTITIES)
    line = re.sub(r"(?i)(www)\.", r"\1\\.", line)
    return line.replace("@", "@<!-- -->")  # a comment ends a mention and a mail address


def csv_field(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: an apostrophe is put before one."""
    line = printable(text)
    return f"'{line}" if line.startswith(FORMULA) else line
