"""Code that is edited during a run never makes a result under the version from before the edit."""

import importlib
import shutil
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from helpers.plugins import install_distribution, registering, registry_of, write_source

from mmc_bench.engines import Settings
from mmc_bench.engines.worker import open_resources
from mmc_bench.errors import UserError
from mmc_bench.plugin.in_memory import method_offer, pickled, unpickled
from mmc_bench.plugin.in_memory_backbones import backbone_offer
from mmc_bench.plugin.registry import Registry
from mmc_bench.results import versions
from mmc_bench.stages.resources import Resources
from mmc_bench.system.imported_source import ImportedSource

pytestmark = pytest.mark.usefixtures("forgotten_plugins")

METHOD = "class Mine:\n    def fine_tune(self, task):\n        return {}\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which is kept for an edit within a second
    return partial(write_source, tmp_path)


def folder_plugin(write, tmp_path, monkeypatch):
    write("mine/__init__.py", registering("mine", target=".method:Mine"))
    write("mine/method.py", METHOD.format(1))
    return registry_of(tmp_path / "mine").get("method", "mine"), tmp_path / "mine/method.py"


def editable_plugin(write, tmp_path, monkeypatch):
    files = {"plugin_of_mine/__init__.py": registering("mine", target=".method:Mine")}
    files["plugin_of_mine/method.py"] = METHOD.format(1)
    install_distribution(tmp_path, monkeypatch, "acme", files, {"mine": "plugin_of_mine"})
    return Registry.discover().get("method", "mine"), tmp_path / "site-acme/plugin_of_mine/method.py"


@pytest.mark.parametrize("plugin", [folder_plugin, editable_plugin])
def test_a_target_that_was_edited_before_its_import_is_refused_each_time(write, tmp_path, monkeypatch, plugin):
    offer, file = plugin(write, tmp_path, monkeypatch)
    file.write_text(METHOD.format(2))
    for _ in range(2):
        with pytest.raises(
            UserError, match=f"method 'mine' changed during the run: .* version {offer.version}".replace("+", r"\+")
        ):
            offer.load()


def test_a_target_that_was_edited_after_its_import_goes_on(write, tmp_path, monkeypatch):
    offer, file = folder_plugin(write, tmp_path, monkeypatch)
    offer.load()
    file.write_text(METHOD.format(2))
    assert offer.load()().fine_tune(None) == 1
    offer.check_source()


@pytest.mark.parametrize("planned", [True, False], ids=["after a plan", "at once"])
def test_a_plugin_of_which_a_part_is_from_before_an_edit_and_a_reload_is_broken(write, tmp_path, monkeypatch, planned):
    offer, file = editable_plugin(write, tmp_path, monkeypatch)
    offer.load()
    file.write_text(METHOD.format(2))
    if planned:
        assert Registry.discover().failures
    importlib.reload(offer.plugin.module)
    assert [plugin.error for plugin in Registry.discover().failures] == [
        "RuntimeError: its files changed since this process loaded it: start a new process (or restart the kernel)"
    ]
    importlib.reload(sys.modules["plugin_of_mine.method"])
    assert Registry.discover().get("method", "mine").load()().fine_tune(None) == 2


def test_a_target_whose_file_was_removed_before_its_import_is_refused(write, tmp_path, monkeypatch):
    write("one.py", registering("mine", target=":Mine") + METHOD.format(1))
    offer = registry_of(tmp_path / "one.py").get("method", "mine")
    (tmp_path / "one.py").unlink()
    for check in (offer.load, offer.check_source):
        with pytest.raises(UserError, match="method 'mine' changed during the run"):
            check()


def test_a_folder_whose_name_begins_with_the_plugin_s_is_none_of_its_source(tmp_path, monkeypatch):
    digests = ["1"]
    source = ImportedSource("1", [tmp_path / "mine", tmp_path / "one.py"], lambda: digests[-1])
    digests.append("2")
    for place, changed in (("mine_other/a", False), ("one.py_other", False), ("mine/a", True)):
        monkeypatch.setitem(sys.modules, "a_plugin", SimpleNamespace(__file__=f"{tmp_path}/{place}.py"))
        assert source.has_changed() == changed
        monkeypatch.delitem(sys.modules, "a_plugin")
        source.has_changed()


@pytest.mark.slow
def test_a_cell_fails_whose_method_imports_an_edited_module_late(bench):
    write_source(bench.folder, "mine/__init__.py", registering("mine", target=".method:Mine"))
    write_source(bench.folder, "mine/late.py", "x = 1")
    write_source(
        bench.folder,
        "mine/method.py",
        """
        from pathlib import Path
        class Mine:
            def fine_tune(self, task):
                Path(__file__).with_name("late.py").write_text("x = 2")
                from . import late
                return task.model
        """,
    )
    words = ["run", "--suite", "tiny.yaml", "--workers", 0, "--seeds", 0, "--methods", "mine"]
    assert "method 'mine' changed during the run" in bench(*words, "--plugins-dir", bench.folder / "mine").err
    assert not any("cell" in record for record in bench.records().values())


