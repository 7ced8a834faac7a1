"""Options that several commands share, and the session they describe."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import click

from mmc_bench.cli.streams import sentence, tell
from mmc_bench.data.locations import identify
from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.plugin.discovery import configured_folders
from mmc_bench.plugin.registry import Offer, Registry
from mmc_bench.results.codec import DamagedError
from mmc_bench.results.store import Store
from mmc_bench.suites.plan import Plan, make_plan, shard
from mmc_bench.suites.settings import Setting, divided, read_settings, refuse_unused
from mmc_bench.suites.suite import Suite, load_suite, overridden

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_SUITE = "quick"
MOST_TOLD = 10


class _Words(click.ParamType):
    """Comma-separated values of one type."""

    def __init__(self, of: type) -> None:
        self._of = of
        self.name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            values = [self._of(word.strip()) for word in value.split(",") if word.strip()]
        except ValueError:
            self.fail(f"{value!r} is no list of {'whole ' if self._of is int else ''}numbers", param, ctx)
        if not values:
            self.fail(f"{value!r} is an empty list: write one value or more, or leave the option out", param, ctx)
        return values


class DamageReport:
    """Tells of each damaged file once, and of no more than a few."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, damage: DamagedError) -> None:
        """Tell of a file, unless it was told of before."""
        if str(damage) in self._told or len(self._told) > MOST_TOLD:
            return
        if len(self._told) == MOST_TOLD:
            tell("mmc-bench: and further files hold no valid record")
        else:
            tell(f"mmc-bench: {damage}: it counts as missing")
        self._told.add(str(damage))


class _Shard(click.ParamType):
    """Which part of how many, as ``3/8``."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        matched = re.fullmatch(r"(\d{1,9})/(\d{1,9})", value)
        if matched is None or not 1 <= int(matched[1]) <= int(matched[2]):
            self.fail(f"{value!r} is no part of a suite: write 3/8 for the third of eight", param, ctx)
        return int(matched[1]), int(matched[2])


@dataclass(frozen=True)
class Session:
    """What the shared options say, and what follows from them."""

    suite_name: str | None
    selection: dict[str, list[Any]]
    settings: tuple[Setting, ...]
    data: dict[str, str]
    results: str
    plugin_folders: tuple[str, ...]
    observe: tuple[str, ...] = ()
    shard: tuple[int, int] | None = None

    @cached_property
    def registry(self) -> Registry:
        """The discovered plugins; those that failed to load are reported on stderr, a line each."""
        registry = Registry.discover(self.plugin_folders)
        for plugin in registry.failures:
            left_out = f"plugin {plugin.name!r} of {plugin.distribution} was left out: {plugin.error}"
            tell(f"mmc-bench: {sentence(left_out)}")
        return registry

    @cached_property
    def plan(self) -> Plan:
        """The suite (`quick` unless named), with the options in force, as cells; of a shard, its own."""
        plan = self.plan_of(load_suite(self.suite_name or DEFAULT_SUITE, self.registry.suites))
        if self.shard is None:
            return plan
        part, parts = self.shard
        own = shard(plan, part, parts)
        if not own.pretrainings:
            raise NothingSelectedError(f"--shard {part}/{parts} holds nothing: the suite has fewer cells than that")
        return own

    def plan_of(self, suite: Suite) -> Plan:
        """Return a suite, with the options in force, as cells."""
        _, settings = self._divided
        suite = overridden(suite, self.selection, settings)
        images = identify(self.data, self.wanted_sources(suite.datasets))
        plan = make_plan(suite, self.registry, images)
        refuse_unused(settings, [offer for offer, _ in plan.offers])
        for collision in self.registry.collisions:  # had one mattered, there would be no plan
            tell(f"mmc-bench: {collision}")
        return plan

    @cached_property
    def observers(self) -> list[tuple[Offer, dict[str, Any]]]:
        """The observers that were chosen, each with the parameters that ``--set`` gives it.

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
    def store(self) -> Store:
        """The results folder; files in it that hold no valid record are told of on stderr."""
        return Store(self.results, DamageReport())

    def wanted_sources(self, datasets: Sequence[str]) -> dict[str, int | None]:
        """Return the image sources that datasets read, with the class counts their cues are made for."""
        return {
            source: offer.spec.num_classes
            for offer in self.registry.select("dataset", datasets)
            for source in offer.spec.sources
        }


