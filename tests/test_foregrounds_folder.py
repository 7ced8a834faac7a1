"""Folders of cut-outs and scenes: which files are read, for what, and what a wrong folder is answered with."""

import errno
import os

import numpy as np
import pytest
import torch
from helpers.cut_outs import (
    CUTOUTS,
    LABELS,
    PAIRS,
    SCENES,
    SIDE,
    describe,
    described_images,
    drop,
    found_in,
    loaded,
    pixels_of,
    sources_of,
)
from mmc_bench_plugins.foregrounds.tables import SUFFIXES
from PIL import Image

from mmc_bench import UserError
from mmc_bench.data.class_folders import IMAGE_SUFFIXES


@pytest.fixture
def folder(tmp_path):
    return described_images(tmp_path / "images")


def test_classes_sort_into_labels_and_every_fifth_file_of_a_kind_is_for_testing(folder):
    found = found_in(folder)
    assert found.num_classes == 2
    for part, numbers in (("test", {4, 9, 14}), ("train", {*range(15)} - {4, 9, 14})):
        for pictures_of, counts, label_of in (
            (found.cutouts[part], CUTOUTS, LABELS),
            (found.scenes[part], SCENES, {"night": 1, "dusk": 1, "grass": 0}),
        ):
            names = dict(zip(pictures_of.names, pictures_of.labels, strict=True))
            kinds = "cutouts" if counts is CUTOUTS else "scenes"
            assert names == {
                f"{kinds}/{kind}/{number:02}.png": label_of[kind]
                for kind, count in counts.items()
                for number in sorted(numbers)
                if number < count
            }
    assert len({*found.files}) == len(found.files) == 1 + 25 + 25


def test_training_cut_outs_are_in_an_order_that_mixes_their_kinds(folder):
    for kind in "ab":
        (folder / "cutouts" / "owl").joinpath(kind).mkdir()
    for number in range(15):
        owl = folder / "cutouts" / "owl" / f"{number:02}.png"
        owl.rename(owl.parent / ("a" if number < 7 else "b") / owl.name)
    owls = [name for name in found_in(folder).cutouts["train"].names if "owl" in name]
    assert len(owls) == 12 and {name.split("/")[2] for name in owls[-4:]} == {"a", "b"}
    assert [*found_in(folder).cutouts["test"].names] == sorted(found_in(folder).cutouts["test"].names)


def test_patterns_say_what_is_for_testing(folder):
    describe(folder, test=["*/03.png", "cutouts/owl/1*"])
    found = found_in(folder)
    assert found.cutouts["test"].names == (
        *("cutouts/ant/03.png", "cutouts/owl/03.png"),
        *(f"cutouts/owl/{number}.png" for number in range(10, 15)),
    )
    assert {name.rpartition("/")[2] for name in found.scenes["test"].names} == {"03.png"}


def tables(folder, splits=("train", "test", "val")):
    """Write the CSV files that list the images of the folder, with these splits in turn."""
    for table, column in (("cutouts", "label"), ("scenes", "scene")):
        files = sorted((folder / table).rglob("*.png"))
        lines = [
            f"{file.relative_to(folder)},{file.parent.name},{splits[number % len(splits)]}"
            for number, file in enumerate(files)
        ]
        (folder / f"{table}.csv").write_text("\n".join([f"path,{column},split", *lines]) + "\n")


def test_csv_files_list_images_with_their_split_and_validation_images_are_for_training(folder):
    tables(folder)
    describe(folder, cutouts="cutouts.csv", scenes="scenes.csv")
    found = found_in(folder)
    files = sorted(path.relative_to(folder).as_posix() for path in (folder / "scenes").rglob("*.png"))
    assert sorted(found.scenes["test"].names) == files[1::3]
    assert sorted(found.scenes["train"].names) == sorted({*files} - {*files[1::3]})
    assert {"foregrounds.yaml", "cutouts.csv", "scenes.csv"} < {*found.files}


