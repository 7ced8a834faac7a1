"""Unfolding a suite: which cells, in which order, with which parameters and keys."""

from itertools import product

import pytest

from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.plugin.discovery import folder_candidates
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.jobs import models_of
from mmc_bench.results.settings import Recipe
from mmc_bench.suites.plan import make_plan, shard
from mmc_bench.suites.suite import suite_of

# No target exists: planning must not ask for one.
PLUGIN = """
from mmc_bench import BackboneSpec, DatasetSpec, MethodSpec, hookimpl

@hookimpl
def register_datasets(register):
    for name in ("red", "green"):
        register(DatasetSpec(name=name, target=":Gone", sources=("digits", f"{name}-images")))

@hookimpl
def register_backbones(register):
    for name in ("deep", "wide", "zoo/*"):
        register(BackboneSpec(name=name, target=":Gone"))

@hookimpl
def register_methods(register):
    for name, lr in (("tune-fast", 0.1), ("tune-slow", 0.001), ("probe", 30.0)):
        register(MethodSpec(name=name, target=":Gone", defaults={"lr": lr}))
"""


@pytest.fixture
def registry(tmp_path):
    """Return a registry of one plugin, `acme`, whose targets do not exist."""
    file = tmp_path / "acme.py"
    file.write_text(PLUGIN, encoding="utf-8")
    return Registry(folder_candidates([file]))


def suite_with(**changes):
    lists = {"datasets": ["red"], "backbones": ["deep"], "methods": ["probe"], "cue_rates": [0.5], "seeds": [0]}
    return suite_of({"name": "mine", **lists, **changes})


def method_parameters(plan):
    return {cell.method.name: cell.method.parameters for cell in plan.cells}


# --- which cells


def test_cells_are_the_product_of_the_lists_in_their_order(registry):
    datasets, backbones, rates, seeds = ["red", "green"], ["wide", "deep"], [0.9, 0.5], [2, 0]
    methods = ["tune-slow", "probe"]
    suite = suite_with(datasets=datasets, backbones=backbones, cue_rates=rates, seeds=seeds, methods=methods)
    plan = make_plan(suite, registry)
    settings = [
        (p.dataset.name, p.backbone.name, p.cue_rate, p.seed) for p in (cell.pretraining for cell in plan.cells)
    ]
    found = [(*setting, cell.method.name) for setting, cell in zip(settings, plan.cells, strict=True)]
    assert found == list(product(datasets, backbones, rates, seeds, methods))
    assert len(plan.pretrainings) == 16
    assert list(dict.fromkeys(cell.pretraining.key for cell in plan.cells)) == [p.key for p in plan.pretrainings]


def test_what_is_listed_twice_runs_once(registry):
    suite = suite_with(
        datasets=["red", "acme:red"],
        backbones=["deep", "d*"],
        cue_rates=[1, 0.5, 1.0],
        seeds=[1, 0, 1],
        methods=["probe", "tune-*", "acme:probe", "tune-slow", "*"],
    )
    plan = make_plan(suite, registry)
    assert [(p.cue_rate, p.seed) for p in plan.pretrainings] == [(1, 1), (1, 0), (0.5, 1), (0.5, 0)]
    assert [cell.method.name for cell in plan.cells[:3]] == ["probe", "tune-fast", "tune-slow"]
    assert len({cell.key for cell in plan.cells}) == len(plan.cells) == 12


def test_the_suite_s_settings_reach_every_cell(registry):
    suite = suite_with(pretrain={"epochs": 3}, data={"clean_images": 9}, connect={"points": 5})
    (cell,) = make_plan(suite, registry).cells
    assert cell.pretraining.recipe == Recipe(epochs=3)
    assert (cell.pretraining.data.clean_images, cell.connect.points) == (9, 5)


def test_images_are_identified_for_the_sources_that_a_dataset_reads(registry):
    images = {"red-images": "folder:abc"}
    plan = make_plan(suite_with(datasets=["red", "green"]), registry, images)
    assert [p.images for p in plan.pretrainings] == [
        {"digits": "original", "red-images": "folder:abc"},
        {"digits": "original", "green-images": "original"},
    ]


def test_a_plan_lists_each_offer_with_its_reference(registry):
    plan = make_plan(suite_with(methods=["tune-*"], parameters={"deep": {"blocks": 2}}), registry)
    assert [(offer.spec.kind, reference.name) for offer, reference in plan.offers] == [
        ("dataset", "red"),
        ("backbone", "deep"),
        ("method", "tune-fast"),
        ("method", "tune-slow"),
    ]
    assert plan.offers[1][1].parameters == {"blocks": 2}


