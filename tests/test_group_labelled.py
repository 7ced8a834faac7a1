"""Folders of images with labels and attributes, in exactly the layouts in which they are published."""

import csv
import json
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from mmc_bench_plugins.group_labelled.dataset import GroupLabelled, Spawrious, UrbanCars
from mmc_bench_plugins.group_labelled.listing import in_order
from mmc_bench_plugins.group_labelled.mnist import ColouredMnist
from mmc_bench_plugins.group_labelled.tables import read_celeba, read_table, read_waterbirds
from mmc_bench_plugins.group_labelled.trees import read_spawrious, read_urbancars
from PIL import Image

import mmc_bench
from mmc_bench import UserError
from mmc_bench.data.contract import SourceImages
from mmc_bench.data.sources import Sources

SPLITS = ("train", "val", "test")


def picture(path, shade):
    """Write an image of one grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (shade, shade, shade)).save(path)


def write_csv(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def subpopbench(folder, labels=("cat", "dog"), attributes=("indoors", "outdoors"), each=4):
    """Write a metadata.csv with words, as `pacs64` has it, and its images, whose grey tells the group."""
    rows = []
    for split, (y, label), (a, attribute), number in product(
        SPLITS, enumerate(labels), enumerate(attributes), range(each)
    ):
        name = f"{attribute}/{label}/{split}{number}.png"
        picture(folder / name, 10 + 100 * y + 50 * a + number)
        rows.append((name, label, attribute, split))
    write_csv(folder / "metadata.csv", ("filename", "y", "a", "split"), rows)


def waterbirds(folder):
    """Write Waterbirds as group DRO packs it."""
    columns = ("img_id", "img_filename", "y", "split", "place", "place_filename")
    rows = []
    for number, (split, y, place) in enumerate(product((0, 1, 2), (0, 1), (0, 1)), 1):
        name = f"00{y}.Some_Bird/Some_Bird_{number}.jpg"
        picture(folder / name, 20 * number)
        rows.append((number, name, y, split, place, f"/b/beach/{number}.jpg"))
    write_csv(folder / "metadata.csv", columns, rows)


def celeba(folder, form="txt"):
    """Write CelebA's lists, official or Kaggle's, of images of all splits and groups."""
    flags = [*product((0, 1, 2), (-1, 1), (-1, 1))]
    names = [f"{number:06}.jpg" for number in range(1, len(flags) + 1)]
    for number, name in enumerate(names):
        picture(folder / "img_align_celeba" / name, 20 * number)
    attributes = ("Bald", "Blond_Hair", "Male", "Young")
    if form == "txt":
        lines = [f"{name} {-1:2} {blond:2} {male:2} {1:2}" for name, (_, blond, male) in zip(names, flags, strict=True)]
        (folder / "list_attr_celeba.txt").write_text("\n".join([str(len(names)), " ".join(attributes), *lines]) + "\n")
        lines = [f"{name} {split}" for name, (split, _, _) in zip(names, flags, strict=True)]
        (folder / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    else:
        rows = [(name, -1, blond, male, 1) for name, (_, blond, male) in zip(names, flags, strict=True)]
        write_csv(folder / "list_attr_celeba.csv", ("image_id", *attributes), rows)
        rows = [(name, split) for name, (split, _, _) in zip(names, flags, strict=True)]
        write_csv(folder / "list_eval_partition.csv", ("image_id", "partition"), rows)
    return [("train", "val", "test")[split] for split, _, _ in flags], flags


def urbancars(folder):
    """Write one image of each folder of UrbanCars."""
    areas = ("urban", "country")
    for place in ("bg-0.95_co_occur_obj-0.95/train", "bg-0.5_co_occur_obj-0.5/val", "bg-0.5_co_occur_obj-0.5/test"):
        for car, ground, thing in product(areas, repeat=3):
            picture(folder / "urbancars" / place / f"obj-{car}_bg-{ground}_co_occur_obj-{thing}" / "1.jpg", 9)


def spawrious(folder, each=3):
    """Write the folders of Spawrious's one-to-one easy benchmark as its archive has them."""
    own = {"bulldog": ("desert", "dirt"), "dachshund": ("jungle", "snow")}
    own |= {"labrador": ("dirt", "desert"), "corgi": ("snow", "jungle")}
    for environment, (breed, places), number in product("01", own.items(), range(each)):
        for place in (*places, "beach"):
            picture(folder / f"spawrious224/{environment}/{place}/{breed}/{breed}_{number}.png", 9)