def session_options(command: Command) -> Command:
    """Add the options of a `Session`, and hand it to the command as ``session``."""
    return _given_session(command, [*_SUITE_OPTIONS, *_PLACE_OPTIONS])


def place_options(command: Command) -> Command:
    """Add the options of a `Session` that say where things are and what is set, without a suite's."""
    return _given_session(command, _PLACE_OPTIONS)


def _given_session(command: Command, shared: Sequence[Callable[[Any], Any]]) -> Command:
    def _with_session(**options: Any) -> Any:
        selection = {
            field: [value for values in options.pop(field, None) or () for value in values]
            for field in ("methods", "datasets", "backbones", "cue_rates", "seeds")
        }
        session = Session(
            suite_name=options.pop("suite", None),
            selection=selection,
            settings=read_settings(options.pop("settings")),
            data=folders_of(options.pop("data")),
            results=options.pop("results"),
            plugin_folders=tuple(map(str, configured_folders(options.pop("plugins_dir")))),
            observe=tuple(name for names in options.pop("observe", ()) for name in names),
            shard=options.pop("shard", None),
        )
        return command(session=session, **options)

    _with_session.__doc__ = command.__doc__
    _with_session.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed(shared):
        _with_session = option(_with_session)
    return _with_session  # type: ignore[return-value]


def shard_option(command: Command) -> Command:
    """Add ``--shard`` to a command whose options are a session's."""
    return click.option(
        "--shard",
        type=_Shard(),
        help="Only this part of the suite, 3/8 for the third of eight: what shares a pretrained model stays together.",
    )(command)


def plugins_dir_option(command: Command) -> Command:
    """Add ``--plugins-dir``."""
    return click.option(
        "--plugins-dir",
        multiple=True,
        metavar="DIR",
        help="Also load the plugins in this folder (or this .py file); may be repeated.",
    )(command)


def data_option(command: Command) -> Command:
    """Add ``--data``."""
    return click.option(
        "--data",
        multiple=True,
        metavar="SOURCE=DIR",
        help="Read an image source from class folders train/<class>/ and test/<class>/ (or from torchvision's files).",
    )(command)


def discovered(plugin_folders: Sequence[str]) -> Registry:
    """Return the registry for commands that need nothing else."""
    folders = tuple(map(str, configured_folders(plugin_folders)))
    return Session(None, {}, (), {}, "results", folders).registry


def default_results() -> str:
    """Return ``$MMC_BENCH_RESULTS``, or ``results``."""
    return os.environ.get("MMC_BENCH_RESULTS") or "results"


def folders_of(assignments: Sequence[str]) -> dict[str, str]:
    """Return the folders that ``--data`` gives, by image source.

    Raises
    ------
    UserError
        When one does not read SOURCE=DIR.
    """
    return dict(_assignment(text) for text in assignments)


def _assignment(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not equals or not name or not folder:
        raise UserError(f"--data {text}: write SOURCE=DIR, for example --data cifar10=images/")
    return name, folder


def list_option(name: str, of: type, text: str) -> Callable[[Command], Command]:
    """Add an option whose value is a list: commas separate its parts, and it may be repeated."""
    return click.option(f"--{name}", type=_Words(of), multiple=True, help=text)


_SUITE_OPTIONS: list[Callable[[Any], Any]] = [
    click.option(
        "--suite",
        metavar="NAME|FILE",
        help=f"Suite to use: a name or a YAML file.  [default: {DEFAULT_SUITE}]",
    ),
    list_option("methods", str, "Methods; names or globs, separated by commas."),
    list_option("datasets", str, "Datasets."),
    list_option("backbones", str, "Backbones."),
    list_option("cue-rates", float, "Shares of pretraining images that carry the cue, 0 to 1."),
    list_option("seeds", int, "Seeds."),
]

_PLACE_OPTIONS: list[Callable[[Any], Any]] = [
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a setting, e.g. pretrain.epochs=5 or METHOD.lr=0.02.",
    ),
    data_option,
    click.option("--results", metavar="DIR", default=default_results, help="Results folder.  [default: results]"),
    plugins_dir_option,
]
