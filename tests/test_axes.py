"""Axes of a suite: which jobs they make, what they refuse, and what of a run along one is shown."""

import json
from itertools import product

import pytest
from conftest import PLUGINS
from test_plan import keys, registry, suite_with  # noqa: F401 - a fixture

import mmc_bench
from mmc_bench.errors import UserError
from mmc_bench.results.leases import Leases
from mmc_bench.results.store import Store
from mmc_bench.running.session import Session
from mmc_bench.suites.axes import read_axes
from mmc_bench.suites.plan import make_plan, shard

SIZES, RATES = [100, 300], [0.1, 1.0, 10.0]
AXES = {"data.clean_images": SIZES, "tune-fast.lr": RATES}


@pytest.fixture
def plan(registry):  # noqa: F811
    return make_plan(suite_with(methods=["tune-fast", "probe"], seeds=[0, 1], axes=AXES), registry)


# --- the plan


def test_a_suite_is_unfolded_at_each_combination_and_what_points_share_is_there_once(plan):
    sizes = [pretraining.data.clean_images for pretraining in plan.pretrainings]
    assert sizes == [100, 100, 300, 300]  # the learning rate changes no pretraining
    found = [
        (cell.pretraining.data.clean_images, cell.method.parameters["lr"], cell.pretraining.seed)
        for cell in plan.cells
        if cell.method.name == "tune-fast"
    ]
    assert found == list(product(SIZES, RATES, [0, 1]))
    assert [cell.method.name for cell in plan.cells].count("probe") == len(SIZES) * 2
    assert len({*keys(plan.cells)}) == len(plan.cells)
    assert [point.values["tune-fast.lr"] for point in plan.points] == RATES * 2


def test_a_point_is_the_suite_with_its_values_set(registry, plan):  # noqa: F811
    alone = suite_with(
        methods=["tune-fast", "probe"],
        seeds=[0, 1],
        data={"clean_images": 300},
        parameters={"tune-fast": {"lr": 10.0}},
    )
    assert keys(plan.points[-1].plan.cells) == keys(make_plan(alone, registry).cells)


def test_an_axis_wins_over_the_parameters_of_the_suite(registry):  # noqa: F811
    suite = suite_with(methods=["tune-fast"], parameters={"*": {"lr": 7}}, axes={"tune-*.lr": [1, 2]})
    assert [cell.method.parameters["lr"] for cell in make_plan(suite, registry).cells] == [1, 2]


def test_a_job_is_noted_with_the_values_that_only_it_has(plan):
    by_name = {cell.method.name: plan.note_of(cell) for cell in plan.cells}
    assert by_name == {"tune-fast": " (clean_images=300, lr=10.0)", "probe": " (clean_images=300)"}


def test_pairs_and_shards_hold_what_all_points_need(registry):  # noqa: F811
    axes = {"data.clean_images": [10, 20, 30], "connect.points": [3, 5]}
    plan = make_plan(suite_with(pairs=[{"second": {"cue_rate": 0}}], axes=axes), registry)
    assert (len(plan.pretrainings), len(plan.cells), len(plan.pairs)) == (6, 6, 6)
    parts = [shard(plan, part, 3) for part in (1, 2, 3)]
    assert sorted(key for part in parts for key in keys(part.results)) == sorted(keys(plan.results))


@pytest.mark.slow
def test_methods_are_tuned_anew_where_an_axis_changes_their_task_alone():
    axes = {"data.clean_images": [40, 80], "connect.points": [2, 3]}
    session = Session.of("quick", {"methods": "ft-medium", "seeds": [0, 1]}, {"tune": 2}, axes=axes)
    tunings = session.plan.tunings
    assert [tuning.selection.pretraining.data.clean_images for tuning in tunings] == [40, 80]
    assert [len(tuning.cells) for tuning in tunings] == [4, 4]  # two seeds, measured along paths of 2 and 3 points
    assert len({*keys(session.plan.trials)}) == len(session.plan.trials) == 4
    published = session.current_plan.protocols["published"]
    assert keys(published) == list(dict.fromkeys(keys(published))) and len(published) == 8


# --- mistakes


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"data.clean_image": [1]}, "axes: unknown key 'data.clean_image': did you mean clean_images"),
        ({"data.clean_images": [5, "many"]}, "axes: data.clean_images = 'many': input should be a valid integer"),
        ({"pretrain.epochs": [True]}, "axes: pretrain.epochs = True: a number is wanted"),
        ({"cue_rates": [0.1]}, "axis 'cue_rates': write 'SECTION.key' or 'PLUGIN.parameter'"),
        ({"threads": [1, 2]}, "axis 'threads': write 'SECTION.key' or 'PLUGIN.parameter'"),
        ({"tune-slow.lr": [1, 2]}, r"tune-slow.lr = [1, 2]: tune-slow is not part of this run"),
        ({"nobody.lr": [1, 2]}, "parameters for 'nobody', which no plugin offers"),
        (
            {"probe.lr": [*range(800)], "probe.x": [*range(800)]},
            "suite mine has 1,280,000 pretrainings",
        ),
    ],
)
def test_a_bad_axis_is_refused_in_a_sentence(registry, axes, message):  # noqa: F811
    with pytest.raises(UserError) as refused:
        make_plan(suite_with(axes=axes), registry)
    assert str(refused.value).startswith(message)


def test_an_axis_without_values_is_refused():
    with pytest.raises(UserError, match="axes"):
        suite_with(axes={"data.clean_images": []})


@pytest.mark.parametrize("text", ["data.clean_images", "data.clean_images=", "m.lr=[1", ""])
def test_a_malformed_option_is_shown_with_how_to_write_it(text):
    with pytest.raises(UserError) as refused:
        read_axes([text])
    assert str(refused.value).startswith(f"--axis {text}: write SECTION.key=value,value or ")


