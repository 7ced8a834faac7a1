"""Which files of class folders are images, and what is said of those that are left out."""

import os
import re
import shutil

import pytest
from PIL import Image

from mmc_bench import UserError
from mmc_bench.data.class_folders import identity_of_folders, is_class_folder, read_class_folders
from mmc_bench.data.folders import load_folder
from mmc_bench.data.locations import Wanted, identify
from mmc_bench.data.sources import Sources


def draw(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), shade).save(path)


@pytest.fixture
def root(tmp_path):
    """Class folders of two images a class."""
    root = tmp_path / "images"
    for part in ("train", "test"):
        for label, name in enumerate(("ant", "bee")):
            for index in range(2):
                draw(root / part / name / f"{index}.png", shade=10 * label + index)
    return root


def names(root, part="train"):
    return [image.name.removeprefix(f"{part}/") for image in read_class_folders(root).images[part]]


USUAL = ["ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png"]


def remarks(root):
    """Return what is reported of a folder that stands for two sources."""
    heard = []
    identify({"a": str(root), "b": str(root)}, {"a": Wanted(2), "b": Wanted(2)}, heard.append)
    return heard


def shades(root):
    return [int(image.unique()) for image in load_folder(root, size=None, channels=1)[0].images]


def test_a_single_class_is_refused(root):
    for part in ("train", "test"):
        shutil.rmtree(root / part / "bee")
    with pytest.raises(UserError, match="has the class 'ant' alone: a dataset needs two classes or more"):
        read_class_folders(root)


def test_folders_of_images_alone_are_read_without_a_remark(root):
    assert (names(root), remarks(root)) == (USUAL, [])


@pytest.mark.parametrize(
    "hidden", ["train/ant/.ipynb_checkpoints/0-checkpoint.png", "train/ant/._0.png", "train/.ipynb_checkpoints/0.png"]
)
def test_hidden_files_and_folders_are_no_part_of_the_images(root, hidden):
    before = identify({"a": str(root)}, {"a": Wanted(2)})
    draw(root / "more.png")
    (root / hidden).parent.mkdir(exist_ok=True)
    (root / "more.png").rename(root / hidden)
    for name in (".DS_Store", "train/.DS_Store", "train/bee/.DS_Store"):
        (root / name).write_bytes(b"\0")
    assert (names(root), remarks(root)) == (USUAL, [])
    assert identify({"a": str(root)}, {"a": Wanted(2)}) == before
    assert shades(root) == [0, 1, 10, 11]


@pytest.mark.parametrize(
    "suffix", [".gif", ".GIF", ".jfif", ".jpe", ".JPEG", ".tif", ".tiff", ".webp", ".bmp", ".pgm", ".jp2", ".apng"]
)
def test_images_of_all_usual_suffixes_are_read(root, suffix):
    draw(root / "train" / "ant" / f"2{suffix}")
    assert names(root) == ["ant/0.png", "ant/1.png", f"ant/2{suffix}", "bee/0.png", "bee/1.png"]
    assert len(load_folder(root, size=None, channels=1)[0].labels) == 5


def test_all_that_is_left_out_is_counted_in_one_sentence(root, tmp_path):
    for name in ("train/ant/notes.txt", "train/ant/0.png.bak", "test/bee/drawing.svg", "test/bee/LICENSE"):
        (root / name).write_text("no image")
    for name in ("README.md", "train/labels.csv"):
        (root / name).write_text("beside")
    draw(root / "validation" / "ant" / "0.png")
    (root / "train" / "bee" / "2.png").symlink_to(tmp_path / "nowhere.png")
    (root / "train" / "bee" / "3.png").symlink_to("3.png")
    os.mkfifo(root / "train" / "bee" / "pipe.png")
    assert names(root) == USUAL
    assert remarks(root) == [
        f"{root}: left out: 2 behind a dangling link (train/bee/2.png, train/bee/3.png); "
        "3 beside the class folders (README.md, train/labels.csv, validation); "
        "1 neither file nor folder (train/bee/pipe.png); "
        "4 without a known image suffix (test/bee/LICENSE, test/bee/drawing.svg, train/ant/0.png.bak, …)"
    ]


def test_test_images_of_another_size_are_refused_where_no_size_is_given(root):
    for file in (root / "test").rglob("*.png"):
        Image.new("L", (9, 8)).save(file)
    with pytest.raises(UserError, match=r"test/ant/0\.png is 9x8, and the first one 4x4: .*--set DATASET\.pixels=32"):
        load_folder(root, size=None, channels=None)
    assert [part.images.shape[2:] for part in load_folder(root, size=(6, 6), channels=None)] == [(6, 6), (6, 6)]


def test_images_that_changed_since_the_run_was_planned_are_refused(root):
    planned = identify({"insects": str(root)}, {"insects": Wanted()})
    sources = Sources({"insects": str(root)}, images={**planned, "digits": "original"})
    assert len(sources.load("insects")[0].labels) == 4
    draw(root / "test" / "ant" / "0.png", shade=9)
    with pytest.raises(UserError, match=f"^images of {re.escape(str(root))} were changed during the run: run the same"):
        sources.load("insects")


