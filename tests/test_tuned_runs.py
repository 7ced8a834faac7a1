"""Runs that tune: one call tries, chooses and computes; what came of it, and that nothing of the test set decides."""

import json
from pathlib import Path

import pytest
from helpers.plugins import write_source
from pydantic import ValidationError

from mmc_bench.results.codec import encoded
from mmc_bench.results.jobs import PROTOCOLS
from mmc_bench.results.selections import SelectionRecord, TriedParameters, winners_of

TINY = {
    "datasets": ["tiny-set"],
    "backbones": ["tiny-net"],
    "methods": ["tiny-ft", "tiny-still"],
    "cue_rates": [0.8, 0.9],
    "seeds": [0, 1],
}

# A dataset whose test images alone give their labels away, and a method with a switch that makes it read them there.
PEEKING = """
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from mmc_bench import BackboneSpec, BaseConfig, Choice, DatasetSpec, MethodSpec, hookimpl
from mmc_bench.data.contract import LabelledImages


@hookimpl
def register_datasets(register):
    register(DatasetSpec(name="marked-set", target=":MarkedSet"))


@hookimpl
def register_backbones(register):
    register(BackboneSpec(name="flat-net", target=":FlatNet"))


@hookimpl
def register_methods(register):
    register(MethodSpec(name="peeker", target=":Peeker"))


class MarkedSet:
    num_classes = 3
    clean_images = validation_images = 30

    def load(self, sources):
        generator = torch.Generator().manual_seed(0)

        def part(n, marked):
            labels = torch.arange(n) % 3
            images = torch.randint(0, 200, (n, 1, 6, 6), generator=generator, dtype=torch.uint8)
            images[torch.arange(n), :, 2 + labels] += 40
            images[:, :, 5] = 0
            images[torch.arange(n), :, 5, labels] = 255 * marked
            return LabelledImages(images, labels, labels.clone())

        self.train, self.test = part(120, 0), part(30, 1)

    def random_cue(self, n, generator):
        return torch.randint(3, (n,), generator=generator)

    def render(self, images, cue):
        images = images.clone()
        images[torch.arange(len(images)), :, 0, cue] = 1.0
        return images


class FlatNet(nn.Module):
    def __init__(self, num_classes, input_shape):
        super().__init__()
        self.num_classes, self.num_features = num_classes, 36
        self.head = nn.Linear(36, num_classes)

    def forward_features(self, x):
        return x.flatten(1)

    def forward_head(self, x, pre_logits=False):
        return x if pre_logits else self.head(x)

    def forward(self, x):
        return self.forward_head(self.forward_features(x))

    def get_classifier(self):
        return self.head

    def reset_classifier(self, num_classes):
        self.head = nn.Linear(36, num_classes)


class Peeker:
    class Config(BaseConfig):
        peek: Annotated[bool, Choice(False, True)] = Field(False, description="read the marks of test images")

    def __init__(self, config):
        self.config = config

    def fine_tune(self, task):
        if not self.config.peek:
            return task.training(lr=0.05, epochs=20, batch_size=10).fit()
        with torch.no_grad():
            task.model.head.weight.zero_(), task.model.head.bias.zero_()
            for k in range(3):
                task.model.head.weight[k, 30 + k] = 5.0
        return task.model
"""


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Return the results of one tuned run, and what a second call of it computed."""
    import mmc_bench

    folder = tmp_path_factory.mktemp("tuned")
    short = {"pretrain": {"epochs": 1, "batch_size": 12}, "connect": {"points": 2}}
    slow = {"parameters": {"tiny-ft": {"lr": 0.003}}}
    suite = {**TINY, **short, **slow, "cue_rates": [0.9], "tune": 4}
    given = {"plugins_dir": Path(__file__).parent / "plugins", "results": folder, "workers": 0, "progress": False}
    first = mmc_bench.run(suite, **given)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.json")}
    again = mmc_bench.run(suite, **given)
    after = {file: file.stat().st_mtime_ns for file in folder.rglob("*.json")}
    return first, again, before == after


@pytest.mark.slow
def test_one_call_tries_chooses_and_runs_and_a_second_computes_nothing(tuned):
    first, again, untouched = tuned
    assert not first.failures
    assert (again.summary.computed, again.summary.pretrained) == (0, 0)
    assert untouched
    frame = first.to_frame()
    assert set(frame["protocol"]) == set(PROTOCOLS)
    for _, rows in frame.groupby(["method", "protocol"]):
        assert sorted(rows["seed"]) == [0, 1]


@pytest.mark.slow
def test_records_of_trials_have_no_score_on_a_test_image(tuned):
    trials = [json.loads(file.read_text()) for file in (tuned[0].folder / "trials").glob("*.json")]
    assert len(trials) == 4 + 4
    for trial in trials:
        assert trial["trial"]["pretraining"]["seed"] == 100
        assert trial["validation"].keys() == {"NC", "C", "RC", "RI"}
        assert "metrics" not in trial


@pytest.mark.slow
def test_a_tuned_cell_names_the_selection_that_its_parameters_come_from(tuned):
    folder = tuned[0].folder
    chosen = [cell for cell in tuned[0].cells if cell.cell.selection]
    assert chosen
    for cell in chosen:
        record = SelectionRecord.model_validate_json(
            (folder / "selections" / f"{cell.cell.selection}.json").read_text()
        )
        winners = [record.trials[place].parameters for place in record.winners.values()]
        assert any(cell.cell.method.parameters == record.selection.method.parameters | own for own in winners)


@pytest.mark.slow
def test_a_selection_whose_winner_is_not_the_best_is_refused(tuned):
    file = next((tuned[0].folder / "selections").glob("*.json"))
    content = json.loads(file.read_text())
    content["winners"]["clean"] = (content["winners"]["clean"] + 1) % 4
    with pytest.raises(ValidationError, match="winners are not the best"):
        SelectionRecord.model_validate(content)


@pytest.mark.slow
def test_tables_have_a_block_for_each_protocol_and_can_show_one(tuned):
    results = tuned[0]
    assert [results.table().count(words) for words in ("published", "(clean)", "(counterfactual)")] == [1, 1, 1]
    one = results.table("json", protocol="clean")
    assert {row["protocol"] for row in json.loads(one)} == {"clean"}
    rows = json.loads(results.table("json", protocol="counterfactual"))
    by_protocol = {row["method"]: row for row in rows}
    clean = {row["method"]: row for row in json.loads(one)}
    gained = by_protocol["tiny-ft"]["worst_split"]["mean"] - clean["tiny-ft"]["worst_split"]["mean"]
    assert by_protocol["tiny-ft"]["gap"]["mean"] == pytest.approx(gained)
    assert {tuple(row["seeds"]) for row in rows} == {(0, 1)}  # the model of a tuning seed is no row


@pytest.mark.slow
def test_a_choice_that_is_lost_is_made_again_from_its_trials(bench):
    assert bench.tiny("--seeds", "0", "--tune", "2").code == 0
    before = bench.records()
    selections = sorted((bench.folder / "results" / "selections").glob("*.json"))
    bytes_of = [file.read_bytes() for file in selections]
    for file in selections:
        file.unlink()
    again = bench.tiny("--seeds", "0", "--tune", "2", "--json")
    assert json.loads(again.out)["computed"] == 0
    assert [file.read_bytes() for file in selections] == bytes_of
    assert bench.records() == before


@pytest.mark.slow
def test_a_run_says_what_it_chose_and_which_methods_have_the_standard_space(bench):
    result = bench.tiny("--seeds", "0", "--tune", "2", "--methods", "tiny-ft")
    assert "no search space is declared, so the standard one holds: tiny-ft (lr log-uniform" in result.err
    assert "of 2 trials, clean: " in result.err


@pytest.mark.slow
def test_trials_that_diverge_are_kept_as_such_and_not_tried_again(bench):
    result = bench.tiny("--seeds", "0", "--tune", "2", "--methods", "tiny-nan,tiny-still")
    assert result.code == 1  # with its own parameters, it diverges as a cell
    assert "diverged: " in result.err
    assert "every one diverged" in result.err
    again = bench.tiny("--seeds", "0", "--tune", "2", "--methods", "tiny-nan,tiny-still", "--json")
    assert json.loads(again.out)["computed"] == 0


@pytest.mark.slow
def test_what_a_method_gains_on_test_images_alone_is_not_chosen(bench):
    """Its marks make the test set easy, and no validation image has one: the leak wins each test split, and no rule."""
    write_source(bench.folder, "peeking.py", PEEKING)
    (bench.folder / "peek.yaml").write_text(
        "datasets: [marked-set]\nbackbones: [flat-net]\nmethods: [peeker]\ncue_rates: [0.9]\n"
        "pretrain: {epochs: 2, batch_size: 12}\nconnect: {points: 2}\n"
    )
    words = ("run", "--suite", "peek.yaml", "--workers", 0, "--plugins-dir", "peeking.py", "--json")

    def worst(*more):
        rows = json.loads(bench(*words, *more).out)["rows"]
        return {row.get("protocol"): row["worst_split"]["mean"] for row in rows if row["method"] == "peeker"}

    honest, peeking = (worst("--set", f"peeker.peek={value}")[None] for value in ("false", "true"))
    assert peeking == 1 > honest
    assert worst("--tune", "6") == dict.fromkeys(PROTOCOLS, honest)
    drawn = [json.loads(file.read_text()) for file in (bench.folder / "results" / "selections").glob("*.json")]
    assert True in [trial["parameters"].get("peek") for record in drawn for trial in record["trials"]]


@pytest.mark.slow
def test_a_trial_that_fails_leaves_its_method_without_a_choice_and_says_so(bench):
    result = bench.tiny("--seeds", "0", "--tune", "2", "--methods", "tiny-raise,tiny-ft")
    assert result.code == 1
    assert "tiny-raise: nothing is chosen, since trials failed" in result.err
    assert "tiny-ft: of 2 trials, " in result.err


@pytest.mark.slow
def test_trials_made_anew_are_chosen_from_anew(bench):
    """As on a GPU, where a model that is pretrained again has other weights."""
    words = ("--seeds", "0", "--tune", "3", "--methods", "tiny-ft")
    assert bench.tiny(*words).code == 0
    (file,) = (bench.folder / "results" / "selections").glob("*.json")
    stale = json.loads(file.read_text())
    for trial in stale["trials"]:
        trial["validation"]["NC"]["accuracy"] = 0.0
    made = SelectionRecord.model_validate({**stale, "winners": winners_of_content(stale)})
    file.write_bytes(encoded(made))
    for trial in (bench.folder / "results" / "trials").glob("*.json"):
        trial.unlink()
    assert bench.tiny(*words).code == 0
    assert any(trial["validation"]["NC"]["accuracy"] for trial in json.loads(file.read_text())["trials"])


def winners_of_content(record):
    return winners_of([TriedParameters.model_validate(trial) for trial in record["trials"]])


@pytest.mark.slow
def test_the_model_of_a_tuning_seed_is_in_no_table_and_in_no_picture(bench):
    """Neither where the choice is still open: a time limit stopped the run, or a trial failed."""
    words = ("--seeds", "0", "--tune", "2", "--methods", "tiny-ft")
    assert bench.tiny(*words).code == 0
    for file in (bench.folder / "results" / "selections").glob("*.json"):
        file.unlink()
    table = bench("table", "--format", "json")
    assert {tuple(row["seeds"]) for row in json.loads(table.out)} == {(0,)}
    assert "methods were tuned here: with --suite and --tune" in table.err
    result = bench("plot", "--suite", "tiny.yaml", *words, "--no-paths", "--format", "csv")
    assert result.code == 0, result.err
    (bars,) = [file for file in (bench.folder / "figures").glob("*.csv") if file.name.startswith("splits")]
    assert " 100" not in bars.read_text()


@pytest.mark.slow
def test_only_what_failed_is_run_again_where_that_is_asked_for(bench, monkeypatch):
    words = ("--seeds", "0", "--tune", "2", "--methods", "tiny-moody")
    assert bench.tiny(*words).code == 1
    monkeypatch.setenv("TINY_MOOD", "good")
    again = bench.tiny("--retry-failed", "--json", *words)
    counts = json.loads(again.out)
    assert (again.code, counts["failed"], counts["computed"]) == (0, 0, 3)  # two trials, and the published cell


def test_a_table_says_that_nothing_is_chosen_yet(bench):
    (bench.folder / "results").mkdir()
    result = bench("table", "--suite", "tiny.yaml", "--tune", "2", "--protocol", "clean")
    assert "methods were tuned here" not in result.err
    assert "nothing is chosen yet for 2 methods, counted in each setting, whose trials are not done" in result.err


def test_protocols_of_what_is_not_tuned_are_refused(bench):
    result = bench("table", "--suite", "tiny.yaml", "--protocol", "clean")
    assert result.code != 0
    assert "no method is tuned here" in result.err


@pytest.mark.slow
def test_a_number_of_trials_that_is_none_is_refused(bench):
    for wrong in ("[3]", "many", "2.5", "true"):
        result = bench("run", "--suite", "tiny.yaml", "--dry-run", "--set", f"tune={wrong}")
        assert result.code == 4
        assert "write a number of trials, or {trials: 16, seeds: [100]}" in result.err
    assert "greater than or equal to 1" in bench("run", "--suite", "tiny.yaml", "--dry-run", "--set", "tune=-1").err
    alone = bench("run", "--suite", "tiny.yaml", "--dry-run", "--tune", "0", "--set", "tune.seeds=[7]")
    assert "nothing is tuned here: say in how many trials" in alone.err
    assert bench("run", "--suite", "tiny.yaml", "--dry-run", "--tune", "2", "--set", "tune.seeds=7").code == 0
    axis = bench("run", "--suite", "tiny.yaml", "--dry-run", "--tune", "2", "--axis", "tune.trials=2,3")
    assert "cannot be an axis" in axis.err
