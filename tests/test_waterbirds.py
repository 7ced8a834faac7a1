"""Waterbirds from the official layouts: labels, parts, and composites against the official recipe, step by step."""

import csv
import shutil

import numpy as np
import pytest
import torch
from mmc_bench_plugins.foregrounds.birds import read_metadata
from mmc_bench_plugins.foregrounds.waterbirds import middle_of
from PIL import Image
from PIL.ExifTags import Base

from mmc_bench import UserError
from mmc_bench.data.sources import Sources
from mmc_bench.data.splits import derive_experiment, first_of_each_class
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.settings import DataSettings

SIZE = 56  # of pictures; the official recipe stretches to 64 and cuts out the middle
SPECIES = (
    "001.Black_footed_Albatross",
    "021.Eastern_Towhee",
    "087.Mallard",
    "011.Rusty_Blackbird",
    "172.Nashville_Warbler",
)
WATER = {"001.Black_footed_Albatross", "021.Eastern_Towhee", "087.Mallard"}  # the towhee is officially one, for "tern"
BIRD_SIZES = ((100, 75), (75, 100), (120, 70))
PLACE_SIZES = ((130, 100), (60, 48), (90, 140))  # one is smaller than the birds
PLACES = ("b/bamboo_forest", "f/forest/broadleaf", "o/ocean", "l/lake/natural")
PER_SPECIES = 16