def loaded(kind, layout, folder, **config):
    """Return a dataset that has read a folder."""
    name = kind.source
    dataset = kind()
    dataset.config = kind.Config(size=8, **config)
    dataset.load(Sources({name: str(folder)}, allowed=(name,), layouts={name: layout}))
    return dataset


# --- layouts


def test_words_and_numbers_become_codes_in_their_order(tmp_path):
    subpopbench(tmp_path, labels=("10", "9"))
    data = loaded(GroupLabelled, read_table, tmp_path)
    assert data.num_classes == 2 and data.validation.tolist() == [False] * 16 + [True] * 16
    grey = data.train.images[:, 0, 0, 0].long()
    assert grey.tolist()[::4] == [10, 60, 110, 160] * 2
    assert data.train.labels.tolist()[::4] == [1, 1, 0, 0] * 2  # 9 comes before 10
    assert data.test.cues.tolist()[::4] == [0, 1, 0, 1] and len(data.test.labels) == 16


def test_numbers_sort_by_their_values_however_long_they_are():
    long = "1" * 5000
    assert in_order([long, "10", "9", "1.5"]) == ("1.5", "9", "10", long)


@pytest.mark.parametrize("inner", ["", "waterbird_complete95_forest2water2", "waterbirds_v1.0"])
def test_waterbirds_is_read_as_group_dro_and_wilds_pack_it(tmp_path, inner):
    waterbirds(tmp_path / inner)
    listing = read_waterbirds(tmp_path)
    found = [(image.split, image.label, image.attribute) for image in listing.images]
    assert found == [*product(("train", "validation", "test"), "01", "01")]
    assert listing.root == tmp_path / inner and listing.files[0] == "metadata.csv" and len(listing.files) == 13


@pytest.mark.parametrize("form", ["txt", "csv"])
def test_celeba_is_blond_hair_by_gender_from_the_official_lists_or_kaggles(tmp_path, form):
    splits, flags = celeba(tmp_path, form)
    found = [(image.split[:3], image.label, image.attribute) for image in read_celeba(tmp_path).images]
    wanted = [(s[:3], str(max(b, 0)), str(max(m, 0))) for s, (_, b, m) in zip(splits, flags, strict=True)]
    assert found == wanted


@pytest.mark.parametrize(("attribute", "groups"), [("both", 8), ("background", 4), ("object", 4)])
def test_urbancars_makes_groups_of_background_and_object_or_of_one(tmp_path, attribute, groups):
    urbancars(tmp_path)
    data = loaded(UrbanCars, read_urbancars, tmp_path, attribute=attribute)
    assert len({*zip(data.test.labels.tolist(), data.test.cues.tolist(), strict=True)}) == groups
    assert int(data.validation.sum()) == len(data.test.labels) == len(data.train.labels) // 2 == 8


def test_spawrious_takes_the_images_that_its_authors_loader_takes(tmp_path, monkeypatch):
    spawrious(tmp_path)
    monkeypatch.setattr("mmc_bench_plugins.group_labelled.trees.IMAGES", 4)  # int(.97 · 4) and int(.87 · 4) are 3
    data = loaded(Spawrious, read_spawrious, tmp_path)
    assert data.validation is None and data.num_classes == 4
    train, test = ([*zip(part.labels.tolist(), part.cues.tolist(), strict=True)] for part in (data.train, data.test))
    # bulldog, corgi, dachshund, labrador; beach, desert, dirt, jungle, snow
    own = {(0, 1): 6, (1, 4): 6, (2, 3): 6, (3, 2): 6}
    assert {pair: train.count(pair) for pair in train} == own | {(breed, 0): 2 for breed in range(4)}
    assert {pair: test.count(pair) for pair in test} == {(0, 2): 6, (1, 3): 6, (2, 4): 6, (3, 1): 6}
    with pytest.raises(UserError, match=r"has no images in 0/mountain/bulldog, which the benchmark o2o_medium needs"):
        loaded(Spawrious, read_spawrious, tmp_path, benchmark="o2o_medium")


