"""Where plugins are found, and how their versions follow their source."""

import os
import sys
from functools import partial
from pathlib import Path

import pytest
from helpers.plugins import GOOD, install_distribution, registering, registry_of, write_source

from mmc_bench.errors import UserError
from mmc_bench.plugin.discovery import configured_folders
from mmc_bench.plugin.registry import Registry

pytestmark = pytest.mark.usefixtures("forgotten_plugins")


def names(registry, kind="method"):
    return [offer.spec.name for offer in registry.offers(kind)]


@pytest.fixture
def write(tmp_path):
    return partial(write_source, tmp_path)


@pytest.fixture
def install(tmp_path, monkeypatch):
    return partial(install_distribution, tmp_path, monkeypatch)


# --- where plugins are found


def test_entry_points_of_any_distribution_are_found_beside_the_built_in_ones(install):
    install("acme-methods", {"acme_plugin.py": GOOD}, {"acme": "acme_plugin"}, version="2.5")
    registry = Registry.discover()
    assert registry.failures == []
    offer = registry.get("method", "good")
    assert (offer.plugin.name, offer.plugin.distribution) == ("acme", "acme-methods")
    assert offer.plugin.version.startswith("2.5+")  # it lies in a folder that can be edited
    assert {"mmc-bench"} == {plugin.distribution for plugin in registry.plugins} - {"acme-methods"}
    assert names(registry, "dataset") and names(registry, "backbone") and registry.suites


def test_a_folder_may_be_one_file_a_package_or_a_collection_of_both(write, tmp_path):
    write("collection/one.py", registering("from-file"))
    write("collection/two/__init__.py", registering("from-package", target=".inner:Mine"))
    write("collection/two/inner.py", "class Mine: pass")
    write("collection/_private.py", "raise SystemExit('not a plugin')")
    write("collection/notes/readme.txt", "not a plugin")
    collection = tmp_path / "collection"
    registry = registry_of(collection)
    assert names(registry) == ["from-file", "from-package"]
    assert [plugin.name for plugin in registry.plugins] == ["one", "two"]
    assert names(registry_of(collection / "one.py")) == ["from-file"]
    package = registry_of(collection / "two")
    assert names(package) == ["from-package"]
    assert package.get("method", "from-package").load().__name__ == "Mine"


def test_a_folder_named_twice_counts_once(write, tmp_path):
    file = write("plugs/mine.py", GOOD)
    registry = registry_of(tmp_path / "plugs", file, tmp_path / "plugs" / ".." / "plugs")
    assert len(registry.plugins) == 1
    assert registry.get("method", "good").plugin.origin == str(file)


@pytest.mark.parametrize("missing", ["nowhere", "empty"])
def test_a_folder_without_plugins_is_refused(tmp_path, missing):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"plugin folder .*{missing}"):
        registry_of(tmp_path / missing)


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("method", "data", "stands for settings of a suite, as in data.key=value: choose another name"),
        ("observer", "connect.fast", "stands for settings of a suite, as in connect.key=value"),
        ("method", "pretrained", "stands for the model that methods start from: choose another name"),
        ("backbone", "pretrained", None),
        ("dataset", "data-2", None),
    ],
)
def test_a_name_that_means_something_else_is_refused(write, kind, name, says):
    registry = registry_of(write("plugs/mine.py", registering(name, kind=kind)))
    assert [f"{kind} name {name!r} {says}" in plugin.error for plugin in registry.failures] == ([True] if says else [])


def test_the_environment_variable_lists_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMC_BENCH_PLUGINS", os.pathsep.join(["first", "second/mine.py"]))
    assert configured_folders([]) == [Path("first"), Path("second/mine.py")]


def test_the_nearest_pyproject_above_the_working_directory_lists_folders(write, tmp_path, monkeypatch):
    write("project/pyproject.toml", '[tool.mmc_bench]\nplugins = ["plugs", "more/one.py"]\n')
    write("project/deep/deeper/file", "")
    monkeypatch.chdir(tmp_path / "project" / "deep" / "deeper")
    project = tmp_path / "project"
    assert configured_folders([]) == [project / "plugs", project / "more/one.py"]
    write("project/deep/pyproject.toml", "[project]\nname = 'nearer'\n")
    assert configured_folders([]) == []


def test_a_pyproject_whose_tool_is_no_table_lists_nothing(write, tmp_path, monkeypatch):
    write("pyproject.toml", "tool = 5\n")
    monkeypatch.chdir(tmp_path)
    assert configured_folders([]) == []


