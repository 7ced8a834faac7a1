"""Every command on datasets whose images come in groups: what it shows, and what it refuses in one sentence."""

import csv
import io
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

import mmc_bench
from mmc_bench.leaderboard.submissions import parse_record
from mmc_bench.results.jobs import Pretraining, adapter
from mmc_bench.results.records import PretrainRecord

PLUGINS = Path(__file__).parent / "plugins"
GROUP_COLUMNS = ["worst_group", "mean", "aligned", "conflicting", "barrier", "seconds"]
SMALL = {"pretrain.epochs": 2, "pretrain.batch_size": 12, "connect.points": 3}
TINY = {"backbones": "tiny-net", "set": SMALL, "plugins_dir": PLUGINS, "workers": 0, "progress": False}


@pytest.fixture(scope="module")
def folder(made_once):
    """Return results of a dataset with cues at two rates, and of one with groups, beside each other."""

    def make(folder):
        methods = ["tiny-ft", "tiny-still"]
        made = mmc_bench.run(
            datasets=["tiny-set", "grouped-tiny"],
            methods=methods,
            cue_rates=[0.5, 0.9],
            seeds=[0, 1],
            results=folder,
            **TINY,
        )
        assert not made.failures

    return made_once("groups", make)


def results(folder, **selected):
    return mmc_bench.load(folder, plugins_dir=PLUGINS, **selected)


@pytest.mark.slow
def test_a_dataset_without_cues_is_run_once_whatever_the_suites_cue_rates(folder):
    frame = results(folder).to_frame()
    assert len(frame) == 2 * 2 * 2 + 2 * 2
    assert frame[frame["dataset"] == "grouped-tiny"]["cue_rate"].isna().all()
    assert not len(results(folder, datasets="grouped-tiny", cue_rates=0.9))
    again = mmc_bench.dry_run(
        datasets="grouped-tiny",
        methods="tiny-ft",
        cue_rates=[0.2],
        seeds=[0],
        results=folder,
        **{name: TINY[name] for name in ("backbones", "set", "plugins_dir")},
    )
    assert set(again.to_frame()["state"]) == {"cached"} and "grouped-tiny tiny-net groups" in str(again)


@pytest.mark.slow
def test_rows_of_groups_have_a_table_and_columns_of_their_own(bench, folder):
    out = bench("table", "--results", folder).out
    titles = ["grouped-tiny · tiny-net · groups", *(f"tiny-set · tiny-net · cue rate {rate}" for rate in (0.5, 0.9))]
    assert [line.split("**")[1] for line in out.splitlines() if line.startswith("**")] == titles
    for head in (line for line in out.splitlines() if line.startswith("| method")):
        of_groups = "worst group" in head
        assert of_groups == ("conflicting" in head) != ("worst split" in head)
    rows = json.loads(bench("table", "--results", folder, "--format", "json").out)
    assert [*rows[-1]][-6:] != GROUP_COLUMNS
    (first, *_) = [row for row in rows if row["dataset"] == "grouped-tiny"]
    assert first["cue_rate"] is None and {*first} == {
        "dataset",
        "backbone",
        "cue_rate",
        "method",
        "seeds",
        *GROUP_COLUMNS,
    }


@pytest.mark.slow
def test_csv_and_frames_have_the_numbers_of_groups_under_their_own_names(bench, folder):
    lines = [*csv.DictReader(io.StringIO(bench("table", "--results", folder, "--format", "csv").out))]
    frame = results(folder, datasets="grouped-tiny").to_frame()
    assert [*frame.columns] == [
        "dataset",
        "backbone",
        "cue_rate",
        "seed",
        "method",
        *GROUP_COLUMNS,
        "parameters",
        "key",
    ]
    for line in lines:
        of_groups = line["dataset"] == "grouped-tiny"
        assert (line["NC"] == "") == of_groups == (line["mean"] != "")
    (line,) = [one for one in lines if (one["dataset"], one["method"]) == ("grouped-tiny", "tiny-ft")]
    own = frame[frame["method"] == "tiny-ft"]
    assert float(line["worst_group"]) == pytest.approx(own["worst_group"].mean())
    both = results(folder).to_frame()
    assert both["worst_group"].notna().all() and both[both["dataset"] == "tiny-set"]["mean"].isna().all()


@pytest.mark.slow
def test_figures_of_groups_are_drawn(bench, folder):
    done = bench("plot", "--results", folder, "--datasets", "grouped-tiny", "--out", "figures", "--format", "csv")
    assert done.code == 0, done.err
    names = {Path(line).name for line in done.out.splitlines()}
    assert "splits-grouped-tiny-tiny-net-groups.csv" in names
    (path,) = [name for name in names if "tiny-ft" in name and "seed-0" in name]
    splits = {line["split"] for line in csv.DictReader((bench.folder / "figures" / path).open())}
    assert splits == {"all", "aligned", "conflicting"}
    pictures = mmc_bench.plot(results(folder, datasets="grouped-tiny", seeds=0))
    assert all(picture.figure for picture in pictures)