@pytest.mark.parametrize("class_by_class", [False, True])
def test_colours_agree_with_a_noisy_label_as_arjovsky_et_al_say(class_by_class):
    labels = torch.arange(20000) % 10
    labels = labels.sort().values if class_by_class else labels
    source = SourceImages(torch.full((20000, 1, 28, 28), 200, dtype=torch.uint8), labels)

    class Mnist:
        def load(self, name):
            return source, source

    dataset = ColouredMnist()
    dataset.load(Mnist())
    train, test = dataset.train, dataset.test
    agree = (train.labels == train.cues).double()
    shares = [agree[::2].mean(), agree[1::2].mean(), (test.labels == test.cues).double().mean()]
    assert shares == pytest.approx([0.8, 0.9, 0.1], abs=0.02)
    if class_by_class:
        assert [agree[labels == digit].mean() for digit in range(10)] == pytest.approx([0.85] * 10, abs=0.03)
    assert (train.labels == (labels >= 5)).double().mean() == pytest.approx(0.75, abs=0.02)
    red, green, blue = train.images.amax((2, 3)).T
    assert torch.equal(red, 200 * train.cues) and torch.equal(green, 200 * (1 - train.cues)) and not blue.any()
    assert train.images.shape[1:] == (3, 32, 32)


# --- what is wrong or missing


def without(name):
    def spoil(folder):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def replaced(name, *words):
    """Replace words in a file: old, new, old, new, …"""

    def spoil(folder):
        text = (folder / name).read_text()
        for old, new in zip(words[::2], words[1::2], strict=True):
            text = text.replace(old, new)
        (folder / name).write_text(text)

    return spoil


