"""Finding plugins, naming what they offer, and reporting those that are broken."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from mmc_bench.errors import NothingSelectedError, UserError, nearest
from mmc_bench.plugin import hookspecs
from mmc_bench.plugin.discovery import Candidate, entry_point_candidates, folder_candidates
from mmc_bench.plugin.offers import Offer, Plugin, one_line
from mmc_bench.plugin.specs import NAME, BackboneSpec, DatasetSpec, MethodSpec, ObserverSpec, PluginSpec
from mmc_bench.plugin.versions import (
    OWN_DISTRIBUTION,
    built_in_source,
    built_in_version,
    check_loaded,
    editable_source,
)
from mmc_bench.system.imported_source import ImportedSource
from mmc_bench.system.process_state import kept

KINDS: dict[str, type[PluginSpec]] = {
    "dataset": DatasetSpec,
    "backbone": BackboneSpec,
    "method": MethodSpec,
    "observer": ObserverSpec,
}


class Registry:
    """Everything the discovered plugins offer.

    Parameters
    ----------
    candidates
        Plugins to load, in order. A broken one is kept with its error and never stops the others.
    """

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self.plugins: list[Plugin] = []
        self.notices: list[str] = []
        self.suites: dict[str, list[Path]] = defaultdict(list)
        self.published: dict[str, list[Path]] = defaultdict(list)
        self._offers: dict[str, dict[str, list[Offer]]] = {kind: defaultdict(list) for kind in KINDS}
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        for candidate in candidates:
            self._add(candidate, manager)

    @classmethod
    def discover(cls, folders: Sequence[str | Path] = ()) -> "Registry":
        """Load the plugins of every installed distribution, then those of `folders`."""
        return cls([*entry_point_candidates(), *folder_candidates(folders)])

    def _add(self, candidate: Candidate, manager: pluggy.PluginManager) -> None:
        plugin = Plugin(candidate.name, candidate.distribution, candidate.version, candidate.origin)
        # A test sees to it that our own change nothing. The search path stays: a plugin may import more modules later.
        own = candidate.distribution == OWN_DISTRIBUTION
        guard = nullcontext() if own else kept(f"plugin {candidate.name}", self.notices.append, but=("sys.path",))
        try:
            with redirect_stdout(sys.stderr), guard:  # standard output is for results alone
                module = candidate.load()
                specs, suites, published = _registered(manager, module)
            provides = [f"{spec.kind} {spec.name}" for spec in specs]
            provides += [f"suite {file.stem}" for file in suites]
            provides += [f"published table {file.stem}" for file in published]
            plugin = _versioned(replace(plugin, module=module, provides=tuple(provides)), candidate, module, specs)
            offers = [Offer(spec, plugin) for spec in specs]
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.plugins.append(replace(plugin, module=None, provides=(), error=one_line(error)))
            return
        self.plugins.append(plugin)
        for file in suites:
            self.suites[file.stem].append(file)
        for file in published:
            self.published[file.stem].append(file)
        for offer in offers:
            self.add(offer)

    def add(self, offer: Offer) -> None:
        """Take in an offer."""
        self._offers[offer.spec.kind][offer.spec.name].append(offer)

    @property
    def failures(self) -> list[Plugin]:
        """The plugins that could not be loaded."""
        return [plugin for plugin in self.plugins if plugin.error]

    def offers(self, kind: str) -> list[Offer]:
        """All offers of one kind, by name."""
        by_name = self._offers[kind]
        return [offer for name in sorted(by_name) for offer in by_name[name]]

    def get(self, kind: str, name: str) -> Offer:
        """Return the one offer of this name (or ``distribution:name``).

        Raises
        ------
        UserError
            When no plugin offers it, naming the nearest known ones or why its plugin failed to load; or when several
            do.
        """
        distribution, _, plain = name.rpartition(":")
        found = [
            offer
            for offer in self._matching(kind, plain)
            if not distribution or offer.plugin.distribution == distribution
        ]
        if not found:
            offering = {offer.plugin.distribution for kind in KINDS for offer in self.offers(kind)}
            for plugin in self.failures:
                if plugin.distribution == distribution and distribution not in offering:
                    raise UserError(
                        f"{kind} {name!r} is not there: plugin {plugin.name} failed to load: {plugin.error}"
                    )
            message = f"unknown {kind} {name!r}: {nearest(plain, self._offers[kind])}"
            if self.failures:
                broken = ", ".join(plugin.name for plugin in self.failures)
                message += f" (plugins that failed to load: {broken}; see mmc-bench plugins)"
            raise UserError(message)
        if len(found) > 1:
            raise UserError(f"{kind} {plain!r} is offered by {len(found)} plugins: {_remedy(found)}")
        return found[0]

    def select(self, kind: str, patterns: Iterable[str]) -> list[Offer]:
        """Return the offers that names and globs select, each once, in the order given."""
        chosen: dict[str, Offer] = {}
        for pattern in patterns:
            if any(mark in pattern for mark in "*?["):
                names = [name for name in sorted(self._offers[kind]) if fnmatchcase(name, pattern)]
                names = [name for name in names if not name.endswith("/*")]
                if not names:
                    raise NothingSelectedError(f"no {kind} matches {pattern!r}: {self._advice(kind, pattern)}")
            else:
                names = [pattern]
            for name in names:
                offer = self.get(kind, name)
                chosen.setdefault(offer.qualified_name, offer)
        return list(chosen.values())

    @property
    def collisions(self) -> list[str]:
        """One sentence for each name that several plugins offer."""
        return [
            f"{kind} {name!r} is offered by {len(offers)} plugins: {_remedy(offers)}"
            for kind, by_name in self._offers.items()
            for name, offers in by_name.items()
            if len(offers) > 1
        ]

    def _advice(self, kind: str, pattern: str) -> str:
        family, slash, _ = pattern.partition("/")
        if slash and f"{family}/*" in self._offers[kind]:
            return f"a family's members are named one by one: write {family}/NAME"
        return nearest(pattern.strip("*"), self._offers[kind])

    def _matching(self, kind: str, name: str) -> Iterator[Offer]:
        exact = self._offers[kind].get(name, ())
        yield from exact
        family, slash, member = name.partition("/")
        if not exact and slash and member != "*" and NAME.fullmatch(name):
            for offer in self._offers[kind].get(f"{family}/*", ()):
                fixed = {"model": member}
                spec = replace(offer.spec, name=name, defaults={**offer.spec.defaults, **fixed})
                yield Offer(spec, offer.plugin, fixed=fixed)


def _versioned(plugin: Plugin, candidate: Candidate, module: ModuleType, specs: list[PluginSpec]) -> Plugin:
    """Return the plugin with the version that it runs under, from its source files where these can be edited."""
    source: ImportedSource | None
    if candidate.distribution == OWN_DISTRIBUTION:
        if not specs:
            return plugin
        source = built_in_source(module)
        version = built_in_version(candidate.name, module, source.digest)
    else:
        source = editable_source(module, candidate.roots, [spec.target for spec in specs])
        if source is None:
            return plugin
        version = f"{candidate.version}+{source.digest}"
    check_loaded(module, source.digest)
    return replace(plugin, version=version, digest=source.digest, source=source)


def _remedy(offers: Sequence[Offer]) -> str:
    """Say how to choose among offers of one name."""
    choices = [offer.qualified_name for offer in offers]
    if len(set(choices)) < len(choices):  # folder plugins, which have no distribution, of one name
        return f"rename one of {', '.join(offer.plugin.origin for offer in offers)}"
    return f"write {' or '.join(choices)}"


def _registered(manager: pluggy.PluginManager, module: ModuleType) -> tuple[list[PluginSpec], list[Path], list[Path]]:
    """Check a plugin module; return the specs, suites and published tables that its hooks register.

    Whatever the module raises is passed on.
    """
    specs: list[PluginSpec] = []
    suites: list[Path] = []
    published: list[Path] = []
    version = getattr(module, "mmc_bench_api", hookspecs.API_VERSION)
    if version != hookspecs.API_VERSION:
        raise RuntimeError(
            f"written for plugin API {version!r}, and this mmc-bench speaks {hookspecs.API_VERSION}: "
            "install a matching version of either"
        )
    manager.register(module)
    try:
        _reject_unknown_hooks(manager, module)
        for kind, spec_type in KINDS.items():
            hook = f"register_{kind}s"

            def register(spec: Any, hook: str = hook, spec_type: type[PluginSpec] = spec_type) -> None:
                if not isinstance(spec, spec_type):
                    raise TypeError(f"{hook} registers {spec_type.__name__}, not {type(spec).__name__}")
                if any((other.kind, other.name) == (spec.kind, spec.name) for other in specs):
                    raise ValueError(f"{hook} registers {spec.name!r} twice")
                specs.append(spec)

            getattr(manager.hook, hook)(register=register)
        manager.hook.register_suites(register=lambda path: suites.extend(_files(Path(path), "*.yaml")))
        manager.hook.register_published(register=lambda path: published.extend(_files(Path(path), "*.csv")))
    finally:
        manager.unregister(module)
    if not (specs or suites or published):
        raise RuntimeError("registers nothing: is @hookimpl missing?")
    return specs, suites, published


def _files(path: Path, pattern: str) -> list[Path]:
    """Return the file, or the files of a folder that match."""
    files = sorted(path.glob(pattern)) if path.is_dir() else [path]
    if not all(file.is_file() for file in files):
        raise FileNotFoundError(f"there is no file or folder {path}")
    return files


def _reject_unknown_hooks(manager: pluggy.PluginManager, module: ModuleType) -> None:
    """Turn a misspelt hook into a sentence that names the nearest one."""
    for caller in manager.get_hookcallers(module) or ():
        if not caller.has_spec() and not all(impl.optionalhook for impl in caller.get_hookimpls()):
            known = [name for name, other in vars(manager.hook).items() if name[0] != "_" and other.has_spec()]
            raise AttributeError(f"unknown hook {caller.name!r}: {nearest(caller.name, known)}")