@pytest.mark.parametrize(
    ("classes", "fits"),
    [
        ([*"0123456789"], True),
        ([f"{digit} - digit" for digit in range(10)], True),
        ([f"{digit:02}" for digit in range(10)], True),
        ([*"123456789", "10"], False),
        ([*"0123456"], False),
        (["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"], False),
    ],
)
def test_folders_in_place_of_mnist_are_the_ten_digits(tmp_path, classes, fits):
    for name in classes:
        draw(tmp_path / "train" / name / "0.png")
        draw(tmp_path / "test" / name / "0.png")
    if fits:
        assert identify({"mnist": str(tmp_path)}, {"mnist": Wanted()})
        return
    with pytest.raises(UserError, match=r"^--data mnist=.*: its classes must be named 0 to 9, and are \w+, "):
        identify({"mnist": str(tmp_path)}, {"mnist": Wanted()})


def kinds_of_images(root):
    """Write 20 training images of each of two kinds into each class, and return the folder."""
    for name in ("ant", "bee"):
        for kind in "xy":
            for index in range(20):
                draw(root / "train" / name / kind / f"{index:02}.png", shade=index)
        draw(root / "test" / name / "b.png")
        draw(root / "test" / name / "a.png")
    return root


def test_a_drawn_order_mixes_what_folders_sort_and_leaves_test_images_as_they_are(tmp_path):
    root = kinds_of_images(tmp_path / "images")
    by_name, drawn = (read_class_folders(root, order).images for order in ("by name", "drawn"))
    assert drawn["test"] == by_name["test"]
    assert {*drawn["train"]} == {*by_name["train"]} and len(drawn["train"]) == 80
    for label in (0, 1):
        kinds = [image.name.split("/")[2] for image in drawn["train"] if image.label == label]
        assert all(2 < kinds[start : start + 10].count("x") < 8 for start in range(0, 40, 10))
    assert all(image.label == ("bee" in image.name) for image in drawn["train"])


def test_a_drawn_order_is_the_same_wherever_and_in_whatever_order_files_were_written(tmp_path):
    root = kinds_of_images(tmp_path / "images")
    order = [image.name for image in read_class_folders(root, "drawn").images["train"]]
    elsewhere = tmp_path / "deeper" / "elsewhere"
    for name in (*reversed(order), "test/ant/a.png", "test/bee/a.png"):
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, elsewhere / name)
    assert [image.name for image in read_class_folders(elsewhere, "drawn").images["train"]] == order


def test_the_order_is_drawn_unless_a_folder_stands_for_a_built_in_source_and_is_part_of_its_identity(root):
    draw(root / "train" / "ant" / "2.png", shade=2)
    shades = {
        source: [int(image[0, 0, 0]) for image in Sources({source: str(root)}).load(source)[0].images]
        for source in ("cifar10", "insects")
    }
    assert shades["cifar10"] == [0, 1, 2, 10, 11]
    drawn = [image.name for image in read_class_folders(root, "drawn").images["train"]]
    shade_of = {"train/ant/0.png": 0, "train/ant/1.png": 1, "train/ant/2.png": 2, "train/bee/0.png": 10}
    assert shades["insects"] == [shade_of.get(name, 11) for name in drawn] != shades["cifar10"]
    identities = identify(dict.fromkeys(shades, str(root)), dict.fromkeys(shades, Wanted(2)))
    assert identities["cifar10"] == f"folder:{identity_of_folders(read_class_folders(root))}"
    assert identities["insects"] == f"folder:{identity_of_folders(read_class_folders(root, 'drawn'))}"
    assert identities["insects"] != identities["cifar10"]


def test_images_below_a_class_are_read_in_the_order_of_their_folders(root):
    for name in ("ant/z/0.png", "ant/a/0.png", "ant/a/b/0.png", "ant/10.png"):
        draw(root / "train" / name)
    own = ["ant/0.png", "ant/1.png", "ant/10.png", "ant/a/0.png", "ant/a/b/0.png", "ant/z/0.png"]
    assert names(root) == [*own, "bee/0.png", "bee/1.png"]
    from torchvision.datasets import ImageFolder

    assert [path for path, _ in ImageFolder(root / "train").samples] == [f"{root}/train/{name}" for name in names(root)]


def test_images_in_a_linked_folder_are_found(root, tmp_path):
    draw(tmp_path / "elsewhere" / "deep" / "7.png", shade=7)
    (root / "train" / "ant" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert names(root) == ["ant/0.png", "ant/1.png", "ant/more/deep/7.png", "bee/0.png", "bee/1.png"]
    assert shades(root) == [0, 1, 7, 10, 11]
    assert remarks(root) == []


def test_class_folders_of_links_alone_are_read(root, tmp_path):
    (root / "train").rename(tmp_path / "pool")
    for name in ("ant", "bee"):
        (root / "train" / name).mkdir(parents=True)
        for index in range(2):
            (root / "train" / name / f"{index}.png").symlink_to(tmp_path / "pool" / name / f"{index}.png")
    assert (names(root), remarks(root)) == (USUAL, [])
    (root / "test" / "ant").rename(tmp_path / "ants")
    (root / "test" / "ant").symlink_to(tmp_path / "ants", target_is_directory=True)
    assert (names(root, "test"), remarks(root)) == (USUAL, [])


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("ant/2.png", "train/ant/0.png"),
        ("ant/2.png", "train/bee/0.png"),
        ("ant/loop", "train/ant"),
        ("ant/loop", "train"),
        ("ant/loop", "."),
        ("ant/loop", ".."),
        ("ant/bees", "train/bee"),
    ],
)
def test_a_link_to_what_is_read_already_is_followed_no_further(root, link, target):
    (root / "train" / link).symlink_to(root / target)
    assert names(root) == USUAL
    if not link.endswith("s"):
        assert remarks(root) == [f"{root}: left out: 1 linked to, but read already (train/{link})"]


