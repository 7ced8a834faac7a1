"""Options that several commands share, and the session that they make."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from mmc_bench.errors import UserError
from mmc_bench.plugin.discovery import configured_folders
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.jobs import PROTOCOLS
from mmc_bench.running.session import DEFAULT_SUITE, Session, default_results

Command = TypeVar("Command", bound=Callable[..., Any])


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


class _Amount(click.FloatRange):
    """A number above 0, and not an infinite one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        amount = super().convert(value, param, ctx)
        if not math.isfinite(amount):
            self.fail(f"{value} is no finite number above 0", param, ctx)
        return amount


AMOUNT = _Amount(min=0, min_open=True)


def session_options(default: str) -> Callable[[Command], Command]:
    """Return what adds the options of a `Session`, which a command gets as ``session``, its suite this by default."""
    suite = click.option(
        "--suite", metavar="NAME|FILE", help=f"Suite to use: a name or a YAML file.  [default: {default}]"
    )
    return lambda command: _given_session(command, [suite, *_SUITE_OPTIONS, *_PLACE_OPTIONS])


def place_options(command: Command) -> Command:
    """Add the options of a `Session` but those of a suite."""
    return _given_session(command, _PLACE_OPTIONS)


def _given_session(command: Command, shared: Sequence[Callable[[Any], Any]]) -> Command:
    def _with_session(**options: Any) -> Any:
        fields = ("methods", "datasets", "backbones", "cue_rates", "seeds")
        trials = options.pop("tune", None)
        session = Session.of(
            options.pop("suite", None),
            {field: words_of(options.pop(field, ())) for field in fields},
            [*([] if trials is None else [f"tune={trials}"]), *options.pop("settings")],
            folders_of(options.pop("data")),
            options.pop("results"),
            options.pop("plugins_dir"),
            words_of(options.pop("observe", ())),
            options.pop("shard", None),
            origin="command line",
            axes=options.pop("axes", ()),
            checkpoint=options.pop("checkpoint", None),
            start=options.pop("start_from", None),
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
        metavar="I/N",
        help="Only this part of the suite, 3/8 for the third of eight. What shares a pretrained model stays together; "
        "with more parts than such models, several parts pretrain the same one.",
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
    return Session(plugin_folders=folders).registry


def folders_of(assignments: Sequence[str]) -> dict[str, str]:
    """Return the folders that ``--data`` gives, by image source.

    Raises
    ------
    UserError
        When one does not read SOURCE=DIR.
    """
    folders = {}
    for text in assignments:
        name, _, folder = text.partition("=")
        if not name or not folder:
            raise UserError(f"--data {text}: write SOURCE=DIR, for example --data cifar10=images/")
        folders[name] = folder
    return folders


def words_of(lists: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the values of a `list_option`, which may be repeated, as one list."""
    return [value for values in lists for value in values]


def protocol_option(command: Command) -> Command:
    """Add ``--protocol``."""
    return click.option(
        "--protocol",
        type=click.Choice(PROTOCOLS),
        help="Where methods are tuned: only what has the published parameters, or those that this rule chose.",
    )(command)


def list_option(name: str, of: type, text: str, *other_names: str) -> Callable[[Command], Command]:
    """Add an option whose value is a list: commas separate its parts, and it may be repeated."""
    return click.option(f"--{name}", *other_names, type=_Words(of), multiple=True, help=text)


def download_option(command: Command) -> Command:
    """Add ``--download`` and ``--no-download``."""
    return click.option("--download/--no-download", default=True, help="Whether missing images may be downloaded.")(
        command
    )


def device_option(command: Command) -> Command:
    """Add ``--device``."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        help="auto, cpu, cuda (the first GPU), cuda:1, several as cuda:0,cuda:2, or mps; auto is every GPU there is.",
    )(command)


def keep_predictions_option(command: Command) -> Command:
    """Add ``--keep-predictions``."""
    return click.option(
        "--keep-predictions",
        is_flag=True,
        help="Keep what each model predicts on each test image, for mmc-bench table --columns. "
        "What has a record without them is scored again.",
    )(command)


def precision_option(command: Command) -> Command:
    """Add ``--precision``."""
    return click.option(
        "--precision",
        default="auto",
        show_default=True,
        type=click.Choice(("auto", "fp32", "bf16")),
        help="Arithmetic; auto is bf16 where the hardware gains from it.",
    )(command)


#: What commands about results at hand read without ``--suite``.
EVERY_RECORD = f"every record that the lists select; {DEFAULT_SUITE} with --set, --axis or --tune"

_SUITE_OPTIONS: list[Callable[[Any], Any]] = [
    list_option("methods", str, "Methods; names or globs, separated by commas."),
    list_option("datasets", str, "Datasets."),
    list_option("backbones", str, "Backbones.", "--backbone"),
    click.option(
        "--checkpoint",
        metavar="[NAME=]FILE",
        help="Start from this checkpoint instead of pretraining; --backbone names its architecture. "
        "FILE is a .safetensors file, or a state_dict saved with torch.save.",
    ),
    click.option(
        "--start-from",
        metavar="[NAME=]FILE",
        help="Let the pretraining begin with these weights; a last layer of other classes is replaced.",
    ),
    list_option("cue-rates", float, "Shares of pretraining images that carry the cue, 0 to 1."),
    list_option("seeds", int, "Seeds."),
    click.option(
        "--tune",
        type=click.IntRange(min=0),
        metavar="TRIALS",
        help="Try each method with so many sets of parameters, on other seeds and images, and run it with the best.",
    ),
    click.option(
        "--axis",
        "axes",
        multiple=True,
        metavar="KEY=VALUE,VALUE",
        help="Run with each of these values, e.g. data.clean_images=100,300; with several axes, in every combination.",
    ),
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
