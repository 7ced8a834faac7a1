"""Frozen dataclasses as plain data, their canonical JSON, and the keys that are made of it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache, cached_property
from typing import Any, ClassVar, Self

KEY_VERSION = 3


class Plain:
    """A frozen dataclass that names, or helps to name, a result."""

    #: Read by pydantic: other keys, NaN and infinity are refused.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    def with_changes(self, **changes: Any) -> Self:
        """Return a copy that differs in these fields."""
        return replace(self, **changes)  # type: ignore[type-var]

    def content(self, *without: str) -> dict[str, Any]:
        """Return the fields, but those that are named, as JSON has them."""
        return {name: _plain(value) for name, value in self.members().items() if name not in without}

    def members(self) -> dict[str, Any]:
        """Return the fields as they are, but for what names no result."""
        kind: Any = type(self)
        return {name: getattr(self, name) for name in names_of(kind)}

    def identity(self, *without: str) -> dict[str, Any]:
        """Return what keys are made of: `content` without the fields that came later and have their default.

        Such a field is declared as ``field(default=…, metadata={"added": True})``, in a part of any depth. Its default
        is what held before it came, so the keys of older records stay.
        """
        return {name: _plain(value, Plain.identity) for name, value in self.parts(*without).items()}

    def parts(self, *without: str) -> dict[str, Any]:
        """Return the fields that keys are made of, as they are: see `identity`."""
        kind: Any = type(self)
        added = _added_to(kind)
        return {
            name: value
            for name, value in self.members().items()
            if name not in without and (name not in added or value != added[name])
        }

    @cached_property
    def canonical(self) -> str:
        """The identity as canonical JSON; cells share most of their parts, whose JSON is thus made once."""
        return canonical_json(self.identity())


@cache
def names_of(part: Any) -> tuple[str, ...]:
    """Return the names of a dataclass's fields."""
    return tuple(one.name for one in fields(part))


@cache
def _added_to(part: Any) -> dict[str, Any]:
    """Return the default of each field that came later."""
    return {one.name: one.default for one in fields(part) if "added" in one.metadata}


def _plain(value: Any, of: Callable[[Plain], dict[str, Any]] = Plain.content) -> Any:
    if isinstance(value, Plain):
        return of(value)
    if isinstance(value, dict):
        return {name: _plain(item, of) for name, item in value.items()}
    return [_plain(item, of) for item in value] if isinstance(value, (list, tuple)) else value


def key_of(content: dict[str, Any]) -> str:
    """Return the SHA-256 of `content`, plain data or parts of cells by name, as canonical JSON with the key version."""
    members = {"key_version": KEY_VERSION, **content}
    text = ",".join([f'"{name}":{_text_of(members[name])}' for name in sorted(members)])
    return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()


def canonical_json(content: Any) -> str:
    """Return JSON that is equal for equal content: sorted keys, no spaces, 1.0 written as 1."""
    return _encoded(_canonical(content))


_encoded = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _text_of(value: Any) -> str:
    if isinstance(value, Plain):
        return value.canonical
    return _encoded(value if isinstance(value, str) else _canonical(value))


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