@pytest.mark.slow
def test_masks_in_folders_or_a_column_are_the_opacity_of_images(folder):
    expected = loaded(folder).train.images
    for file in sorted((folder / "cutouts").rglob("*.png")):
        pixels = pixels_of(file)
        Image.fromarray(pixels[:, :, :3]).save(file)
        mask = folder / "masks" / file.parent.name / file.with_suffix(".bmp").name
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[:, :, 3]).save(mask)
    describe(folder, masks={name: f"masks/{name}" for name in CUTOUTS})
    assert torch.equal(loaded(folder).train.images, expected)
    names = [f"{kind}/{number:02}" for kind in sorted(CUTOUTS) for number in range(CUTOUTS[kind])]
    rows = [f"cutouts/{name}.png,{name[:3]},masks/{name}.bmp" for name in names]
    (folder / "list.csv").write_text("\n".join(["path,label,mask", *rows]))
    describe(folder, cutouts="list.csv")
    assert torch.equal(loaded(folder).train.images, expected)


FAULTS = {
    "no description": (
        lambda f: drop(f, "foregrounds.yaml"),
        r"images lacks foregrounds.yaml: the file that says where",
    ),
    "no YAML": (
        lambda f: (f / "foregrounds.yaml").write_text("a: [b"),
        "yaml cannot be read: while parsing",
    ),
    "an empty description": (
        lambda f: (f / "foregrounds.yaml").write_text(""),
        "yaml is empty: the keys cutouts, scenes and pairs are wanted",
    ),
    "a word": (lambda f: (f / "foregrounds.yaml").write_text("owl"), "yaml holds 'owl': the keys cutouts, scenes"),
    "a folder for the description": (
        lambda f: (drop(f, "foregrounds.yaml"), (f / "foregrounds.yaml").mkdir()),
        r"^[^:]*foregrounds.yaml cannot be read: Is a directory$",
    ),
    "a folder for a table": (
        lambda f: describe(f, cutouts="cutouts"),
        r"^[^:]*images/cutouts cannot be read: Is a directory$",
    ),
    "a list for a folder": (
        lambda f: describe(f, cutouts={"owl": ["cutouts/owl"], "ant": "cutouts/ant"}),
        r"yaml: cutouts\.owl = .*: Input should be a valid string",
    ),
    "a pair named twice": (
        lambda f: describe(f, pairs={**PAIRS, "owl": ["night", "dusk", "night"]}),
        "class 'owl' has scenes 'night' twice in pairs",
    ),
    "an absolute folder": (
        lambda f: describe(f, scenes={**{name: f"scenes/{name}" for name in SCENES}, "dusk": str(f / "scenes/dusk")}),
        "images/scenes/dusk is an absolute path: a folder of images is looked for below",
    ),
    "an absolute folder of masks": (
        lambda f: describe(f, masks={"owl": str(f / "cutouts/owl")}),
        "images/cutouts/owl is an absolute path: a folder of images",
    ),
    "an absolute table": (
        lambda f: describe(f, cutouts=str(f / "cutouts.csv")),
        r"cutouts\.csv is an absolute path: a CSV file is looked for below",
    ),
    "a name that is too long": (
        lambda f: describe(f, scenes={name: f"scenes/{name}" + "x" * 300 for name in SCENES}),
        "x cannot be read: File name too long$",
    ),
    "a folder for two classes": (
        lambda f: describe(f, cutouts={"owl": "cutouts/owl", "ant": "scenes/../cutouts/./owl"}),
        r"images/cutouts/owl/00\.png is there twice, as scenes/\.\./cutouts/owl/00\.png: an image has one label",
    ),
    "scenes for two classes": (
        lambda f: describe(f, scenes={"night": "scenes/night", "dusk": "scenes/night", "grass": "scenes/grass"}),
        r"scenes/night/00\.png is there twice: an image has one scene and one part",
    ),
    "a linked folder for two classes": (
        lambda f: (
            (f / "more").symlink_to("cutouts/owl"),
            describe(f, cutouts={"owl": "cutouts/owl", "ant": "more"}),
        ),
        r"cutouts/owl/00\.png is there twice, as more/00\.png",
    ),
    "a linked image": (
        lambda f: (f / "cutouts/ant/99.png").symlink_to("../owl/00.png"),
        r"ant/99\.png is there twice, as cutouts/owl/00\.png|owl/00\.png is there twice, as cutouts/ant/99\.png",
    ),
    "a link to nowhere": (
        lambda f: (f / "cutouts/ant/99.png").symlink_to("nowhere"),
        r"images lacks cutouts/ant/99\.png: each file that is named",
    ),
    "an unknown key": (lambda f: describe(f, scene={}), "scene = '{}': Extra inputs"),
    "a missing key": (lambda f: describe(f, pairs=None), "foregrounds.yaml lacks pairs$"),
    "a missing folder": (lambda f: describe(f, cutouts={"owl": "owls"}), "images lacks owls: a folder of images was"),
    "an empty folder": (lambda f: drop(f, "scenes/dusk/*"), "dusk holds no image"),
    "one class": (lambda f: describe(f, cutouts={"owl": "cutouts/owl"}), "two classes or more .* all are of owl"),
    "a class without scenes": (lambda f: describe(f, pairs={"owl": ["night", "dusk"]}), "class 'ant' has no scenes"),
    "a class without cut-outs": (lambda f: describe(f, pairs={**PAIRS, "elk": "dusk"}), "class 'elk' has no cut-outs"),
    "unknown scenes": (
        lambda f: describe(f, pairs={**PAIRS, "ant": "gras"}),
        "'ant' is to have scenes 'gras', and",
    ),
    "unused scenes": (lambda f: describe(f, pairs={**PAIRS, "owl": "night"}), "scenes 'dusk' go with no class"),
    "scenes of two classes": (
        lambda f: describe(f, pairs={"owl": ["night", "dusk"], "ant": ["grass", "dusk"]}),
        "scenes 'dusk' go with 'ant' and 'owl': they tell neither",
    ),
    "no test cut-out": (lambda f: drop(f, "cutouts/ant/0[4-9].png"), "class 'ant' has no cut-out in the test part"),
    "no test scene": (lambda f: drop(f, "scenes/grass/0[4-9].png"), "class 'ant' has no scene in the test part"),
    "no training scene": (
        lambda f: describe(f, test=["scenes/grass/*", "*/0[1-5].png"]),
        "class 'ant' has no scene in the train part",
    ),
    "no mapping": (lambda f: describe(f, pairs=["owl"]), r"pairs = .*: Input should be a valid dictionary"),
    "masks of no class": (
        lambda f: describe(f, masks={"elk": "cutouts/owl"}),
        "masks are of 'elk', and cut-outs are not",
    ),
    "a missing mask": (
        lambda f: describe(f, masks={"owl": "cutouts/owl", "ant": "scenes/dusk"}),
        "cutouts/ant/05.png has no mask",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_folder_is_one_sentence_that_says_what_is_wanted(folder, fault):
    spoil, says = FAULTS[fault]
    spoil(folder)
    with pytest.raises(UserError, match=says) as caught:
        found_in(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "content", "says"),
    [
        ("cutouts", "path,split\na.png,train", "cutouts.csv has no column 'label': its first line names path, split"),
        ("cutouts", "path,label\na.png,\n", "cutouts.csv, line 2: the column 'label' is empty"),
        ("cutouts", "path,label,split\na.png,owl,tset", "split 'tset' of a.png is none of train, val"),
        (
            "scenes",
            "path,scene,split\na.png,grass,test\nb.png,dusk,train\nc.png,night,",
            "c.png has no split, and other images",
        ),
        ("scenes", "path,scene\nb.png,dusk\nb.png,night", "b.png is there twice"),
        ("scenes", "path,scene", "scenes.csv names no image"),
        (
            "scenes",
            "path,scene\nb.png,dusk\na/../b.png,night",
            r"a/\.\./b.png is there twice, as b.png: an image has one",
        ),
        ("scenes", "path,scene,split\nb.png,dusk,test\n./b.png,dusk,train", r"b.png is there twice, as b.png"),
        ("cutouts", "path,label,label\na.png,owl,ant", "cutouts.csv has two columns 'label'"),
        ("cutouts", "path,label\n\n\na.png,owl\n\nb.png,", "cutouts.csv, line 6: the column 'label' is empty"),
        ("cutouts", "\ufeffpath,label\n\xe9.png,\xf6wl\n\xe9.png,ant", "\xe9.png is there twice"),
    ],
)
def test_a_wrong_table_is_one_sentence_with_its_line(folder, table, content, says):
    tables(folder)
    (folder / f"{table}.csv").write_text(content, encoding="utf-8")
    describe(folder, cutouts="cutouts.csv", scenes="scenes.csv")
    with pytest.raises(UserError, match=says):
        found_in(folder)


def images_of_owls(folder):
    found = found_in(folder)
    names = [name for part in ("train", "test") for name in found.cutouts[part].names]
    return {name.removeprefix("cutouts/owl/") for name in names if name.startswith("cutouts/owl/")}


def test_links_are_followed_once_and_only_files_are_images(folder, tmp_path):
    owls = folder / "cutouts" / "owl"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number in (13, 14):
        (owls / f"{number}.png").rename(elsewhere / f"{number}.PNG")
    (elsewhere / "13.PNG").rename(elsewhere / "13.jfif")
    (owls / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(owls)
    (owls / "hidden").mkdir()
    (owls / "hidden" / "up.png").symlink_to(owls)
    (owls / "folder.png").mkdir()
    os.mkfifo(owls / "pipe.png")
    assert images_of_owls(folder) == {
        *(f"{number:02}.png" for number in range(13)),
        *("linked/13.jfif", "linked/14.PNG"),
    }


def test_a_folder_that_cannot_be_read_is_one_sentence(folder, monkeypatch):
    (folder / "cutouts" / "owl" / "more").mkdir()
    scandir = os.scandir

    def refused(place):
        if str(place).endswith("more"):
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(UserError, match=r"cutouts/owl/more cannot be read: Permission denied$"):
        found_in(folder)


def test_images_have_the_suffixes_that_they_have_in_class_folders():
    assert SUFFIXES == IMAGE_SUFFIXES


def test_patterns_besides_tables_that_give_every_split_are_refused(folder):
    tables(folder)
    describe(folder, cutouts="cutouts.csv", scenes="scenes.csv", test=["*1*"])
    with pytest.raises(UserError, match="test is of no use"):
        found_in(folder)
    describe(folder, cutouts="cutouts.csv", test=["*/00.png"])
    assert {name.rpartition("/")[2] for name in found_in(folder).scenes["test"].names} == {"00.png"}


def test_numbers_are_names_of_classes_too(folder):
    (folder / "foregrounds.yaml").write_text(
        "cutouts: {2: cutouts/owl, 10: cutouts/ant}\n"
        "scenes: {0: scenes/dusk, no: scenes/grass}\n"
        "pairs: {2: 0, 10: no}\n"
    )
    found = found_in(folder)
    assert found.cutouts["test"].names[:2] == ("cutouts/ant/04.png", "cutouts/ant/09.png")
    assert found.cutouts["test"].labels[:2] == (0, 0)


def test_files_that_a_table_names_must_be_there(folder):
    tables(folder)
    describe(folder, cutouts="cutouts.csv", scenes="scenes.csv")
    drop(folder, "cutouts/owl/*.png")
    with pytest.raises(UserError, match=r"images lacks cutouts/owl/00.png, .* and 10 more: each file that is named"):
        found_in(folder)


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.zeros((SIDE, SIDE, 4), np.uint8), "cutouts/owl/03.png shows nothing: none of its pixels is opaque"),
        (None, "owl/03.png cannot be read as an image"),
    ],
)
def test_a_cut_out_that_shows_nothing_or_cannot_be_read_is_named(folder, pixels, says):
    file = folder / "cutouts" / "owl" / "03.png"
    if pixels is None:
        file.write_bytes(b"GIF89a")
    else:
        Image.fromarray(pixels).save(file)
    with pytest.raises(UserError, match=says):
        loaded(folder)