def smooth(size, rng):
    """Return a picture of slow waves, (H, W, 3): what resampling does to it hangs little on the filter."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    waves = [
        128 + 100 * np.sin(3 * (np.cos(angle) * x / width + np.sin(angle) * y / height) + phase)
        for angle, phase in rng.uniform(0, 6.3, (3, 2))
    ]
    return np.dstack(waves).round().astype(np.uint8)


def write_cub(root, rng):
    """Write birds, their segmentations and the tables, as the official archives unpack."""
    lines = {"images": [], "train_test_split": [], "image_class_labels": []}
    for label, species in enumerate(SPECIES, start=1):
        for folder in ("images", "segmentations"):
            (root / folder / species).mkdir(parents=True)
        for number in range(PER_SPECIES):
            name, size = f"{species}/{species[4:]}_{number:04}", BIRD_SIZES[number % 3]
            Image.fromarray(smooth(size, rng)).save(root / "images" / f"{name}.jpg", quality=95)
            y, x = np.mgrid[: size[1], : size[0]]
            inside = np.hypot(x / size[0] - 0.5, y / size[1] - 0.5)
            grey = (np.clip((0.35 - inside) * 20, 0, 1) * 5).round() * 51  # five people's outlines, averaged
            Image.fromarray(grey.astype(np.uint8)).save(root / "segmentations" / f"{name}.png")
            image = len(lines["images"]) + 1
            lines["images"].append(f"{image} {name}.jpg")
            lines["train_test_split"].append(f"{image} {int(number % 2 == 0)}")
            lines["image_class_labels"].append(f"{image} {label}")
    lines["classes"] = [f"{label} {species}" for label, species in enumerate(SPECIES, start=1)]
    for table, rows in lines.items():
        (root / f"{table}.txt").write_text("\n".join(rows) + "\n")


def write_places(root, rng):
    for folder in PLACES:
        (root / "data_large" / folder).mkdir(parents=True)
        for number in range(24):
            image = Image.fromarray(smooth(PLACE_SIZES[number % 3], rng))
            image.save(root / "data_large" / folder / f"{number:08}.jpg", quality=95)


def write_metadata(root, cub):
    """Write pairs as the official table has them: of 20 in training 19 match, of 8 and 12 otherwise half do."""
    root.mkdir()
    names = [line.split() for line in (cub / "images.txt").read_text().splitlines()]
    names.sort(key=lambda row: int(row[0]) % PER_SPECIES)  # all species in every part
    train = dict(line.split() for line in (cub / "train_test_split.txt").read_text().splitlines())
    unused = [[f"/{place}/{n:08}.jpg" for n in range(24) for place in PLACES[i : i + 2]] for i in (0, 2)]
    rows, counts = [], {"0": 0, "1": 0, "2": 0}
    for number, name in names:
        split = "2" if train[number] == "0" else "0" if counts["0"] < 20 else "1"
        if counts[split] == {"0": 20, "1": 8, "2": 12}[split]:
            continue
        counts[split] += 1
        y = int(name.partition("/")[0] in WATER)
        matches = counts[split] != 7 if split == "0" else counts[split] % 2
        place = y if matches else 1 - y
        rows.append((number, name, y, split, place, unused[place].pop(0)))
    with (root / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("img_id", "img_filename", "y", "split", "place", "place_filename"), *rows])
    return rows


@pytest.fixture(scope="module")
def official(made_once):
    """Return the folders of the three sources, which no test may change."""

    def make(root):
        rng = np.random.default_rng(0)
        write_cub(root / "cub", rng)
        write_places(root / "places", rng)
        write_metadata(root / "waterbirds-metadata", root / "cub")

    root = made_once("waterbirds", make)
    return {name: root / name for name in ("cub", "places", "waterbirds-metadata")}


def listings(folders, name="waterbirds-95"):
    offer = Registry.discover().get("dataset", name)
    layouts = {source: offer.layout(source) for source in offer.spec.sources}
    return Sources({source: str(folders[source]) for source in layouts}, layouts=layouts)


def loaded(folders, name):
    offer = Registry.discover().get("dataset", name)
    dataset = offer.make(offer.configure({"size": SIZE}))
    dataset.load(listings(folders, name))
    return dataset


def official_rows(folders):
    with (folders["waterbirds-metadata"] / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- the official recipe


def behind_by_hand(place, size):
    """Return a place cut and resized to a bird's size: enlarged first where it is too small, then its middle."""
    width, height = size
    if place.width < width or place.height < height:
        larger = (width, width * place.height // place.width)
        if larger[1] < height:
            larger = (height * place.width // place.height, height)
        place = place.resize(larger, Image.LANCZOS)
    if place.width / place.height > width / height:
        beside = (place.width - int(width / height * place.height)) // 2
        box = (beside, 0, place.width - beside, place.height)
    else:
        above = (place.height - int(place.width * height / width)) // 2
        box = (0, above, place.width, place.height - above)
    return place.crop(box).resize(size, Image.LANCZOS)


def composite_by_hand(folders, bird, place):
    """Return the official composite of a bird's photograph and a place, as networks see it, (H, W, 3) in 0 to 255."""
    photograph = Image.open(folders["cub"] / "images" / bird).convert("RGB")
    mask = Image.open(folders["cub"] / "segmentations" / bird.replace(".jpg", ".png")).convert("RGB")
    opacity = np.asarray(mask) / 255
    ground = Image.open(folders["places"] / "data_large" / place).convert("RGB")
    ground = np.asarray(behind_by_hand(ground, photograph.size))
    composite = np.around(np.asarray(photograph) * opacity) + np.around(ground * (1 - opacity))
    picture = Image.fromarray(composite.astype(np.uint8)).resize((64, 64), Image.BILINEAR)
    return np.asarray(picture.crop((4, 4, 60, 60))).astype(np.float64)


@pytest.fixture(scope="module")
def with_pairs(official):
    return loaded(official, "waterbirds-95")


@pytest.mark.slow
def test_composites_of_the_official_pairs_are_the_official_ones(official, with_pairs):
    rows = official_rows(official)
    for name, split in (("train", "0"), ("test", "2")):
        part = getattr(with_pairs, name)
        of_bird = {f"images/{row['img_filename']}": row for row in rows if row["split"] == split}
        own = [of_bird[pair.bird] for pair in listings(official).listing("waterbirds-metadata").of[name]]
        assert len(own) == len(of_bird) == len(part.labels)
        assert part.labels.tolist() == [int(row["y"]) for row in own]
        first = 0 if split == "0" else 20
        seen = with_pairs.render(part.images.float() / 127.5 - 1, first + torch.arange(len(own)))
        for row, picture in zip(own, seen, strict=True):
            expected = composite_by_hand(official, row["img_filename"], row["place_filename"][1:])
            difference = np.abs((picture.permute(1, 2, 0).numpy() + 1) * 127.5 - expected)
            assert difference.mean() < 1 and difference.max() < 8, row


@pytest.mark.slow
def test_the_training_set_has_the_correlation_of_the_table(official, with_pairs):
    rows = [row for row in official_rows(official) if row["split"] == "0"]
    assert np.mean([row["y"] == row["place"] for row in rows]) == 0.95
    assert with_pairs.train.cues.tolist() == list(range(20))
    data = derive_experiment(with_pairs, DataSettings(clean_images=3, validation_images=3), 1.0, seed=0)
    assert torch.equal(data.pretraining.cues, data.pretraining.index)


def test_on_c_a_test_bird_whose_place_is_of_the_other_class_has_another_one_of_its_own(official, with_pairs):
    rows = [row for row in official_rows(official) if row["split"] == "2"]
    kinds = [int(row["place"]) for row in rows]
    own = (with_pairs.test.cues - 20).tolist()
    for number, (row, code) in enumerate(zip(rows, own, strict=True)):
        assert kinds[code] == int(row["y"])
        if row["y"] == row["place"]:
            assert code == number


def test_a_turned_photograph_has_the_shape_that_a_viewer_shows(tmp_path):
    upright, turned, place = (tmp_path / f"{name}.jpg" for name in ("upright", "turned", "place"))
    photograph, exif = Image.new("RGB", (60, 40)), Image.Exif()
    photograph.save(upright)
    exif[Base.Orientation] = 6
    photograph.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    Image.new("RGB", (50, 50)).save(place)
    assert middle_of(turned, place) == middle_of(upright, place) != (1 / 16, 1 / 16, 15 / 16, 15 / 16)
    assert middle_of(place, turned) == middle_of(place, upright)


# --- any place behind any bird


def test_birds_have_cub_s_parts_and_places_are_split_in_halves(official):
    sources = listings(official, "waterbirds")
    birds, places = sources.listing("cub"), sources.listing("places")
    for part, even in (("train", 0), ("test", 1)):
        names = dict(zip(birds.of[part].names, birds.of[part].labels, strict=True))
        assert names == {
            f"images/{species}/{species[4:]}_{number:04}.jpg": int(species in WATER)
            for species in SPECIES
            for number in range(even, PER_SPECIES, 2)
        }
        scenes = dict(zip(places.of[part].names, places.of[part].labels, strict=True))
        assert sorted(scenes) == sorted(
            f"data_large/{place}/{number:08}.jpg" for place in PLACES for number in range(even, 24, 2)
        )
        assert all(label == (PLACES.index(name[11:-13]) > 1) for name, label in scenes.items())
    assert {"images.txt", "train_test_split.txt"} < {*birds.files}


def test_as_many_landbirds_as_waterbirds_are_used(official):
    dataset = loaded(official, "waterbirds")
    assert [part.labels.bincount().tolist() for part in (dataset.train, dataset.test)] == [[16, 16], [16, 16]]


@pytest.mark.slow
def test_a_cue_rate_with_conflicting_minorities_makes_the_official_setting(official):
    dataset = loaded(official, "waterbirds")
    settings = DataSettings(clean_images=4, validation_images=4, minority="conflicting")
    data = derive_experiment(dataset, settings, 0.75, seed=0)
    sources = listings(official, "waterbirds")
    kinds = torch.tensor([*sources.listing("places").of["train"].labels])
    matching = kinds[data.pretraining.cues] == data.pretraining.labels
    for label in (0, 1):
        own = matching[data.pretraining.labels == label]
        assert own.sum() == int(0.75 * len(own))
    assert torch.equal(matching, data.pretraining.cues == dataset.train.cues[data.pretraining.index])


def species_without_a_cue(names, labels, cue_rate):
    """Return the species of the birds to which the cue rate leaves no cue of their own."""
    cued = first_of_each_class(torch.tensor(labels), 2, cue_rate).tolist()
    return {name.split("/")[1] for name, has_cue in zip(names, cued, strict=True) if not has_cue}


def test_birds_without_their_own_cue_are_of_all_species(official):
    birds = listings(official, "waterbirds").listing("cub").of["train"]
    assert species_without_a_cue(birds.names, birds.labels, 0.6) == {*SPECIES}


def test_birds_of_the_official_table_without_their_own_cue_are_of_all_species(tmp_path):
    birds = [(f"{species}/{number}.jpg", int(species in WATER)) for species in SPECIES for number in range(20)]
    rows = [f"{name},{label},{split},{label},/sea.jpg" for split in (0, 2) for name, label in birds]
    rows = [row.replace("/", f"/{number}_", 1) for number, row in enumerate(rows)]
    (tmp_path / "metadata.csv").write_text("\n".join(["img_filename,y,split,place,place_filename", *rows]))
    pairs = read_metadata(tmp_path).of["train"]
    assert species_without_a_cue([pair.bird for pair in pairs], [pair.label for pair in pairs], 0.8) == {*SPECIES}


# --- wrong layouts


def linked(folders, tmp_path):
    """Return folders of links to the files, which a test may take away."""
    copies = {}
    for name, folder in folders.items():
        copies[name] = tmp_path / name
        for file in folder.rglob("*"):
            if file.is_file():
                link = tmp_path / name / file.relative_to(folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file)
    return copies


def rewrite(path, change):
    content = change(path.read_text())
    path.unlink()
    path.write_text(content)


FAULTS = {
    "no table": ("cub", lambda f: (f / "images.txt").unlink(), r"cub lacks images\.txt: CUB-200-2011, with its segm"),
    "no segmentations": ("cub", lambda f: (f / "segmentations").rename(f / "masks"), "cub lacks segmentations: CUB"),
    "a missing segmentation": (
        "cub",
        lambda f: (f / "segmentations/087.Mallard/Mallard_0003.png").unlink(),
        r"cub lacks segmentations/087\.Mallard/Mallard_0003\.png: CUB-200-2011",
    ),
    "a line of one word": (
        "cub",
        lambda f: rewrite(f / "train_test_split.txt", lambda text: text.replace("\n5 1", "\n5", 1)),
        r"train_test_split\.txt, line 5: an image's number and a word are wanted, not '5'",
    ),
    "tables of other images": (
        "cub",
        lambda f: rewrite(f / "train_test_split.txt", lambda text: text.replace("80 0\n", "")),
        r"image 80 is in only one of images\.txt and train_test_split\.txt",
    ),
    "another flag": (
        "cub",
        lambda f: rewrite(f / "train_test_split.txt", lambda text: text.replace("\n5 1", "\n5 2", 1)),
        r"train_test_split\.txt: image 5 has '2', and 1 \(train\) or 0 \(test\) is wanted",
    ),
    "a number twice": (
        "cub",
        lambda f: rewrite(f / "images.txt", lambda text: text.replace("\n5 ", "\n4 ", 1)),
        r"images\.txt, line 5: image 4 is there twice",
    ),
    "a photograph twice": (
        "cub",
        lambda f: rewrite(f / "images.txt", lambda text: text.replace("Mallard_0003", "Mallard_0002")),
        r"Mallard_0002\.jpg is there twice: an image has one class and one part",
    ),
    "no test birds": (
        "cub",
        lambda f: rewrite(f / "train_test_split.txt", lambda text: text.replace(" 0\n", " 1\n")),
        "class 'landbird' has no bird in the test part",
    ),
    "three kinds of places": (
        "places",
        lambda f: (f / "data_large/l").rename(f / "data_large/m"),
        r"places lacks data_large/l/lake/natural: Places365 \(large images",
    ),
    "no images": (
        "places",
        lambda f: [p.unlink() for p in (f / "data_large/o/ocean").iterdir()],
        "ocean holds no image",
    ),
    "other places": (
        "places",
        lambda f: (f / "data_large").rename(f / "val"),
        "lacks b/bamboo_forest, .*, l/lake/natural: Pl",
    ),
    "a place of both classes": (
        "places",
        lambda f: (
            shutil.rmtree(f / "data_large/o/ocean"),
            (f / "data_large/o/ocean").symlink_to(f / "data_large/b/bamboo_forest"),
        ),
        r"is there twice, as data_large/b/bamboo_forest/00000000\.jpg",
    ),
    "a pair twice": (
        "waterbirds-metadata",
        lambda f: rewrite(f / "metadata.csv", lambda text: text + text.splitlines()[-1]),
        r"metadata\.csv: .*\.jpg is there twice",
    ),
    "no metadata": (
        "waterbirds-metadata",
        lambda f: (f / "metadata.csv").unlink(),
        r"lacks metadata\.csv: the table of",
    ),
    "another table": (
        "waterbirds-metadata",
        lambda f: rewrite(f / "metadata.csv", lambda text: text.replace("place_filename", "file")),
        r"metadata\.csv has no column 'place_filename'",
    ),
    "one class": (
        "waterbirds-metadata",
        lambda f: rewrite(f / "metadata.csv", lambda text: text.replace(",0,0,", ",1,0,")),
        r"metadata\.csv has no landbird in the train part",
    ),
    "another place": (
        "waterbirds-metadata",
        lambda f: rewrite(f / "metadata.csv", lambda text: text.replace(",1,0,1,", ",1,0,2,", 1)),
        "has y 1, split 0, place 2, and only a split may be 2",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_or_partial_layout_is_one_sentence_that_says_what_was_looked_for(official, tmp_path, fault):
    name, spoil, says = FAULTS[fault]
    folders = linked({name: official[name]}, tmp_path)
    spoil(folders[name])
    with pytest.raises(UserError, match=says) as caught:
        listings({**official, **folders}).listing(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("was", "says"), [("Mallard_0000", "images/087.Mallard/M0.jpg"), ("b/bamboo_forest", "M0/0")])
def test_a_pair_of_files_that_are_not_there_is_named(official, tmp_path, was, says):
    folders = linked({"waterbirds-metadata": official["waterbirds-metadata"]}, tmp_path)
    rewrite(folders["waterbirds-metadata"] / "metadata.csv", lambda text: text.replace(was, "M0"))
    with pytest.raises(UserError, match=rf"metadata\.csv names {says}.* is not in .*"):
        loaded({**official, **folders}, "waterbirds-95")
