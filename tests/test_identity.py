"""What tells one result from another: images, sources, the core, every generator."""

import ast
import importlib
import os
import random
import shutil
import sys
from functools import cache

import numpy as np
import pytest
import torch
from helpers.plugins import install_distribution, write_source
from PIL import Image

from mmc_bench.data.class_folders import identity_of_folders, read_class_folders
from mmc_bench.data.folders import load_folder
from mmc_bench.data.sources import Sources
from mmc_bench.errors import UserError
from mmc_bench.plugin.registry import Registry
from mmc_bench.results import versions
from mmc_bench.results.store import Store
from mmc_bench.stages.resources import Resources
from mmc_bench.testing.golden import locked_things
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


def identity(folder):
    return identity_of_folders(read_class_folders(folder))


def test_folders_alike_but_for_their_pixels_are_told_apart(tmp_path):
    dark, light = bitmaps(tmp_path / "dark", 10), bitmaps(tmp_path / "light", 200)
    assert identity(dark) != identity(light)
    assert load_folder(dark, None, 3)[0].images.unique().tolist() == [10]
    assert load_folder(light, None, 3)[0].images.unique().tolist() == [200]


def test_a_folder_changed_in_place_with_its_times_put_back_is_noticed(tmp_path):
    folder = bitmaps(tmp_path / "images", 10)
    before = identity(folder)
    bitmaps(folder, 200)
    assert identity(folder) != before


def test_a_folder_keeps_its_identity_wherever_it_lies(tmp_path):
    folder = bitmaps(tmp_path / "here", 10)
    before = identity(folder)
    shutil.copytree(folder, tmp_path / "there")
    assert identity(tmp_path / "there") == before


def test_what_is_left_out_of_a_folder_is_no_part_of_its_identity(tmp_path):
    folder = bitmaps(tmp_path / "images", 10)
    before = identity(folder)
    (folder / "train" / "a" / "1.bmp").symlink_to(tmp_path / "nowhere")
    (folder / "train" / "a" / ".1.bmp").write_bytes((folder / "train" / "a" / "0.bmp").read_bytes())
    (folder / "train" / "a" / "notes.txt").write_text("no image")
    assert identity(folder) == before


def test_a_dataset_reads_only_the_sources_that_its_spec_lists():
    with pytest.raises(UserError, match="'digits': its spec must list it"):
        Sources(allowed=("cifar10",)).load("digits")


def test_the_embedded_digits_can_be_replaced_like_any_other_source(tmp_path):
    train, _ = Sources({"digits": str(bitmaps(tmp_path / "images", 10))}, allowed=("digits",)).load("digits")
    assert train.images.shape == (2, 3, 16, 16)


DECISIVE = ("data", "training", "landscape", "mechanisms", "stages", "seeds.py")
MODULE_OF = {
    "pretrain": "stages/pretrain.py",
    "fine-tune": "stages/finetune.py",
    "score": "stages/score.py",
    "connect": "stages/connect.py",
    "probe": "mechanisms/measure.py",
}


