"""Which cut-outs and scenes lie in a folder, and which go together: ``foregrounds.yaml``."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

import yaml
import yamlcore
from pydantic import ConfigDict, Field, ValidationError

from mmc_bench import BaseConfig, UserError
from mmc_bench.data.listing import Listing, drawn_place, unreadable

from .tables import Entry, entries_of, images_below, require

DESCRIPTION = "foregrounds.yaml"
PARTS = ("train", "test")

#: What pydantic adds to the place of a problem where a value may be of several types.
ALTERNATIVES = ("str", "dict[str,str]", "list[str]")

#: Where nothing else is said, every fifth file of each kind, by name, is for testing.
EVERY = 5


class Description(BaseConfig):
    """What ``foregrounds.yaml`` says; all paths are relative to its folder.

    Parameters
    ----------
    cutouts
        The folder of each class; or a CSV file with the columns path, label and, if wanted, split and mask.
    scenes
        The folder of each kind of scene; or a CSV file with the columns path, scene and, if wanted, split.
    pairs
        For each class, the kinds of scenes that are its cue.
    masks
        For each class, the folder of its masks: a mask lies there as its image does in that of the cut-outs.
    test
        Patterns of names; what they match is for testing, and all else for training.
    """

    model_config = ConfigDict(coerce_numbers_to_str=True)  # the names of classes and kinds

    cutouts: dict[str, str] | str
    scenes: dict[str, str] | str
    pairs: dict[str, str | list[str]]
    masks: dict[str, str] = Field(default_factory=dict)
    test: list[str] = Field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Cut-outs or scenes of one part: N names below the root, labels, and the names of masks, if there are any."""

    names: tuple[str, ...] = field(repr=False)
    labels: tuple[int, ...] = field(repr=False)
    masks: tuple[str, ...] | None = field(default=None, repr=False)

    @property
    def files(self) -> tuple[str, ...]:
        """All names."""
        return (*self.names, *(self.masks or ()))


@dataclass(frozen=True, kw_only=True)
class Pasted(Listing):
    """Cut-outs and scenes, for ``"train"`` and for ``"test"``; a scene's label is that of the class it goes with."""

    cutouts: Mapping[str, Pictures]
    scenes: Mapping[str, Pictures]


def read_described(folder: Path) -> Pasted:
    """Return what ``foregrounds.yaml`` describes in its folder.

    Raises
    ------
    UserError
        When it is missing or malformed, or what it names is.
    """
    file = folder / DESCRIPTION
    require(folder, [DESCRIPTION], "the file that says where cut-outs and scenes lie, and which go together,")
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), yamlcore.CoreLoader)
    except OSError as error:
        raise unreadable(error, file) from None
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping):
        holds = "is empty" if content is None else f"holds {str(content)[:100]!r}"
        raise UserError(f"{file} {holds}: the keys cutouts, scenes and pairs are wanted")
    try:
        description = Description.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"] if part not in ALTERNATIVES)
        if problem["type"] == "missing":
            raise UserError(f"{file} lacks {where}") from None
        raise UserError(f"{file}: {where} = {str(problem['input'])[:100]!r}: {problem['msg']}") from None
    return described(folder, description, DESCRIPTION)


def read_catdog(folder: Path) -> Pasted:
    """Return cats in forests and dogs by the sea, as ``foregrounds.csv`` and ``scenes.csv`` list them."""
    cutouts, scenes = "foregrounds.csv", "scenes.csv"
    require(folder, [cutouts, scenes], "a table of cut-outs (path, label, split) and of scenes (path, scene, split)")
    return described(folder, Description(cutouts=cutouts, scenes=scenes, pairs={"cat": "forest", "dog": "sea"}))


def described(folder: Path, description: Description, *read: str) -> Pasted:
    """Return what a description finds in a folder; `read` are the files that it was read from.

    Classes, sorted by name, become labels.

    Raises
    ------
    UserError
        When a file is missing, or a class has no cut-out or no scene in a part, or a kind of scenes has not one class.
    """
    d = description
    cutouts = _masked(folder, entries_of(folder, d.cutouts, "label"), d)
    scenes = entries_of(folder, d.scenes, "scene")
    if d.test and all(entry.part for entry in (*cutouts, *scenes)):
        raise UserError(f"{folder / DESCRIPTION}: test is of no use, since the tables give every image a split")
    labels = {name: label for label, name in enumerate(sorted({entry.kind for entry in cutouts}))}
    if len(labels) < 2:
        raise UserError(f"{folder}: cut-outs of two classes or more are needed, and all are of {', '.join(labels)}")
    class_of = _class_of_scenes(folder, d.pairs, labels, {entry.kind for entry in scenes})
    scenes = [replace(entry, kind=class_of[entry.kind]) for entry in _with_parts(folder, scenes, d.test)]
    of_parts = [
        {part: pictures_of(entries, part, labels) for part in PARTS}
        for entries in (_with_parts(folder, cutouts, d.test), scenes)
    ]
    for what, of_part in zip(("cut-out", "scene"), of_parts, strict=True):
        check_filled(folder, of_part, labels, what)
    files = [name for of_part in of_parts for part in PARTS for name in of_part[part].files]
    require(folder, sorted(files), "each file that is named")
    tables = [where for where in (d.cutouts, d.scenes) if isinstance(where, str)]
    cutouts_of, scenes_of = of_parts
    return Pasted(
        root=folder, files=(*read, *tables, *files), num_classes=len(labels), cutouts=cutouts_of, scenes=scenes_of
    )


