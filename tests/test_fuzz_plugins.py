"""Plugin folders of any content: what is broken is left out with a line that says so, and stops nothing else.

Thousands of new cases instead of CI's few: ``HYPOTHESIS_PROFILE=long pytest -n 0 tests/test_fuzz_plugins.py``.
"""

import json
import os

import pytest
from helpers.fuzzing import ODD_TEXTS, answer, check, check_sentence, own_folder
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.slow

HEADER = "from mmc_bench import BackboneSpec, DatasetSpec, MethodSpec, hookimpl\n"
COMMANDS = (["plugins"], ["plugins", "--json"], ["list", "methods"], ["list", "datasets", "--json"], ["list", "suites"])
DRY_RUN = ["run", "--dry-run", "--suite", "quick"]

#: Python expressions for whatever a plugin may hand over or set.
VALUES = (
    *("None", "0", "-1", "1e400", "float('nan')", "True", "''", "'x'", "'a\\nb'", "'\\x1b[31m'", "'\\udcff'", "b'x'"),
    *(
        "[]",
        "[1]",
        "[('a', 1)]",
        "{}",
        "{'a': 1}",
        "{1: 2}",
        "{'a': object()}",
        "{'a': float('inf')}",
        "{'a': 10**5000}",
    ),
    *("object()", "print", "int", "lambda *a, **k: 1 / 0", "set()", "{'cued'}", "{1, 'x'}", "'x' * 5000", "Odd()"),
    *(
        "'good'",
        "'good/*'",
        "':Mine'",
        "'.x:Mine'",
        "'....x:Mine'",
        "'os:path'",
        "'a.b.c:d'",
        "'mmc_bench.cli.main:main'",
    ),
    *("__import__('pathlib').Path('.')", "'nowhere.yaml'", "'/'", "'a\\0b'", "GOOD", "type('S', (MethodSpec,), {})"),
)
RAISED = (
    *("ValueError('x')", "Exception()", "BaseException('x')", "SystemExit", "SystemExit('bye\\nbye')", "GeneratorExit"),
    *(
        "RecursionError()",
        "MemoryError()",
        "Odd()",
        "type('Own', (BaseException,), {})('x')",
        "StopIteration",
        "OSError(5, 'x')",
    ),
)
ODD = """
class Odd(Exception):
    def __repr__(self): raise ValueError("no repr")
    __str__ = __repr__
    def __eq__(self, other): raise ValueError("no eq")
    __ne__ = __hash__ = __bool__ = __len__ = __iter__ = __eq__
    def __getattr__(self, name): raise ZeroDivisionError(name)

class Mine:
    pass

GOOD = MethodSpec(name="good", target=":Mine")
"""
KINDS = ("dataset", "backbone", "method")
HOOKS = (
    *(f"register_{kind}s" for kind in KINDS),
    "register_suites",
    "register_published",
    "no_such_hook",
)

ARGUMENTS = ("register", "register", "", "x", "*register", "register=None")
MARKERS = ("@hookimpl", "@hookimpl", "", "@hookimpl(wrapper=True)", "@hookimpl(specname='register_suites')")

values = st.sampled_from(VALUES)
FIELDS = {
    "dataset": ("summary", "defaults", "check_member", "sources", "num_classes"),
    "backbone": ("summary", "defaults", "check_member", "x"),
    "method": ("summary", "defaults", "check_member", "needs"),
}


@st.composite
def specs(draw, kind):
    """Return the making of a spec, with one to three fields that may hold anything."""
    given = {"name": "'odd-one'", "target": "':Mine'"}
    for field in draw(st.lists(st.sampled_from(["name", "target", *FIELDS[kind] * 2]), max_size=3)):
        given[field] = draw(values)
    return f"{kind.title()}Spec({', '.join(f'{field}={value}' for field, value in given.items())})"


