"""Digests of values that refer to others, and through these to themselves."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class ValueReference(str):
    """Stands in content for a value that refers to itself, or to one that does."""


class Unordered(list[str]):
    """Digests, or references, whose order says nothing."""


@dataclass
class Outline:
    """Content, nested lists of plain data, as a digest of all but its references, and these.

    Attributes
    ----------
    digest
        SHA-256 of the content, in which all references are alike.
    ordered
        The references outside `Unordered` parts.
    unordered
        Those in each such part.
    """

    digest: str = ""
    ordered: list[ValueReference] = field(default_factory=list)
    unordered: list[list[ValueReference]] = field(default_factory=list)

    @classmethod
    def of(cls, content: Any) -> "Outline":
        """Return the outline of content."""
        outline = cls()
        outline.digest = _digest(outline._without_references(content))
        return outline

    @property
    def refers(self) -> bool:
        """Whether the content has references."""
        return bool(self.ordered or any(self.unordered))

    def _without_references(self, content: Any) -> Any:
        if isinstance(content, ValueReference):
            self.ordered.append(content)
            return {}  # which no content has
        if isinstance(content, Unordered):
            self.unordered.append([part for part in content if isinstance(part, ValueReference)])
            return sorted(part for part in content if not isinstance(part, ValueReference))
        return [self._without_references(part) for part in content] if isinstance(content, list) else content

    def digest_with(self, digests: Mapping[ValueReference, str]) -> str:
        """Return the digest of the content with digests in place of its references."""
        unordered = [sorted(digests[one] for one in part) for part in self.unordered]
        return _digest([self.digest, [digests[one] for one in self.ordered], unordered])


def digest_in_cycle(value: ValueReference, outlines: Mapping[ValueReference, Outline]) -> str:
    """Return the digest of a value, from the outlines of its content and of that of all values that this refers to.

    At first all values have one digest. Each then gets that of its content, in which the digests of other values stand
    for these, again and again, until that tells no more values apart: colour refinement. So it matters neither where
    reading begins nor whether two equal values are one.
    """
    before: dict[ValueReference, str] = {}
    after = dict.fromkeys(outlines, "")
    while len({*before.values()}) < len({*after.values()}):
        before, after = after, {one: outline.digest_with(after) for one, outline in outlines.items()}
    return _digest([after[value], sorted({(before[one], after[one]) for one in after})])


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
