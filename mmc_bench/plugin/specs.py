"""What a plugin registers: a name, a summary and a lazy target, one frozen dataclass for each kind."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(/\*|/[\w.-]+)?")
TARGET = re.compile(r"\.{0,2}[\w.]*:\w+")
NEEDS = frozenset({"clean", "cued", "environments", "fully-cued"})

#: The parts of a suite whose keys can be set one by one, as a plugin's parameters can.
SECTIONS = ("data", "pretrain", "connect", "tune")


def meaning_of(kind: str, name: str) -> str | None:
    """Return what a plugin's name means already, or None where it is free."""
    section = name.partition(".")[0]
    if section in SECTIONS:
        return f"stands for settings of a suite, as in {section}.key=value"
    if (kind, name) == ("method", "pretrained"):
        return "stands for the model that methods start from"
    return None


def checked_needs(given: str | Iterable[str], who: str) -> frozenset[str]:
    """Return what a method needs, one word or several.

    Raises
    ------
    ValueError
        When it cannot be given that; `who` begins the message.
    """
    needs = frozenset([given] if isinstance(given, str) else given)
    if unknown := needs - NEEDS:
        raise ValueError(f"{who} needs {sorted(unknown)}; a method can need {sorted(NEEDS)}")
    if "environments" in needs and "cued" not in needs:
        raise ValueError(f"{who} needs the environments of cued images, and so 'cued' as well")
    return needs


SPLITS = ("counterfactual", "groups")


@dataclass(frozen=True, kw_only=True)
class PluginSpec:
    """One dataset, backbone, method or observer, before any of its code is imported.

    Parameters
    ----------
    name
        Lower-case letters, digits, ``.``, ``_`` and ``-``, but nothing that ``--set`` takes for a suite's settings, as
        ``data``. A name that ends in ``/*`` stands for a family: ``zoo/*`` answers to ``zoo/lion`` and its target gets
        ``model="lion"`` as a parameter.
    target
        ``"module:Class"``; a leading dot makes it relative to the plugin that registers it.
    summary
        One line for ``mmc-bench list``.
    defaults
        Parameters in which this variant differs from its target's own defaults: plain data, as JSON has it,
        since they are part of records.
    check_member
        For a family: ``"module:function"``, called with a member's name when a run starts, to raise
        `mmc_bench.UserError` if there is none of that name. Without it, the target refuses it later, in each
        of its cells. Like a target it is imported when it is used, so a dry run never asks.
    example
        For a family: the name of a small member, which stands for all of them where one is tried.

    Raises
    ------
    ValueError
        When a name or target is malformed, a name means something else, a field is of another type, or a default is no
        plain data.
    """

    kind: ClassVar[str]

    name: str
    target: str
    summary: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    check_member: str | None = None
    example: str | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"{self.kind} name {self.name!r} must be lower-case letters, digits, '.', '_' and '-'")
        if meaning := meaning_of(self.kind, self.name):
            raise ValueError(f"{self.kind} name {self.name!r} {meaning}: choose another name")
        owner = f"{self.kind} {self.name!r}"
        if not TARGET.fullmatch(self.target):
            raise ValueError(f"{owner}: target {self.target!r} must read 'module:Class'")
        if self.check_member is not None and not TARGET.fullmatch(self.check_member):
            raise ValueError(f"{owner}: check_member {self.check_member!r} must read 'module:function'")
        if self.example is not None and not (isinstance(self.example, str) and NAME.fullmatch(self.example)):
            raise ValueError(f"{owner}: example {self.example!r} must be a member's name")
        if not isinstance(self.summary, str):
            raise ValueError(f"{owner}: summary {self.summary!r} must be text")
        if not isinstance(self.defaults, Mapping):
            raise ValueError(f"{owner}: defaults {self.defaults!r} must be a mapping")
        for key, value in self.defaults.items():
            if not isinstance(key, str):
                raise ValueError(f"{owner}: default {key!r} must be named by a string")
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{owner}: default {key} = {value!r}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(PluginSpec):
    """A cued dataset; see `mmc_bench.data.contract.Dataset` for what its target must offer.

    Parameters
    ----------
    sources
        Names of the image sources it reads; each may be replaced with ``--data SOURCE=DIR``.
    num_classes
        Number of classes its cue is made for, when that is fixed: a folder with another number is refused.
    splits
        ``"counterfactual"``: each image can be had with any cue and without one. ``"groups"``: each image has an
        attribute as it is, and there are no counterfactuals; see `mmc_bench.data.contract.GroupedDataset`.
    layouts
        For sources that are no class folders: by the source's name, ``"module:function"``, called with the folder that
        ``--data`` gives, which returns the `mmc_bench.data.listing.Listing` of the files that are read there, or raises
        `mmc_bench.UserError` to say what it looked for. It is called when a run is planned, and must not need torch.

    The other parameters, and what is raised, are those of `BackboneSpec`.

    Examples
    --------
    >>> from mmc_bench import DatasetSpec
    >>> DatasetSpec(name="stripes", target=".data:Stripes", sources=("photos",), num_classes=10).sources
    ('photos',)
    """

    kind: ClassVar[str] = "dataset"

    sources: tuple[str, ...] = ()
    num_classes: int | None = None
    splits: str = "counterfactual"
    layouts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.splits not in SPLITS:
            raise ValueError(f"dataset {self.name!r}: splits {self.splits!r} must be one of {', '.join(SPLITS)}")
        if not isinstance(self.sources, (tuple, list)) or not all(isinstance(name, str) for name in self.sources):
            raise ValueError(f"dataset {self.name!r}: sources {self.sources!r} must be a tuple of names")
        if self.num_classes is not None and not isinstance(self.num_classes, int):
            raise ValueError(f"dataset {self.name!r}: num_classes {self.num_classes!r} must be a whole number")
        for source, target in dict(self.layouts).items():
            if source not in self.sources:
                raise ValueError(f"dataset {self.name!r}: sources must list {source!r}, which has a layout")
            if not (isinstance(target, str) and TARGET.fullmatch(target)):
                raise ValueError(f"dataset {self.name!r}: layout {target!r} must read 'module:function'")


