"""Suite files and command lines of any content: an answer or one sentence, no traceback, no hang.

Thousands of new cases instead of CI's few: ``HYPOTHESIS_PROFILE=long pytest -n 0 tests/test_fuzz_suites.py``.
"""

import copy
import os
from dataclasses import fields

import pytest
import yaml
from conftest import PLUGINS, TINY_SUITE
from helpers.fuzzing import ODD_TEXTS, answer, check_sentence, own_folder
from hypothesis import given
from hypothesis import strategies as st

from mmc_bench.plugin.registry import Registry
from mmc_bench.suites.suite import Suite

pytestmark = pytest.mark.slow

SHIPPED = [yaml.safe_load(files[0].read_text("utf-8")) for files in Registry.discover().suites.values()]
BASES = [yaml.safe_load(TINY_SUITE), *SHIPPED]

TOKENS = (
    *("datasets", "backbones", "methods", "cue_rates", "seeds", "pretrain", "connect", "data", "pairs", "parameters"),
    *("epochs", "lr", "first", "second", "threads", "tiny-set", "tiny-net", "tiny-ft", "0.9", "1", "quadratic"),
    *(
        ": ",
        ":",
        "\n",
        "\n  ",
        "\n- ",
        "- ",
        ", ",
        "[",
        "]",
        "{",
        "}",
        "&a ",
        "*a",
        "<<: *a",
        "? ",
        "| ",
        "> ",
        "---\n",
    ),
    *("'", '"', "\\", "#", "%YAML 1.1\n", "!!int ", "!!set ", "!!omap ", "!!binary ", "!!timestamp ", "!!float "),
    *("!!python/object:os.system ", "!!str ", "!x ", "~", "\x00", "\ufeff", "\t", "\r", "\\ud800", "=", "<<"),
)

ALLOWED = tuple(field.name for field in fields(Suite))
OWNERS = ("data.", "pretrain.", "connect.", "connect.quadratic.", "tiny-ft.", "tiny-*.", "*.", "nobody.", "", "[.")

words = st.sampled_from(ODD_TEXTS) | st.text(max_size=30).filter(lambda text: "\0" not in text)
yamlish = st.lists(st.sampled_from(TOKENS), max_size=12).map("".join).filter(lambda text: "\0" not in text)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**63, 2**64, 10**30, -1, 0]),
    st.floats(),
    st.dates(),
    st.datetimes(),
    st.binary(max_size=8),
    st.sampled_from(ODD_TEXTS),
    st.text(max_size=20),
)
keys = st.sampled_from(["datasets", "lr", "*", "", "first", "quadratic"]) | scalars
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def mutated_suites(draw):
    """Return a suite's content with one to three places changed, whatever is there."""
    suite = copy.deepcopy(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(1, 3))):
        holder, key = suite, draw(st.sampled_from([*suite, *ALLOWED]))
        while isinstance(holder.get(key), dict) and holder[key] and draw(st.booleans()):
            holder = holder[key]
            key = draw(st.sampled_from([*holder, "lr", "epochs", "quadratic", "tiny-ft", "x"]))
        change = draw(st.sampled_from(["replace", "remove", "add", "wrap"]))
        if change == "remove":
            holder.pop(key, None)
        elif change == "wrap":
            holder[key] = [holder.get(key)]
        else:
            holder[key if change == "replace" else draw(keys)] = draw(values)
    return suite


def try_suite(content, name="mine.yaml"):
    """Dry-run a suite file of this content, and check the answer."""
    with own_folder() as folder:
        (folder / name).write_bytes(content)
        return check_sentence(dry_run(folder, "--suite", name))


def dry_run(folder, *words):
    return answer(folder, "run", "--dry-run", *words, MMC_BENCH_PLUGINS=str(PLUGINS))


# --- files


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_a_suite_file_may_hold_any_bytes(content):
    try_suite(content)


@given(st.lists(st.sampled_from(TOKENS), max_size=40).map("".join))
def test_a_suite_file_may_hold_any_yaml(text):
    try_suite(text.encode())


@given(st.sampled_from(BASES), st.data())
def test_a_suite_file_may_be_cut_or_spliced_anywhere(base, data):
    text = yaml.safe_dump(base, sort_keys=False)
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    try_suite((text[:first] + data.draw(st.sampled_from(["", *TOKENS])) + text[last:]).encode())


