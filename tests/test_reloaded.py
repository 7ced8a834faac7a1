"""Classes and functions from before an edit and a reload of their module are refused, and others are not."""

import importlib
import subprocess
import sys
import textwrap

import pytest

from mmc_bench.errors import UserError
from mmc_bench.plugin.in_memory import method_offer

pytestmark = pytest.mark.usefixtures("forgotten_plugins")

METHOD = "class Mine:\n    def fine_tune(self, task):\n        return {}\n"


#: What stands in a module that is edited and reloaded: before, and after.
EDITS = {
    "a class": (METHOD.format(1), METHOD.format(2)),
    "a member": (f"{METHOD.format(1)}    rate = 1\n", f"{METHOD.format(1)}    rate = 2\n"),
    "a default": ("def f(x=1):\n    return x\n", "def f(x=2):\n    return x\n"),
    "a function": ("def f(x=1):\n    return x\n", "def f(x=1):\n    return x + 2\n"),
    "a decorated function": (
        "import functools\n@functools.cache\ndef f(x=1):\n    return x\n",
        "import functools\n@functools.cache\ndef f(x=1):\n    return x + 2\n",
    ),
    "a base class": (
        "class One:\n    fine_tune = id\nclass Two(One): ...\nclass Mine(One): ...\n",
        "class One:\n    fine_tune = id\nclass Two(One): ...\nclass Mine(Two): ...\n",
    ),
    "an attribute that is a class": (
        f"{METHOD.format(1)}    optimizer = list\n",
        f"{METHOD.format(1)}    optimizer = dict\n",
    ),
    "a Config": (
        f"from mmc_bench import BaseConfig\n{METHOD.format(1)}    class Config(BaseConfig):\n        x: int = 1\n",
        f"from mmc_bench import BaseConfig\n{METHOD.format(1)}    class Config(BaseConfig):\n        x: int = 2\n",
    ),
}


def module_of(folder, name, text):
    (folder / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    return importlib.import_module(name)


@pytest.fixture
def reloaded(tmp_path, monkeypatch):
    """Return a function that writes and reloads a module, and for another text edits and reloads it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which is kept for an edit within a second
    return lambda name, text: importlib.reload(module_of(tmp_path, name, text))


@pytest.mark.parametrize("case", EDITS)
def test_what_is_from_before_an_edit_and_a_reload_is_refused(reloaded, case):
    """Whether a class is given, or a module beside it names a class or function of another module."""
    before, after = EDITS[case]
    name = "Mine" if "Mine" in before else "f"
    outer = f"from old_plugin import {name} as it\nclass Own:\n    def fine_tune(self, task):\n        return it\n"
    old = getattr(reloaded("old_plugin", before), name)
    own = reloaded("own_plugin", outer)
    outermost = reloaded(
        "outer_plugin", outer.replace("old_plugin", "own_plugin").replace(f"{name} as it", "Own as it")
    )
    method_offer(outermost.Own)
    reloaded("old_plugin", before)
    method_offer(outermost.Own)  # nothing was edited
    reloaded("old_plugin", after)
    kind = "function f" if name == "f" else "class Mine"
    says = rf"{kind} is from before an edit of .*old_plugin\.py: "
    for user in (own, outermost):
        with pytest.raises(UserError, match=f"{says}reload module own_plugin, too, or restart"):
            method_offer(user.Own)
    if name == "Mine":
        with pytest.raises(UserError, match=f"{says}import it again, or restart"):
            method_offer(old)
    with pytest.raises(UserError, match=r"class Own is from before an edit of .*own_plugin\.py"):
        own = reloaded("own_plugin", outer + "    # edited\n    rate = 1\n")
        method_offer(own.Own)
        method_offer(outermost.Own)
    outermost = importlib.reload(outermost)
    method_offer(outermost.Own)


NAMES = {
    "a name defined twice": """
        def f(x=1):
            return x
        first = f
        def f(x=2):
            return first(x)
        """,
    "a class that replaces its base": """
        class Base:
            def f(self):
                return 1
        class Base(Base):
            rate = 2
        f = Base
        """,
    "a deleted name": """
        def g():
            return 1
        f = g
        del g
        """,
    "a made class": """
        class Made:
            def f(self):
                return 1
        f = type("Made", (Made,), {"__module__": __name__})
        """,
    "a wrapper": """
        import functools
        def twice(function):
            @functools.wraps(function)
            def wrapped(*arguments):
                return function(*arguments) * 2
            return wrapped
        @twice
        def f(x=1):
            return x
        """,
    "a function of a function": """
        def make(x):
            def f():
                return x
            return f
        f = make(1)
        make = make(2)
        """,
    "functions of a loop": """
        for i in (1, 2):
            def f(x, i=i):
                return x * i
            globals()[f"f{i}"] = f
        """,
    "classes of a loop": """
        for rate in (1, 2):
            class f:
                own = rate
            globals()[f"F{rate}"] = f
        """,
    "a default that is an object": """
        def f(x=object()):
            return x
        """,
    "a class with functions in a list": """
        def g():
            return 1
        class f:
            steps = [g]
        """,
}


@pytest.mark.parametrize("case", NAMES)
def test_what_a_module_makes_in_any_way_may_be_used_before_and_after_a_reload_without_an_edit(reloaded, case):
    helper = textwrap.dedent(NAMES[case])
    inside = f"{helper}\nclass Own:\n    def fine_tune(self, task):\n        return f\n"
    outside = f"from helper_plugin import f\n{inside[inside.index('class Own') :]}"
    reloaded("helper_plugin", helper)
    for text in (inside, outside):
        module = reloaded("own_plugin", text)
        version = method_offer(module.Own).version
        importlib.reload(sys.modules["helper_plugin"])
        assert method_offer(module.Own).version == version


@pytest.mark.slow
def test_a_script_that_was_edited_since_its_first_run_is_refused(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from mmc_bench.plugin.in_memory import method_offer\n"
        f"{METHOD.format(1)}"
        "method_offer(Mine), method_offer(Mine)\n"
        "Path(__file__).write_text(Path(__file__).read_text() + '# edited')\n"
        "method_offer(Mine)\n"
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    last = ran.stderr.splitlines()[-1]
    assert last.endswith(f"class Mine is from before an edit of {script}: start a new process")