@dataclass(frozen=True, kw_only=True)
class BackboneSpec(PluginSpec):
    """A network; its target is called with ``num_classes``, ``input_shape`` and its parameters.

    Parameters
    ----------
    name, target, summary, defaults, check_member
        As every spec has them: `PluginSpec` in `mmc_bench.plugin.specs` describes them.
    weights
        For networks that start from weights of a file: ``"module:function"``, called with the parameters, which returns
        the file's path, or None for random weights. Its digest is a part of the results' keys; a parameter ``weights``,
        for the file's place, is not.

    Raises
    ------
    ValueError
        When a name or target is malformed, a field is of another type, or a default is no plain data.

    Examples
    --------
    >>> from mmc_bench import BackboneSpec
    >>> BackboneSpec(name="small-net", target=".networks:SmallNet", defaults={"width": 8}).defaults
    {'width': 8}
    """

    kind: ClassVar[str] = "backbone"

    weights: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights is not None and not (isinstance(self.weights, str) and TARGET.fullmatch(self.weights)):
            raise ValueError(f"backbone {self.name!r}: weights {self.weights!r} must read 'module:function'")


@dataclass(frozen=True, kw_only=True)
class MethodSpec(PluginSpec):
    """A fine-tuning method; its target has a ``Config`` and ``fine_tune(task)``.

    Parameters
    ----------
    needs
        What the method is given beyond the clean and validation sets: ``{"cued"}`` for the cued pretraining
        set, ``{"cued", "environments"}`` for that and which of its images carry their own cue, ``{"fully-cued"}``
        for the pretraining images with a cue on every one. Touching what is not declared is an error.

    The other parameters, and what is raised, are those of `BackboneSpec`.

    Examples
    --------
    >>> from mmc_bench import MethodSpec
    >>> MethodSpec(name="mine", target=".method:Mine", needs={"cued"}).needs
    frozenset({'cued'})
    >>> MethodSpec(name="mine", target=".method:Mine", needs={"test"})
    Traceback (most recent call last):
    ValueError: method 'mine' needs ['test']; a method can need ['clean', 'cued', 'environments', 'fully-cued']
    """

    kind: ClassVar[str] = "method"

    needs: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "needs", checked_needs(self.needs, f"method {self.name!r}"))


@dataclass(frozen=True, kw_only=True)
class ObserverSpec(PluginSpec):
    """Receives run events; see `mmc_bench.running.observers` for what its target may offer.

    Parameters
    ----------
    packages
        Optional packages that it needs, by the name they are imported under, each with what ``pip install`` calls
        it. Choosing an observer that lacks one is answered with that command, and nothing of it is imported.

    The other parameters, and what is raised, are those of `BackboneSpec`.

    Examples
    --------
    >>> from mmc_bench import ObserverSpec
    >>> ObserverSpec(name="my-tracker", target=".tracker:Tracker", packages={"no_such_package": "my-tracker"}).remedy
    "needs no_such_package: pip install 'my-tracker'"
    """

    kind: ClassVar[str] = "observer"

    packages: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, requirement in dict(self.packages).items():
            if not (isinstance(name, str) and name.isidentifier() and isinstance(requirement, str) and requirement):
                raise ValueError(
                    f"observer {self.name!r}: packages maps the name of a top-level package to what pip is to install, "
                    f"not {name!r} to {requirement!r}"
                )

    @property
    def remedy(self) -> str | None:
        """What it lacks and the command that installs it, or None when everything is there."""
        from importlib.util import find_spec

        lacking = [name for name in self.packages if find_spec(name) is None]
        if not lacking:
            return None
        wanted = " ".join(dict.fromkeys(f"'{self.packages[name]}'" for name in lacking))
        return f"needs {' and '.join(lacking)}: pip install {wanted}"
