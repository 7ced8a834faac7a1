"""The command line: what it prints, what it refuses, its exit codes, what it imports."""

import csv
import io
import json
import os
import statistics
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

HEAVY = ("torch", "pandas", "timm", "scipy", "matplotlib", "sklearn")


def test_run_prints_the_table_and_a_second_call_computes_nothing(bench):
    first = bench.tiny()
    assert first.code == 0
    rows = [line.split("|")[1].strip() for line in first.out.splitlines() if line.startswith("| ")]
    assert rows == ["method", "pretrained", "tiny-ft", "tiny-still"]
    assert "4 cells: 4 computed, 0 cached" in first.err
    assert len([line for line in first.err.splitlines() if line.startswith("[")]) == 6  # 2 pretrainings, 4 cells
    before = {path: path.stat().st_mtime_ns for path in (bench.folder / "results").rglob("*.json")}
    second = bench.tiny()
    assert (second.code, second.out) == (0, first.out)
    assert "4 cells: 0 computed, 4 cached" in second.err
    assert before == {path: path.stat().st_mtime_ns for path in (bench.folder / "results").rglob("*.json")}


def test_json_is_one_object_alone_on_stdout(bench):
    result = bench.tiny("--json", "--methods", "tiny-talk")
    content = json.loads(result.out)
    assert (content["cells"], content["computed"], content["failed"]) == (2, 2, 0)
    row = next(row for row in content["rows"] if row["method"] == "tiny-talk")
    assert row["seeds"] == [0, 1]
    assert set(row["NC"]) == {"mean", "std"}
    assert "noise" in result.err


def test_table_agrees_with_the_records(bench):
    bench.tiny()
    rows = json.loads(bench("table", "--format", "json").out)
    records = [record for record in bench.records().values() if record["kind"] == "cell"]
    accuracies = [
        record["metrics"]["RI"]["accuracy"] for record in records if record["cell"]["method"]["name"] == "tiny-ft"
    ]
    row = next(row for row in rows if row["method"] == "tiny-ft")
    assert row["RI"]["mean"] == pytest.approx(statistics.mean(accuracies))
    assert row["RI"]["std"] == pytest.approx(statistics.stdev(accuracies))
    assert rows[0]["method"] == "pretrained"


def test_table_has_the_same_numbers_in_every_format(bench):
    bench.tiny()
    mean = json.loads(bench("table", "--format", "json").out)[1]["NC"]["mean"]
    shown = f"{100 * mean:.1f}"
    flat = list(csv.DictReader(io.StringIO(bench("table", "--format", "csv").out)))
    assert float(flat[1]["NC"]) == pytest.approx(mean)
    for form in ("md", "latex", "html"):
        line = next(line for line in bench("table", "--format", form).out.split("pretrained")[1:])
        assert shown in line


def test_table_and_plot_without_records_select_nothing(bench):
    for command in ("table", "plot"):
        result = bench(command)
        assert result.code == 5
        assert "no record" in result.err


def test_table_can_be_narrowed(bench):
    bench.tiny()
    rows = json.loads(bench("table", "--methods", "*still", "--seeds", "1", "--format", "json").out)
    assert [(row["method"], row["seeds"]) for row in rows] == [("pretrained", [1]), ("tiny-still", [1])]


def test_plot_writes_pictures_of_both_kinds(bench):
    bench.tiny("--seeds", "0")
    result = bench("plot", "--out", "pictures")
    assert result.code == 0
    names = sorted(path.name for path in (bench.folder / "pictures").iterdir())
    assert len(names) == 3 * (1 + 2)  # one chart, two cells; each as picture, drawing and numbers
    for path in (bench.folder / "pictures").iterdir():
        start = path.read_bytes()[:300]
        if path.suffix == ".csv":
            assert start.startswith((b"dataset,", b"split,"))
        else:
            assert start.startswith(b"\x89PNG") if path.suffix == ".png" else b"<svg" in start or b"<?xml" in start


