"""Derived seeds, canonical JSON, and the keys that name results."""

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field, fields, replace

import pytest
from pydantic import TypeAdapter, ValidationError

from mmc_bench.results.canonical import canonical_json, key_of
from mmc_bench.results.jobs import Cell, Checkpoint, Connection, Pair, Pretraining
from mmc_bench.results.settings import Recipe
from mmc_bench.seeds import derive_seed

CELLS = TypeAdapter(Cell)


def test_a_derived_seed_is_the_same_in_every_process():
    code = "from mmc_bench.seeds import derive_seed; print(derive_seed('RC cues', 3))"
    for salt in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": salt}
        printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        assert int(printed.stdout) == derive_seed("RC cues", 3)


def test_derived_seeds_and_keys_are_the_published_ones():
    # Another hash would change every published number, and orphan every record.
    assert derive_seed("clean set", 0) == 4600926217722532425
    assert derive_seed("RC cues", 3) == 5790918818445086046
    content = {"stage": "cell", "method": {"name": "ft", "parameters": {"lr": 0.1, "epochs": 20.0}}, "seeds": [0, None]}
    assert key_of(content) == "52b61177cda689ae612f32c4bb2da90d420d10cbb56048c4f2fe326db3b8a12f"


def test_derived_seeds_differ_between_purposes_and_seeds_and_fit_torchs_generators():
    seeds = [derive_seed(what, seed) for what in ("pretraining", "RC cues", "RI images") for seed in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed("a1", 1) != derive_seed("a", 11)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": {"x": 1, "y": [1, 2]}}, {"a": {"y": [1, 2], "x": 1}}),
        ({"lr": 1.0}, {"lr": 1}),
        ({"lrs": (0.1, 2.0)}, {"lrs": [0.1, 2]}),
        ({"a": -0.0}, {"a": 0}),
    ],
)
def test_equal_content_has_equal_json_and_one_key(one, other):
    assert canonical_json(one) == canonical_json(other)
    assert key_of(one) == key_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 1.5}),
        ({"a": 1}, {"b": 1}),
        ({"a": True}, {"a": 1}),
        ({"a": None}, {}),
        ({"a": "1"}, {"a": 1}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": 0.1}, {"a": 0.1 + 1e-16}),
    ],
)
def test_different_content_has_different_keys(one, other):
    if one != other or isinstance(one["a"], bool):  # .1 + 1e-16 is another float than .1
        assert key_of(one) != key_of(other)


def test_canonical_json_reads_back_and_has_no_spaces():
    content = {"b": [1, 2.5, "x y"], "a": {"z": None, "y": True}}
    text = canonical_json(content)
    assert json.loads(text) == content
    assert text == '{"a":{"y":true,"z":null},"b":[1,2.5,"x y"]}'


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_json_lacks_are_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": value})