def test_a_suite_without_methods_is_pretraining_alone(registry):
    plan = make_plan(suite_with(methods=[]), registry)
    assert plan.cells == ()
    assert plan.pretrainings == make_plan(suite_with(), registry).pretrainings != ()


def test_a_glob_that_selects_no_method_is_told_apart_from_other_mistakes(registry):
    with pytest.raises(NothingSelectedError, match="no method matches") as caught:
        make_plan(suite_with(methods=["nobody-*"]), registry)
    assert caught.value.exit_code == 5 != UserError.exit_code


@pytest.mark.parametrize(("field", "kind"), [("datasets", "dataset"), ("backbones", "backbone"), ("methods", "method")])
def test_an_unknown_name_is_refused_by_its_kind(registry, field, kind):
    with pytest.raises(UserError, match=f"unknown {kind} 'nobody'") as caught:
        make_plan(suite_with(**{field: ["nobody"]}), registry)
    assert caught.value.exit_code == 4


# --- parameters


def test_parameters_reach_plugins_by_name_by_glob_and_by_qualified_name(registry):
    suite = suite_with(
        methods=["*"],
        parameters={"tune-*": {"epochs": 2, "lr": 0.5}, "probe": {"epochs": 7}, "acme:tune-slow": {"lr": 0.25}},
    )
    assert method_parameters(make_plan(suite, registry)) == {
        "probe": {"lr": 30.0, "epochs": 7},
        "tune-fast": {"lr": 0.5, "epochs": 2},
        "tune-slow": {"lr": 0.25, "epochs": 2},
    }


def test_of_two_patterns_that_reach_a_plugin_the_later_wins(registry):
    for patterns in (("tune-fast", "tune-*"), ("tune-*", "tune-fast")):
        parameters = {pattern: {"lr": float(place)} for place, pattern in enumerate(patterns)}
        plan = make_plan(suite_with(methods=["tune-fast"], parameters=parameters), registry)
        assert method_parameters(plan) == {"tune-fast": {"lr": 1.0}}


def test_parameters_reach_datasets_backbones_and_members_of_families(registry):
    parameters = {"red": {"size": 3}, "zoo/small": {"stem": 1}, "zoo/*": {"width": 2}}
    (cell,) = make_plan(suite_with(backbones=["zoo/small"], parameters=parameters), registry).cells
    assert cell.pretraining.dataset.parameters == {"size": 3}
    assert cell.pretraining.backbone.parameters == {"model": "small", "stem": 1, "width": 2}
    assert cell.method.parameters == {"lr": 30.0}


def test_parameters_of_plugins_that_are_not_selected_wait(registry):
    suite = suite_with(methods=["probe"], parameters={"tune-*": {"lr": 1.0}, "zoo/any": {"stem": 1}, "wide": {"x": 1}})
    assert make_plan(suite, registry).cells == make_plan(suite_with(), registry).cells


@pytest.mark.parametrize("owner", ["tune-fats", "tone-*", "other:probe", "farm/small"])
def test_parameters_that_no_plugin_would_get_are_refused(registry, owner):
    with pytest.raises(UserError, match="which no plugin offers") as caught:
        make_plan(suite_with(parameters={owner: {"lr": 1}}), registry)
    assert repr(owner) in str(caught.value)


def test_the_nearest_owner_is_named(registry):
    with pytest.raises(UserError, match=r"did you mean tune-fast"):
        make_plan(suite_with(parameters={"tune-fats": {"lr": 1}}), registry)


# --- keys


def test_keys_are_the_same_in_every_plan_and_in_another_folder(registry, tmp_path):
    moved = tmp_path / "elsewhere" / "acme.py"
    moved.parent.mkdir()
    moved.write_text(PLUGIN, encoding="utf-8")
    suite = suite_with(methods=["*"], seeds=[0, 1])
    first, second = make_plan(suite, registry), make_plan(suite, Registry(folder_candidates([moved])))
    assert [cell.key for cell in first.cells] == [cell.key for cell in second.cells]
    assert [p.key for p in first.pretrainings] == [p.key for p in second.pretrainings]


def test_a_cell_s_key_does_not_depend_on_what_else_is_planned(registry):
    (alone,) = make_plan(suite_with(), registry).cells
    together = make_plan(suite_with(methods=["*"], seeds=[5, 0], datasets=["green", "red"], threads=4), registry)
    assert alone.key in {cell.key for cell in together.cells}