def test_cells_that_differ_in_parameters_get_figures_of_their_own(bench):
    bench.tiny("--seeds", "0", "--methods", "tiny-ft")
    bench.tiny("--seeds", "0", "--methods", "tiny-ft", "--set", "tiny-ft.lr=0.01")
    printed = bench("plot", "--out", "pictures", "--format", "svg").out.splitlines()
    assert len(set(printed)) == len(printed) == 1 + 2
    paths = sorted(path.name for path in (bench.folder / "pictures").glob("path-*.svg"))
    assert [name.rpartition("tiny-ft-")[2] for name in paths] == ["lr=0.01.svg", "lr=default.svg"]
    texts = [(bench.folder / "pictures" / name).read_text() for name in paths]
    assert "(lr=0.01)" in texts[0]
    assert "(lr=default)" in texts[1]


def test_dry_run_says_what_is_cached_and_runs_nothing(bench):
    bench.tiny("--seeds", "0")
    before = bench.records()
    result = bench("run", "--suite", "tiny.yaml", "--dry-run")
    assert result.code == 0
    assert "4 cells, 2 cached, 2 to run; 1 of 2 pretrainings" in result.out
    assert "to run  tiny-set tiny-net cue rate 0.9 · tiny-ft · seeds 1" in result.out
    assert "estimated work" in result.out
    content = json.loads(bench("run", "--suite", "tiny.yaml", "--dry-run", "--json").out)
    states = [cell["state"] for cell in content["cells"]]
    assert sorted(states) == ["cached", "cached", "to run", "to run"]
    assert bench.records() == before


def test_status_counts_done_missing_and_failed(bench):
    bench.tiny("--seeds", "0", "--methods", "tiny-ft,tiny-raise")
    result = bench("status", "--suite", "tiny.yaml", "--methods", "tiny-ft,tiny-raise", "--json")
    content = json.loads(result.out)
    assert content["cells"] == {"done": 1, "missing": 2, "failed": 1}
    assert "planted" in content["failures"][0]["error"]
    text = bench("status", "--suite", "tiny.yaml", "--methods", "tiny-ft,tiny-raise").out
    assert "4 cells, 1 done, 2 missing, 1 failed" in text


def test_a_shard_is_planned_and_told_of_alone(bench):
    words = ["--suite", "tiny.yaml", "--shard"]
    assert "2 cells, 0 cached, 2 to run; 1 of 1 pretraining " in bench("run", "--dry-run", *words, "2/2").out
    short = bench("run", "--dry-run", *words, "2/2", "--set", "pretrain.epochs=1").out
    assert "1 of 1 pretraining to run (1 epoch)" in short
    assert "1 cell, 0 done, 1 missing" in bench("status", *words, "3/4").out
    empty = bench("run", *words, "5/5")
    assert empty.code == 5 and "shard 5/5 holds nothing" in empty.err


def test_lists_name_what_there_is(bench):
    methods = {entry["name"]: entry for entry in json.loads(bench("list", "methods", "--json").out)}
    assert {"cbft", "llr", "lpft", "ft-medium", "tiny-ft"} <= set(methods)
    assert methods["cbft"]["needs"] == ["clean", "fully-cued"]
    assert methods["llr"]["needs"] == ["clean"]
    suites = [entry["name"] for entry in json.loads(bench("list", "suites", "--json").out)]
    assert {"quick", "cifar10-small"} <= set(suites)
    assert "digits-box" in bench("list", "datasets").out
    assert "timm/*" in bench("list", "backbones").out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "--methods", "cbtf"], "did you mean cbft"),
        (["run", "--datasets", "digit-box"], "did you mean digits-box"),
        (["run", "--backbones", "resnet9"], "did you mean resnet8"),
        (["run", "--suite", "quik"], "did you mean quick"),
        (["run", "--cue-rates", "1.5"], "less than or equal to 1"),
        (["run", "--cue-rates", "high"], "no list of numbers"),
        (["run", "--seeds", "0.5"], "no list of whole numbers"),
        (["run", "--methods", ""], "'' is an empty list"),
        (["run", "--seeds", ","], "',' is an empty list"),
        (["run", "--set", "cbft.epoch=5"], "did you mean epochs"),
        (["run", "--set", "cbft.epochs=none", "--dry-run"], "epochs = 'none'"),
        (["run", "--set", "pretrain.epoch=5"], "did you mean epochs"),
        (["run", "--set", "nonsense"], "PLUGIN.parameter=value"),
        (["run", "--set", "cbtf.lr=1"], "did you mean cbft"),
        (["run", "--data", "cifar10"], "SOURCE=DIR"),
        (["run", "--data", "cifar10=nowhere"], "no selected dataset reads"),
        (["run", "--datasets", "cifar10-box", "--data", "cifar10=nowhere"], "no such folder"),
        (["run", "--datasets", "cifar10-box", "--no-download"], "--data cifar10=DIR"),
        (["run", "--device", "cuda:99"], "device cuda:99 cannot be used"),
        (["run", "--device", "warp"], "device warp cannot be used"),
        (["run", "--engine", "steam"], "'steam' is not"),
        (["run", "--workers", "-1"], "-1 is not in the range"),
        (["run", "--shard", "0/2"], "'0/2' is no part of a suite: write 3/8 for the third of eight"),
        (["run", "--shard", "3"], "'3' is no part of a suite"),
        (["status", "--shard", "9/8"], "'9/8' is no part of a suite"),
        (["run", "--plugins-dir", "nowhere"], "nowhere does not exist"),
        (["run", "--wokers", "2"], "--wokers"),
        (["runn"], "did you mean run"),
        (["list", "method"], "'method' is not one of"),
    ],
)
def test_wrong_input_gets_one_sentence_and_exit_code_4(bench, words, says):
    result = bench(*words)
    assert result.code == 4
    assert says in result.err
    assert "Traceback" not in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert result.out == ""


