"""Whatever the code of a class at hand rests on is part of its identity."""

import importlib
import os
import py_compile
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from mmc_bench.errors import UserError
from mmc_bench.plugin.class_source import identity_of_class
from mmc_bench.plugin.registry import Registry

FILES = {
    "first_helper.py": "from second_helper import g\nclass Thing:\n    a = 1\ndef f():\n    return g()\n",
    "second_helper.py": "def g():\n    return 1\n",
    "helper_package/__init__.py": "",
    "helper_package/sub.py": "def f():\n    return 1\n",
    "folder/sub.py": "from .deep.more import g\ndef f():\n    return g()\ntable = 'table.json'\n",
    "folder/deep/more.py": "def g():\n    return 1\n",
    "folder/table.json": "1",
    "folder/log.txt": "1",
    "mmc_bench_foo.py": "def f():\n    return 1\n",
    "marked.py": "\ufefffrom second_helper import g\n",
}
START = """
import functools
import folder.sub
import mmc_bench_foo
from folder.sub import f as f_of_folder
import first_helper as h1
import helper_package.sub
thing = h1.Thing()
part = functools.partial(h1.f)
words = {"one", "two", "three"}
one = lambda: 1; two = lambda: 2
class Base:
    def step(self):
        return 1
class Mine(Base):
    rate = 1
    def fine_tune(self, task):
        BODY
"""
BODIES = {
    "a helper's helper": ("return h1.f()", "second_helper.py", "return 1", "return 2"),
    "a helper of one that begins with a byte order mark": ("import marked", "second_helper.py", "return 1", "return 2"),
    "a submodule": ("return helper_package.sub.f()", "helper_package/sub.py", "return 1", "return 2"),
    "an import inside the method": (
        "import second_helper; return second_helper",
        "second_helper.py",
        "return 1",
        "return 2",
    ),
    "an object's class": ("return thing", "first_helper.py", "a = 1", "a = 2"),
    "a partial": ("return part()", "first_helper.py", "return g()", "return g() + 1"),
    "the second of two lambdas": ("return one() + two()", "own.py", "two = lambda: 2", "two = lambda: 3"),
    "a module of a folder without __init__.py": (
        "return folder.sub.f()",
        "folder/deep/more.py",
        "return 1",
        "return 2",
    ),
    "data that such a folder mentions": ("return folder.sub.f()", "folder/table.json", "1", "2"),
    "a function of such a module": ("return f_of_folder()", "folder/sub.py", "return g()", "return g() + 1"),
    "a module whose name begins with the core's": (
        "return mmc_bench_foo.f()",
        "mmc_bench_foo.py",
        "return 1",
        "return 2",
    ),
    "a base class": (
        "return self.step()",
        "own.py",
        "def step(self):\n        return 1",
        "def step(self):\n        return 2",
    ),
    "a set": ("return words", "own.py", '"three"}', '"four"}'),
}


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """Return a function that imports the files as a new process does, and digests the class in them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def forget():
        own = {Path(file).parts[0].removesuffix(".py") for file in (*FILES, "own.py")}
        for name in [name for name in sys.modules if name.partition(".")[0] in own]:
            del sys.modules[name]
        importlib.invalidate_caches()

    def digest():
        forget()
        return identity_of_class(importlib.import_module("own").Mine)[0]

    yield digest
    forget()


def write(folder, body):
    for name, text in {**FILES, "own.py": START.replace("BODY", body)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("case", BODIES)
def test_an_edit_of_what_the_class_rests_on_changes_its_identity(tmp_path, digest, case):
    body, file, old, new = BODIES[case]
    write(tmp_path, body)
    before = digest()
    assert digest() == before
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    assert digest() != before


@pytest.mark.parametrize("change", [{"rate": 2}, {"fine_tune": lambda self, task: None}])
def test_a_class_that_was_changed_after_its_definition_has_another_identity(tmp_path, digest, change):
    write(tmp_path, "return 1")
    before = digest()
    mine = sys.modules["own"].Mine
    for name, value in change.items():
        setattr(mine, name, value)
    assert identity_of_class(mine)[0] != before


@pytest.mark.slow
def test_a_set_is_the_same_in_every_process(tmp_path):
    write(tmp_path, "return words")
    code = (
        "from mmc_bench.plugin.class_source import identity_of_class; import own; print(identity_of_class(own.Mine)[0])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1 and len(found.pop()) == 13


DATACLASSES = """
from dataclasses import dataclass, field

@dataclass(frozen=True, order=True)
class Numbers:
    rate: float = 0.1
    names: list = field(default_factory=list)

