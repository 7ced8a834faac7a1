"""Folders of a dataset's own layout: what a plugin lists of them is their identity, and all that it may decode."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers.plugins import registry_of, write_source
from PIL import Image

from mmc_bench import DatasetSpec, UserError
from mmc_bench.data.locations import Wanted, check_present, identify
from mmc_bench.data.sources import Sources
from mmc_bench.running.session import Session, wanted_by
from mmc_bench.stages.resources import Resources, sources_of

PLUGIN = """
from mmc_bench import DatasetSpec, UserError, hookimpl
from mmc_bench.data.listing import Listing

@hookimpl
def register_datasets(register):
    register(DatasetSpec(name="pairs", target=":Pairs", sources=("pairs",), num_classes=2,
                         layouts={"pairs": ":read_pairs"}))
    register(DatasetSpec(name="odd", target=":Pairs", sources=("odd",), layouts={"odd": ":read_odd"}))

def read_pairs(folder):
    if not (folder / "labels.csv").is_file():
        raise UserError(f"{folder} holds no labels.csv")
    names = [line.split(",")[0] for line in (folder / "labels.csv").read_text().splitlines()]
    return Listing(root=folder, files=("labels.csv", *names), num_classes=len(names))

def read_odd(folder):
    return {"files": ()}

class Pairs:
    pass
