"""Tuning: equal trials on seeds and images that are never ranked, and choices that follow from them alone."""

from pathlib import Path
from statistics import fmean
from typing import Annotated

import pytest
from helpers.plugins import registering, write_source

from mmc_bench import BaseConfig, LogUniform, Uniform
from mmc_bench.errors import UserError
from mmc_bench.plugin.discovery import folder_candidates
from mmc_bench.plugin.registry import Registry
from mmc_bench.plugin.search import search_space
from mmc_bench.results.jobs import RULES
from mmc_bench.results.metrics import Score
from mmc_bench.results.selections import SelectionRecord, TriedParameters, winners_of
from mmc_bench.results.store import Store
from mmc_bench.running.tuning import resolved
from mmc_bench.suites.plan import make_plan, shard
from mmc_bench.suites.settings import Setting
from mmc_bench.suites.suite import overridden, suite_of

TINY = {
    "datasets": ["tiny-set"],
    "backbones": ["tiny-net"],
    "methods": ["tiny-ft", "tiny-still"],
    "cue_rates": [0.8, 0.9],
    "seeds": [0, 1],
}


@pytest.fixture(scope="module")
def registry():
    return Registry(folder_candidates([Path(__file__).parent / "plugins"]))


@pytest.fixture
def plan(registry):
    """Return a maker of plans of the tiny suite."""
    return lambda **changed: make_plan(suite_of({**TINY, **changed}), registry)


def scores(nc, c=1.0, rc=1.0, ri=0.1, loss=1.0):
    return {
        name: Score(accuracy=accuracy, loss=loss) for name, accuracy in {"NC": nc, "C": c, "RC": rc, "RI": ri}.items()
    }


# --- what is tried


def test_every_method_gets_as_many_trials_in_every_setting_the_first_as_published(plan):
    tunings = plan(tune=5).tunings
    assert len(tunings) == 4  # two methods at two cue rates
    for tuning in tunings:
        assert len(tuning.drawn) == len(tuning.trials) == 5
        assert tuning.drawn[0] == {}
        assert tuning.trials[0][0].method == tuning.selection.method == tuning.cells[0].method


def test_no_ranked_seed_is_among_the_trials_and_no_trial_among_the_ranked(plan):
    made = plan(tune={"trials": 4, "seeds": [100, 101]})
    assert {trial.pretraining.seed for trial in made.trials} == {100, 101}
    assert {cell.pretraining.seed for cell in made.cells} == {0, 1}
    with pytest.raises(UserError, match="seed 1 is ranked, and cannot be a seed of trials"):
        plan(tune={"trials": 4, "seeds": [100, 1]})


def test_a_seed_of_trials_that_is_given_twice_counts_once(plan):
    twice, once = (plan(tune={"trials": 2, "seeds": seeds}).tunings for seeds in ([100, 101, 100], [100, 101]))
    assert [own.selection for own in twice] == [own.selection for own in once]


def test_more_trials_change_none_of_the_others(plan):
    few, many = ({trial.key for trial in plan(tune=number).trials} for number in (4, 9))
    assert few < many


def test_a_shard_brings_the_trials_that_its_cells_rest_on(plan):
    made = plan(tune=3)
    parts = [shard(made, part, 8) for part in range(1, 9)]
    assert sorted(cell.key for part in parts for cell in part.cells) == sorted(cell.key for cell in made.cells)
    for part in parts:
        (cell,) = part.cells
        assert {trial.method.name for trial in part.trials} == {cell.method.name}
        assert {trial.pretraining.cue_rate for trial in part.trials} == {cell.pretraining.cue_rate}
        assert {trial.pretraining.key for trial in part.trials} < {model.key for model in part.pretrainings}


def test_tuning_changes_no_key_of_a_cell(plan):
    assert [cell.key for cell in plan().cells] == [cell.key for cell in plan(tune=3).cells]


class Typed(BaseConfig):
    whole: Annotated[int, LogUniform(1, 100)] = 1
    weight: Annotated[float, LogUniform(0.1, 10)] = 1  # a number, though its default is written as a whole one
    share: Annotated[float, Uniform(0, 1)] | None = None
    lr: float = 1e-5
    epochs: int = 3


def test_draws_are_of_the_type_that_the_parameter_has():
    draws = [search_space(Typed, {}).draw(trial) for trial in range(1, 20)]
    assert all(isinstance(drawn["whole"], int) for drawn in draws)
    assert not any(drawn["weight"] == int(drawn["weight"]) for drawn in draws)
    assert len({drawn["share"] for drawn in draws}) > 15
    assert {drawn["epochs"] for drawn in draws} == {2, 3, 6}


def test_a_default_outside_the_standard_range_is_searched_around():
    assert "[3.33e-07, 0.0003]" in search_space(Typed, {}).described()["lr"]
    assert "[0.001, 0.3]" in search_space(Typed, {"lr": 0.1}).described()["lr"]


def test_what_a_caller_sets_or_an_axis_gives_is_not_searched(registry):
    made = suite_of({**TINY, "tune": 4})
    fixed = overridden(made, {}, [Setting.of("tiny-ft.lr", 0.1)])
    by_method = {one.selection.method.name: one for one in make_plan(fixed, registry).tunings}
    assert {trial[0].method.parameters["lr"] for trial in by_method["tiny-ft"].trials} == {0.1}
    assert len({trial.key for trial in by_method["tiny-still"].jobs}) == 4
    along = make_plan(suite_of({**TINY, "tune": 4, "axes": {"tiny-ft.lr": [0.1, 0.2]}}), registry)
    rates = {trial.method.parameters["lr"] for trial in along.trials if trial.method.name == "tiny-ft"}
    assert rates == {0.1, 0.2}


