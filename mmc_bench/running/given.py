"""What callers give in one of several forms: lists, settings, suites."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from mmc_bench.errors import UserError

if TYPE_CHECKING:
    from mmc_bench.suites.suite import Suite

GivenSettings = Mapping[str, Any] | Iterable[str]
GivenAxes = Mapping[str, Any] | Iterable[str]
AnySuite = Union[str, Path, "Suite", Mapping[str, Any]]


def several(values: Any, commas: bool = True) -> list[Any]:
    """Return one value, or several, as a list; a text may have commas between its parts."""
    if values is None:
        return []
    if isinstance(values, str):
        return [part for word in values.split(",") if (part := word.strip())] if commas else [values]
    return list(values) if isinstance(values, Iterable) and not isinstance(values, type) else [values]


def with_trials(settings: GivenSettings, trials: int | None) -> GivenSettings:
    """Return a caller's settings with that of the number of trials before them."""
    if trials is None or not isinstance(settings or (), Iterable):
        return settings
    if isinstance(settings, Mapping):
        return {"tune": trials, **settings}
    return [f"tune={trials}", *([settings] if isinstance(settings, str) else settings or ())]


def part_of(text: str) -> tuple[int, int]:
    """Return which part of how many ``"3/8"`` is.

    Raises
    ------
    UserError
        When it reads otherwise.
    """
    matched = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if matched is None or not 1 <= int(matched[1]) <= int(matched[2]):
        raise UserError(f"{text!r} is no part of a suite: write 3/8 for the third of eight")
    return int(matched[1]), int(matched[2])


def check_given(suite: AnySuite | None, lists: Mapping[str, Any], data: Any, plugins_dir: Any, observe: Any) -> None:
    """Refuse empty text, which would stand for all, images that are given otherwise than by source, and non-names.

    Raises
    ------
    UserError
        When there is such.
    """
    if suite is not None and not suite:
        raise UserError(f"suite {suite!r}: give a suite's name, its file or its content, or leave it out")
    for name, values in lists.items():
        if isinstance(values, str) and not several(values):
            raise UserError(f"{name} = {values!r} is empty: give one or more, or leave it out")
    if not isinstance(data or {}, Mapping):
        raise UserError(f"data = {data!r}: give folders by image source, such as {{'cifar10': 'DIR'}}")
    for folder in several(plugins_dir, commas=False):
        if not isinstance(folder, (str, os.PathLike)):
            raise UserError(f"plugins_dir = {plugins_dir!r}: give a folder or file of plugins, or several")
    for name in several(observe):
        if not isinstance(name, str):
            raise UserError(f"observe = {observe!r}: give an observer's name, or several")
