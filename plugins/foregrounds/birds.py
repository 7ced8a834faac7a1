"""Where Waterbirds' parts lie: CUB-200-2011 with its segmentations, Places, and the official pairs of both."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmc_bench import UserError
from mmc_bench.data.listing import Listing, drawn_place, unreadable

from .layout import PARTS, Pictures, check_filled, every, pictures_of
from .tables import Entry, check_once, exists, images_below, read_rows, require

CLASSES = {"landbird": 0, "waterbird": 1}

#: Seabirds and waterfowl (Sagawa et al., 2020, dataset_scripts/generate_waterbirds.py). As there, a species is one of
#: them whose name contains one of these: Eastern Towhee, Western Meadowlark and Western Wood Pewee, too, for "tern".
WATERBIRDS = (
    *("albatross", "auklet", "cormorant", "frigatebird", "fulmar", "gull", "jaeger", "kittiwake", "pelican", "puffin"),
    *("tern", "gadwall", "grebe", "mallard", "merganser", "guillemot", "pacific_loon"),
)

#: The folders of Places365's large images that the official composites show, by the class that they go with.
PLACES = {
    "landbird": ("b/bamboo_forest", "f/forest/broadleaf"),
    "waterbird": ("o/ocean", "l/lake/natural"),
}

#: Every second place, by name, is for testing: CUB has about as many birds for testing as for training.
EVERY_PLACE = 2

#: What the official table calls its parts, in numbers.
PART_OF_SPLIT = {"0": "train", "1": "val", "2": "test"}


@dataclass(frozen=True, kw_only=True)
class Parts(Listing):
    """Birds or places, for ``"train"`` and for ``"test"``."""

    of: Mapping[str, Pictures]


@dataclass(frozen=True)
class Pair:
    """A row of the official table: names of bird and place below their sources' folders, label, place (0 or 1)."""

    bird: str
    place: str
    label: int
    place_label: int


@dataclass(frozen=True, kw_only=True)
class Pairs(Listing):
    """The official pairs of bird and place, for ``"train"`` in an order drawn once, ``"val"`` and ``"test"``."""

    of: Mapping[str, tuple[Pair, ...]] = field(repr=False)


def is_waterbird(species: str) -> bool:
    """Tell whether a species is one by its folder in CUB: ``"001.Black_footed_Albatross"``."""
    name = species.partition(".")[2].lower()
    return any(waterbird in name for waterbird in WATERBIRDS)


def read_cub(folder: Path) -> Parts:
    """Return CUB-200-2011's birds by its own split, landbirds with label 0 and waterbirds with label 1.

    Raises
    ------
    UserError
        When a table, an image or a segmentation is missing, or a table is malformed.
    """
    what = "CUB-200-2011, with its segmentations unpacked into it,"
    tables = ("images.txt", "train_test_split.txt")
    require(folder, [*tables, "images", "segmentations"], what)
    names, splits = (_numbered(folder / table) for table in tables)
    for number, flag in splits.items():
        if flag not in ("0", "1"):
            raise UserError(f"{folder / tables[1]}: image {number} has {flag!r}, and 1 (train) or 0 (test) is wanted")
    if strange := names.keys() ^ splits.keys():
        raise UserError(f"{folder}: image {min(strange)} is in only one of {' and '.join(tables)}")
    entries = [
        Entry(
            f"images/{name}",
            "waterbird" if is_waterbird(name) else "landbird",
            "train" if splits[number] == "1" else "test",
            f"segmentations/{Path(name).with_suffix('.png').as_posix()}",
        )
        for number, name in names.items()
    ]
    return _parts(folder, entries, "bird", tables, what)


def _numbered(table: Path) -> dict[str, str]:
    """Return what a table of CUB has for each image's number."""
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise unreadable(error, table) from None
    except ValueError as error:
        raise UserError(f"{table} cannot be read: {error}") from None
    words: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if len(line.split()) != 2:
            raise UserError(f"{table}, line {number}: an image's number and a word are wanted, not {line[:80]!r}")
        image, word = line.split()
        if image in words:
            raise UserError(f"{table}, line {number}: image {image} is there twice")
        words[image] = word
    return words


def read_places(folder: Path) -> Parts:
    """Return four kinds of scenes of Places365: land goes with landbirds, water with waterbirds.

    Raises
    ------
    UserError
        When one of the four folders is missing or empty.
    """
    inside = "data_large/" if exists(folder / "data_large") else ""
    kinds = [(name, inside + place) for name, places in PLACES.items() for place in places]
    what = "Places365 (large images: data_large, or what is in it)"
    require(folder, [place for _, place in kinds], what)
    entries = [Entry(image, name) for name, place in kinds for image in images_below(folder, place)]
    return _parts(folder, every(entries, EVERY_PLACE), "place", (), what)


def _parts(folder: Path, entries: list[Entry], one: str, tables: tuple[str, ...], what: str) -> Parts:
    check_once(folder, entries, "class")
    of = {part: pictures_of(entries, part, CLASSES) for part in PARTS}
    check_filled(folder, of, CLASSES, one)
    files = [name for part in PARTS for name in of[part].files]
    require(folder, sorted(files), what)
    return Parts(root=folder, files=(*tables, *files), num_classes=len(CLASSES), of=of)


def read_metadata(folder: Path) -> Pairs:
    """Return the pairs of ``metadata.csv``, which the official waterbird_complete95_forest2water2 comes with.

    Raises
    ------
    UserError
        When it is missing or malformed.
    """
    table = "metadata.csv"
    require(folder, [table], "the table of waterbird_complete95_forest2water2")
    of: dict[str, list[Pair]] = {part: [] for part in PART_OF_SPLIT.values()}
    seen: set[str] = set()
    for row in read_rows(folder / table, ("img_filename", "y", "split", "place", "place_filename")):
        if row["split"] not in PART_OF_SPLIT or not {row["y"], row["place"]} <= {"0", "1"}:
            values = ", ".join(f"{column} {row[column]}" for column in ("y", "split", "place"))
            raise UserError(f"{folder / table}: {row['img_filename']} has {values}, and only a split may be 2")
        if row["img_filename"] in seen:
            raise UserError(f"{folder / table}: {row['img_filename']} is there twice")
        seen.add(row["img_filename"])
        of[PART_OF_SPLIT[row["split"]]].append(
            Pair(f"images/{row['img_filename']}", row["place_filename"].lstrip("/"), int(row["y"]), int(row["place"]))
        )
    for part in PARTS:
        for name, label in CLASSES.items():
            if all(pair.label != label for pair in of[part]):
                raise UserError(f"{folder / table} has no {name} in the {part} part")
    of["train"].sort(key=lambda pair: drawn_place(pair.bird))
    return Pairs(root=folder, files=(table,), of={part: tuple(pairs) for part, pairs in of.items()})