def pictures_of(entries: Iterable[Entry], part: str, labels: Mapping[str, int]) -> Pictures:
    """Return the entries of one part as columns, those for training in an order drawn once."""
    own = [entry for entry in entries if entry.part == part]
    if part == "train":
        own.sort(key=lambda entry: drawn_place(entry.name))
    masks = tuple(entry.mask for entry in own if entry.mask)
    return Pictures(
        names=tuple(entry.name for entry in own),
        labels=tuple(labels[entry.kind] for entry in own),
        masks=masks or None,
    )


def check_filled(folder: Path, of_part: Mapping[str, Pictures], labels: Mapping[str, int], what: str) -> None:
    """Raise a `UserError` that names a class without any pictures in a part."""
    for part, pictures in of_part.items():
        for name, label in labels.items():
            if label not in pictures.labels:
                raise UserError(f"{folder}: class {name!r} has no {what} in the {part} part")


def every(entries: Sequence[Entry], n: int) -> list[Entry]:
    """Return entries with parts: of each kind every n-th by name is for testing, all others for training."""
    seen: dict[str, int] = defaultdict(int)
    parted = []
    for entry in sorted(entries, key=lambda entry: entry.name):
        seen[entry.kind] += 1
        parted.append(replace(entry, part="train" if seen[entry.kind] % n else "test"))
    return parted


def _with_parts(folder: Path, entries: Sequence[Entry], patterns: Sequence[str]) -> list[Entry]:
    """Return entries that all have a part: their table's, or the patterns', or that of every fifth."""
    if any(entry.part for entry in entries):
        without = next((entry for entry in entries if not entry.part), None)
        if without:
            raise UserError(f"{folder / without.name} has no split, and other images of its table have one")
        return list(entries)
    if not patterns:
        return every(entries, EVERY)
    return [
        replace(entry, part="test" if any(fnmatch(entry.name, pattern) for pattern in patterns) else "train")
        for entry in entries
    ]


def _masked(folder: Path, cutouts: list[Entry], d: Description) -> list[Entry]:
    """Return the cut-outs with the masks that the description names, if any."""
    if d.masks:
        folders = d.cutouts
        if isinstance(folders, str):
            raise UserError(f"{folder / DESCRIPTION}: masks are folders; for {folders} they go into its column mask")
        if strange := d.masks.keys() - folders:
            raise UserError(f"{folder / DESCRIPTION}: masks are of {_quoted(strange)}, and cut-outs are not")
        masks = {
            (kind, _stem(name, place)): name for kind, place in d.masks.items() for name in images_below(folder, place)
        }
        of_entry = [masks.get((entry.kind, _stem(entry.name, folders[entry.kind]))) for entry in cutouts]
        cutouts = [replace(entry, mask=mask) for entry, mask in zip(cutouts, of_entry, strict=True)]
    if d.masks or any(entry.mask for entry in cutouts):
        for entry in cutouts:
            if not entry.mask:
                raise UserError(f"{folder / entry.name} has no mask, and other cut-outs have one")
    return cutouts


def _stem(name: str, place: str) -> str:
    """Return where a file lies in a folder, without its suffix."""
    return Path(name).relative_to(place).with_suffix("").as_posix()


def _class_of_scenes(
    folder: Path, pairs: Mapping[str, str | list[str]], labels: Mapping[str, int], kinds: set[str]
) -> dict[str, str]:
    """Return for each kind of scenes the class that it goes with; each has one, and each class has at least one."""
    class_of: dict[str, str] = {}
    for name in (*labels, *(name for name in pairs if name not in labels)):
        if name not in labels or not pairs.get(name):
            what = "has no cut-outs" if name not in labels else "has no scenes: name some in pairs"
            raise UserError(f"{folder}: class {name!r} {what}")
        own = pairs[name]
        for kind in [own] if isinstance(own, str) else own:
            if kind not in kinds:
                raise UserError(f"{folder}: class {name!r} is to have scenes {kind!r}, and there are {_quoted(kinds)}")
            if class_of.get(kind) == name:
                raise UserError(f"{folder}: class {name!r} has scenes {kind!r} twice in pairs")
            if kind in class_of:
                raise UserError(f"{folder}: scenes {kind!r} go with {class_of[kind]!r} and {name!r}: they tell neither")
            class_of[kind] = name
    if unused := kinds - {*class_of}:
        raise UserError(f"{folder}: scenes {_quoted(unused)} go with no class: name them in pairs, or leave them out")
    return class_of


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))