@pytest.mark.parametrize("name", ["lr", "weight_decay", "momentum", "lr_drop_factor"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_recipe_holds_no_number_that_a_key_could_not(name, value):
    with pytest.raises(ValidationError):
        TypeAdapter(Recipe).validate_python({name: value})


def paths_of(content, prefix=()):
    """Yield the path of every leaf of nested dictionaries."""
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield from paths_of(value, (*prefix, name))
        else:
            yield (*prefix, name)


#: Of fields that take these words alone.
CHOICES = {
    "weights": "0" * 64,
    "checkpoint": {"name": "mine", "sha256": "0" * 64},
    "paths": ["quadratic"],
    "matching": "weights",
    "matching_images": "cued",
    "start": "random",
    "clean_set": "pretraining",
    "minority": "conflicting",
    "clean_cues": "random",
    "augment": "crop-flip",
    "selection": "0" * 64,
}

#: Says where parameters came from, which changes nothing that they lead to.
NO_PART = ("selection",)


def another(name, value):
    if (name, value) == ("start", None):  # of a pretraining, and not of a quadratic path
        return CHOICES["checkpoint"]
    if name in CHOICES:
        return CHOICES[name]
    if value is None or isinstance(value, int):
        return (value or 0) + 3
    if isinstance(value, float):
        return value / 2 + 0.01
    return [0.25] if isinstance(value, list) else f"{value}x"


def with_changed(content, path):
    name, *rest = path
    changed = with_changed(content[name], rest) if rest else another(name, content[name])
    return {**content, name: changed}


def test_every_field_of_a_cell_changes_its_key(cell):
    content = cell.content()
    paths = list(paths_of(content))
    assert len(paths) > 25
    keys = {path: CELLS.validate_python(with_changed(content, path)).key for path in paths}
    unchanged = [path for path, key in keys.items() if key == cell.key]
    assert unchanged == [NO_PART]
    assert len(set(keys.values())) == len(paths)


def test_a_pretraining_key_follows_the_pretraining_and_not_the_method(cell):
    content = cell.content()
    for path in paths_of(content):
        changed = CELLS.validate_python(with_changed(content, path))
        same = changed.pretraining.key == cell.pretraining.key
        assert same == (path[0] != "pretraining"), path


def test_every_field_that_records_hold_is_part_of_the_key(cell):
    names = {field.name for field in fields(Pretraining)}
    weights = {"checkpoint", "start"}
    assert names == {"versions", "dataset", "images", "data", "backbone", "cue_rate", "recipe", "seed"} | weights
    assert {field.name for field in fields(Cell)} == {"versions", "pretraining", "method", "connect", *NO_PART}


def all_keys(cell):
    """Return every key that a cell's experiment leads to."""
    p, connect = cell.pretraining, cell.connect
    ends = [Checkpoint(label=digit, weights_sha256=digit * 64) for digit in "01"]
    pair = Pair(versions={"connect": "1"}, first=p, second=p, data=p, connect=connect)
    connection = Connection(versions={"connect": "1"}, first=ends[0], second=ends[1], experiment=p, connect=connect)
    return [p.weights_key, p.key, cell.weights_key, cell.key, pair.key, connection.key]


PUBLISHED = [
    "d268527a14973ea0e6950d9235d3897aabadf49c5f0dc29b6017aabfbc990f9a",
    "78c785f0ba74486c0a3111a0cfa20962979bbaf1fe5a9877ee56e1ecc7d2f4d9",
    "247e1f4c2a159dc743d566753f494a0edcc5480962d1ef61a294e897777f01fe",
    "9e7f2fafff8fb96a11df0ace5ad226ac80a0a008770becea49a8be87b5b8f65b",
    "cddc0eebe9c2875ed5db671d1d6ddc23e4c915c6803f768e8fc009e1684bba80",
    "c19a01dac5393515c702d292e11ec7283e74f8be0e7b58d6aeb6dbb24d4e41f3",
]


def test_the_keys_of_jobs_are_the_published_ones(cell):
    assert all_keys(cell) == PUBLISHED


def test_a_field_that_came_later_is_part_of_keys_where_it_has_not_its_default(cell):
    @dataclass(frozen=True, kw_only=True)
    class LaterRecipe(Recipe):
        warm_up: int = field(default=0, metadata={"added": True})

    def keys_with(warm_up):
        recipe = LaterRecipe(epochs=2, curve_images=10, warm_up=warm_up)
        assert recipe.content()["warm_up"] == warm_up
        return all_keys(replace(cell, pretraining=replace(cell.pretraining, recipe=recipe)))

    assert keys_with(0) == PUBLISHED
    *of_recipe, connection = keys_with(1)
    assert set(of_recipe).isdisjoint(PUBLISHED)
    assert connection == PUBLISHED[-1]


def test_a_pretraining_and_a_cell_never_share_a_key(cell):
    assert cell.key != cell.pretraining.key


def test_keys_survive_a_round_trip_through_json(cell):
    assert CELLS.validate_json(CELLS.dump_json(cell)).key == cell.key


@pytest.mark.slow
def test_a_key_is_the_same_in_another_process_in_another_folder(cell, tmp_path):
    code = (
        "import sys; from pydantic import TypeAdapter; from mmc_bench.results.jobs import Cell; "
        "cell = TypeAdapter(Cell).validate_json(sys.stdin.read()); "
        "print(cell.key, cell.pretraining.key)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        input=CELLS.dump_json(cell).decode(),
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "5", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.split() == [cell.key, cell.pretraining.key]


def test_a_changed_copy_has_a_key_of_its_own(cell):
    before = cell.key, cell.pretraining.key
    other = replace(cell.pretraining, seed=99)
    assert other.key != before[1]
    assert replace(cell, pretraining=other).key != before[0]
    assert replace(cell).key == before[0]