@pytest.fixture
def core(tmp_path, monkeypatch):
    """Pretend that a module lies among the stages; return its file, whose import `sys.modules` tells of."""
    shutil.copytree(versions.PACKAGE, tmp_path / "core", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(versions, "PACKAGE", tmp_path / "core")
    return tmp_path / "core/landscape/invariance.py"


def test_the_core_has_changed_when_more_of_it_is_imported_after_an_edit(core, monkeypatch):
    source = versions.core_source()
    monkeypatch.setitem(sys.modules, "first_stage", SimpleNamespace(__file__=str(core)))
    assert not source.has_changed()
    core.write_text("# edited")
    assert not source.has_changed()
    monkeypatch.setitem(sys.modules, "second_stage", SimpleNamespace(__file__=str(core)))
    assert source.has_changed() and source.has_changed()


@pytest.mark.slow
def test_a_worker_with_another_core_than_the_plan_s_stops_the_run(bench, monkeypatch):
    newer = replace(versions.STAGES["score"], version=99)
    monkeypatch.setitem(versions.STAGES, "score", newer)  # here, and not in the worker
    versions.versions_of_stages.cache_clear()
    try:
        result = bench("run", "--suite", "tiny.yaml", "--workers", 1, "--seeds", 0, "--methods", "tiny-still")
    finally:
        versions.versions_of_stages.cache_clear()
    assert result.code == 1
    assert (
        "stopped: the source of mmc-bench changed during the run: start a new process (or restart the kernel); nothing"
        in result.err
    )
    assert not any("metrics" in record for record in bench.records().values())


def test_provenance_is_of_the_source_that_a_worker_began_with(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("mmc_bench.stages.provenance.git_state", lambda: asked.append(True))
    open_resources(Settings(results=str(tmp_path)))
    assert asked


OWN = "from own_plugin_helper import x\nclass Mine:\n    def fine_tune(self, task):\n        return x\n"


@pytest.fixture
def own_class(tmp_path, monkeypatch):
    """Return a class of a module beside a script, and the files of that and of a helper."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_plugin_helper.py").write_text("x = 1\n")
    (tmp_path / "own_plugin.py").write_text(OWN)
    importlib.invalidate_caches()
    return importlib.import_module("own_plugin").Mine, [tmp_path / "own_plugin.py", tmp_path / "own_plugin_helper.py"]


@pytest.mark.parametrize("edited", [0, 1], ids=["its module", "a helper"])
def test_a_class_whose_module_was_edited_before_a_worker_imported_it_is_refused(own_class, edited):
    mine, files = own_class
    registry = Registry([])
    registry.add(method_offer(mine))
    content = pickled(registry)
    files[edited].write_text(files[edited].read_text() + "# edited\n")
    for name in ("own_plugin", "own_plugin_helper"):  # as in a new process
        del sys.modules[name]
    (offer,) = unpickled(content)
    with pytest.raises(
        UserError, match="method 'mine' changed during the run: its files are no longer those of version"
    ):
        offer.load()


def test_a_class_whose_modules_are_as_they_were_is_loaded_elsewhere(own_class):
    registry = Registry([])
    registry.add(method_offer(own_class[0]))
    content = pickled(registry)
    for name in ("own_plugin", "own_plugin_helper"):
        del sys.modules[name]
    (offer,) = unpickled(content)
    assert offer.load()().fine_tune(None) == 1
    offer.check_source()


@pytest.mark.parametrize("edited", [0, 1], ids=["its module", "a helper"])
def test_a_class_whose_module_was_edited_and_not_reloaded_is_refused(own_class, edited):
    mine, files = own_class
    version = method_offer(mine).version
    files[edited].write_text(files[edited].read_text().replace("x = 1", "x = 2") + "y = 3\n")
    with pytest.raises(
        UserError, match=f"{files[edited].name} was edited since it was imported: reload module {files[edited].stem}"
    ):
        method_offer(mine)
    importlib.reload(sys.modules[files[edited].stem])
    importlib.reload(sys.modules["own_plugin"])
    again = method_offer(sys.modules["own_plugin"].Mine).version
    assert again == version if edited == 0 else again != version  # of its module, the class alone counts


def test_a_network_whose_module_was_edited_and_not_reloaded_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "own_plugin_net.py"
    file.write_text("class Net:\n    def __init__(self, num_classes):\n        pass\n")
    importlib.invalidate_caches()
    net = importlib.import_module("own_plugin_net").Net
    for given in (net, partial(net, 3)):
        backbone_offer(given)
    file.write_text(file.read_text() + "# edited\n")
    for given in (net, partial(net, 3)):
        with pytest.raises(UserError, match="reload module own_plugin_net"):
            backbone_offer(given)


@pytest.mark.parametrize("entry", ["link", "./place", "/place", "place/../place"])
def test_an_edit_is_noticed_however_the_import_path_names_the_folder(tmp_path, monkeypatch, entry):
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to("place")
    monkeypatch.syspath_prepend(f"{tmp_path}/{entry}")
    write_source(tmp_path, "place/own_plugin.py", METHOD.format(1))
    importlib.invalidate_caches()
    module = importlib.import_module("own_plugin")
    registry = Registry([])
    registry.add(method_offer(module.Mine))
    content = pickled(registry)
    (tmp_path / "place/own_plugin.py").write_text(f"{METHOD.format(1)}# edited\n")
    with pytest.raises(UserError, match=r"own_plugin\.py was edited since it was imported"):
        method_offer(module.Mine)
    del sys.modules["own_plugin"]  # as in a new process
    (offer,) = unpickled(content)
    with pytest.raises(UserError, match="changed during the run"):
        offer.load()


def test_a_link_in_the_import_path_that_leads_elsewhere_since_is_noticed(tmp_path, monkeypatch):
    for version in ("one", "two"):
        write_source(tmp_path, f"{version}/own_plugin.py", METHOD.format(version))
    (tmp_path / "link").symlink_to("one")
    monkeypatch.syspath_prepend(str(tmp_path / "link"))
    importlib.invalidate_caches()
    module = importlib.import_module("own_plugin")
    method_offer(module.Mine)
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("two")
    with pytest.raises(UserError, match=r"link/own_plugin\.py was edited since it was imported"):
        method_offer(module.Mine)


@pytest.mark.parametrize("stage", ["probe", "checkpoint_pairs"])
def test_a_probe_and_a_connection_are_not_saved_when_source_changed_meanwhile(tmp_path, monkeypatch, stage):
    module = importlib.import_module(f"mmc_bench.stages.{stage}")
    for name in {
        "Assembly",
        "experiment_seeds",
        "measure_hold",
        "fill",
        "compare",
        "path_images",
        "path_seeds",
        "Progress",
    }:
        monkeypatch.setattr(module, name, MagicMock(), raising=False)
    resources = open_resources(Settings(results=str(tmp_path)))
    saved = []
    monkeypatch.setattr(Resources, "data", MagicMock())
    monkeypatch.setattr(Resources, "model", MagicMock())
    monkeypatch.setattr(type(resources.store), "save_jobless", lambda store, record: saved.append(record))
    described = MagicMock(versions={"connect": "of another core"})
    measure = {"probe": "probe_weights", "checkpoint_pairs": "compare_checkpoints"}[stage]
    with pytest.raises(versions.ChangedCoreError):
        getattr(module, measure)(described, ({}, {}), resources)
    assert not saved


def test_a_class_in_a_package_may_run_on_after_an_edit_elsewhere_in_the_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in {"__init__": "", "own": METHOD.format(1), "other": "x = 1\n"}.items():
        write_source(tmp_path, f"package_plugin/{name}.py", text)
    importlib.invalidate_caches()
    mine = importlib.import_module("package_plugin.own").Mine
    importlib.import_module("package_plugin.other")
    offer = method_offer(mine)
    (tmp_path / "package_plugin/other.py").write_text("x = 2\n")
    assert method_offer(mine).version == offer.version
    offer.load()
    (tmp_path / "package_plugin/own.py").write_text(METHOD.format(2))
    with pytest.raises(UserError, match=r"reload module package_plugin\.own"):
        method_offer(mine)


@pytest.mark.parametrize("plain", [True, False], ids=["a module", "a package's __init__"])
def test_a_class_may_run_on_after_an_edit_of_what_its_module_imports_and_it_does_not_use(tmp_path, monkeypatch, plain):
    monkeypatch.syspath_prepend(str(tmp_path))
    text = OWN.replace("import x\n", "import x as y\nx: int = y + 1\nimport plots_plugin\n")
    own = write_source(tmp_path, "own_plugin.py" if plain else "own_plugin/__init__.py", text)
    helper, plots = (write_source(tmp_path, f"{name}.py", "x = 1\n") for name in ("own_plugin_helper", "plots_plugin"))
    importlib.invalidate_caches()
    mine = importlib.import_module("own_plugin").Mine
    offer = method_offer(mine)
    plots.write_text("x = 2\n")
    assert method_offer(mine).version == offer.version
    for file in (own, helper):
        before = file.read_text()
        file.write_text(f"{before}# edited\n")
        with pytest.raises(UserError, match=f"{file.name} was edited since"):
            method_offer(mine)
        file.write_text(before)