"""


@pytest.fixture
def offers(tmp_path):
    write_source(tmp_path / "plugins", "pairs.py", PLUGIN)
    registry = registry_of(tmp_path / "plugins")
    assert not registry.failures
    return {offer.spec.name: offer for offer in registry.offers("dataset")}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "white")):
        Image.new("RGB", (4, 4), colour).save(folder / f"{name}.png")
    (folder / "labels.csv").write_text("b.png,0\na.png,1\n")
    return folder


def identified(offers, folder):
    return identify({"pairs": str(folder)}, wanted_by([offers["pairs"]]))["pairs"]


def test_listed_files_are_the_images_identity_wherever_they_lie(offers, folder, tmp_path):
    before = identified(offers, folder)
    assert before.startswith("folder:")
    Image.new("RGB", (4, 4), "black").save(folder / "c.png")  # is not listed
    assert identified(offers, folder) == before
    elsewhere = folder.rename(tmp_path / "moved")
    assert identified(offers, elsewhere) == before
    (elsewhere / "labels.csv").write_text("b.png,1\na.png,0\n")
    assert identified(offers, elsewhere) != before


def test_only_listed_files_are_decoded(offers, folder):
    sources = sources_of(offers["pairs"], Sources({"pairs": str(folder)}))
    assert sources.listing("pairs").files == ("labels.csv", "b.png", "a.png")
    assert sources.decode("pairs", ["a.png", "b.png"], (2, 2))[:, :, 0, 0].tolist() == [[255, 0, 0], [0, 0, 255]]
    with pytest.raises(UserError, match=r"the listing of pairs lacks c\.png: it must have every file that is read"):
        sources.decode("pairs", ["a.png", "c.png"], (2, 2))
    with pytest.raises(UserError, match="its spec must list it in sources"):
        sources.listing("others")


@pytest.mark.parametrize("file", ["labels.csv", "a.png"])
def test_listed_files_that_changed_since_the_run_was_planned_are_refused(offers, folder, file):
    planned = {"pairs": identified(offers, folder)}
    before, after = (sources_of(offers["pairs"], Sources({"pairs": str(folder)}, images=planned)) for _ in range(2))
    assert before.listing("pairs").files == ("labels.csv", "b.png", "a.png")
    (folder / file).write_bytes((folder / file).read_bytes()[:-1])
    for read in (lambda: before.decode("pairs", ["a.png"], (2, 2)), lambda: after.listing("pairs")):
        with pytest.raises(UserError, match=rf"^images of {folder} were changed during the run: run the same command"):
            read()


def test_a_run_refuses_images_that_changed_after_it_was_planned(folder, tmp_path):
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / "classes" / part / name).mkdir(parents=True)
            shutil.copy(folder / f"{name}.png", tmp_path / "classes" / part / name)
    session = Session.of(lists={"datasets": "images-box"}, data={"images": tmp_path / "classes"}, results=tmp_path)
    job = session.plan.pretrainings[0]
    shutil.copy(folder / "c.png", tmp_path / "classes" / "train" / "a")
    resources = Resources(session.registry, session.store, Sources(dict(session.data)), torch.device("cpu"), threads=1)
    with pytest.raises(UserError, match="classes were changed during the run"):
        resources.data(job)


def test_what_is_wrong_with_a_folder_is_said_before_a_run(offers, folder):
    (folder / "labels.csv").rename(folder / "labels.txt")
    with pytest.raises(UserError, match=r"images holds no labels\.csv"):
        identified(offers, folder)
    (folder / "labels.csv").write_text("b.png,0\na.png,1\nc.png,2\n")
    with pytest.raises(UserError, match="3 classes, but the cue is made for 2"):
        identified(offers, folder)
    (folder / "labels.csv").write_text("b.png,0\nz.png,1\n")
    with pytest.raises(UserError, match=r"z\.png cannot be read: No such file"):
        identified(offers, folder)


def test_a_folder_that_is_not_given_is_asked_for(offers):
    with pytest.raises(UserError, match="the images of pairs are not given: say where they are with --data pairs=DIR"):
        check_present({}, wanted_by([offers["pairs"]]), download=True)
    check_present({"pairs": "images"}, wanted_by([offers["pairs"]]), download=True)
    with pytest.raises(UserError, match="the images of mine are not given: say where they are with --data mine=DIR"):
        check_present({}, {"mine": Wanted()}, download=True)
    check_present({"mine": "images"}, {"mine": Wanted()}, download=True)


def test_two_datasets_that_read_one_source_in_different_ways_are_not_run_together(bench, folder, tmp_path):
    write_source(tmp_path / "plugins", "pairs.py", PLUGIN)
    write_source(
        tmp_path / "plugins", "others.py", PLUGIN.replace('name="pairs"', 'name="others"').replace("odd", "odder")
    )
    words = ("--plugins-dir", tmp_path / "plugins", "--data", f"pairs={folder}", "--dry-run")
    result = bench("run", "--datasets", "pairs,others", *words)
    assert result.code == 4 and "read image source 'pairs' in different ways: run them one by one" in result.err
    assert bench("run", "--datasets", "others", *words).code == 0


def test_a_layout_that_returns_no_listing_is_named(offers, folder):
    with pytest.raises(UserError, match="is a dict, and must be a Listing"):
        identify({"odd": str(folder)}, wanted_by([offers["odd"]]))


def test_a_spec_s_layouts_are_checked():
    with pytest.raises(ValueError, match="sources must list 'a', which has a layout"):
        DatasetSpec(name="mine", target=":Mine", layouts={"a": ":read"})
    with pytest.raises(ValueError, match="layout 'read' must read 'module:function'"):
        DatasetSpec(name="mine", target=":Mine", sources=("a",), layouts={"a": "read"})


def test_a_command_answers_for_a_layout_in_one_sentence(bench, folder, tmp_path):
    write_source(tmp_path / "plugins", "pairs.py", PLUGIN)
    words = ["run", "--datasets", "pairs", "--plugins-dir", tmp_path / "plugins"]
    asked = bench(*words)
    assert asked.code == 4 and "say where they are with --data pairs=DIR" in asked.err
    (folder / "labels.csv").unlink()
    wrong = bench(*words, "--data", f"pairs={folder}")
    assert wrong.code == 4 and f"{folder} holds no labels.csv" in wrong.err
    assert Path(folder).exists() and "Traceback" not in asked.err + wrong.err