def test_cats_go_with_forests_and_dogs_with_the_sea(tmp_path):
    for table, kinds in (("foregrounds", ("cat", "dog")), ("scenes", ("forest", "sea"))):
        column = "label" if table == "foregrounds" else "scene"
        rows = [f"{kind}_{part}.png,{kind},{part}" for kind in kinds for part in ("train", "test", "val")]
        (tmp_path / f"{table}.csv").write_text("\n".join([f"path,{column},split", *rows]))
        for kind in kinds:
            for part in ("train", "test", "val"):
                Image.new("RGBA", (4, 4), "red").save(tmp_path / f"{kind}_{part}.png")
    found = sources_of(tmp_path, name="catdog-scenes").listing("catdog-scenes")
    for part, suffixes in (("train", ("train", "val")), ("test", ("test",))):
        for pictures, kinds in ((found.cutouts[part], ("cat", "dog")), (found.scenes[part], ("forest", "sea"))):
            assert dict(zip(pictures.names, pictures.labels, strict=True)) == {
                f"{kind}_{suffix}.png": label for label, kind in enumerate(kinds) for suffix in suffixes
            }
    drop(tmp_path, "scenes.csv")
    with pytest.raises(UserError, match=r"lacks scenes\.csv: a table of cut-outs"):
        sources_of(tmp_path, name="catdog-scenes").listing("catdog-scenes")