def test_options_and_mappings_give_the_same_axes():
    texts = ["data.clean_images=100, 300", "m.lrs=[1e-3],[0.1, 1]", "m.schedule=steps"]
    values = {"data.clean_images": (100, 300), "m.lrs": [[1e-3], [0.1, 1]], "m.schedule": "steps"}
    assert read_axes(texts) == read_axes(values)


@pytest.mark.parametrize(
    ("setting", "axis"),
    [
        ("data.clean_images=5", "data.clean_images=10,20"),
        ("ft-*.lr=5", "ft-medium.lr=0.1,0.2"),
        ("ft-medium.lr=5", "*.lr=0.1,0.2"),
    ],
)
def test_an_axis_cannot_be_set_as_well(setting, axis):
    session = Session.of("quick", {"methods": "ft-medium", "seeds": 0}, setting, axes=axis)
    with pytest.raises(UserError) as refused:
        _ = session.plan
    assert "is an axis of this run: choose its values there, or leave one out" in str(refused.value)


def test_settings_beside_an_axis_hold_at_every_point():
    axes = {"ft-medium.lr": [0.1, 0.2]}
    plan = Session.of(
        "quick", {"methods": ["ft-medium", "ft-large"], "seeds": 0}, {"ft-large.lr": 3, "*.epochs": 2}, axes=axes
    ).plan
    found = {(cell.method.name, cell.method.parameters["lr"], cell.method.parameters["epochs"]) for cell in plan.cells}
    assert found == {("ft-large", 3, 2), ("ft-medium", 0.1, 2), ("ft-medium", 0.2, 2)}


def test_an_axis_of_the_caller_replaces_the_suite_s_of_the_same_key():
    plan = Session.of("repair-curve", {"seeds": 0}, axes={"data.clean_images": 50}).plan
    assert {pretraining.data.clean_images for pretraining in plan.pretrainings} == {50}
    assert {pretraining.data.pretrain_images for pretraining in plan.pretrainings} == {840}


# --- a run


@pytest.mark.slow
def test_a_task_of_a_suite_with_axes_is_at_the_settings_that_are_given(bench):
    text = (bench.folder / "tiny.yaml").read_text() + "axes: {data.clean_images: [6, 12], tiny-ft.lr: [1, 2]}\n"
    (bench.folder / "axes.yaml").write_text(text)
    settings = {"data.clean_images": 9}
    folders = {"plugins_dir": PLUGINS, "results": bench.folder / "results"}
    task = mmc_bench.task(suite=bench.folder / "axes.yaml", seed=0, set=settings, **folders)
    assert len(task.clean) == 9


@pytest.mark.slow
def test_a_claim_and_a_failure_are_shown_with_their_place_on_the_axis(bench):
    words = ["--suite", "tiny.yaml", "--axis", "data.clean_images=6,12", "--methods", "tiny-raise", "--seeds", "0"]
    assert bench("run", "--workers", 0, *words).code == 1
    failed = [line for line in bench("status", *words).out.splitlines() if line.startswith("  failed: ")]
    assert [line.partition(" (")[2].partition("):")[0] for line in failed] == ["clean_images=6", "clean_images=12"]
    plan = Session.of(str(bench.folder / "tiny.yaml"), {"methods": "tiny-raise", "seeds": 0}, axes=words[3]).plan
    with Leases(Store(bench.folder / "results").locks) as leases:
        assert leases.claim(plan.cells[1].key, plan.cells[1].label)
        assert "tiny-raise (clean_images=12)" in bench("status", *words).out.splitlines()[-1]


@pytest.mark.slow
def test_a_run_along_an_axis_is_shown_by_every_command(bench):
    words = ["--suite", "tiny.yaml", "--axis", "data.clean_images=6,12,24", "--set", "data.pretrain_images=40"]
    words += ["--methods", "tiny-ft", "--set", "connect.points=2"]
    dry = bench("run", "--dry-run", *words).out
    assert "6 cells, 0 cached, 6 to run" in dry and "tiny-ft (clean_images=6) · seeds 0 1" in dry
    ran = bench("run", "--workers", 0, *words)
    assert ran.code == 0 and "tiny-set (clean_images=24) · tiny-net · cue rate 0.9" in ran.out
    assert "seed 1 (clean_images=24) · pretraining:" in ran.err and "seed 0 · tiny-ft (clean_images=6): " in ran.err
    assert "6 cached, 0 to run" in bench("run", "--dry-run", *words).out
    assert "tiny-ft (clean_images=24)  2 done" in bench("status", *words).out

    table = bench("table", "--halving", "--format", "json", *words)
    (row,) = json.loads(table.out)
    assert (row["method"], row["axis"]) == ("tiny-ft", "data.clean_images")
    assert "clean_images to halve the cue's hold" in bench("table", "--halving", *words).out
    plotted = bench("plot", "--out", "f", "--no-paths", "--format", "csv", *words)
    assert plotted.code == 0
    lines = (bench.folder / "f" / "axis-clean-images-tiny-set-tiny-net-0.9.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 2  # the pretrained models and the method at each size

    settings = {"data.pretrain_images": 40, "connect.points": 2}
    axes = {"data.clean_images": [6, 12, 24]}
    loaded = mmc_bench.load("results", suite="tiny.yaml", methods="tiny-ft", axes=axes, set=settings)
    assert loaded.halving("json") == table.out
    assert mmc_bench.plot(loaded, paths=False)[0].numbers.splitlines() == lines

    refused = bench("table", "--halving", "--suite", "tiny.yaml")
    assert refused.code == 4 and "there is no axis here: give a suite with axes, or --axis" in refused.err
