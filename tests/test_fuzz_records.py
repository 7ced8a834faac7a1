"""Results folders with anything in them: a damaged record is never shown as a result, and no command stumbles or waits.

Thousands of new cases instead of CI's few: ``HYPOTHESIS_PROFILE=long pytest -n 0 tests/test_fuzz_records.py``.
"""

import copy
import hashlib
import json
import os
import shutil

import pytest
import safetensors.torch
import torch
from conftest import PLUGINS, TINY_SUITE
from helpers.fuzzing import ODD_TEXTS, answer, check, own_folder
from helpers.leaderboard import TestBoard, of_seeds
from helpers.records import cell_record, flat, invariance_record, pair_record, pretrain_record
from hypothesis import given
from hypothesis import strategies as st

from mmc_bench.plugin.registry import Registry
from mmc_bench.results.jobs import Connection, Pretraining
from mmc_bench.results.records import ConnectionRecord, Failure
from mmc_bench.results.store import Store
from mmc_bench.results.versions import versions_of_stages
from mmc_bench.stages.checkpoints import experiment_suite, locate
from mmc_bench.suites.plan import make_plan
from mmc_bench.suites.suite import load_suite

pytestmark = pytest.mark.slow

SUITE = TINY_SUITE + "pairs: [{second: {cue_rate: 0.0}}]\n"
WEIGHTS = safetensors.torch.save({"weight": torch.zeros(1)})
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()

COMMANDS = (
    *(["status", "--suite", "tiny.yaml", "--json"], ["status", "--suite", "tiny.yaml"]),
    *(["run", "--suite", "tiny.yaml", "--dry-run"], ["table"], ["table", "--suite", "tiny.yaml", "--format", "json"]),
    *(["table", "--connections"], ["table", "--against", "table1"], ["table", "--against", "fig4"]),
    *(["connect", "FIRST", "SECOND", "--format", "svg"], ["plot", "--format", "svg"]),
    *(["connect", "results/pretrained/FIRST.json", "results/pretrained/SECOND.json", "--format", "svg"],),
)


def fields_of(pretraining):
    return {name: getattr(pretraining, name) for name in Pretraining.__dataclass_fields__}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Return a folder with a suite and a record of every job of it, of two checkpoints, and of a failure."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "tiny.yaml").write_text(SUITE)
    registry = Registry.discover([PLUGINS])
    plan = make_plan(load_suite(str(folder / "tiny.yaml"), {}), registry)
    store = Store(folder / "results")
    store.check_writable()
    for p in plan.pretrainings:
        record = pretrain_record(num_classes=3, **fields_of(p))
        store.save(record.model_copy(update={"weights_sha256": DIGEST, "invariance": invariance_record()}))
        store.weights_file(p).write_bytes(WEIGHTS)
    for cell in plan.cells:
        fields = fields_of(cell.pretraining)
        record = cell_record(fields.pop("seed"), cell.method, num_classes=3, connect=cell.connect, **fields)
        store.save(record.model_copy(update={"pretrained_sha256": DIGEST, "invariance": invariance_record()}))
    for pair in plan.pairs:
        fields = fields_of(pair.first)
        record = pair_record(seed=fields.pop("seed"), second=fields_of(pair.second), connect=pair.connect, **fields)
        store.save(record.model_copy(update={"weights_sha256": (DIGEST, DIGEST)}))
    sources = [locate(p.key, store) for p in plan.pretrainings[:2]]
    suite = experiment_suite(sources, None, None)
    experiment = make_plan(suite, registry).pretrainings[0]
    (first, _), (second, _) = (source.read() for source in sources)
    connection = Connection(
        versions=versions_of_stages("connect"), first=first, second=second, experiment=experiment, connect=suite.connect
    )
    record = pair_record(paths={"linear": flat(), "permuted": flat()})
    known = {name: getattr(record, name) for name in ("comparison", "timing", "provenance")}
    store.save_jobless(ConnectionRecord(key=connection.key, connection=connection, num_classes=3, **known))
    failure = Failure(key=plan.cells[0].key, label="x", error="y", traceback="z", started=record.timing.started)
    store.save_failure(plan.cells[0], failure)
    return folder, plan


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Return a leaderboard's folder with four records, in order."""
    board = TestBoard(tmp_path_factory.mktemp("board") / "board")
    board.send_in(*of_seeds("tune", (0.7, 0.8)))
    board.build()
    assert board.problems() == []
    return board.root


