"""Sessions: a suite with changes, plugins, images and a results folder; and the plan that follows."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.plugin.discovery import configured_folders
from mmc_bench.plugin.offers import Offer
from mmc_bench.plugin.registry import Registry
from mmc_bench.running.given import AnySuite, GivenAxes, GivenSettings, check_given, part_of, several
from mmc_bench.suites.settings import Setting, divided, read_settings, refuse_unused
from mmc_bench.system.streams import notice, tell

if TYPE_CHECKING:
    from mmc_bench.data.locations import Wanted
    from mmc_bench.results.codec import DamagedError
    from mmc_bench.results.jobs import OwnWeights
    from mmc_bench.results.store import Store
    from mmc_bench.suites.plan import Plan
    from mmc_bench.suites.suite import Suite

DEFAULT_SUITE = "quick"
MOST_NAMED = 10

#: Folder below the results for weights that were given in Python.
CHECKPOINTS = "checkpoints"


def default_results() -> str:
    """Return ``$MMC_BENCH_RESULTS``, or ``results``."""
    return os.environ.get("MMC_BENCH_RESULTS") or "results"


class DamageReport:
    """Names each damaged file once on stderr, and no more than a few."""

    def __init__(self) -> None:
        self._named: set[str] = set()

    def __call__(self, damage: "DamagedError") -> None:
        """Name a file, unless it was named before."""
        if str(damage) in self._named or len(self._named) > MOST_NAMED:
            return
        if len(self._named) == MOST_NAMED:
            tell("mmc-bench: and further files hold no valid record")
        else:
            tell(f"mmc-bench: {damage}: it counts as missing")
        self._named.add(str(damage))


@dataclass(frozen=True)
class Session:
    """A suite with changes, and where its plugins, images and results are.

    Parameters
    ----------
    suite
        A suite's name, the path of its file, or the suite itself; `DEFAULT_SUITE` unless given.
    selection
        Lists that replace the suite's, by field name. Methods and backbones may be classes and objects too.
    origin
        Who gave the selection and settings, for messages.
    axes
        Values of settings that are run in every combination, by key; they replace the suite's of the same key.
    checkpoint
        ``"FILE"`` or ``"NAME=FILE"``: weights that take the place of the pretraining.
    start
        Such weights, which a pretraining begins with.
    offers
        Methods and backbones that no plugin registers and the selection does not have.
    """

    suite: AnySuite | None = None
    selection: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    settings: tuple[Setting, ...] = ()
    data: Mapping[str, str] = field(default_factory=dict)
    results: str = "results"
    plugin_folders: tuple[str, ...] = ()
    observe: tuple[str, ...] = ()
    shard: tuple[int, int] | None = None
    origin: str = "command line"
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    checkpoint: str | None = None
    start: str | None = None
    offers: tuple[Offer, ...] = ()

    @classmethod
    def of(
        cls,
        suite: AnySuite | None = None,
        lists: Mapping[str, Any] | None = None,
        settings: GivenSettings = (),
        data: Mapping[str, str | Path] | None = None,
        results: str | Path | None = None,
        plugins_dir: Any = (),
        observe: Any = (),
        part: str | tuple[int, int] | None = None,
        origin: str = "arguments",
        axes: GivenAxes = (),
        checkpoint: Any = None,
        start: Any = None,
    ) -> "Session":
        """Return the session that a caller describes; a list may be one value.

        Raises
        ------
        UserError
            When a setting, axis, shard or name is malformed, or a plugin folder does not exist.
        """
        from mmc_bench.suites.axes import read_axes

        if checkpoint is not None and start is not None:
            raise UserError("a checkpoint takes the place of a pretraining, which cannot start from weights then")
        check_given(suite, lists or {}, data, plugins_dir, observe)
        selection = {name: several(values) for name, values in (lists or {}).items()}
        folder = str(results or default_results())
        if not (checkpoint is None or isinstance(checkpoint, (str, Path))):
            checkpoint, selection = _kept(checkpoint, selection, folder)
        if not (start is None or isinstance(start, (str, Path))):
            start, selection = _kept(start, selection, folder)
        return cls(
            suite=suite,
            selection=selection,
            settings=read_settings([settings] if isinstance(settings, str) else settings or ()),
            data={source: str(folder) for source, folder in (data or {}).items()},
            results=folder,
            plugin_folders=tuple(map(str, configured_folders(several(plugins_dir, commas=False)))),
            observe=tuple(several(observe)),
            shard=None if part is None else part_of("/".join(map(str, part)) if isinstance(part, tuple) else str(part)),
            origin=origin,
            axes=read_axes(axes) if axes else {},
            checkpoint=None if checkpoint is None else str(checkpoint),
            start=None if start is None else str(start),
        )

    @property
    def registry(self) -> Registry:
        """The discovered plugins; those that failed to load are reported on stderr, a line each."""
        return self._opened[0]

    @property
    def lists(self) -> dict[str, Sequence[Any]]:
        """The selection, its methods and backbones by name."""
        return {**self.selection, **self._opened[1]}

    @cached_property
    def _opened(self) -> tuple[Registry, dict[str, list[str]]]:
        registry = Registry.discover(self.plugin_folders)
        for plugin in registry.failures:
            notice(f"plugin {plugin.name!r} of {plugin.distribution} was left out: {plugin.error}")
        for note in registry.notices:
            notice(note)
        for offer in self.offers:
            registry.add(offer)
        names = {}
        for kind in {"methods", "backbones"} & self.selection.keys():
            given = self.selection[kind]
            names[kind] = list(given) if all(isinstance(one, str) for one in given) else _offered(kind, given, registry)
        return registry, names

    @cached_property
    def plan(self) -> "Plan":
        """The suite, with the selection and settings in force, as cells; of a shard, its own."""
        from mmc_bench.suites.plan import shard

        plan = self.plan_of(self._suite())
        if self.shard is None:
            return plan
        part, parts = self.shard
        own = shard(plan, part, parts)
        if not own.pretrainings:
            raise NothingSelectedError(f"shard {part}/{parts} holds nothing: the suite has fewer cells than that")
        return own

    @property
    def has_suite(self) -> bool:
        """Whether the caller asks for a suite, and not for every record that the lists select."""
        return bool(self.suite or self.settings or self.axes)

    @cached_property
    def own_weights(self) -> "tuple[OwnWeights, Path] | None":
        """The checkpoint that takes the place of the pretraining, and its file; raises like `own_start`."""
        return self._own(self.checkpoint)

    @cached_property
    def own_start(self) -> "tuple[OwnWeights, Path] | None":
        """The weights that a pretraining begins with, and their file.

        Raises
        ------
        UserError
            When the file cannot be read, or nothing says what network its weights are of.
        """
        return self._own(self.start)

    @property
    def own_files(self) -> dict[str, str]:
        """The paths of the files of the user's own weights, by SHA-256."""
        return {own[0].sha256: str(own[1]) for own in (self.own_weights, self.own_start) if own}

    def _own(self, file: str | None) -> "tuple[OwnWeights, Path] | None":
        if file is None:
            return None
        from mmc_bench.stages.checkpoints import own_weights

        backbones = self.lists.get("backbones", ())
        if len(backbones) != 1 or any(mark in backbones[0] for mark in "*?["):
            raise UserError(f"what network has the weights of {file}? Say it with --backbone NAME")
        return own_weights(file)

    @property
    def without_methods(self) -> "Session":
        """The same without methods, and so without what is done with them: pretrained models alone."""
        return replace(self, suite=replace(self._suite(), methods=(), tune=None, pairs=(), axes={}))

    @property
    def without_axes(self) -> "Session":
        """The same at one point of its suite's axes.

        Raises
        ------
        UserError
            When the caller sets no value for one that changes images or pretrained models.
        """
        from mmc_bench.suites.axes import open_axes

        suite = self._suite()
        models = chain(self.registry.offers("dataset"), self.registry.offers("backbone"))
        for key in open_axes(suite, self.settings, models):
            values = ", ".join(map(str, suite.axes[key]))
            raise UserError(f"suite {suite.name} has {key} = {values}: choose one, as set={{{key!r}: …}}")
        return replace(self, suite=replace(suite, axes={}), axes={})

    def check_lists(self) -> None:
        """Raise a `UserError` for a cue rate or seed that no suite could have."""
        from mmc_bench.suites.suite import overridden

        given = {field: values for field, values in self.lists.items() if field in ("cue_rates", "seeds")}
        overridden(self._suite(), given, (), self.origin)

    @property
    def set_plugins(self) -> list[str]:
        """Names of plugins, and globs over names, whose parameters the caller or an axis sets."""
        from mmc_bench.suites.axes import setting_of

        axes = [setting_of(key, None) for key in self.plan.suite.axes]
        return [setting.plugin for setting in (*self.settings, *axes)]

    @property
    def current_plan(self) -> "Plan":
        """The plan with the cells whose parameters the trials at hand have chosen."""
        from mmc_bench.running.tuning import resolved

        return resolved(self.plan, self.store)

    def _suite(self) -> "Suite":
        from mmc_bench.suites.suite import Suite, load_suite, suite_of

        suite = self.suite or DEFAULT_SUITE
        if isinstance(suite, Suite):
            return suite
        if isinstance(suite, Mapping):
            return suite_of(suite)
        return load_suite(str(suite), self.registry.suites)

    def plan_of(self, suite: "Suite") -> "Plan":
        """Return a suite, with the selection and settings in force, as cells."""
        from mmc_bench.data.locations import identify
        from mmc_bench.suites.axes import refuse_both
        from mmc_bench.suites.plan import chosen_offers, make_plan
        from mmc_bench.suites.suite import overridden

        _, settings = self._divided
        suite = overridden(suite, self.lists, settings, self.origin, self.axes)
        images = identify(self.data, self.wanted_sources(suite.datasets), notice)
        if suite.axes:
            refuse_both(settings, suite.axes, chain(*chosen_offers(suite, self.registry).values()))
        checkpoint, start = (own[0] if own else None for own in (self.own_weights, self.own_start))
        plan = make_plan(suite, self.registry, images, checkpoint, start)
        refuse_unused(settings, [offer for offer, _ in plan.offers])
        for collision in self.registry.collisions:  # had one mattered, there would be no plan
            tell(f"mmc-bench: {collision}")
        return plan

    @cached_property
    def observers(self) -> list[tuple[Offer, dict[str, Any]]]:
        """The observers that were chosen, each with the parameters that are set for it.

        Raises
        ------
        UserError
            When one is unknown, or lacks a package: nothing of it has been imported by then.
        """
        chosen, _ = self._divided
        return chosen

    @cached_property
    def _divided(self) -> tuple[list[tuple[Offer, dict[str, Any]]], list[Setting]]:
        chosen = self.registry.select("observer", self.observe)
        for offer in chosen:
            if offer.spec.remedy:
                raise UserError(f"observer {offer.spec.name} {offer.spec.remedy}")
        return divided(self.settings, chosen, self.registry)

    @cached_property
    def store(self) -> "Store":
        """The results folder; files in it that hold no valid record are named on stderr."""
        from mmc_bench.results.store import Store

        return Store(self.results, DamageReport())

    def wanted_sources(self, datasets: Sequence[str]) -> dict[str, "Wanted"]:
        """Return the image sources that datasets read.

        Raises
        ------
        UserError
            When two of them read one source in different ways.
        """
        offers = self.registry.select("dataset", datasets)
        readers: dict[str, Offer] = {}
        for offer in offers:
            for source in offer.spec.sources:
                other = readers.setdefault(source, offer)
                if _layout_of(other, source) != _layout_of(offer, source):
                    names = f"{other.qualified_name} and {offer.qualified_name}"
                    raise UserError(f"{names} read image source {source!r} in different ways: run them one by one")
        return wanted_by(offers)


