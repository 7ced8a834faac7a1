"""What the HTML pages have in common: one self-contained file each, a policy, style sheets, text that is harmless.

Text in a record is untrusted. It reaches a page through its template, which escapes it, or as data of its script. The
page's policy allows the style sheet and the script whose digests it carries, and nothing else.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

MINUS = "\u2212"

#: Control characters, halves of characters, and what turns or hides text: they could make one name look like another.
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]")


def environment() -> Environment:
    """Return what templates of pages are rendered in: names are escaped, and unknown ones refused."""
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def asset(package: str, name: str) -> str:
    """Return a file of a package's folder ``page``."""
    return files(package).joinpath("page", name).read_text(encoding="utf-8")


def shared_style(name: str) -> str:
    """Return a style sheet that pages share: ``base.css`` has colours and type, ``tables.css`` panels and tables."""
    return asset("mmc_bench.report", name)


def policy(style: str, script: str = "") -> str:
    """Return a content security policy that allows one style sheet, one script where there is one, and pictures in it.

    Parameters
    ----------
    style, script
        The text between their tags.
    """
    allowed = [f"{kind}-src 'sha256-{_digest(text)}'" for kind, text in (("style", style), ("script", script)) if text]
    return f"default-src 'none'; {'; '.join(allowed)}; img-src data:; base-uri 'none'; form-action 'none'"


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def readable(text: str) -> str:
    """Return text in which control characters and those that reorder or hide text are spelled out.

    >>> readable("safe\\u202eevil")
    'safe⟨U+202E⟩evil'
    """
    return UNSEEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def harmless(content: Any) -> Any:
    """Return JSON-like content whose texts, keys included, are `readable`."""
    if isinstance(content, str):
        return readable(content)
    if isinstance(content, Mapping):
        return {readable(key): harmless(value) for key, value in content.items()}
    return [harmless(item) for item in content] if isinstance(content, list | tuple) else content


def number(value: float, digits: int, sign: str = "") -> str:
    """Return a number with a true minus sign, and never a negative zero; ``sign="+"`` writes the plus, too.

    >>> number(-0.04, 1), number(-3.25, 1), number(3, 1, "+")
    ('0.0', '−3.2', '+3.0')
    """
    text = f"{value:{sign}.{digits}f}"
    if not text.strip("+-0."):
        return text.lstrip("+-")
    return text.replace("-", MINUS)