@dataclass
class Mine:
    numbers: Numbers = Numbers()
    def fine_tune(self, task):
        return self.numbers
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [("= 0.1", "= 0.2"), ("factory=list", "factory=set"), ("self.numbers\n", "[]\n"), ("order", "slots")],
)
def test_dataclasses_have_an_identity_that_follows_their_fields_and_methods(tmp_path, digest, old, new):
    (tmp_path / "own.py").write_text(DATACLASSES)
    before = digest()
    assert digest() == before and old in DATACLASSES
    (tmp_path / "own.py").write_text(DATACLASSES.replace(old, new))
    assert digest() != before


def test_a_lambda_over_two_lines_has_a_source(tmp_path, digest):
    write(tmp_path, "return late()")
    with (tmp_path / "own.py").open("a") as file:
        file.write("late = dict(\n    it=(lambda:\n        1))['it']\n")
    assert len(digest()) == 12


def test_a_log_in_a_folder_without_init_changes_no_identity(tmp_path, digest):
    write(tmp_path, "return folder.sub.f()")
    before = digest()
    (tmp_path / "folder/log.txt").write_text("2")
    assert digest() == before


def test_a_relative_import_inside_a_method_is_part_of_its_identity(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "own.py").write_text("class Mine:\n    def fine_tune(self, task):\n        from .late import f\n")
    (package / "late.py").write_text("f = 1\n")
    mine = importlib.import_module("own_package.own").Mine
    before = identity_of_class(mine)[0]
    (package / "late.py").write_text("f = 2\n")
    assert identity_of_class(mine)[0] != before


def test_a_subclass_of_a_built_in_method_follows_its_plugin_s_version(tmp_path, monkeypatch):
    target = Registry.discover().select("method", ["ft-*"])[0].load()
    text = "class Mine(Base):\n    pass\n"
    (tmp_path / "own.py").write_text(f"from {target.__module__} import {target.__name__} as Base\n{text}")
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = importlib.import_module("own").Mine
    before = identity_of_class(mine)[0]
    assert identity_of_class(mine)[0] == before
    module = sys.modules[target.__module__.rpartition(".")[0]]
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert identity_of_class(mine)[0] != before
    del sys.modules["own"]


def test_a_pipe_in_a_package_is_refused_and_not_waited_for(tmp_path, digest):
    write(tmp_path, "return helper_package.sub.f()")
    os.mkfifo(tmp_path / "helper_package/pipe")
    with pytest.raises(UserError, match="pipe cannot be read: Not a regular file"):
        digest()


def test_a_helper_that_is_there_as_compiled_alone_is_part_of_an_identity(tmp_path, digest):
    write(tmp_path, "import compiled_helper")
    found = []
    for number in (1, 2):
        (tmp_path / "source.txt").write_text(f"x = {number}\n")
        py_compile.compile(str(tmp_path / "source.txt"), cfile=str(tmp_path / "compiled_helper.pyc"))
        found.append(digest())
    assert found[0] != found[1]


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_an_installed_library_is_no_part_of_an_identity(tmp_path, monkeypatch, digest, folder):
    write(tmp_path, "import library_of_system; return library_of_system.f()")
    (tmp_path / folder).mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / folder))
    (tmp_path / folder / "library_of_system.py").write_text("def f():\n    return 1\n")
    before = digest()
    (tmp_path / folder / "library_of_system.py").write_text("def f():\n    return 2\n")
    assert digest() == before


def test_what_a_zip_file_holds_is_no_part_of_an_identity(tmp_path, monkeypatch, digest):
    write(tmp_path, "import zipped_helper; return zipped_helper")
    with zipfile.ZipFile(tmp_path / "library.zip", "w") as archive:
        archive.writestr("zipped_helper.py", "x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path / "library.zip"))
    assert len(digest()) == 12


@pytest.mark.filterwarnings("always")
def test_source_that_python_warns_of_is_followed_without_its_warnings(tmp_path, digest, recwarn):
    write(tmp_path, "import own_warning; return own_warning")
    (tmp_path / "own_warning.py").write_text("x = '\\d'\n")
    assert len(digest()) == 12 and not recwarn.list


def test_data_in_a_package_are_read_once_and_not_kept(tmp_path, digest):
    """Whatever they hold: bytes that are no text, and line ends of either kind in text."""
    write(tmp_path, "return helper_package.sub.f()")
    data, text = tmp_path / "helper_package/data.bin", tmp_path / "helper_package/data.txt"
    data.write_bytes(b"\xff\x00\r\n" * 2**18)
    text.write_bytes(b"a\n" * 2**18)
    before = digest()
    text.write_bytes(b"a\r\n" * 2**18)
    tracemalloc.start()
    assert digest() == before
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    data.write_bytes(b"\xfe\x00\r\n" * 2**18)
    assert digest() != before
    assert most < 4 * 2**20  # a file of 1 MB; as text, it takes four times as much
