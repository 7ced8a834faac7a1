"""Values that a class names are part of its identity: their types, their order, and the code in them."""

import importlib
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmc_bench.errors import UserError
from mmc_bench.plugin.class_source import identity_of_class, identity_of_value

MINE = "\nclass Mine:\n    def fine_tune(self, task):\n        return it\n"
STEP = "def step():\n    return 1\n"
LOSS = "class Loss:\n    def step(self):\n        return 1\n"
SCALED = """
import functools
def scaled(factor):
    def outer(function):
        @functools.wraps(function)
        def inner(*given):
            return factor * function(*given)
        return inner
    return outer
def plain():
    return 1
it = scaled(2)(plain)
"""
BRANCHES = """
import functools
@functools.singledispatch
def it(x):
    return 1
@it.register
def _(x: int):
    return 2
"""
NODE = "class Node:\n    pass\n"
CONDITION = """
if False:
    class It:
        made = list
        def f(self): ...
else:
    class It:
        made = tuple
        def f(self): ...
it = It
"""
CLOSURE = "def make(x):\n    def f():\n        return x\n    return f\nit, other = make(1), make(2)\n"
HELPER = "import functools, torch\ndef helper(*given):\n    return 1\n"
BOX = """
class Box:
    def __init__(self, n):
        self.n = n
    def __iadd__(self, n):
        return self
box = Box(1)
"""
WITH_NONLOCAL = """
def make():
    n = 0
    class It:
        held = Box(helper())
        def f(self):
            nonlocal n
            n += 1
    return It
it = make()
"""
AT_THE_MARGIN = """
if True:
    class It:
        '''Text
that begins at the margin.'''
        held = Box(helper())
    it = It
"""
CACHED = """
class It:
    @torch.no_grad()
    @functools.{}
    def f(x):
        return helper(x)
it = It
"""
TWO_AROUND = """
def it(n):
    return 1 + f(n)
def f(n):
    return n and other(n - 1)
other = f
"""
TWO_CLASSES = """
class It:
    def f(self):
        return other()
class Other(It):
    def g(self):
        return It()
other, it = It, Other
"""

