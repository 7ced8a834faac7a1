"""Classes and functions from before a reload of their module run only where their source is the same."""

import importlib
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
    says = f"{kind} is from before its module old_plugin was reloaded: "
    for user in (own, outermost):
        with pytest.raises(UserError, match=f"{says}reload module own_plugin, too, or restart"):
            method_offer(user.Own)
    if name == "Mine":
        with pytest.raises(UserError, match=f"{says}import it again, or restart"):
            method_offer(old)
    with pytest.raises(UserError, match="class Own is from before its module own_plugin was"):
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
}


@pytest.mark.parametrize("case", NAMES)
def test_names_that_a_module_gives_anew_are_not_taken_for_a_reload(reloaded, case):
    helper = textwrap.dedent(NAMES[case])
    inside = f"{helper}\nclass Own:\n    def fine_tune(self, task):\n        return f\n"
    outside = f"from helper_plugin import f\n{inside[inside.index('class Own') :]}"
    reloaded("helper_plugin", helper)
    for text in (inside, outside):
        module = reloaded("own_plugin", text)
        assert method_offer(module.Own).version == method_offer(module.Own).version
