"""What tells one result from another: images, sources, the core, every generator."""

import os
import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from mmc_bench.data.folders import load_folder
from mmc_bench.data.locations import fingerprint
from mmc_bench.data.sources import Sources
from mmc_bench.errors import UserError
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.store import Store
from mmc_bench.stages.workshop import Workshop
from mmc_bench.suites import version as core
from mmc_bench.training import Progress, Training


def bitmaps(folder, shade):
    """Write a class folder of bitmaps: all of one size, and of one time of change."""
    for part in ("train", "test"):
        for name in ("a", "b"):
            path = folder / part / name / "0.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (shade, shade, shade)).save(path)
            os.utime(path, (10**9, 10**9))
    return folder


def test_folders_alike_but_for_their_pixels_are_told_apart(tmp_path):
    dark, light = bitmaps(tmp_path / "dark", 10), bitmaps(tmp_path / "light", 200)
    assert fingerprint(dark) != fingerprint(light)
    assert load_folder(dark, None, 3)[0].images.unique().tolist() == [10]
    assert load_folder(light, None, 3)[0].images.unique().tolist() == [200]


def test_a_folder_changed_in_place_with_its_times_put_back_is_noticed(tmp_path):
    folder = bitmaps(tmp_path / "images", 10)
    before = fingerprint(folder)
    bitmaps(folder, 200)
    assert fingerprint(folder) != before


def test_a_folder_keeps_its_identity_wherever_it_lies(tmp_path):
    folder = bitmaps(tmp_path / "here", 10)
    before = fingerprint(folder)
    shutil.copytree(folder, tmp_path / "there")
    assert fingerprint(tmp_path / "there") == before


def test_a_dangling_link_among_images_is_one_sentence(tmp_path):
    folder = bitmaps(tmp_path / "images", 10)
    (folder / "train" / "a" / "1.bmp").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"1\.bmp cannot be read"):
        fingerprint(folder)


def test_a_dataset_reads_only_the_sources_that_its_spec_lists():
    with pytest.raises(UserError, match="'digits': its spec must list it"):
        Sources(allowed=("cifar10",)).load("digits")


def test_the_embedded_digits_can_be_replaced_like_any_other_source(tmp_path):
    train, _ = Sources({"digits": str(bitmaps(tmp_path / "images", 10))}, allowed=("digits",)).load("digits")
    assert train.images.shape == (2, 3, 32, 32)


def test_the_cores_version_follows_its_source(tmp_path, monkeypatch):
    copy = tmp_path / "mmc_bench"
    shutil.copytree(os.path.dirname(os.path.dirname(core.__file__)), copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(core, "__file__", str(copy / "suites" / "version.py"))
    version = core.core_version.__wrapped__
    before = version()
    assert before == core.core_version()
    (copy / "cli" / "main.py").write_text("# no result depends on it")
    assert version() == before
    (copy / "data" / "splits.py").write_text("# results depend on it")
    assert version() != before


def test_a_stage_seeds_every_global_generator(tmp_path):
    workshop = Workshop(Registry([]), Store(tmp_path), Sources(), torch.device("cpu"), 1)

    def draws():
        workshop.seed_everything("fine-tuning", 3)
        return random.random(), np.random.rand(), torch.rand(1).item()

    first = draws()
    random.random(), np.random.rand(), torch.rand(1)
    assert draws() == first


def test_training_on_a_set_that_makes_no_batch_is_refused(tiny_net, image_set):
    net, images, generator = tiny_net(), image_set(1), torch.Generator()
    with pytest.raises(UserError, match="1 images makes no batch"):
        Training(net, images, lr=0.1, epochs=1, batch_size=4, generator=generator, progress=Progress())
    with pytest.raises(UserError, match="1 images makes no batch"):
        next(images.stream(4, generator))
