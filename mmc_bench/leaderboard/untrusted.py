"""Untrusted text from records and submissions, made harmless for where it is shown."""

import re

from mmc_bench.system.streams import printable

LONGEST = 200
#: What Markdown, and GitHub's kind of it, gives a meaning within a line: markup, code, maths, links, references.
MEANINGFUL = re.compile(r"[\\`*_{}\[\]()|~#$:!^=]")
#: Control characters, halves of characters, and what turns or hides text: they could make one name look like another.
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]")
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


def readable(text: str) -> str:
    """Return text in which control characters and those that reorder or hide text are spelled out.

    >>> readable("safe\\u202eevil")
    'safe⟨U+202E⟩evil'
    """
    return UNSEEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)
