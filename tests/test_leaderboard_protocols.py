"""Tuned rows of the leaderboard: which protocol a cell is of, and every way in which a choice can be wrong."""

import csv
import io
import shutil

import pytest
from helpers.leaderboard import TestBoard, cell, named, of_seeds, plugin, trial, tuned_cells, tuning

from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.leaderboard.standings import make_standings
from mmc_bench.leaderboard.submissions import read_entries
from mmc_bench.results.jobs import PROTOCOLS, RULES

LOW, HIGH = (0.6, 0.6, 0.6, 0.5), (0.9, 0.9, 0.8, 0.5)
BLIND = (0.95, 0.9, 0.1, 0.9)  # the best on images without cues, and the worst where the cue is random


def tuned():
    """Return records of two methods: `tune`, for which the rules choose different trials, and `base`, the default."""
    tune = tuning("tune", ({}, LOW), ({"lr": 0.3}, BLIND), ({"lr": 0.1}, HIGH))
    base = tuning("base", ({}, HIGH), ({"lr": 0.3}, LOW), ({"lr": 0.1}, LOW))
    cells = [
        *of_seeds("tune", (0.5, 0.4)),
        *tuned_cells(tune[0], "clean", (0.6, 0.55)),
        *tuned_cells(tune[0], "counterfactual", (0.8, 0.7)),
        *of_seeds("base", (0.3, 0.2)),
    ]
    return [*tune, *base, *cells]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the folder of a leaderboard with these methods."""
    board = TestBoard(tmp_path_factory.mktemp("built") / "board").counting(rates=(0.9,))
    board.send_in(*tuned())
    board.build()
    return board.root


@pytest.fixture
def board(built, tmp_path):
    """Return a copy of that leaderboard, to spoil."""
    shutil.copytree(built, tmp_path / "board")
    return TestBoard(tmp_path / "board")


def refused(tmp_path, *records):
    """Return why these records cannot be sent in to a new leaderboard."""
    with pytest.raises(UserError) as caught:
        TestBoard(tmp_path / "other").counting().send_in(*records)
    return str(caught.value)


def file_of(board, kind, **wanted):
    """Return the file of the first record of a kind whose method and parameters are these."""
    for file in board.files(f"results/*/{kind}/*.json"):
        text = (board.root / file).read_text()
        if all(f'"{name}": {value}' in text for name, value in wanted.items()):
            return file
    raise AssertionError(f"no {kind} with {wanted}")


@pytest.mark.slow
def test_rows_are_compared_within_their_protocol(board):
    assert board.problems() == []
    opened = board.opened()
    entries, _ = read_entries(opened)
    rows = {(row.protocol, row.method): row for row in make_standings(entries, opened.settings).rows}
    worst = {key: round(row.worst_split.mean, 3) for key, row in rows.items() if key[1] != "pretrained"}
    assert worst == {
        ("published", "tune"): 0.45,
        ("clean", "tune"): 0.575,
        ("counterfactual", "tune"): 0.75,
        **{(protocol, "base"): 0.25 for protocol in PROTOCOLS},  # the published parameters were chosen
    }
    gap = rows["clean", "tune"].gap
    assert gap.mean == pytest.approx(0.175) and gap.half_width == pytest.approx(12.7062 * 0.025, abs=1e-3)
    assert rows["published", "tune"].gap == gap and rows["clean", "base"].gap.mean == 0


@pytest.mark.slow
def test_the_tables_tell_the_protocols_apart_and_name_the_gap(board):
    text = (board.root / "README.md").read_text()
    assert "| 1 | tune | 57.5 ± 31.8 | +32.5 ± 31.8 | +17.5 ± 31.8 |" in text
    assert "Over all settings" not in text  # there is one
    assert "10 classes, seeds 0 1. Tuned in 3 trials on seed 100." in text
    assert text.index("*clean*\n") < text.index("<details><summary>published</summary>")
    rows = list(csv.DictReader(io.StringIO((board.root / "leaderboard.csv").read_text())))
    (clean,) = (row for row in rows if (row["protocol"], row["method"]) == ("clean", "tune"))
    assert (clean["trials"], clean["tuning_seeds"], clean["chosen"]) == ("3", "100", "lr=0.3")
    assert clean["close_trials"] == "0"
    overall = list(csv.DictReader(io.StringIO((board.root / "overall.csv").read_text())))
    assert [row["protocol"] for row in overall] == [p for p in PROTOCOLS for _ in range(2)]


def test_close_trials_are_those_with_other_parameters_than_the_winner(tmp_path):
    board = TestBoard(tmp_path / "board").counting()
    near = (HIGH[0] - 0.005, *HIGH[1:])
    records = tuning(
        "tune", ({}, LOW), ({"lr": 0.3}, HIGH), ({"lr": 0.1}, near), ({"lr": 0.3}, HIGH), ({"lr": 0.1}, near)
    )
    board.send_in(*records, *tuned_cells(records[0], "clean", (0.7, 0.8)), *of_seeds("base", (0.2, 0.3)))
    rows = list(csv.DictReader(io.StringIO(board.build()["leaderboard.csv"].decode())))
    assert {row["close_trials"] for row in rows if (row["protocol"], row["method"]) == ("clean", "tune")} == {"1"}


def test_a_tuned_row_names_what_was_given_apart_from_what_was_chosen(tmp_path):
    board = TestBoard(tmp_path / "board").counting()
    records = tuning(plugin("tune", width=2), ({}, LOW), ({"lr": 0.3}, HIGH))
    board.send_in(*records, *tuned_cells(records[0], "clean", (0.7, 0.8)), *of_seeds("base", (0.2, 0.3)))
    rows = list(csv.DictReader(io.StringIO(board.build()["leaderboard.csv"].decode())))
    assert {(row["given"], row["chosen"]) for row in rows if row["method"] == "tune"} == {("width=2", "lr=0.3")}


@pytest.mark.slow
def test_a_method_that_is_tuned_differently_in_two_settings_is_one_over_all(tmp_path):
    board = TestBoard(tmp_path / "board").counting(rates=(0.9, 0.5))
    for rate, best in ((0.9, 0.3), (0.5, 0.1)):
        records = tuning("tune", ({}, LOW), ({"lr": best}, HIGH), cue_rate=rate)
        board.send_in(*records, *tuned_cells(records[0], "clean", (0.7, 0.8), cue_rate=rate))
        board.send_in(*of_seeds("base", (0.2, 0.3), cue_rate=rate))
    opened = board.opened()
    overall = make_standings(read_entries(opened)[0], opened.settings).overall
    text = board.build()["README.md"].decode().partition("## Over all settings")[2]
    assert "| method | tier | clean | tier | published | tier | counterfactual | gap | missing |" in text
    assert "| tune | 1 | 75.0 ± 63.5 | – | – | 1 | 75.0 ± 63.5 | +0.0 ± 0.0 |  |" in text
    assert [(one.protocol, one.method, one.note) for one in overall if one.mean] == [
        ("published", "base", ""),
        ("clean", "tune", ""),
        ("counterfactual", "tune", ""),
    ]


@pytest.mark.slow
def test_a_choice_that_changes_no_cell_can_be_sent_in_later(tmp_path):
    board = TestBoard(tmp_path / "board")
    cells = of_seeds("base", (0.3, 0.2))
    board.send_in(*cells)
    records = tuning("base", ({}, HIGH), ({"lr": 0.3}, LOW))
    added = board.send_in(*cells, *records)
    assert (added.cells, added.selections, added.trials) == (0, 1, 2)
    with pytest.raises(NothingSelectedError):
        board.send_in(*cells, *records)
    board.build()
    assert board.problems() == []


# --- what is refused


def test_a_tuned_cell_that_no_rule_chose_is_refused(tmp_path):
    selection, *trials = tuning("tune", ({}, LOW), ({"lr": 0.3}, HIGH))
    other = named(cell(0, plugin("tune", lr=0.2)), selection.key)
    said = refused(tmp_path, selection, *trials, other)
    assert "was run with lr=0.2, which no rule of its selection chose (clean: lr=0.3; counterfactual: lr=0.3)" in said


def test_a_tuned_cell_of_another_setting_is_refused(tmp_path):
    selection, *trials = tuning("tune", ({}, LOW), ({"lr": 0.3}, HIGH))
    cells = [*tuned_cells(selection, "clean", (0.7,)), *tuned_cells(selection, "clean", (0.7,), cue_rate=0.5)]
    said = refused(tmp_path, selection, *trials, *cells)
    assert "names the selection of another setting, digits net cue rate 0.9 seed 100" in said


def test_a_tuned_cell_whose_selection_is_not_there_is_refused(tmp_path):
    assert f"names the selection {'a' * 64}, whose record is not there" in refused(tmp_path, named(cell(0), "a" * 64))


def test_a_selection_whose_trial_is_not_there_is_refused(tmp_path):
    selection, first, second = tuning("tune", ({}, LOW), ({"lr": 0.3}, HIGH))
    said = refused(tmp_path, selection, first, *tuned_cells(selection, "clean", (0.7,)))
    assert f"lacks the record of a trial, trials/{second.key}.json" in said


@pytest.mark.parametrize("rule", RULES)
def test_a_winner_that_its_own_scores_do_not_make_is_no_record(board, rule):
    board.edit(file_of(board, "selections", lr=0.3, clean=1), lambda content: content["winners"].update({rule: 0}))
    assert any(
        "is no valid record" in problem and "not the best of the trials" in problem for problem in board.problems()
    )


def test_scores_that_the_trials_do_not_have_are_named(board):
    def flatter(content):
        content["trials"][0]["validation"] = {
            split: {"accuracy": 0.99, "loss": 0.1} for split in ("NC", "C", "RC", "RI")
        }
        content["winners"] = dict.fromkeys(RULES, 0)

    file = file_of(board, "selections", lr=0.3, clean=1)
    board.edit(file, flatter)
    assert f"{file}: says other validation scores of trial 0 than its records have" in board.problems()


def test_a_trial_of_other_parameters_than_it_is_said_to_be_of_is_named(board):
    file = file_of(board, "selections", clean=1)
    board.edit(file, lambda content: content["trials"][1].update(parameters={"lr": 0.25}))
    assert f"{file}: says that trial 1 is of lr=0.25, and it was run with lr=0.3" in board.problems()


def test_a_trial_of_another_setting_is_refused(tmp_path):
    elsewhere = trial(100, plugin("tune", lr=0.3), HIGH, 1, cue_rate=0.5)
    selection, first, _ = tuning("tune", ({}, LOW), ({"lr": 0.3}, HIGH))
    described = selection.selection.with_changes(trials=((first.key,), (elsewhere.key,)))
    swapped = selection.model_copy(update={"selection": described, "key": described.key})
    said = refused(tmp_path, swapped, first, elsewhere, *tuned_cells(swapped, "clean", (0.7,)))
    assert (
        "says that trial 1 is of its setting and seed 100, and it was run in another: digits net cue rate 0.5" in said
    )


def test_a_first_trial_without_the_published_parameters_is_refused(tmp_path):
    selection, *trials = tuning("tune", ({"lr": 0.3}, HIGH), ({"lr": 0.1}, LOW))
    said = refused(tmp_path, selection, *trials, *tuned_cells(selection, "clean", (0.7,)))
    assert "has a trial 0 with lr=0.3, and that is the trial of the published parameters" in said


def test_tuning_on_a_seed_that_counts_is_refused(tmp_path):
    selection, *trials = tuning("tune", ({}, LOW), ({"lr": 0.3}, HIGH), seeds=(1,))
    said = refused(tmp_path, selection, *trials, *tuned_cells(selection, "clean", (0.7,)))
    assert "was tuned on seed 1, which is ranked" in said


def test_a_result_of_a_seed_that_others_were_tuned_on_is_refused(board):
    with pytest.raises(UserError, match=r"is a result of seed 100, on which .*selections.* was tuned"):
        board.send_in(cell(100, "other"), by="Mal")


def test_methods_of_one_setting_get_as_many_trials(board):
    records = tuning("other", ({}, LOW), ({"lr": 0.3}, HIGH))
    with pytest.raises(
        UserError, match=r"has 2 trials on seeds 100, and .*, of the same setting, has 3 trials on seeds"
    ):
        board.send_in(*records, *tuned_cells(records[0], "clean", (0.7, 0.8)), by="Mal")


def test_parameters_are_not_chosen_from_several_selections(board):
    records = tuning("tune", ({}, LOW), ({"lr": 0.5}, HIGH), ({"lr": 0.6}, LOW))
    with pytest.raises(UserError, match="is a second selection of tune in the setting of"):
        board.send_in(*records, *tuned_cells(records[0], "clean", (0.9, 0.9)), by="Mal")


@pytest.mark.slow
def test_a_method_is_not_tuned_again_with_another_parameter_given(board):
    given = tuning(plugin("tune", width=2), ({}, LOW), ({"lr": 0.5}, HIGH), ({"lr": 0.6}, LOW))
    with pytest.raises(UserError, match="is a second selection of tune in the setting of results/2026-01-02-ann/"):
        board.send_in(*given, *tuned_cells(given[0], "clean", (0.9, 0.9)), by="Mal")
    elsewhere = tuning(plugin("tune", width=2), ({}, LOW), ({"lr": 0.5}, HIGH), cue_rate=0.5)
    board.send_in(*elsewhere, *tuned_cells(elsewhere[0], "clean", (0.9, 0.9), cue_rate=0.5))
    board.build()
    assert board.problems() == []


def test_trials_and_selections_of_nothing_are_named(board, tmp_path):
    other = TestBoard(tmp_path / "nothing")
    spare = tuning("half", ({}, LOW), ({"lr": 0.3}, HIGH), ({"lr": 0.1}, HIGH))
    other.send_in(*spare, *tuned_cells(spare[0], "clean", (0.7, 0.8)))
    (folder,) = board.root.glob("results/*")
    for file in other.files("results/*/selections/*.json") + other.files("results/*/trials/*.json"):
        shutil.copy(other.root / file, folder / "/".join(file.split("/")[2:]))
    board.renew(folder)
    problems = " ".join(board.problems())
    assert "is the selection of no cell of the leaderboard" in problems
    (folder / "selections" / f"{spare[0].key}.json").unlink()
    board.renew(folder)
    assert "is the trial of no selection of its submission" in " ".join(board.problems())


@pytest.mark.slow
def test_a_method_whose_every_trial_diverged_has_no_tuned_row(tmp_path):
    board = TestBoard(tmp_path / "board")
    selection, *trials = tuning("tune", ({}, LOW), ({"lr": 0.3}, HIGH))
    lost = [one.model_copy(update={"validation": {}, "diverged": "the loss is nan"}) for one in trials]
    gone = tuple(one.model_copy(update={"validation": {}, "diverged": "the loss is nan"}) for one in selection.trials)
    nothing = selection.model_copy(update={"trials": gone, "winners": {}})
    board.send_in(*of_seeds("tune", (0.5, 0.4)), nothing, *lost)
    board.build()
    assert board.problems() == []
    assert (board.root / "README.md").read_text().count("| tune |") == 1