# --- damage


def leaves(content, place=()):
    """Yield the place of everything in JSON content, as keys and indices."""
    yield place
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield from leaves(value, (*place, key))


def changed_at(content, place, change):
    """Return JSON content with what lies at `place` replaced by `change` of it; REMOVE removes it."""
    if not place:
        return change(content)
    content = copy.copy(content)
    key, *rest = place
    value = changed_at(content[key], rest, change)
    if value is REMOVE:
        content.pop(key)
    else:
        content[key] = value
    return content


REMOVE = object()
numbers = st.sampled_from([0, -1, 2, 0.5, 1.5, 2**70, 1e308, -1e308, 1e-320, float("nan"), float("inf"), 10**400])
odd = st.none() | st.booleans() | numbers | st.sampled_from(ODD_TEXTS) | st.text(max_size=5) | st.just(REMOVE)
odd = odd | st.lists(odd.filter(lambda value: value is not REMOVE), max_size=2) | st.just({}) | st.just({"x": 1})


@st.composite
def damaged(draw, content):
    """Return a record's bytes with something done to them."""
    how = draw(st.sampled_from([*["value"] * 9, "cut", "flip", "bytes", "double", "nest"]))
    if how == "cut":
        return content[: draw(st.integers(0, len(content) - 3))]
    if how == "flip":
        place = draw(st.integers(0, len(content) - 1))
        return content[:place] + bytes([content[place] ^ 1 << draw(st.integers(0, 7))]) + content[place + 1 :]
    if how == "bytes":
        return draw(st.binary(max_size=50) | st.sampled_from([b"\xff\xfe", b"{}", b"[]", b"null", b'{"kind": []}']))
    if how == "double":
        return content + content
    if how == "nest":
        return b'{"kind": ' + b"[" * draw(st.sampled_from([10, 500, 100_000]))
    record = json.loads(content)
    for _ in range(draw(st.integers(1, 2))):
        field = draw(st.sampled_from(sorted(record)))  # most of a record's places are in its longest fields
        place = draw(st.sampled_from(list(leaves(record[field], (field,)))))
        value = draw(numbers | st.just(REMOVE) | odd)
        record = changed_at(record, place, lambda old, value=value: value)
    return json.dumps(record, indent=1).encode()


ODDITIES = {
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "link to itself": lambda path: path.symlink_to(path),
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "empty": lambda path: path.touch(),
}


def copy_of(template, folder):
    shutil.copytree(template, folder, dirs_exist_ok=True)


def files_of(folder, pattern):
    return sorted(path.relative_to(folder) for path in folder.glob(pattern))


def ask(folder, plan, command):
    """Run a command on a results folder, and check its answer."""
    keys = {"FIRST": plan.pretrainings[0].key, "SECOND": plan.pretrainings[1].key}
    for name, key in keys.items():
        command = [word.replace(name, key) for word in command]
    return check(answer(folder, *command, MMC_BENCH_PLUGINS=str(PLUGINS)), codes=(0, 1, 4, 5))


def done(folder, plan):
    """Return how many jobs of the suite are done, as ``status`` has it, or None where it refuses."""
    found = ask(folder, plan, COMMANDS[0])
    if found.code:
        return None
    content = json.loads(found.out)
    return content["cells"]["done"] + content["pretrainings"]["done"]


# --- the tests


@given(data=st.data())
def test_a_record_may_hold_anything(template, data):
    folder, plan = template
    with own_folder() as own:
        copy_of(folder, own)
        file = own / data.draw(st.sampled_from(files_of(folder, "results/*/*.json")))
        file.write_bytes(data.draw(damaged(file.read_bytes())))
        ask(own, plan, data.draw(st.sampled_from(COMMANDS)))