def test_a_fixed_parameter_that_nothing_has_is_refused_and_one_of_another_plugin_is_not(registry):
    for name, says in (("tiny-ft.lrr", "did you mean lr"), ("tiny-fx.lr", "did you mean tiny-ft"), ("lr", "known:")):
        with pytest.raises(UserError, match=says):
            make_plan(suite_of({**TINY, "tune": {"trials": 2, "fixed": [name]}}), registry)
    wider = overridden(suite_of({**TINY, "tune": 2}), {}, [Setting.of("tiny-net.width", 5)])
    assert make_plan(wider, registry).tunings


def test_a_method_that_does_not_load_is_tuned_by_none_and_the_others_are(tmp_path, registry):
    write_source(tmp_path, "broken.py", registering("broken", target=":Nowhere"))
    folders = [Path(__file__).parent / "plugins", tmp_path / "broken.py"]
    made = make_plan(
        suite_of({**TINY, "methods": ["broken", "tiny-ft"], "tune": 2}), Registry(folder_candidates(folders))
    )
    assert {one.selection.method.name for one in made.tunings} == {"tiny-ft"}
    assert {cell.method.name for cell in made.cells} == {"broken", "tiny-ft"}


CHOICES = """
from typing import Annotated

from mmc_bench import BaseConfig, Choice


class Chooser:
    class Config(BaseConfig):
        mode: Annotated[str, Choice("mean", "most")] = "mean"

    config: Config
"""


def test_a_draw_of_the_published_parameters_is_trial_0(tmp_path):
    write_source(tmp_path, "chooser.py", registering("chooser", target=":Chooser") + CHOICES)
    folders = [Path(__file__).parent / "plugins", tmp_path / "chooser.py"]
    made = make_plan(suite_of({**TINY, "methods": ["chooser"], "tune": 8}), Registry(folder_candidates(folders)))
    for tuning in made.tunings:
        assert {str(drawn) for drawn in tuning.drawn} == {"{}", "{'mode': 'most'}"}
        assert len(tuning.jobs) == 2 and len(tuning.trials) == 8
        given = [trial.method.parameters for (trial,) in tuning.trials]
        assert given == [*tuning.drawn]


# --- what is chosen


def test_each_rule_takes_the_best_of_its_own_validation_splits():
    trials = [
        TriedParameters(parameters={}, validation=scores(0.90, rc=0.3)),
        TriedParameters(parameters={"lr": 1}, validation=scores(0.95, rc=0.2)),
        TriedParameters(parameters={"lr": 2}, validation=scores(0.80, rc=0.8)),
    ]
    assert winners_of(trials) == {"clean": 1, "counterfactual": 2}


def test_the_cells_of_each_protocol_have_the_parameters_that_its_rule_chose(plan, tmp_path):
    made, store = plan(methods=["tiny-ft"], cue_rates=[0.9], tune=3), Store(tmp_path)
    (tuning,) = made.tunings
    tried = [scores(0.9, rc=0.1), scores(0.95, rc=0.2), scores(0.8, rc=0.7)]
    trials = tuple(
        TriedParameters(parameters=drawn, validation=own) for drawn, own in zip(tuning.drawn, tried, strict=True)
    )
    chosen = {"selection": tuning.selection, "space": tuning.space, "trials": trials, "winners": winners_of(trials)}
    store.check_writable()
    store.save_jobless(SelectionRecord(key=tuning.selection.key, **chosen))
    protocols = resolved(made, store).protocols
    rates = {name: {cell.method.parameters.get("lr") for cell in cells} for name, cells in protocols.items()}
    assert rates == {"published": {None}, "clean": {tuning.drawn[1]["lr"]}, "counterfactual": {tuning.drawn[2]["lr"]}}
    assert {cell.selection for cell in protocols["clean"]} == {tuning.selection.key}


def test_of_equal_trials_the_smaller_loss_wins_and_then_the_first():
    equal = [
        TriedParameters(parameters={"lr": n}, validation=scores(0.9, loss=loss)) for n, loss in enumerate((2, 1, 1))
    ]
    assert winners_of(equal) == dict.fromkeys(RULES, 1)


def test_as_many_right_images_are_equal_however_they_spread_over_the_seeds():
    """431 of 450 images: the means of the two trials differ in their last bit."""
    spread = [(146, 145, 140), (144, 145, 142)]
    means = [fmean(images / 150 for images in own) for own in spread]
    assert means[0] > means[1]
    trials = [
        TriedParameters(parameters={"lr": n}, validation=scores(mean, loss=loss))
        for n, (mean, loss) in enumerate(zip(means, (0.21, 0.16), strict=True))
    ]
    assert winners_of(trials) == dict.fromkeys(RULES, 1)


def test_a_trial_that_diverged_is_never_chosen():
    lost = TriedParameters(parameters={}, diverged="the loss is not finite")
    kept = TriedParameters(parameters={"lr": 1}, validation=scores(0.1))
    assert winners_of([lost, kept]) == dict.fromkeys(RULES, 1)
    assert winners_of([lost]) == {}
