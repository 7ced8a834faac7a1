"""Which checks there are for a plugin, and running them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from mmc_bench.plugin.discovery import configured_folders
from mmc_bench.plugin.offers import Offer
from mmc_bench.plugin.registry import Registry
from mmc_bench.testing.checks import Check, Property


def subject_of(offer: Offer, registry: Registry, data: Mapping[str, str] | None = None) -> Any:
    """Return what the properties of an offer's kind are put to.

    Parameters
    ----------
    data
        Folders that stand for image sources, by name; the others are made up.

    Raises
    ------
    UserError
        When a family has no such member.
    """
    offer.check_member()
    module = import_module(f"mmc_bench.testing.{offer.spec.kind}s")
    if offer.spec.kind == "method":
        return module.MethodSubject(offer, registry)
    if offer.spec.kind == "dataset":
        return module.DatasetSubject(offer, dict(data or {}))
    if offer.spec.kind == "observer":
        return module.ObserverSubject(offer)
    return module.BackboneSubject(offer)


def properties_of(kind: str) -> tuple[Property, ...]:
    """Return what a plugin of a kind promises."""
    properties: tuple[Property, ...] = import_module(f"mmc_bench.testing.{kind}s").PROPERTIES
    return properties


def run_checks(offer: Offer, registry: Registry, data: Mapping[str, str] | None = None) -> Iterator[Check]:
    """Yield what is found of each property of an offer, as it is found."""
    subject = subject_of(offer, registry, data)
    for prop in properties_of(offer.spec.kind):
        yield prop.check(subject)


@dataclass(frozen=True)
class Case:
    """One check as a test: call it, and it fails, or is skipped, with the words of the kit."""

    prop: Property
    subject: Any

    @property
    def __name__(self) -> str:
        """What pytest shows."""
        return self.prop.name

    def __call__(self) -> None:
        """Pass, fail or skip."""
        import pytest

        __tracebackhide__ = True
        check = self.prop.check(self.subject)
        if not check.passed:
            pytest.fail(f"{self.subject.label}: {check.message}\nto mend it: {check.remedy}", pytrace=False)
        if check.outcome == "not checked":
            pytest.skip(check.message)


def checks_of(
    kind: str, name: str, *, plugins: Sequence[str | Path] = (), data: Mapping[str, str] | None = None
) -> list[Callable[[], None]]:
    """Return the conformance checks of a plugin, for ``@pytest.mark.parametrize("check", checks_of(…))``.

    Parameters
    ----------
    kind
        ``"method"``, ``"dataset"``, ``"backbone"`` or ``"observer"``.
    name
        As ``mmc-bench list`` has it.
    plugins
        Folders (or files) of plugins to look into besides what is installed.
    data
        Folders of images for a dataset's sources, by name.

    Raises
    ------
    UserError
        When there is no such plugin.
    """
    registry = Registry.discover(configured_folders([str(folder) for folder in plugins]))
    subject = subject_of(registry.get(kind, name), registry, data)
    return [Case(prop, subject) for prop in properties_of(kind)]
