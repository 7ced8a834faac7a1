"""Code that is edited during a run never makes a result under the version from before the edit."""

import shutil
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from helpers.plugins import install_distribution, registering, registry_of, write_source

from mmc_bench.engines import Settings
from mmc_bench.engines.worker import open_resources
from mmc_bench.errors import UserError
from mmc_bench.plugin.registry import Registry
from mmc_bench.results import versions

METHOD = "class Mine:\n    def fine_tune(self, task):\n        return {}\n"


@pytest.fixture(autouse=True)
def no_leftovers():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if "plugin" in name:  # numpy and torch do not survive a second import
            del sys.modules[name]


@pytest.fixture
def write(tmp_path):
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


def test_a_worker_with_another_core_than_the_plan_s_stops_the_run(bench, monkeypatch):
    newer = replace(versions.STAGES["score"], version=99)
    monkeypatch.setitem(versions.STAGES, "score", newer)  # here, and not in the worker
    versions.versions_of_stages.cache_clear()
    try:
        result = bench("run", "--suite", "tiny.yaml", "--workers", 1, "--seeds", 0, "--methods", "tiny-still")
    finally:
        versions.versions_of_stages.cache_clear()
    assert result.code == 1
    assert "stopped: the source of mmc-bench changed during the run; nothing that is done is lost" in result.err
    assert not any("metrics" in record for record in bench.records().values())


def test_provenance_is_of_the_source_that_a_worker_began_with(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("mmc_bench.stages.provenance.git_state", lambda: asked.append(True))
    open_resources(Settings(results=str(tmp_path)))
    assert asked
