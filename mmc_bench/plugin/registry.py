"""Finding plugins, naming what they offer, and reporting those that are broken."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from mmc_bench.errors import NothingSelectedError, UserError, message_of, nearest
from mmc_bench.plugin import hookspecs
from mmc_bench.plugin.discovery import Candidate, entry_point_candidates, folder_candidates
from mmc_bench.plugin.specs import NAME, BackboneSpec, DatasetSpec, MethodSpec, ObserverSpec, PluginSpec
from mmc_bench.plugin.versions import OWN_DISTRIBUTION, built_in_version, digest_of_roots
from mmc_bench.system.process_state import Keeper

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mmc_bench.results.jobs import PluginRef

KINDS: dict[str, type[PluginSpec]] = {
    "dataset": DatasetSpec,
    "backbone": BackboneSpec,
    "method": MethodSpec,
    "observer": ObserverSpec,
}


@dataclass(frozen=True)
class Plugin:
    """One discovered plugin, working or broken.

    `version` is what its results are named by; `digest` is that of its source where this can be edited.
    """

    name: str
    distribution: str
    version: str
    origin: str
    module: ModuleType | None = None
    provides: tuple[str, ...] = ()
    error: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Offer:
    """One dataset, backbone, method or observer as a plugin offers it.

    `fixed` is what the name of a family's member says: the target is given it, but it is no parameter.
    """

    spec: Any
    plugin: Plugin
    fixed: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @property
    def qualified_name(self) -> str:
        """``distribution:name``, which is never ambiguous."""
        return f"{self.plugin.distribution}:{self.spec.name}"

    @property
    def names(self) -> tuple[str, str]:
        """The names that it answers to."""
        return self.spec.name, self.qualified_name

    @property
    def version(self) -> str:
        """The version that it runs under (`mmc_bench.plugin.versions`), a part of every key."""
        return self.plugin.version

    @property
    def digest(self) -> str | None:
        """The digest of its source, where this can be edited."""
        return self.plugin.digest

    def reference(self, overrides: dict[str, Any]) -> "PluginRef":
        """Return the plain-data reference that goes into cells, keys and records.

        Raises
        ------
        UserError
            When an override is of what the name fixes.
        """
        from mmc_bench.results.jobs import PluginRef

        self._refuse_fixed(overrides)
        return PluginRef(
            name=self.spec.name,
            distribution=self.plugin.distribution,
            version=self.version,
            parameters={**self.spec.defaults, **overrides},
        )

    def load(self) -> Any:
        """Import and return the target.

        Raises
        ------
        UserError
            When its module cannot be imported or lacks the class.
        """
        with self.blamed(f"target {self.spec.target!r} failed to load"):
            return self._import(self.spec.target)

    def configure(self, parameters: Mapping[str, Any]) -> "BaseModel":
        """Return the target's ``Config``: its own defaults, the spec's, and `parameters`, each winning over the last.

        Raises
        ------
        UserError
            When the target does not load, or a parameter is unknown or not allowed.
        """
        from mmc_bench.plugin.parameters import check_parameters

        self._refuse_fixed(parameters)
        owner = f"{self.spec.kind} {self.spec.name}"
        return check_parameters(owner, self.load(), {**self.spec.defaults, **parameters}, self.fixed)

    def _refuse_fixed(self, parameters: Mapping[str, Any]) -> None:
        for name in [name for name, value in self.fixed.items() if parameters.get(name, value) != value]:
            raise UserError(
                f"{self.spec.kind} {self.spec.name} has no parameter {name!r}: another member of the family has "
                f"another name, {self.spec.name.partition('/')[0]}/{parameters[name]}"
            )

    def make(self, config: "BaseModel", **context: Any) -> Any:
        """Return the dataset, backbone, method or observer that a ``Config`` describes.

        Parameters
        ----------
        config
            What `configure` returned.
        context
            For a backbone: ``num_classes`` and ``input_shape``.
        """
        from mmc_bench.plugin.parameters import construct

        return construct(self.load(), config, **context)

    def check_member(self) -> None:
        """Ask a family whether it has this member; families without ``check_member`` are not asked.

        Raises
        ------
        UserError
            When there is none, or the check fails.
        """
        if self.spec.check_member:
            with self.blamed(f"check_member {self.spec.check_member!r} failed"):
                self._import(self.spec.check_member)(self.spec.name.partition("/")[2])

    def _import(self, target: str) -> Any:
        assert self.plugin.module is not None
        module_name, _, attribute = target.partition(":")
        home = self.plugin.module
        package = home.__name__ if hasattr(home, "__path__") else home.__package__
        module = import_module(module_name, package) if module_name.strip(".") else home
        return getattr(module, attribute)

    @contextmanager
    def blamed(self, what: str) -> Iterator[None]:
        """Run the plugin's code; turn its errors into one sentence that names it."""
        try:
            with redirect_stdout(sys.stderr):  # standard output is for results alone
                yield
        except (UserError, KeyboardInterrupt):
            raise
        except BaseException as error:
            owner = f"{self.spec.kind} {self.spec.name!r} of {self.plugin.distribution}"
            raise UserError(f"{owner}: {what}: {one_line(error)}") from error


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
        keeper = Keeper(but=("sys.path",))  # the search path of modules stays: a plugin may import more later
        for candidate in candidates:
            self._add(candidate, manager, keeper)

    @classmethod
    def discover(cls, folders: Sequence[str | Path] = ()) -> "Registry":
        """Load the plugins of every installed distribution, then those of `folders`."""
        return cls([*entry_point_candidates(), *folder_candidates(folders)])

    def _add(self, candidate: Candidate, manager: pluggy.PluginManager, keeper: Keeper) -> None:
        plugin = Plugin(candidate.name, candidate.distribution, candidate.version, candidate.origin)
        note = self.notices.append
        try:
            with redirect_stdout(sys.stderr), keeper.kept(f"plugin {candidate.name}", note):  # stdout is for results
                module = candidate.load()
                specs, suites, published = _registered(manager, module)
            provides = [f"{spec.kind} {spec.name}" for spec in specs]
            provides += [f"suite {file.stem}" for file in suites]
            provides += [f"published table {file.stem}" for file in published]
            plugin = replace(plugin, module=module, provides=tuple(provides))
            plugin = _versioned(plugin, candidate, module, specs)
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
            When no plugin offers it, naming the nearest known ones, or when several do.
        """
        distribution, _, plain = name.rpartition(":")
        found = [
            offer
            for offer in self._matching(kind, plain)
            if not distribution or offer.plugin.distribution == distribution
        ]
        if not found:
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
    if candidate.distribution == OWN_DISTRIBUTION:
        if not specs:
            return plugin
        version, digest = built_in_version(candidate.name, module)
        return replace(plugin, version=version, digest=digest)
    roots = candidate.roots(module)
    if roots is None:
        return plugin
    digest = digest_of_roots(module, roots, [spec.target for spec in specs])
    return replace(plugin, version=f"{candidate.version}+{digest}", digest=digest)


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


def one_line(error: BaseException) -> str:
    """Return an error as one line, with the place where the plugin raised it."""
    import traceback

    text = message_of(error) or "no message"
    if len(text) > 300:
        text = text[:297] + "..."
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    place = ""
    if frames and Path(frames[-1].filename).parent != Path(__file__).parent and sys.prefix not in frames[-1].filename:
        place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
    return f"{type(error).__name__}: {text}{place}"