CHANGES = {
    "dataset": {"datasets": ["green"]},
    "backbone": {"backbones": ["wide"]},
    "member of a family": {"backbones": ["zoo/small"]},
    "cue rate": {"cue_rates": [0.6]},
    "seed": {"seeds": [1]},
    "recipe": {"pretrain": {"epochs": 3}},
    "data": {"data": {"clean_images": 9}},
    "dataset's parameters": {"parameters": {"red": {"x": 1}}},
    "backbone's parameters": {"parameters": {"deep": {"x": 1}}},
}
METHOD_CHANGES = {
    "method": {"methods": ["tune-fast"]},
    "method's parameters": {"parameters": {"probe": {"x": 1}}},
    "method's parameter": {"parameters": {"probe": {"lr": 29}}},
    "path": {"connect": {"points": 5}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_decides_a_pretraining_changes_its_key_and_its_cells(registry, change):
    before, after = make_plan(suite_with(), registry), make_plan(suite_with(**CHANGES[change]), registry)
    assert before.pretrainings[0].key != after.pretrainings[0].key
    assert before.cells[0].key != after.cells[0].key


@pytest.mark.parametrize("change", METHOD_CHANGES)
def test_whatever_concerns_the_method_alone_leaves_the_pretraining_shared(registry, change):
    before, after = make_plan(suite_with(), registry), make_plan(suite_with(**METHOD_CHANGES[change]), registry)
    assert before.pretrainings[0].key == after.pretrainings[0].key
    assert before.cells[0].key != after.cells[0].key


def test_other_images_behind_a_source_change_the_key(registry):
    plans = [
        make_plan(suite_with(), registry, images) for images in ({}, {"digits": "folder:a"}, {"digits": "folder:b"})
    ]
    assert len({plan.pretrainings[0].key for plan in plans}) == 3
    (unread,) = make_plan(suite_with(), registry, {"green-images": "folder:a"}).pretrainings
    assert unread.key == plans[0].pretrainings[0].key


def test_an_edited_plugin_changes_the_keys(registry, tmp_path):
    edited = tmp_path / "edited" / "acme.py"
    edited.parent.mkdir()
    edited.write_text(PLUGIN + "\n# another idea\n", encoding="utf-8")
    before, after = make_plan(suite_with(), registry), make_plan(suite_with(), Registry(folder_candidates([edited])))
    assert before.cells[0].key != after.cells[0].key


# --- shards


def keys(jobs):
    return [job.key for job in jobs]


PLANS = {
    "groups": {"methods": ["*"], "seeds": range(7)},
    "few groups": {"methods": ["*"], "seeds": [0]},
    "pairs": {"methods": ["probe"], "seeds": range(4), "pairs": [{"second": {"cue_rate": 0}}]},
    "pairs alone": {"methods": [], "pairs": [{"second": {"cue_rate": 0}}, {"second": {"seed": 5}}]},
    "pretraining alone": {"methods": [], "seeds": range(5)},
}


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
@pytest.mark.parametrize("changes", PLANS.values(), ids=PLANS)
def test_shards_hold_everything_once_with_the_pretrainings_that_it_needs(registry, changes, parts):
    plan = make_plan(suite_with(**changes), registry)
    shards = [shard(plan, part, parts) for part in range(1, parts + 1)]
    assert sorted(key for own in shards for key in keys(own.results)) == sorted(keys(plan.results))
    assert {key for own in shards for key in keys(own.pretrainings)} == set(keys(plan.pretrainings))
    for own in shards:
        needed = {model.key for job in own.results for model in models_of(job)}
        assert needed == set(keys(own.pretrainings)) or not plan.results
        assert keys(own.cells) == [key for key in keys(plan.cells) if key in keys(own.cells)]


def test_shards_keep_a_pretrained_model_s_cells_together_and_are_of_like_size(registry):
    plan = make_plan(suite_with(methods=["*"], seeds=range(7)), registry)
    shards = [shard(plan, part, 3) for part in (1, 2, 3)]
    assert sorted(len(own.pretrainings) for own in shards) == [2, 2, 3]
    assert all(len(own.cells) == 3 * len(own.pretrainings) for own in shards)


def test_fewer_pretrained_models_than_shards_are_shared(registry):
    plan = make_plan(suite_with(methods=["*"]), registry)
    shards = [shard(plan, part, 2) for part in (1, 2)]
    assert [len(own.cells) for own in shards] == [2, 1]
    assert shards[0].pretrainings == shards[1].pretrainings == plan.pretrainings
    assert shard(plan, 4, 4).pretrainings == ()
