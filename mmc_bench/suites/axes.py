"""Axes of a suite: settings that take several values, in every combination."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

from mmc_bench.errors import UserError
from mmc_bench.plugin.offers import Offer
from mmc_bench.suites.settings import Setting
from mmc_bench.suites.suite import Suite, overridden


def read_axes(given: Iterable[str] | Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the axes that texts (``"data.clean_images=100,300"``) or a mapping of keys to values give.

    Raises
    ------
    UserError
        When one is malformed.
    """
    if isinstance(given, Mapping):
        return {key: [*v] if isinstance(v, Iterable) and not isinstance(v, str) else [v] for key, v in given.items()}
    if not isinstance(given, Iterable):
        raise UserError(f"axes = {given!r}: give a mapping of settings to values, or texts KEY=VALUE,VALUE")
    return dict(map(_parsed, [given] if isinstance(given, str) else given))


def _parsed(text: str) -> tuple[str, list[Any]]:
    import yaml

    from mmc_bench.system.yaml_files import parse_yaml

    key, _, values = text.partition("=")
    try:
        read: list[Any] = parse_yaml(f"[{values}]")
    except yaml.YAMLError:
        read = []
    if not read:
        raise UserError(f"--axis {text}: write SECTION.key=value,value or PLUGIN.parameter=value,value")
    return key.strip(), read


def combinations(suite: Suite) -> list[dict[str, Any]]:
    """Return every combination of the axes' values, the last axis's fastest; one without values where there is none."""
    return [dict(zip(suite.axes, values, strict=True)) for values in product(*suite.axes.values())]


def suite_at(suite: Suite, values: Mapping[str, Any]) -> Suite:
    """Return a suite without axes, with these values of theirs in force.

    Raises
    ------
    UserError
        When a key is unknown or a value is not allowed.
    """
    settings = [setting_of(key, value) for key, value in values.items()]
    return overridden(replace(suite, axes={}), {}, settings, "axes")


def setting_of(key: str, value: Any) -> Setting:
    """Return an axis's setting; raises `UserError` where the key has no owner, since lists are axes already."""
    setting = Setting.of(key, value, "axis")
    if not setting.owner:
        raise UserError(f"axis {key!r}: write 'SECTION.key' or 'PLUGIN.parameter'")
    if setting.section == "tune":
        raise UserError(f"axis {key!r}: how methods are tuned is no part of a setting, and cannot be an axis")
    return setting


def refuse_both(settings: Iterable[Setting], axes: Iterable[str], offers: Iterable[Offer]) -> None:
    """Refuse a setting of the suite, or of one of these plugins, that an axis would override.

    Raises
    ------
    UserError
        When there is one.
    """
    reached = [tuple(offer.names) for offer in offers]
    for setting, key in product(settings, axes):
        if _targets(setting, reached) & _targets(setting_of(key, None), reached):
            raise UserError(f"{setting}: {key} is an axis of this run: choose its values there, or leave one out")


def open_axes(suite: Suite, settings: Iterable[Setting], offers: Iterable[Offer]) -> list[str]:
    """Return the axes along which images or these plugins change, and of which no setting chooses a value."""
    reached = [tuple(offer.names) for offer in offers]
    given = {target for setting in settings for target in _targets(setting, reached)}
    axes = {key: setting_of(key, None) for key in suite.axes}
    changing = {key: _targets(axis, reached) for key, axis in axes.items() if axis.section != "connect"}
    return [key for key, targets in changing.items() if targets and not targets & given]


def _targets(setting: Setting, reached: Iterable[tuple[str, ...]]) -> set[tuple[Any, str]]:
    """Return what a setting is for: a key of the suite, or a parameter of each plugin that its glob matches."""
    if not setting.owner:
        return {("tune", "trials")} if setting.name == "tune" else set()
    if not setting.plugin:
        return {(setting.owner, setting.name)}
    return {(names, setting.name) for names in reached if any(fnmatchcase(name, setting.plugin) for name in names)}