@pytest.mark.slow
def test_groups_are_left_out_of_tables_of_counterfactuals(bench, folder):
    done = bench("table", "--results", folder, "--connections")
    assert done.code == 0 and "tiny-set" in done.out and "grouped-tiny" not in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "--set", "data.minority=conflicting"), "data.minority=conflicting is about cues: leave it out"),
        (("run", "--set", "data.clean_cues=random"), "data.clean_cues=random is about cues: leave it out"),
        (("run", "--set", "data.clean_set=pretraining"), "data.clean_set=pretraining is about cues: leave it out"),
        (("run", "--methods", "cbft,cbft-no-barrier"), "method cbft needs every image with its own cue"),
        (("run", "--set", "connect.paths=[quadratic-nc]"), "the path quadratic-nc needs images without cues"),
        (("run", "--suite", "pairs.yaml"), "pairs are compared on counterfactuals: leave them out"),
    ],
)
def test_what_only_counterfactuals_give_is_refused_before_a_run_in_one_sentence(bench, words, message):
    (bench.folder / "pairs.yaml").write_text(
        "{datasets: grouped-tiny, backbones: tiny-net, methods: [], cue_rates: 0.9, pairs: [{second: {seed: 1}}]}"
    )
    done = bench(*words, "--datasets", "grouped-tiny", "--backbones", "tiny-net")
    assert done.code == 4
    assert done.err.startswith(f"mmc-bench: dataset grouped-tiny has groups and no counterfactuals: {message}")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("table", "--connections"), "grouped-tiny: groups and no counterfactuals, which --connections is about"),
        (("table", "--against", "table-1"), "grouped-tiny: groups and no counterfactuals, which --against is about"),
        (("table", "--halving", "--axis", "data.clean_images=9,18"), "which --halving is about"),
        (("plot", "--dataset", "grouped-tiny"), "grouped-tiny has groups and no counterfactuals: there are no four"),
    ],
)
def test_commands_about_counterfactuals_say_in_one_sentence_that_there_are_none(bench, folder, words, message):
    chosen = () if "--dataset" in words else ("--datasets", "grouped-tiny")
    done = bench(*words, "--results", folder, "--backbones", "tiny-net", *chosen)
    assert done.code == 4 and message in done.err and done.err.count("\n") == 1


def test_single_methods_that_need_counterfactuals_are_left_out_and_named(bench):
    words = (
        "--datasets",
        "grouped-tiny",
        "--backbones",
        "tiny-net",
        "--methods",
        "cbft,llr",
        "--seeds",
        0,
        "--dry-run",
    )
    done = bench("run", *words)
    assert "grouped-tiny has no counterfactuals, which cbft needs: these cells are left out" in done.out
    assert "llr" in done.out and "1 cell," in done.out


@pytest.mark.slow
def test_the_check_of_a_dataset_with_groups_asks_for_no_cue(bench):
    done = bench("check", "grouped-tiny", "--plugins-dir", PLUGINS)
    assert done.code == 0 and "makes every set of an experiment: 100 pretraining, 6 clean, 24 valid" in done.out
    assert "cue" not in done.out


def test_two_checkpoints_and_the_leaderboard_need_counterfactuals(bench, folder):
    found = results(folder, datasets="grouped-tiny")
    done = bench("connect", *[record.key for record in found.pretrained], "--results", folder)
    assert done.code == 4 and "has groups and no counterfactuals, which two models are compared on" in done.err
    file = Path(folder, "cells", f"{found.cells[0].key}.json")
    with pytest.raises(ValueError, match="is of a dataset that has groups and no counterfactuals"):
        parse_record(f"cells/{file.name}", file.read_bytes())


def test_scores_on_groups_are_those_of_datasets_without_cue_rates_alone(folder):
    found = results(folder, datasets="grouped-tiny", seeds=0).pretrained[0].model_dump(mode="json")
    found["pretraining"]["cue_rate"] = 0.5
    found["key"] = adapter(Pretraining).validate_python(found["pretraining"]).key
    with pytest.raises(ValidationError, match="scores on groups are those of a pretraining without a cue rate"):
        PretrainRecord.model_validate(found)
    with pytest.raises(ValueError, match="splits 'group' must be one of counterfactual, groups"):
        mmc_bench.DatasetSpec(name="mine", target=":Mine", splits="group")


@pytest.mark.slow
def test_methods_are_tuned_on_all_validation_images_and_on_their_worst_group(tmp_path):
    made = mmc_bench.run(datasets="grouped-tiny", methods="llr", seeds=[0], tune=2, results=tmp_path, **TINY)
    assert not made.failures
    text = str(made.table())
    assert "chosen on all validation images (clean)" in text
    assert "chosen on the worst validation group (counterfactual)" in text


@pytest.mark.slow
def test_a_model_in_memory_is_scored_on_groups(tmp_path):
    names = ("backbone", "set", "plugins_dir")
    given = {**TINY, "backbone": "tiny-net"}
    task = mmc_bench.task("grouped-tiny", seed=0, results=tmp_path, **{name: given[name] for name in names})
    assert {*mmc_bench.score(task.pretrained, task).index} == {"worst_group", "mean", "aligned", "conflicting"}