@pytest.mark.parametrize(
    "content", ["[tool.mmc_bench\n", '[tool.mmc_bench]\nplugins = "plugs"\n', "[tool]\nmmc_bench = 3\n"]
)
def test_a_pyproject_that_cannot_be_used_is_named(write, tmp_path, monkeypatch, content):
    write("pyproject.toml", content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"pyproject\.toml"):
        configured_folders([])


def test_the_command_line_comes_first_and_the_variable_hides_the_pyproject(write, tmp_path, monkeypatch):
    write("pyproject.toml", '[tool.mmc_bench]\nplugins = ["configured"]\n')
    monkeypatch.chdir(tmp_path)
    assert configured_folders(["given"]) == [Path("given"), tmp_path / "configured"]
    monkeypatch.setenv("MMC_BENCH_PLUGINS", "variable")
    assert configured_folders(["given"]) == [Path("given"), Path("variable")]


# --- versions


def version_of(path):
    return registry_of(path).get("method", "good").version


def test_the_version_of_an_offer_is_the_distribution_s_plus_a_digest_of_the_source(install):
    install("acme", {"acme_plugin.py": GOOD}, {"a": "acme_plugin"}, version="2.5")
    offer = Registry.discover().get("method", "good")
    release, plus, digest = offer.version.partition("+")
    assert (release, plus, len(digest)) == ("2.5", "+", 12)
    assert offer.reference({}).version == offer.version


def test_an_edited_plugin_has_another_version_and_a_moved_one_has_not(write):
    original = version_of(write("one/mine.py", GOOD))
    assert version_of(write("elsewhere/below/mine.py", GOOD)) == original
    assert version_of(write("edited/mine.py", GOOD + "# a comment\n")) != original


def test_line_ends_do_not_change_the_version(write):
    file = write("windows/mine.py", GOOD)
    file.write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert version_of(file) == version_of(write("unix/mine.py", GOOD))


def test_a_package_s_version_covers_all_its_files_and_a_file_s_only_itself(write, tmp_path):
    for place, helper in (("one", "x = 1\n"), ("two", "x = 2\n")):
        write(f"{place}/mine/__init__.py", GOOD)
        write(f"{place}/mine/deep/helper.py", helper)
        write(f"{place}/mine.v1.py", GOOD)
        write(f"{place}/neighbour.py", helper)
    assert version_of(tmp_path / "one/mine") != version_of(tmp_path / "two/mine")
    assert version_of(tmp_path / "one/mine.v1.py") == version_of(tmp_path / "two/mine.v1.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "file"),
    [
        ("other_plugin_code:Mine", "other_plugin_code.py"),
        ("other_plugin_code:Mine", "other_plugin_code/__init__.py"),
        ("other_plugin_code.deep.method:Mine", "other_plugin_code/deep/helper.py"),
        ("..method:Mine", "acme_plugin/method.py"),
    ],
)
def test_a_version_covers_a_target_outside_the_plugin_s_own_files_without_importing_it(install, tmp_path, target, file):
    unwanted = "raise RuntimeError('imported too early')"
    files = {
        "acme_plugin/__init__.py": "",
        "acme_plugin/sub/__init__.py": registering("good", target=target),
        "other_plugin_code/__init__.py": unwanted,
        "other_plugin_code/deep/__init__.py": unwanted,
        "other_plugin_code/deep/method.py": unwanted,
    }
    if file == "other_plugin_code.py":
        files = {path: source for path, source in files.items() if not path.startswith("other")}
    install("acme", files | {file: unwanted}, {"a": "acme_plugin.sub"})
    first = Registry.discover().get("method", "good").version
    assert Registry.discover().get("method", "good").version == first
    write_source(tmp_path / "site-acme", file, unwanted + "  # edited")
    assert "its files changed since this process loaded it" in Registry.discover().failures[0].error
    for name in [name for name in sys.modules if name.startswith("acme_plugin")]:  # as in a new process
        del sys.modules[name]
    assert Registry.discover().get("method", "good").version != first


@pytest.mark.parametrize("target", ["nowhere.at.all:Mine", "sys:Mine", ".inner:Mine", "json.nothing:Mine"])
def test_a_target_without_a_source_file_adds_nothing_to_the_version(write, target):
    plain = registry_of(write("one/mine.py", registering("good", target=target))).get("method", "good")
    assert plain.version.startswith("0+")