def test_an_image_that_two_links_lead_to_is_read_once(root, tmp_path):
    draw(tmp_path / "pool" / "7.png", shade=7)
    (root / "train" / "ant" / "7.png").symlink_to(tmp_path / "pool" / "7.png")
    (root / "train" / "bee" / "pool").symlink_to(tmp_path / "pool", target_is_directory=True)
    assert names(root) == ["ant/0.png", "ant/1.png", "ant/7.png", "bee/0.png", "bee/1.png"]
    assert remarks(root) == [f"{root}: left out: 1 linked to, but read already (train/bee/pool/7.png)"]


def test_hard_links_and_copies_are_images_of_their_own(root):
    (root / "train" / "ant" / "2.png").hardlink_to(root / "train" / "ant" / "0.png")
    assert names(root) == ["ant/0.png", "ant/1.png", "ant/2.png", "bee/0.png", "bee/1.png"]
    assert remarks(root) == []


def test_a_class_of_which_all_is_left_out_is_named_with_the_reasons(root):
    for file in (root / "test" / "bee").iterdir():
        file.rename(file.with_suffix(".heic"))
    with pytest.raises(UserError) as caught:
        remarks(root)
    reason = "2 without a known image suffix (test/bee/0.heic, test/bee/1.heic)"
    assert str(caught.value) == f"{root / 'test' / 'bee'} holds no image; left out: {reason}"


def test_a_class_that_is_another_classs_folder_is_named(root):
    (root / "train" / "cat").symlink_to(root / "train" / "bee", target_is_directory=True)
    draw(root / "test" / "cat" / "0.png")
    with pytest.raises(UserError, match=r"train/cat holds no image; left out: 1 linked to, but read already"):
        remarks(root)


def test_a_class_of_hidden_files_alone_holds_no_image(root):
    for file in (root / "test" / "bee").iterdir():
        file.rename(file.with_name(f".{file.name}"))
    with pytest.raises(UserError, match=r"test/bee holds no image$"):
        remarks(root)


def test_a_class_that_is_spelt_in_two_ways_is_named_in_both(root):
    (root / "test" / "bee").rename(root / "test" / "Bee")
    with pytest.raises(UserError, match="class 'Bee' is in only one of train and test, and 'bee' in only the other"):
        remarks(root)


@pytest.mark.parametrize("place", ["", "train", "train/ant", "train/ant/deep"])
def test_a_folder_that_may_not_be_read_is_one_sentence(root, monkeypatch, place):
    draw(root / "train" / "ant" / "deep" / "0.png")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path) == str(root / place):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # not by chmod: root may read everything
    with pytest.raises(UserError, match=f"{root / place} cannot be read: Permission denied"):
        remarks(root)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whose rights can be taken")
@pytest.mark.parametrize("place", [".", "train", "train/ant", "train/ant/0.png"])
def test_what_may_not_be_read_is_named(root, place):
    mode = (root / place).stat().st_mode
    (root / place).chmod(0)
    try:
        with pytest.raises(UserError, match="cannot be read: Permission denied"):
            remarks(root)
    finally:
        (root / place).chmod(mode)


def test_a_folder_whose_parts_lead_to_themselves_is_one_sentence(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).symlink_to(part)
    with pytest.raises(UserError, match="train cannot be read: Too many levels"):
        is_class_folder(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["run", "--dry-run"], ["status"], ["check", "digits-box"]])
def test_commands_say_once_on_stderr_what_is_left_out(tmp_path, bench, words):
    for part in ("train", "test"):
        for name in "0123456789":
            for index in range(3):
                draw(tmp_path / "digits" / part / name / f"{index}.png", shade=10 * int(name) + index)
    (tmp_path / "digits" / "train" / "3" / "notes.txt").write_text("no image")
    remark = "left out: 1 without a known image suffix (train/3/notes.txt)"
    assert bench(*words, "--data", f"digits={tmp_path / 'digits'}").err.count(remark) == 1


def test_the_python_interface_says_once_on_stderr_what_is_left_out(root, capfd):
    import mmc_bench

    for name in "cdefghij":
        for part in ("train", "test"):
            draw(root / part / name / "0.png")
    (root / "notes.txt").write_text("no image")
    mmc_bench.dry_run("quick", data={"digits": root})
    assert capfd.readouterr().err.count("left out: 1 beside the class folders (notes.txt)") == 1