@cache
def imported(file):
    """Return the decisive files that a file of the package imports, directly, packages' own included."""
    found = set()
    for node in ast.walk(ast.parse((versions.PACKAGE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for parts in (name.split(".")[1:] for name in names if name.startswith("mmc_bench.")):
            for depth in range(1, len(parts) + 1):
                place = "/".join(parts[:depth])
                candidates = (f"{place}.py", f"{place}/__init__.py")
                found |= {name for name in candidates if (versions.PACKAGE / name).is_file()}
    empty = ("stages/__init__.py", "landscape/__init__.py", "mechanisms/__init__.py")
    return {name for name in found if name.split("/")[0] in DECISIVE and name not in empty}


def files_of(stage):
    return {file.relative_to(versions.PACKAGE).as_posix() for file in versions.files_of_stage(stage)}


@pytest.mark.parametrize("stage", versions.STAGES)
def test_a_stage_rests_on_all_that_its_module_imports(stage):
    reached, waiting = set(), [MODULE_OF[stage], "stages/resources.py"]
    while waiting:
        file = waiting.pop()
        if file not in reached:
            reached.add(file)
            waiting += imported(file)
    assert reached <= files_of(stage), f"add to STAGES for {stage}: {reached - files_of(stage)}"


def test_alignment_decides_no_weights_and_scores():
    for stage in ("pretrain", "fine-tune", "score"):
        assert not [file for file in files_of(stage) if file.startswith("landscape/alignment")]


@pytest.mark.slow
def test_a_stages_digest_follows_its_own_files_alone(tmp_path, monkeypatch):
    copy = tmp_path / "mmc_bench"
    shutil.copytree(versions.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(versions, "PACKAGE", copy)

    def digests():
        return {stage: versions.digest_of_stage.__wrapped__(stage) for stage in versions.STAGES}

    before = digests()
    assert before == {stage: versions.digest_of_stage(stage) for stage in versions.STAGES}
    wanted = {
        "cli/main.py": set(),
        "landscape/patterns.py": {"connect"},
        "landscape/invariance.py": {"score", "connect"},
        "stages/pretrain.py": {"pretrain"},
        "training/evaluate.py": set(versions.STAGES),
    }
    for file, stages in wanted.items():
        original = (copy / file).read_bytes()
        (copy / file).write_text("# edited")
        assert {stage for stage, digest in digests().items() if digest != before[stage]} == stages
        (copy / file).write_bytes(original.replace(b"\n", b"\r\n"))
        assert digests() == before
        (copy / file).write_bytes(original)


@pytest.mark.parametrize("thing", locked_things(Registry.discover()), ids=lambda thing: thing.label)
def test_the_lock_lists_the_source_at_hand(thing):
    assert thing.is_listed, (
        f"{thing.label} was edited. Where its numbers change, raise its version. "
        f"In either case run: mmc-bench lock prove {thing.name}"
    )


def test_listed_source_runs_under_the_plain_version_and_edited_source_never_does(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "LOCK", tmp_path / "versions.lock")
    versions.read_lock.cache_clear()
    try:
        versions.add_to_lock("stages", "score", 1, "a" * 12)
        versions.add_to_lock("stages", "score", 1, "b" * 12)
        known = [versions.locked_version("stages", "score", 1, letter * 12) for letter in "ab"]
        assert known == ["1", "1"]
        assert versions.locked_version("stages", "score", 1, "c" * 12) == f"1+{'c' * 12}"
        assert versions.locked_version("stages", "score", 2, "a" * 12) == f"2+{'a' * 12}"
        assert versions.locked_version("plugins", "score", 1, "a" * 12) == f"1+{'a' * 12}"
        assert [line.strip() for line in versions.LOCK.read_text().splitlines() if '"a' in line] == ['"aaaaaaaaaaaa",']
    finally:
        versions.read_lock.cache_clear()


def test_a_built_in_plugin_imports_from_no_sibling():
    """Its version covers its own folder alone."""
    for file in (versions.PACKAGE.parent / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level < 2 and not (node.module or "").startswith("mmc_bench_plugins")


# --- plugins of others


def offer_of(tmp_path, monkeypatch, editable=True):
    """Return a method of a distribution with two packages and a data file, as it is found now."""
    monkeypatch.syspath_prepend(tmp_path)
    if not (tmp_path / "acme").exists():
        for name, text in {
            "acme/__init__.py": HOOKS,
            "acme/method.py": "class Tune: ...\n",
            "acme/helper.py": "A = 1\n",
            "acme/table.json": "{}\n",
            "acme_more/__init__.py": "B = 1\n",
            "acme-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme\nVersion: 1\n",
            "acme-1.dist-info/direct_url.json": '{"url": "file:///x", "dir_info": {"editable": true}}',
            "acme-1.dist-info/entry_points.txt": "[mmc_bench]\nacme = acme\n",
        }.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.startswith("acme")]:  # as in a new process
        del sys.modules[name]
    return Registry.discover().get("method", "acme-tune")


HOOKS = """
from mmc_bench import MethodSpec, hookimpl

@hookimpl
def register_methods(register):
    register(MethodSpec(name="acme-tune", target=".method:Tune", summary="tunes"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("listed", [True, False], ids=["top_level.txt", "none"])
@pytest.mark.parametrize("file", ["acme/helper.py", "acme/table.json", "acme_more/__init__.py"])
def test_an_editable_plugins_version_follows_all_files_of_its_packages(tmp_path, monkeypatch, file, listed):
    before = offer_of(tmp_path, monkeypatch).version
    if listed:
        (tmp_path / "acme-1.dist-info" / "top_level.txt").write_text("acme\nacme_more\n")
    assert before.startswith("1+") and offer_of(tmp_path, monkeypatch).version == before
    for noise in ("acme/__pycache__/x.pyc", "acme/.cache/x", "build/lib/x.py"):
        (tmp_path / noise).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / noise).write_text("noise")
    assert offer_of(tmp_path, monkeypatch).version == before
    (tmp_path / file).write_text("C = 2\n")
    assert offer_of(tmp_path, monkeypatch).version != before


@pytest.mark.parametrize("listed", [True, False], ids=["top_level.txt", "none"])
@pytest.mark.parametrize("file", ["mylab/acme.py", "mylab/helper.py", "mylab/deep/method.py"])
def test_an_editable_plugin_in_a_folder_without_init_has_a_version_of_its_files(tmp_path, monkeypatch, file, listed):
    hooks = HOOKS.replace(".method:Tune", ".deep.method:Tune")
    files = {"mylab/acme.py": hooks, "mylab/helper.py": "A = 1\n", "mylab/deep/method.py": "class Tune: ...\n"}
    install_distribution(tmp_path, monkeypatch, "acme", files, {"acme": "mylab.acme"})
    if listed:
        (tmp_path / "site-acme/acme-1.0.dist-info/top_level.txt").write_text("mylab\n")

    def version():
        importlib.invalidate_caches()
        for name in [name for name in sys.modules if name.startswith("mylab")]:  # as in a new process
            del sys.modules[name]
        return Registry.discover().get("method", "acme-tune").version

    before = version()
    assert version() == before
    with (tmp_path / "site-acme" / file).open("a") as edited:
        edited.write("# edited\n")
    assert version() != before


@pytest.mark.parametrize("plugin", ["mylab/acme.py", "acme.py", "acme/__init__.py"])
@pytest.mark.parametrize(
    ("file", "follows"), [("results/1.json", False), ("data/x.npz", False), ("mylab/table.json", True)]
)
def test_an_editable_plugin_s_version_follows_no_results_and_data_beside_it(
    tmp_path, monkeypatch, plugin, file, follows
):
    """Which setuptools finds as packages without ``__init__.py``, and lists."""
    hooks = HOOKS.replace(".method", "") + "class Tune: ...\nTABLE = 'table.json'\n"
    module = plugin.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    install_distribution(tmp_path, monkeypatch, "acme", {plugin: hooks, "mylab/log.txt": ""}, {"acme": module})
    site = tmp_path / "site-acme"
    (site / "acme-1.0.dist-info/top_level.txt").write_text(f"data\n{module.partition('.')[0]}\nmylab\nresults\n")

    def version():
        importlib.invalidate_caches()
        for name in [name for name in sys.modules if name.startswith(("mylab", "acme"))]:  # as in a new process
            del sys.modules[name]
        return Registry.discover().get("method", "acme-tune").version

    for folder in ("data", "results"):
        (site / folder).mkdir()
    before = version()
    write_source(site, file, "{}")
    assert (version() != before) == (follows and plugin.startswith("mylab"))
    before = version()
    write_source(site, "mylab/log.txt", "more")
    assert version() == before


@pytest.mark.parametrize("url", ['"dir_info": {}', '"vcs_info": {"vcs": "git"}', '"archive_info": {}'])
def test_a_distribution_that_no_index_has_is_versioned_by_its_installed_files(tmp_path, monkeypatch, url):
    site = tmp_path / "site-packages"
    site.mkdir()
    offer_of(site, monkeypatch)
    record = ["acme/__init__.py", "acme/method.py", "acme/gone.py", "acme-1.dist-info/METADATA", "../bin/acme"]
    (site / "acme-1.dist-info" / "RECORD").write_text("".join(f"{file},,\n" for file in record))
    (site / "acme-1.dist-info" / "direct_url.json").write_text(f'{{"url": "file:///x", {url}}}')
    before = offer_of(site, monkeypatch).version
    (site / "acme/helper.py").write_text("not installed by it")
    assert before.startswith("1+") and offer_of(site, monkeypatch).version == before
    (site / "acme/method.py").write_text("class Tune: 'edited, and installed again'\n")
    assert offer_of(site, monkeypatch).version != before


def test_an_installed_wheels_version_is_its_distributions(tmp_path, monkeypatch):
    site = tmp_path / "site-packages"
    site.mkdir()
    offer_of(site, monkeypatch)
    (site / "acme-1.dist-info" / "direct_url.json").unlink()
    assert offer_of(site, monkeypatch).version == "1"


@pytest.mark.parametrize(
    ("file", "follows"),
    [
        ("table.json", True),
        ("_helpers/a.py", True),
        ("_helper.py", True),
        ("_helpers/table.csv", True),
        ("weights.npz", True),
        ("weights.txt", False),
        ("log.txt", False),
        ("run.log", False),
        ("log", False),
        ("results.csv", False),
    ],
)
def test_a_one_file_plugins_version_follows_its_helpers_and_the_data_that_it_mentions(tmp_path, file, follows):
    mentions = 'TABLE = "table.json"\nWEIGHTS = sorted(Path(__file__).parent.glob("*.npz"))\nONE = math.log(3)\n'
    (tmp_path / "own.py").write_text(f"import math\nfrom pathlib import Path\n{HOOKS.replace('.method', '')}{mentions}")

    def version():
        for name in [name for name in sys.modules if "folder_plugins" in name]:  # as in a new process
            del sys.modules[name]
        return Registry.discover([tmp_path / "own.py"]).get("method", "acme-tune").version

    before = version()
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("{}")
    assert (version() != before) == follows


@pytest.mark.parametrize("plugin", ["own.py", "own/__init__.py"])
def test_a_folder_plugin_s_version_is_of_its_own_files_and_not_of_modules_elsewhere(tmp_path, monkeypatch, plugin):
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    write_source(tmp_path, "path/acme_library.py", "x = 1\n")
    hooks = write_source(tmp_path, f"plugins/{plugin}", f"import acme_library\n{HOOKS.replace('.method', '')}")

    def version():
        importlib.invalidate_caches()
        for name in [name for name in sys.modules if "folder_plugins" in name or "acme" in name]:  # as in a new process
            del sys.modules[name]
        return Registry.discover([tmp_path / "plugins"]).get("method", "acme-tune").version

    before = version()
    (tmp_path / "path/acme_library.py").write_text("x = 2\n")
    assert version() == before
    hooks.write_text(f"{hooks.read_text()}# edited\n")
    assert version() != before


def test_a_folder_plugin_may_widen_the_import_path_for_its_target(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    wide = f"import sys\nsys.path.insert(0, {str(tmp_path / 'path')!r})\nimport acme_elsewhere\nclass Tune: ...\n"
    write_source(tmp_path, "path/acme_elsewhere.py", "x = 1\n")
    write_source(tmp_path, "own/__init__.py", HOOKS)
    write_source(tmp_path, "own/method.py", wide)
    assert Registry.discover([tmp_path / "own"]).get("method", "acme-tune").load().__name__ == "Tune"


def test_a_stage_seeds_every_global_generator(tmp_path):
    resources = Resources(Registry([]), Store(tmp_path), Sources(), torch.device("cpu"), 1)

    def draws():
        resources.seed_everything("fine-tuning", 3)
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