def test_a_folder_with_seven_classes_is_refused_for_a_ten_class_cue(bench):
    for part in ("train", "test"):
        for label in range(7):
            folder = bench.folder / "images" / part / str(label)
            folder.mkdir(parents=True)
            (folder / "0.png").write_bytes(b"")
    result = bench("run", "--datasets", "cifar10-box", "--data", "cifar10=images")
    assert result.code == 4
    assert "7 classes, but the cue is made for 10" in result.err


def test_an_empty_image_folder_is_refused(bench):
    for part in ("train", "test"):
        (bench.folder / "images" / part).mkdir(parents=True)
    result = bench("run", "--datasets", "cifar10-box", "--data", "cifar10=images")
    assert result.code == 4
    assert "no class folders" in result.err


def test_a_results_folder_that_cannot_be_written_is_refused(bench):
    (bench.folder / "taken").write_text("a file")
    result = bench.tiny("--results", "taken")
    assert result.code == 4
    assert "results folder taken cannot be written" in result.err


def test_an_error_of_our_own_is_exit_code_3_with_its_traceback(bench, monkeypatch):
    monkeypatch.setattr("mmc_bench.cli.status.find_missing", lambda *_: 1 / 0)
    result = bench("status", "--suite", "tiny.yaml")
    assert result.code == 3
    assert "ZeroDivisionError" in result.err


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["run", "--help"],
        ["connect", "--help"],
        ["check", "--help"],
        ["new", "method", "foo"],
        ["list", "methods"],
        ["plugins"],
        ["status"],
        ["run", "--dry-run"],
    ],
)
def test_light_commands_import_nothing_heavy(tmp_path, words):
    code = (
        "import sys\n"
        f"sys.argv = ['mmc-bench', *{words!r}]\n"
        "from mmc_bench.cli.main import run_command_line\n"
        "code = run_command_line()\n"
        f"print('IMPORTED', [name for name in {HEAVY!r} if name in sys.modules], code)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MMC_BENCH_PLUGINS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "IMPORTED [] 0", done.stderr


@pytest.mark.parametrize("words", [(), ("leaderboard",), ("lock",)])
def test_a_group_alone_answers_with_its_help(bench, words):
    result = bench(*words)
    assert (result.code, result.out) == (4, "")
    assert result.err.splitlines() == bench(*words, "--help").out.splitlines()


def test_help_says_what_is_read_without_a_suite(bench):
    said = {name: " ".join(bench(name, "--help").out.split()) for name in ("run", "audit", "table")}
    assert "YAML file. [default: quick]" in said["run"] and "YAML file. [default: audit]" in said["audit"]
    assert (
        "YAML file. [default: every record that the lists select; quick with --set, --axis or --tune]" in said["table"]
    )


def test_help_names_every_command_and_exit_is_clean(bench):
    result = bench("--help")
    assert result.code == 0
    assert all(
        word in result.out for word in ("run", "list", "plugins", "status", "table", "plot", "connect", "new", "check")
    )
