"""What a plugin offers: one dataset, backbone, method or observer, loaded and configured when it is used."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mmc_bench.errors import UserError, message_of
from mmc_bench.plugin.versions import check_loaded
from mmc_bench.system.imported_source import ImportedSource

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mmc_bench.results.jobs import PluginRef


@dataclass(frozen=True)
class Plugin:
    """One discovered plugin, working or broken.

    `version` is what its results are named by; `digest` is that of its source where this can be edited, and `source` is
    asked whether that is still so.
    """

    name: str
    distribution: str
    version: str
    origin: str
    module: ModuleType | None = None
    provides: tuple[str, ...] = ()
    error: str | None = None
    digest: str | None = None
    source: ImportedSource | None = field(default=None, compare=False, repr=False)


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
            weights=self.digest_of_weights(overrides),
        )

    def digest_of_weights(self, parameters: Mapping[str, Any]) -> str | None:
        """Return the SHA-256 of the file whose weights a backbone with these parameters starts from, if there is one.

        Raises
        ------
        UserError
            When the file is not there, or cannot be read.
        """
        if getattr(self.spec, "weights", None) is None:
            return None
        with self.blamed(f"weights {self.spec.weights!r} failed"):
            path = self._import(self.spec.weights)({**self.spec.defaults, **self.fixed, **parameters})
        if path is None:
            return None
        try:
            status = Path(path).stat()
            return _digest_of(Path(path), status.st_mtime_ns, status.st_size)
        except OSError as error:
            raise UserError(f"weights {path} of {self.spec.name} cannot be read: {error.strerror}") from None

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

    def layout(self, source: str) -> Callable[[Path], Any] | None:
        """Return what finds the files of an image source in its folder, or None where that holds class folders."""
        target = self.spec.layouts.get(source)
        if target is None:
            return None

        def found(folder: Path) -> Any:
            with self.blamed(f"layout {target!r} failed"):
                return self._import(target)(folder)

        return found

    def _import(self, target: str) -> Any:
        assert self.plugin.module is not None
        module_name, _, attribute = target.partition(":")
        home = self.plugin.module
        package = home.__name__ if hasattr(home, "__path__") else home.__package__
        module = import_module(module_name, package) if module_name.strip(".") else home
        self.check_source()
        if self.plugin.digest is not None:
            check_loaded(home, self.plugin.digest)
        return getattr(module, attribute)

    def check_source(self) -> None:
        """Check that what was imported of the plugin is what its version stands for.

        Raises
        ------
        UserError
            When its files changed before that; its code is then that of another version.
        """
        if self.plugin.source is not None and self.plugin.source.has_changed():
            raise UserError(
                f"{self.spec.kind} {self.spec.name!r} changed during the run: its files are no longer those of version "
                f"{self.version}"
            )

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


@cache
def _digest_of(path: Path, *state: int) -> str:
    """Return the SHA-256 of a file, read once while its time and size are the same."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