@pytest.mark.parametrize("oddity", ODDITIES)
@pytest.mark.parametrize("kind", ["pretrained", "connections"])
def test_a_record_may_be_no_file(template, kind, oddity, tmp_path):
    folder, plan = template
    copy_of(folder, tmp_path)
    everything = done(tmp_path, plan)
    file = tmp_path / files_of(folder, f"results/{kind}/*[0-9a-f].json")[0]
    file.unlink()
    ODDITIES[oddity](file)
    if kind != "connections":
        left = done(tmp_path, plan)
        assert left is None or left < everything  # what was made from it is done no more either
    for command in (SHORT, CONNECT):
        ask(tmp_path, plan, command)


SHORT, CONNECT, PLOT = ["table"], COMMANDS[8], ["plot", "--format", "svg"]
BETWEEN = ["table", "--connections"]
STRAIGHT = ("paths", "linear", "test")
PATH = ("comparison", *STRAIGHT)


@pytest.mark.parametrize(
    ("kind", "place", "value", "command"),
    [
        ("cells", ("timing", "seconds", "fine_tune"), REMOVE, SHORT),
        ("pretrained", ("timing", "seconds", "pretrain"), REMOVE, SHORT),
        ("cells", ("timing", "seconds", "fine_tune"), float("nan"), SHORT),
        ("cells", ("timing", "seconds", "fine_tune"), 1e308, SHORT),
        ("cells", ("metrics", "NC", "loss"), 1e308, SHORT),
        ("cells", (*STRAIGHT, "barriers", "C"), REMOVE, SHORT),
        ("cells", (*STRAIGHT, "splits", "RC"), REMOVE, PLOT),
        ("cells", (*STRAIGHT, "t"), [], PLOT),
        ("cells", (*STRAIGHT, "mode_connected", "C"), REMOVE, BETWEEN),
        ("pairs", (*PATH, "splits", "C"), REMOVE, PLOT),
        ("pairs", (*PATH, "barriers", "C"), REMOVE, BETWEEN),
        ("pairs", (*PATH, "mode_connected"), {}, BETWEEN),
        ("connections", ("comparison", "paths"), {}, CONNECT),
        ("connections", ("comparison", "scores"), {}, CONNECT),
        ("connections", ("comparison", "invariance", 0), {}, CONNECT),
        ("connections", (*PATH, "splits", "C", "loss"), [], CONNECT),
    ],
)
def test_what_fuzzing_found_in_records_stops_no_command(template, kind, place, value, command, tmp_path):
    folder, plan = template
    copy_of(folder, tmp_path)
    for file in files_of(tmp_path, f"results/{kind}/*[0-9a-f].json"):
        record = json.loads((tmp_path / file).read_text())
        if place[0] in record:  # not in a failure
            record = changed_at(record, place, lambda _: value)
        (tmp_path / file).write_text(json.dumps(record))
    ask(tmp_path, plan, command)


@pytest.mark.parametrize("content", [b'{"kind": []}', b'{"kind": ' + b"[" * 100_000, b"\xff", b""])
def test_what_fuzzing_found_in_a_record_s_file_is_one_sentence(template, content, tmp_path):
    (tmp_path / "mine.json").write_bytes(content)
    assert (
        "mine.json is no record of mmc-bench" in ask(tmp_path, template[1], ["connect", "mine.json", "mine.json"]).err
    )


@given(data=st.data())
def test_a_submission_may_hold_anything(board, data):
    with own_folder() as own:
        copy_of(board, own / "leaderboard")
        file = own / "leaderboard" / data.draw(st.sampled_from(files_of(board, "**/*.*")))
        content = file.read_bytes()
        anything = damaged(content) if file.suffix == ".json" else st.binary(max_size=100)
        file.write_bytes(data.draw(anything))
        if file.suffix == ".json" and data.draw(st.booleans()):
            TestBoard(own / "leaderboard").renew(file.parent.parent)
        found = check(answer(own, "leaderboard", "check"), codes=(0, 1, 4))
        assert found.code or file.read_bytes() == content
