"""What can be run: suites, datasets, backbones, methods, and the observers of runs, as plain data."""

from typing import Any

from mmc_bench.errors import UserError, nearest
from mmc_bench.plugin.registry import Registry
from mmc_bench.suites.suite import load_suite
from mmc_bench.system.streams import sentence, tell

KINDS = ("suites", "datasets", "backbones", "methods", "observers")


def entries_of(kind: str, registry: Registry) -> list[dict[str, Any]]:
    """Return an entry for each suite, dataset, backbone, method or observer.

    Raises
    ------
    UserError
        When there is no such kind.
    """
    if kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}: {nearest(kind, KINDS)}")
    return _suites(registry) if kind == "suites" else _offers(registry, kind.removesuffix("s"))


def _suites(registry: Registry) -> list[dict[str, Any]]:
    files = [file for name in sorted(registry.suites) for file in registry.suites[name]]
    entries = []
    for file in files:
        try:
            entries.append({**load_suite(str(file), {}).content(), "file": str(file)})
        except UserError as error:  # somebody's broken suite must not hide the others
            tell(f"mmc-bench: {sentence(error)}")
    return entries


def _offers(registry: Registry, kind: str) -> list[dict[str, Any]]:
    offers = registry.offers(kind)
    names = [offer.spec.name for offer in offers]
    entries = []
    for offer in offers:
        shared = names.count(offer.spec.name) > 1
        entry = {
            "name": offer.qualified_name if shared else offer.spec.name,
            "distribution": offer.plugin.distribution,
            "version": offer.version,
            "summary": offer.spec.summary,
            "defaults": dict(offer.spec.defaults),
        }
        if kind == "method":
            entry["needs"] = sorted({"clean", *offer.spec.needs})
        if kind == "dataset":
            entry["sources"] = list(offer.spec.sources)
        if kind == "observer":
            entry["remedy"] = offer.spec.remedy
        entries.append(entry)
    return entries
