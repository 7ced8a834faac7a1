"""Digests of values that refer to others, and through these to themselves."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


class ValueReference(str):
    """Stands in content for a value that refers to itself, or to one that does."""


class Unordered(list[str]):
    """Digests, or references, whose order says nothing."""


def has_reference(content: Any) -> bool:
    """Tell whether content, nested lists of plain data, refers to a value."""
    return any(map(has_reference, content)) if isinstance(content, list) else isinstance(content, ValueReference)


def digest_of_content(content: Any, digests: Mapping[ValueReference, str] = {}) -> str:
    """Return the SHA-256 of content as JSON, with digests in place of its references."""
    return hashlib.sha256(json.dumps(_resolved(content, digests)).encode()).hexdigest()


def digest_in_cycle(value: ValueReference, contents: Mapping[ValueReference, Any]) -> str:
    """Return the digest of a value, from its content and that of all values that this refers to.

    At first all values have one digest. Each then gets that of its content, in which the digests of other values stand
    for these, again and again, until that tells no more values apart: colour refinement. So it matters neither where
    reading begins nor whether two equal values are one.
    """
    before: dict[ValueReference, str] = {}
    after = dict.fromkeys(contents, "")
    while len({*before.values()}) < len({*after.values()}):
        before, after = after, {one: digest_of_content(content, after) for one, content in contents.items()}
    return digest_of_content([after[value], sorted({(before[one], after[one]) for one in after})])


def _resolved(content: Any, digests: Mapping[ValueReference, str]) -> Any:
    if isinstance(content, list):
        parts = [_resolved(part, digests) for part in content]
        return sorted(parts) if isinstance(content, Unordered) else parts
    return digests[content] if isinstance(content, ValueReference) else content