@st.composite
def hooks(draw):
    """Return the source of one hook that registers specs, or does what it should not."""
    kind = draw(st.sampled_from(KINDS))
    if draw(st.booleans()):
        return f"@hookimpl\ndef register_{kind}s(register):\n    register({draw(specs(kind))})\n"
    name, argument, marker = (draw(st.sampled_from(choice)) for choice in (HOOKS, ARGUMENTS, MARKERS))
    body = st.one_of(
        specs(kind).map("register({})".format),
        values.map("register({})".format),
        st.sampled_from(RAISED).map("raise {}".format),
        values.map("return {}".format),
        st.sampled_from(["yield", "register(GOOD); object.__setattr__(GOOD, 'defaults', 5)"]),
    )
    return f"{marker}\ndef {name}({argument}):\n    {draw(body)}\n"


ATTRIBUTES = ("mmc_bench_api", "__file__", "__path__", "__package__", "__name__", "__spec__", "__getattr__", "x")
settings_of_modules = st.builds("{} = {}\n".format, st.sampled_from(ATTRIBUTES), values)
top_level = st.one_of(
    settings_of_modules,
    st.sampled_from(RAISED).map("raise {}\n".format),
    st.sampled_from(["def (:", "\0", "import nowhere", "1/0", "\tx", "# coding: nonsense"]),
)


@st.composite
def plugins(draw):
    """Return the source of a plugin module."""
    parts = draw(st.lists(top_level, max_size=1)) + draw(st.lists(hooks(), max_size=3))
    return HEADER + ODD + "\n".join(draw(st.permutations(parts)))


def ask(folder, command, *more):
    """Run a command with the plugins in `folder`."""
    found = check(answer(folder, *command, "--plugins-dir", folder / "plugs", *more))
    assert found.code == 0 or command[0] == "run", found
    return found


def try_plugin(content, command, name="mine.py"):
    """Ask beside a sound plugin, whose method must stay on offer."""
    with own_folder() as folder:
        (folder / "plugs").mkdir()
        (folder / "plugs" / name).write_bytes(content)
        (folder / "plugs" / "sound.py").write_text(sound("sound"))
        found = ask(folder, command)
        if command == ["list", "methods"]:
            assert "sound" in found.out


@given(
    st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from(COMMANDS),
)
def test_a_plugin_may_hold_any_bytes(content, command):
    try_plugin(content, command)


@given(plugins(), st.sampled_from([*COMMANDS, DRY_RUN]))
def test_a_plugin_may_do_anything(source, command):
    try_plugin(source.encode("utf-8", "backslashreplace"), command)


@given(st.sampled_from(KINDS), st.data())
def test_a_spec_may_hold_anything(kind, data):
    hook = f"@hookimpl\ndef register_{kind}s(register):\n    register({data.draw(specs(kind))})\n"
    source = HEADER + ODD + "".join(data.draw(st.lists(settings_of_modules, max_size=1))) + hook
    listing = ["list", f"{kind}s", *data.draw(st.sampled_from([[], ["--json"]]))]
    command = data.draw(st.sampled_from([listing, [*DRY_RUN, f"--{kind}s", "odd-one"], [*DRY_RUN, f"--{kind}s", "*"]]))
    try_plugin(source.encode("utf-8", "backslashreplace"), command)


# --- what fuzzing found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", ["summary=None", "summary=5", "defaults=[('a', 1)]", "defaults={1}"])
def test_a_spec_with_a_field_of_another_type_leaves_its_plugin_out(kind, field, tmp_path):
    assert " must be " in left_out(tmp_path, f"register({kind.title()}Spec(name='odd', target=':X', {field}))", kind)


@pytest.mark.parametrize("field", ["sources='digits'", "sources=None", "sources=[1]", "num_classes='ten'"])
def test_a_dataset_spec_names_its_sources_and_counts_its_classes(field, tmp_path):
    call = f"register(DatasetSpec(name='odd', target=':X', {field}))"
    assert field.partition("=")[0] in left_out(tmp_path, call, "dataset")