#: Source that gives `it` a value, what is replaced in it, and by what.
EDITS = {
    "the second line of a lambda": (HELPER + "it = (\n    lambda x: x\n    + helper(x))", "return 1", "return 2"),
    "what a class with a nonlocal takes": (HELPER + BOX + WITH_NONLOCAL, "return 1", "return 2"),
    "what a class with text at the margin takes": (HELPER + BOX + AT_THE_MARGIN, "return 1", "return 2"),
    "what a class body adds to": (BOX + "class It:\n    box += 1\nit = It", "Box(1)", "Box(2)"),
    "what a function adds to": ("n = 1\ndef it():\n    global n\n    n += 1\n", "n = 1", "n = 2"),
    "a name with underscores": ("__rate__ = 1\ndef it():\n    return __rate__\n", "= 1", "= 2"),
    "an argument of a partial that is named as its function": (
        HELPER + "it = functools.partial(helper, 1)\nfunctools.update_wrapper(it, helper)",
        "helper, 1",
        "helper, 2",
    ),
    "what torch and a cache wrap": (HELPER + CACHED.format("cache"), "return 1", "return 2"),
    "what torch and a sized cache wrap": (HELPER + CACHED.format("lru_cache(4)"), "return 1", "return 2"),
    "which function around it is called": (TWO_AROUND, "other = f", "other = it"),
    "which class around it is used": (TWO_CLASSES, "other, it = It, Other", "other, it = Other, Other"),
    "a function in a dict": (STEP + "it = {'a': step}", "return 1", "return 2"),
    "an object in a list": (LOSS + "it = [Loss()]", "return 1", "return 2"),
    "a class in a tuple": (LOSS + "it = (Loss,)", "return 1", "return 2"),
    "a function in a set": (STEP + "it = {step}", "return 1", "return 2"),
    "an argument of a partial": (STEP + "import functools\nit = functools.partial(map, step)", "return 1", "return 2"),
    "a bound method": (LOSS + "it = Loss().step", "return 1", "return 2"),
    "an object's attribute": (
        STEP + "from types import SimpleNamespace\nit = SimpleNamespace(f=step)",
        "return 1",
        "return 2",
    ),
    "a list that becomes a tuple": ("it = [0, 1]", "[0, 1]", "(0, 1)"),
    "the type of a key": ("it = {1: 2}", "{1:", "{'1':"),
    "the order of a dict": ("it = {1: 2, 3: 4}", "1: 2, 3: 4", "3: 4, 1: 2"),
    "an installed function": ("import math\nit = math.sin", "sin", "cos"),
    "what a built-in method belongs to": ("it = ', '.join", "', '", "'; '"),
    "which function of a line": (
        "def make(k):\n    return {'a': lambda x: x + 1, 'b': lambda x: x * 2}[k]\nit = make('a')",
        "make('a')",
        "make('b')",
    ),
    "an argument of a wrapper": (SCALED, "scaled(2)", "scaled(3)"),
    "a wrapper": (SCALED, "factor * function", "factor + function"),
    "what a wrapper wraps": (SCALED, "return 1", "return 2"),
    "what a cache wraps": (STEP + "import functools\nit = functools.cache(step)", "return 1", "return 2"),
    "a branch of a generic function": (BRANCHES, "return 2", "return 3"),
    "the second class of a name": (CONDITION, "made = tuple", "made = dict"),
    "what a function encloses": (CLOSURE, "make(1), make(2)", "make(2), make(1)"),
    "whom a value is linked with, which another is linked with, too": (
        NODE + "p, q, x, y = Node(), Node(), Node(), Node()\np.n, q.n, p.at, x.at = 1, 2, x, p\nq.at, y.at = x, q\n"
        "it = [p, q]",
        "q.at, y.at = x, q",
        "q.at, y.at = y, q",
    ),
    "which exception a handler is for, where no source is": (
        "code = 'try: a()\\nexcept ValueError: pass\\nelse: b()'\nmade = {}\n"
        "exec('def it():\\n ' + code.replace('\\n', '\\n '), made)\nit = made['it']",
        "try: a()\\nexcept ValueError: pass\\nelse: b()",
        "try: a(); b()\\nexcept ValueError: pass",
    ),
    "a ring of two values that are alike": (
        NODE + "a, b = Node(), Node()\na.at, b.at = b, a\na.n = b.n = 1\nit = a",
        "a.n = b.n = 1",
        "a.n = 1",
    ),
    "what is between functions that name each other": (
        "def it(n):\n    return other(n)\ndef other(n):\n    return n and it(n - 1)\n",
        "n - 1",
        "n - 2",
    ),
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Return a function that makes a module of a source and a class that names `it`, and returns the class."""
    monkeypatch.syspath_prepend(str(tmp_path))
    numbers = itertools.count()
    names = []

    def mine(source):
        names.append(f"values_{next(numbers)}")
        (tmp_path / f"{names[-1]}.py").write_text(source + MINE)
        importlib.invalidate_caches()
        return importlib.import_module(names[-1]).Mine

    yield mine
    for name in names:
        del sys.modules[name]


@pytest.mark.parametrize("case", EDITS)
def test_an_edit_of_a_value_s_type_order_or_code_changes_the_identity(tmp_path, monkeypatch, case):
    source, old, new = EDITS[case]
    assert old in source
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def digest(text):
        (tmp_path / "values_plugin.py").write_text(text + MINE)
        sys.modules.pop("values_plugin", None)  # as in a new process
        importlib.invalidate_caches()
        return identity_of_class(importlib.import_module("values_plugin").Mine)[0]

    before = digest(source)
    assert digest(source) == before != digest(source.replace(old, new))
    del sys.modules["values_plugin"]


MANY = """
import functools, logging, math, re
from collections import Counter, OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from enum import Enum
from random import random, shuffle
from typing import NamedTuple, TypeVar
import torch
from os import environ
from scipy.stats import norm
WORDS = {"one", "two", "three", "four"}
def f(x=object()):
    return g(x)
def g(x):
    return f(x)
@dataclass(frozen=True, order=True)
class Numbers:
    names: frozenset = frozenset(WORDS)
    more: list = field(default_factory=list)
class Pair(NamedTuple):
    a: int = 1
class Kind(Enum):
    a = "a"
ring = [1]
ring.append(ring)
class Node:
    pass
nodes = [Node() for _ in range(5)]
for number, node in enumerate(nodes):
    node.name, node.others = number, {*nodes[number + 1:], nodes[0]}
it = [WORDS, {"f": math.sin, "names": WORDS}, Numbers(), {f, g, Numbers}, Pair(), Kind.a, {Kind.a, "b"}, ring, {*nodes}]
it += [torch.ones(2), torch.nn.Identity(), torch.relu, torch.float32, re.compile("a")]
it += [logging.getLogger("x"), TypeVar("T"), list[int], int | None, Counter("ab"), OrderedDict(a=1), defaultdict(list)]
it += [functools.lru_cache(f), torch.no_grad()(g), namedtuple("P", "a b")(1, 2), range(3), slice(1), ..., print]
it += [random, shuffle, torch.nn.Module.eval, "".join, environ, norm, torch.default_generator]
"""


@pytest.mark.slow
def test_values_of_any_type_have_one_digest_in_every_process(tmp_path):
    (tmp_path / "own.py").write_text(MANY + MINE)
    code = "from mmc_bench.plugin.class_source import identity_of_class as i; import own; print(i(own.Mine)[0])"
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1] and len(found[0]) == 13


def test_a_value_in_a_cycle_has_one_digest_wherever_reading_begins():
    def ring(size):
        nodes = [SimpleNamespace() for _ in range(size)]
        for number, node in enumerate(nodes):
            node.rate, node.next = number % 2, nodes[(number + 1) % size]
        return nodes

    digests = [identity_of_value("it", node, __name__)[0] for node in (*ring(4), *ring(2))]
    assert digests == digests[:2] * 3 and digests[0] != digests[1]


@pytest.mark.slow
def test_many_values_that_refer_to_each_other_are_read_in_a_moment():
    nodes = [SimpleNamespace(number=number) for number in range(60)]
    for node in nodes:
        node.others = nodes
    chain = [SimpleNamespace() for _ in range(300)]
    for node, before in zip(chain, [None, *chain]):  # which takes many rounds
        node.before, node.all = before, chain
    started = time.process_time()
    identity_of_value("it", [nodes, chain], __name__)
    assert time.process_time() - started < 20  # each path on its own would take for ever


@pytest.mark.slow
def test_a_compiled_function_s_own_file_counts(tmp_path):
    compiled = importlib.util.find_spec("_bisect").origin
    if not str(compiled).endswith(".so"):
        pytest.skip("this Python has no compiled module in a file of its own")
    own = tmp_path / Path(compiled).name
    (tmp_path / "own.py").write_text("from _bisect import insort_right as it\n" + MINE)
    code = "import sys; sys.modules.pop('_bisect', None); import own; "
    code += "from mmc_bench.plugin.class_source import identity_of_class as i; print(i(own.Mine)[0])"
    found = set()
    for tail in (b"", b"\0"):
        own.write_bytes(Path(compiled).read_bytes() + tail)
        run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        found.add(run.stdout)
    assert len(found) == 2


def test_tensors_that_differ_have_different_digests():
    tensors = [torch.zeros(2), torch.ones(2), torch.zeros(2, 1), torch.zeros(2, dtype=torch.float64)]
    tensors += [torch.zeros(2, requires_grad=True), torch.nn.Parameter(torch.zeros(2))]
    assert len({identity_of_value("it", tensor, __name__)[0] for tensor in tensors}) == len(tensors)


def test_a_name_of_its_own_is_none_of_the_module_s(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    method = "    def fine_tune(self, task):\n        start = task.start\n        return [start for _ in task]\n"
    found = []
    for start in (1, 2):
        name = f"own_names_{start}"
        (tmp_path / f"{name}.py").write_text("class Mine:\n" + method + f"start = {start}\n")
        importlib.invalidate_caches()
        found.append(identity_of_value("it", importlib.import_module(name).Mine, name)[0])
        del sys.modules[name]
    assert found[0] == found[1]


def test_an_optimiser_is_the_same_before_and_after_its_first_use(mine):
    source = "import torch\nclass Sgd(torch.optim.SGD):\n    def step(self, closure=None):\n        return 1\nit = Sgd"
    method = mine(source)
    before = identity_of_class(method)[0]
    sys.modules[method.__module__].Sgd([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    assert identity_of_class(method)[0] == before


def test_a_function_of_torch_may_be_a_member(mine):
    source = "from torch.nn.functional import max_pool2d, relu\nclass Net:\n    act, pool = relu, max_pool2d\nit = Net"
    assert len(identity_of_class(mine(source))[0]) == 12


def test_what_has_no_identity_is_said_in_one_sentence(mine):
    with pytest.raises(UserError, match=r"'it' has no identity \(cannot pickle .*lock.*define it inside"):
        identity_of_class(mine("import threading\nit = {'a': [threading.Lock()]}"))


def test_a_name_that_has_no_value_yet_is_no_error(mine):
    source = (
        "def make():\n    def go():\n        return late\n    if False:\n        late = 1\n    return go\nit = make()"
    )
    assert len(identity_of_class(mine(source))[0]) == 12