def _offered(kind: str, given: Sequence[Any], registry: Registry) -> list[str]:
    """Add methods or backbones that no plugin registers to the registry, and return the names of all."""
    from mmc_bench.plugin.in_memory import method_offer, offered
    from mmc_bench.plugin.in_memory_backbones import backbone_offer

    return offered(given, registry, {"methods": method_offer, "backbones": backbone_offer}[kind])


def _kept(weights: Any, selection: dict[str, Any], results: str) -> tuple[str, dict[str, Any]]:
    """Write a network or its weights into the results folder; a network is the backbone where none is selected."""
    from mmc_bench.stages.checkpoints import architecture_of, kept_checkpoint

    if not selection.get("backbones") and (architecture := architecture_of(weights)) is not None:
        selection = {**selection, "backbones": [architecture]}
    return kept_checkpoint(weights, Path(results) / CHECKPOINTS), selection


def _layout_of(dataset: Offer, source: str) -> tuple[str, str] | None:
    """Return what finds the files of a source for a dataset: the plugin, and its function; None of class folders."""
    layout = dataset.spec.layouts.get(source)
    return None if layout is None else (dataset.plugin.origin, layout)


def wanted_by(datasets: Iterable[Offer]) -> dict[str, "Wanted"]:
    """Return the image sources that datasets read."""
    from mmc_bench.data.locations import Wanted

    return {
        source: Wanted(offer.spec.num_classes, offer.layout(source))
        for offer in datasets
        for source in offer.spec.sources
    }