@pytest.mark.parametrize("value", ["5", "[]", "b'x'", "'nowhere.py'", "'a\\0b'", "'/dev/zero'"])
def test_a_plugin_that_misstates_its_file_is_as_good_as_any(value, tmp_path):
    (tmp_path / "plugs").mkdir()
    source = f"{HEADER}{ODD}__file__ = {value}\n@hookimpl\ndef register_methods(register):\n    register(GOOD)\n"
    (tmp_path / "plugs" / "mine.py").write_text(source)
    listed = ask(tmp_path, ["list", "methods"])
    assert (listed.code, listed.err) == (0, "") and "good" in listed.out
    assert ask(tmp_path, DRY_RUN).code == 0


@pytest.mark.parametrize("raised", ["Odd()", "BaseException()", "GeneratorExit", "SystemExit(Odd())"])
def test_an_error_that_cannot_be_shown_or_is_none_leaves_its_plugin_out(raised, tmp_path):
    left_out(tmp_path, f"raise {raised}", "method")


def left_out(folder, call, kind):
    """Return why a plugin that does `call` was left out; ``list`` and a dry run must go on without it."""
    (folder / "plugs").mkdir()
    source = f"{HEADER}{ODD}@hookimpl\ndef register_{kind}s(register):\n    {call}\n"
    (folder / "plugs" / "mine.py").write_text(source)
    found = ask(folder, ["list", f"{kind}s"])
    assert "mmc-bench: plugin 'mine' of mine was left out: " in found.err
    assert ask(folder, DRY_RUN).code == 0
    return found.err


ODDITIES = {
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "link to itself": lambda path: path.symlink_to(path),
    "endless device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("place", ["mine.py", "package/__init__.py", "package/part.py", "package/suites/mine.yaml"])
@pytest.mark.parametrize("oddity", ODDITIES)
def test_what_lies_in_a_plugin_folder_may_be_no_file(oddity, place, tmp_path):
    package = tmp_path / "plugs" / "package"
    (package / "suites").mkdir(parents=True)
    (tmp_path / "plugs" / "sound.py").write_text(sound("sound"))
    if not place.endswith("__init__.py"):
        suites = "@hookimpl\ndef register_suites(register):\n    register(__path__[0] + '/suites')\n"
        (package / "__init__.py").write_text(sound("packed") + (suites if place.endswith("yaml") else ""))
    ODDITIES[oddity](tmp_path / "plugs" / place)
    ask(tmp_path, ["list", "suites"])
    assert "sound" in ask(tmp_path, ["list", "methods"]).out
    alone = answer(tmp_path, "list", "methods", "--plugins-dir", tmp_path / "plugs" / place)
    check_sentence(alone, codes=(0, 4))


def test_a_plugin_may_have_a_name_that_is_no_text(tmp_path):
    (tmp_path / "plugs").mkdir()
    (tmp_path / "plugs" / "\udcff\n\x1b[31m.py").write_text(sound("sound"))
    assert "method sound" in ask(tmp_path, ["plugins"]).out
    assert "sound" in ask(tmp_path, ["list", "methods"]).out


@pytest.mark.parametrize("content", [b"a = " + b"[" * 5000, b"a = " + b"9" * 5000, b"\xff", b"a = 1\na = 2", b"\0"])
def test_a_pyproject_that_cannot_be_read_is_one_sentence(content, tmp_path):
    (tmp_path / "pyproject.toml").write_bytes(content)
    assert "pyproject.toml cannot be read: " in check_sentence(answer(tmp_path, "plugins"), codes=(4,)).err


def test_a_plugin_folder_s_name_may_be_too_long(tmp_path):
    found = check_sentence(answer(tmp_path, "plugins", "--plugins-dir", "x" * 5000), codes=(4,))
    assert "cannot be read: File name too long" in found.err


@given(st.lists(st.sampled_from(ODD_TEXTS) | st.text(max_size=5), max_size=3) | st.sampled_from([5, "x", {"a": 1}]))
def test_a_pyproject_may_list_anything(folders):
    with own_folder() as folder:
        listed = json.dumps(folders).replace("\\udcff", "x")
        (folder / "pyproject.toml").write_text(f"[tool.mmc_bench]\nplugins = {listed}\n")
        check_sentence(answer(folder, "plugins"))


def sound(name):
    return f"{HEADER}@hookimpl\ndef register_methods(register):\n    register(MethodSpec(name='{name}', target=':X'))\n"