@given(mutated_suites())
def test_a_suite_may_have_any_value_anywhere(suite):
    try_suite(yaml.safe_dump(suite, allow_unicode=True).encode("utf-8", "replace"))


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60))
LEAST = "datasets: tiny-set\nbackbones: tiny-net\nmethods: tiny-ft\ncue_rates: 0.9\n"
GRID = LEAST.replace("0.9", str([n / 2000 for n in range(2000)])) + f"seeds: {list(range(2000))}\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (LAUGHS, "its aliases repeat too much"),
        (MERGES, "its aliases repeat too much"),
        ("parameters: &a {m: {x: [*a]}}\n", "an alias repeats a value within itself"),
        (f"{LEAST}pairs: [{{frist: {{seed: 1}}}}]\n", "unknown key 'pairs.0.frist': did you mean first?"),
        (f"{LEAST}pairs: [{{data: {{sed: 1}}}}]\n", "unknown key 'pairs.0.data.sed': did you mean seed?"),
        (f"{LEAST}connect: {{quadratic: {{x: 1}}}}\n", "unknown key 'connect.quadratic.x': known: "),
        (GRID, "has 8,000,000 pretrainings, cells and pairs"),
        ("#" * 2**20 + "\n", "is larger than 1048576 bytes"),
        ("\0", "special characters are not allowed"),
        ("x: " + "[" * 500, "nested too deep"),
        (f"{LEAST}methods_: {'x' * 100_000}\n", "did you mean methods?"),
        (LEAST.replace("tiny-ft", '"a\\nb\\ec"'), "unknown method 'a\\nb\\x1bc'"),
        (LEAST.replace("tiny-ft", "x" * 100_000), "xxx … xxx"),
    ],
)
def test_what_fuzzing_found_in_suite_files_is_one_sentence(content, says):
    found = try_suite(content.encode())
    assert (found.code, says in found.err) == (4, True), found.err


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()])
def test_a_suite_file_that_never_ends_or_is_none_is_refused_at_once(make, tmp_path):
    make(tmp_path / "mine.yaml")
    assert "cannot be read: " in check_sentence(dry_run(tmp_path, "--suite", "mine.yaml"), codes=(4,)).err


def test_a_name_that_is_no_text_is_shown_as_an_escape(tmp_path):
    (tmp_path / "mine.yaml").write_text(LEAST)
    (tmp_path / "mine.yaml").rename(tmp_path / "\udcff.yaml")
    assert check_sentence(dry_run(tmp_path, "--suite", "\udcff.yaml")).code in (0, 4)


# --- the command line


@pytest.mark.parametrize("value", ["2020-13-45", "[" * 500, "!!int", "1e999999", "&a [*a]", "\ud800"])
def test_what_fuzzing_found_in_settings_is_one_sentence(value, tmp_path):
    (tmp_path / "mine.yaml").write_text(LEAST)
    found = check_sentence(dry_run(tmp_path, "--suite", "mine.yaml", "--set", f"tiny-ft.lr={value}"), codes=(4,))
    assert "lr" in found.err


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("x.png", os.mkfifo),
        ("x.png", lambda path: path.symlink_to("/dev/zero")),
        ("x.png", lambda path: path.symlink_to(path)),
        ("loop", lambda path: path.symlink_to("..")),
        ("loop", lambda path: path.symlink_to("../../..")),
        ("\udcff.png", lambda path: path.touch()),
    ],
)
def test_a_folder_of_images_may_hold_anything(name, make, tmp_path):
    for part in ("train", "test"):
        for label in range(10):
            place = tmp_path / "images" / part / str(label)
            place.mkdir(parents=True)
            (place / "a.png").touch()
            make(place / name)
    found = check_sentence(dry_run(tmp_path, "--data", "digits=images"), codes=(0, 4))
    assert found.code == 0
    assert ("left out: 20 " in found.err) == ("\udcff" not in name)


@pytest.mark.parametrize(
    "words",
    [
        ["table", "--results", "LONG"],
        ["status", "--results", "LONG"],
        ["run", "--dry-run", "--data", "digits=LONG"],
        ["connect", "LONG", "LONG"],
        ["connect", "abcdef12", "abcdef13", "--results", "LONG"],
        ["leaderboard", "check", "--board", "LONG"],
    ],
)
def test_a_name_that_is_too_long_for_a_file_is_one_sentence(words, tmp_path):
    check_sentence(answer(tmp_path, *(word.replace("LONG", "x" * 5000) for word in words)), codes=(4,))


@given(
    st.sampled_from(["--methods", "--datasets", "--backbones", "--cue-rates", "--seeds", "--suite", "--data"]), words
)
def test_a_list_on_the_command_line_may_be_anything(option, word):
    with own_folder() as folder:
        check_sentence(dry_run(folder, f"{option}={word}"))


@given(st.sampled_from(OWNERS), st.sampled_from(["lr", "epochs", "threads", "paths", "x", "", "a.b"]), words | yamlish)
def test_a_setting_may_be_anything(owner, name, value):
    with own_folder() as folder:
        (folder / "mine.yaml").write_text(TINY_SUITE)
        check_sentence(dry_run(folder, "--suite", "mine.yaml", "--set", f"{owner}{name}={value}"))