WRONG = {
    "no table": (subpopbench, without("metadata.csv"), read_table, "holds no metadata.csv with the columns filename"),
    "no column": (
        subpopbench,
        replaced("metadata.csv", "filename,y,a", "filename,label,a"),
        read_table,
        "lacks the column y: looked for filename,y,a,split or img_filename,y,place,split, and it has filename, label",
    ),
    "no file": (
        subpopbench,
        without("indoors/cat/val1.png"),
        read_table,
        "lists indoors/cat/val1.png, and there is no",
    ),
    "no value": (
        subpopbench,
        replaced("metadata.csv", "n0.png,cat", "n0.png,"),
        read_table,
        "line 2: the label is",
    ),
    "a split": (
        subpopbench,
        replaced("metadata.csv", ",val", ",dev"),
        read_table,
        "split 'dev' is none of 0, 1, 2 and train, val, test",
    ),
    "no test": (subpopbench, replaced("metadata.csv", ",test", ",val"), read_table, "metadata.csv has no test images"),
    "a class of tests": (
        subpopbench,
        replaced("metadata.csv", "test0.png,dog", "test0.png,fox"),
        read_table,
        "class fox has test images and no train images",
    ),
    "one class": (
        subpopbench,
        replaced("metadata.csv", ",dog,", ",cat,"),
        read_table,
        "has the class cat alone: a dataset needs two classes or more",
    ),
    "one attribute": (
        subpopbench,
        replaced("metadata.csv", ",outdoors,train", ",indoors,train"),
        read_table,
        "all train images have the attribute indoors: groups need two or more",
    ),
    "a file twice": (
        subpopbench,
        replaced("metadata.csv", "indoors/cat/test0.png", "indoors/./cat/train0.png"),
        read_table,
        "lists indoors/cat/train0.png twice",
    ),
    "one number in two ways": (
        subpopbench,
        replaced("metadata.csv", ",indoors,", ",0,", ",outdoors,", ",0.0,"),
        read_table,
        "the attributes 0 and 0.0 are the same number: write it in one way",
    ),
    "no number": (subpopbench, replaced("metadata.csv", ",cat,", ",NaN,"), read_table, "line 2: the label is NaN"),
    "a long name": (subpopbench, replaced("metadata.csv", "train0", "0" * 300), read_table, "there is no such file in"),
    "no birds": (
        waterbirds,
        without("metadata.csv"),
        read_waterbirds,
        "nor waterbird_complete95_forest2water2/",
    ),
    "no list": (celeba, without("list_eval_partition.txt"), read_celeba, "holds neither list_eval_partition.txt nor"),
    "a face twice": (
        celeba,
        replaced("list_attr_celeba.txt", "000002.jpg", "000001.jpg"),
        read_celeba,
        "list_attr_celeba.txt lists 000001.jpg twice",
    ),
    "no faces": (celeba, without("img_align_celeba"), read_celeba, "holds no folder img_align_celeba with CelebA's"),
    "a face": (celeba, without("img_align_celeba/000003.jpg"), read_celeba, "lists 000003.jpg, and there is no file"),
    "no hair": (celeba, replaced("list_attr_celeba.txt", "Blond_", ""), read_celeba, "lacks the attribute Blond_Hair"),
    "a short line": (celeba, replaced("list_attr_celeba.txt", " 1  1\n", " 1\n"), read_celeba, "3 values, not 4"),
    "no cars": (urbancars, without("urbancars"), read_urbancars, "holds no bg-0.95_co_occur_obj-0.95/train, nor urban"),
    "some cars": (
        urbancars,
        without("urbancars/bg-0.5_co_occur_obj-0.5/val"),
        read_urbancars,
        "holds no folder bg-0.5_co_occur_obj-0.5/val/obj-urban_bg-urban_co_occur_obj-urban of UrbanCars",
    ),
    "no dogs": (
        spawrious,
        without("spawrious224"),
        read_spawrious,
        "holds no images spawrious224/0/PLACE/BREED",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_or_partial_layout_is_told_in_one_sentence(tmp_path, what):
    write, spoil, read, message = WRONG[what]
    write(tmp_path)
    read(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert message in str(caught.value) and str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


# --- runs


@pytest.mark.slow
def test_worst_group_of_a_run_equals_five_lines_of_numpy(tmp_path):
    folder = tmp_path / "images"
    subpopbench(folder, each=8)
    task = mmc_bench.task(
        "group-labelled",
        "tiny-net",
        set={"pretrain.epochs": 2, "pretrain.batch_size": 8, "group-labelled.size": 8},
        data={"group-labelled": folder},
        results=tmp_path / "results",
        plugins_dir=Path(__file__).parent / "plugins",
        precision="fp32",
    )
    (record,) = [json.loads(path.read_text()) for path in (tmp_path / "results" / "pretrained").glob("*.json")]

    rows = [row for row in csv.DictReader((folder / "metadata.csv").open()) if row["split"] == "test"]
    pixels = [np.asarray(Image.open(folder / row["filename"]).resize((8, 8))) for row in rows]
    with torch.no_grad():
        logits = task.pretrained(torch.tensor(np.stack(pixels)).permute(0, 3, 1, 2) / 127.5 - 1)

    y, a = (np.array([row[name] for row in rows]) for name in ("y", "a"))
    right = logits.argmax(1).numpy() == np.unique(y, return_inverse=True)[1]
    groups = [(y == label) & (a == attribute) for label in np.unique(y) for attribute in np.unique(a)]
    worst = min(right[group].mean() for group in groups)
    mean = np.mean([right[group].mean() for group in groups])  # all groups have equally many training images

    assert record["worst_group"] == pytest.approx(worst)
    scores = mmc_bench.score(task.pretrained, task)
    assert scores["worst_group"] == pytest.approx(worst) and scores["mean"] == pytest.approx(mean)


def test_a_wrong_layout_ends_a_run_before_it_starts(bench):
    (bench.folder / "images").mkdir()
    done = bench("run", "--datasets", "waterbirds-official", "--data", "waterbirds-official=images", "--methods", "llr")
    assert done.code == 4 and "holds no metadata.csv, nor waterbird_complete95_forest2water2/metadata.csv" in done.err
    done = bench("run", "--datasets", "celeba-blond", "--methods", "llr")
    assert done.code == 4 and "--data celeba-blond=DIR" in done.err and done.err.count("\n") == 1
