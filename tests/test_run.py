"""Runs: what they keep, what they repeat, and that neither company nor order changes a number."""

import json
from dataclasses import replace

import pytest

from mmc_bench.plugin.registry import Registry
from mmc_bench.results import versions
from mmc_bench.results.records import CellRecord, PretrainRecord
from mmc_bench.seeds import DRAWS
from mmc_bench.stages.resources import Resources

pytestmark = pytest.mark.slow


def test_workers_company_and_order_change_no_number(bench):
    """The same cells alone, in one process, and side by side in two with others: the same bits."""
    assert bench.tiny("--methods", "tiny-ft", "--keep-predictions", "--results", "alone").code == 0
    together = bench.apart(
        *["run", "--suite", "tiny.yaml", "--workers", 2, "--methods", "tiny-still,tiny-ft"],
        *["--keep-predictions", "--results", "together"],
    )
    assert together.code == 0, together.err
    alone, company = bench.records("alone"), bench.records("together")
    assert len(alone) == 4
    assert len(company) == 6
    assert all(company[name] == content for name, content in alone.items())
    images = bench.predictions("alone")
    assert len(images) == 4 and images.items() <= bench.predictions("together").items()


def test_seeds_pair_across_methods_and_differ_from_each_other(bench):
    bench.tiny()
    records = [record for record in bench.records().values() if record["kind"] == "cell"]
    by_place = {(r["cell"]["method"]["name"], r["cell"]["pretraining"]["seed"]): r for r in records}
    still = [by_place["tiny-still", seed] for seed in (0, 1)]
    assert still[0]["metrics"] != still[1]["metrics"]
    for seed in (0, 1):
        pair = [by_place[name, seed] for name in ("tiny-still", "tiny-ft")]
        assert pair[0]["pretraining_key"] == pair[1]["pretraining_key"]
        starts = [
            [curve["loss"][0] for curve in record["paths"]["linear"]["test"]["splits"].values()] for record in pair
        ]
        assert starts[0] == starts[1]


def test_a_model_left_alone_keeps_the_pretrained_scores(bench):
    bench.tiny("--methods", "tiny-still", "--seeds", "0")
    pretrained, cell = sorted(bench.records().values(), key=lambda record: record["kind"], reverse=True)
    for split in ("NC", "C", "RC", "RI"):
        assert cell["metrics"][split] == pretrained["metrics"][split]
        path = cell["paths"]["linear"]["test"]["splits"][split]
        assert path["loss"][0] == path["loss"][-1]
        barrier = cell["paths"]["linear"]["test"]["barriers"][split]
        assert (barrier["loss"], barrier["accuracy"]) == (0, 0)
    for effect in cell["effects"].values():
        assert effect["flips"] == [effect["flips_of_both"]] * 2


def test_records_hold_what_they_promise(bench):
    bench.tiny("--seeds", "1", "--methods", "tiny-ft")
    files = sorted((bench.folder / "results").rglob("*.json"))
    contents = {json.loads(file.read_text())["kind"]: file.read_bytes() for file in files}
    pretrained = PretrainRecord.model_validate_json(contents["pretraining"])
    cell = CellRecord.model_validate_json(contents["cell"])
    assert len(pretrained.curve) == 2
    assert cell.paths["linear"].test.t == (0, 1 / 3, 2 / 3, 1)
    assert set(cell.paths["linear"].test.splits) == {"NC", "C", "RC", "RI"}
    assert set(cell.invariance) == {"remove cue", "randomise cue", "randomise image"}
    assert cell.parameters == {"behaviour": "ft", "lr": 0.05}
    assert set(cell.timing.seconds) == {"data", "fine_tune", "score", "connect"}
    provenance = cell.provenance
    assert provenance.threads == 1
    assert set(provenance.seeds) == {"experiment", "pretraining", "fine-tuning", *DRAWS}
    assert cell.pretrained_sha256 == pretrained.weights_sha256
    assert {"torch", "timm", "pillow"} <= set(provenance.packages)
    assert {"tiny:tiny-set", "tiny:tiny-net", "tiny:tiny-ft"} == set(provenance.plugins)


def test_every_way_to_fail_is_told_apart_and_stops_nothing_else(bench):
    failing = ["raise", "nan", "nan-weights", "shape", "none", "greedy"]
    methods = ",".join(f"tiny-{name}" for name in [*failing, "ft"])
    result = bench.tiny("--seeds", "0", "--methods", methods, "--json")
    assert result.code == 1
    content = json.loads(result.out)
    assert (content["computed"], content["failed"]) == (1, len(failing))
    errors = {failure["cell"].rpartition("tiny-")[2]: failure["error"] for failure in content["failures"]}
    says = {
        "raise": "ZeroDivisionError: planted in two lines (tiny.py, line",
        "nan": "became nan at step 3",
        "nan-weights": "weight 'head.weight' is not finite",
        "shape": "'head.weight' has shape (5, 4), the pretrained model's (3, 4)",
        "none": "returned NoneType",
        "greedy": 'needs={"cued"}',
    }
    for name, words in says.items():
        assert words in errors[name]
    assert "Traceback" not in result.err
    files = list((bench.folder / "results" / "cells").glob("*.failure.json"))
    assert len(files) == len(failing)
    assert any("ZeroDivisionError" in json.loads(file.read_text())["traceback"] for file in files)


def test_failed_cells_are_tried_again_and_alone_with_retry_failed(bench):
    bench.tiny("--seeds", "0", "--methods", "tiny-raise")
    again = bench.tiny("--seeds", "0,1", "--methods", "tiny-raise,tiny-still", "--retry-failed", "--json")
    content = json.loads(again.out)
    assert (content["failed"], content["computed"], content["cells"]) == (1, 0, 4)
    everything = json.loads(bench.tiny("--seeds", "0", "--methods", "tiny-raise,tiny-still", "--json").out)
    assert (everything["failed"], everything["computed"]) == (1, 1)


def test_retry_failed_calls_nothing_cached_that_has_no_record(bench):
    result = bench.tiny("--retry-failed")
    assert result.code == 0
    assert "4 cells: 0 computed, 0 cached, 4 not run" in result.err
    content = json.loads(bench.tiny("--retry-failed", "--json").out)
    assert (content["cached"], content["computed"], content["not_run"]) == (0, 0, 4)
    assert "4 cells, 0 cached, 0 to run, 4 left out" in bench.tiny("--retry-failed", "--dry-run").out
    content = json.loads(bench.tiny("--retry-failed", "--dry-run", "--json").out)
    assert {entry["state"] for entry in content["cells"] + content["pretrainings"]} == {"left out"}


def test_a_success_removes_the_failure(bench, monkeypatch):
    assert bench.tiny("--seeds", "0", "--methods", "tiny-moody").code == 1
    (failure,) = (bench.folder / "results" / "cells").glob("*.failure.json")
    assert "in a bad mood" in json.loads(failure.read_text())["error"]
    monkeypatch.setenv("TINY_MOOD", "good")
    assert bench.tiny("--seeds", "0", "--methods", "tiny-moody", "--retry-failed").code == 0
    assert not failure.exists()
    assert failure.with_name(failure.name.replace(".failure", "")).exists()


def test_a_damaged_record_beside_a_failure_counts_as_none(bench):
    bench.tiny("--seeds", "0", "--methods", "tiny-raise")
    (failure,) = (bench.folder / "results" / "cells").glob("*.failure.json")
    failure.with_name(failure.name.replace(".failure", "")).write_text("{}")
    assert bench.tiny("--seeds", "0", "--methods", "tiny-raise").code == 1
    assert failure.exists()


def test_a_failed_pretraining_fails_its_cells_with_its_reason(bench):
    result = bench.tiny("--set", "pretrain.lr=1e30", "--json")
    content = json.loads(result.out)
    assert result.code == 1
    assert (content["failed"], content["pretrained"]) == (4, 0)
    blocked = [failure["error"] for failure in content["failures"] if "tiny-ft" in failure["cell"]]
    assert all(error.startswith("its pretraining failed: the loss became") for error in blocked)


def test_fail_fast_stops_at_the_first_failure(bench):
    result = bench.tiny("--methods", "tiny-raise,tiny-still", "--fail-fast", "--json")
    content = json.loads(result.out)
    assert result.code == 1
    assert len(content["failures"]) == 1
    assert content["computed"] + content["failed"] < 4
    assert "not run" in result.err


def test_changed_parameters_are_new_cells_and_rows_of_their_own(bench):
    bench.tiny("--methods", "tiny-ft")
    bench.tiny("--methods", "tiny-ft", "--set", "tiny-ft.lr=0.01")
    rows = json.loads(bench("table", "--format", "json").out)
    assert {row["method"] for row in rows} == {"pretrained", "tiny-ft (lr=0.01)", "tiny-ft (lr=default)"}
    assert all(row["seeds"] == [0, 1] for row in rows)


def test_a_damaged_record_is_made_again(bench):
    bench.tiny("--seeds", "0", "--methods", "tiny-ft")
    before = bench.records()
    (path,) = (bench.folder / "results" / "cells").glob("*.json")
    path.write_text(path.read_text()[:100])
    assert "1 computed" in bench.tiny("--seeds", "0", "--methods", "tiny-ft").err
    assert bench.records() == before


def test_damaged_weights_are_told_of_and_made_again_by_the_run_that_finds_them(bench):
    bench.tiny("--seeds", "0", "--methods", "tiny-ft")
    before = bench.records()
    (weights,) = (bench.folder / "results" / "pretrained").glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    result = bench.tiny("--seeds", "0", "--methods", "tiny-still")
    assert result.code == 0
    assert "does not match its record's checksum: set aside as" in result.err
    assert "it is tried again" in result.err
    assert "1 cell: 1 computed" in result.err
    after = bench.records()
    assert all(after[name] == record for name, record in before.items())


def test_lost_weights_are_made_again_only_for_a_cell_that_needs_them(bench):
    bench.tiny("--seeds", "0", "--methods", "tiny-ft")
    before = bench.records()
    (weights,) = (bench.folder / "results" / "pretrained").glob("*.safetensors")
    weights.unlink()
    idle = bench.tiny("--seeds", "0", "--methods", "tiny-ft", "--json")
    assert json.loads(idle.out)["cached"] == 1
    assert not weights.exists()
    assert bench.tiny("--seeds", "0", "--methods", "tiny-ft,tiny-still").code == 0
    assert weights.exists()
    after = bench.records()
    assert all(after[name] == record for name, record in before.items())


def test_lost_weights_that_come_out_otherwise_leave_no_cell_of_the_old_ones(bench, monkeypatch):
    """As on a GPU, where two trainings differ: one call is enough, whatever was lost."""
    bench.tiny("--seeds", "0", "--methods", "tiny-ft")
    before = bench.records()
    (weights,) = (bench.folder / "results" / "pretrained").glob("*.safetensors")
    weights.unlink()
    seed_everything = Resources.seed_everything
    monkeypatch.setattr(Resources, "seed_everything", lambda self, what, seed: seed_everything(self, what, seed + 1))
    assert bench.tiny("--seeds", "0", "--methods", "tiny-ft,tiny-still").code == 0
    after = bench.records()
    assert all(after[name] != record for name, record in before.items())
    assert "2 cells: 0 computed, 2 cached" in bench.tiny("--seeds", "0", "--methods", "tiny-ft,tiny-still").err


def test_records_in_another_precision_than_asked_for_are_told_of(bench):
    bench.tiny("--seeds", "0", "--methods", "tiny-ft", "--precision", "fp32")
    assert "not computed" not in bench.tiny("--seeds", "0", "--methods", "tiny-ft", "--precision", "fp32").err
    told = bench.tiny("--seeds", "0", "--methods", "tiny-ft", "--precision", "bf16")
    assert "1 cached cells were not computed in bf16" in told.err
    assert "0 computed, 1 cached" in told.err


def test_weights_are_kept_on_request(bench):
    bench.tiny("--seeds", "0", "--methods", "tiny-ft")
    assert not list((bench.folder / "results" / "fine-tuned").glob("*.safetensors"))
    bench.tiny("--seeds", "0", "--methods", "tiny-still", "--keep-weights")
    assert len(list((bench.folder / "results" / "fine-tuned").glob("*.safetensors"))) == 1


def test_other_settings_of_paths_measure_kept_weights_anew_and_train_nothing(bench, monkeypatch):
    words = ("--seeds", "0", "--methods", "tiny-ft", "--set", "connect.points=3")
    bench.tiny(*words, "--keep-weights")
    monkeypatch.setattr("mmc_bench.stages.job.fine_tune", lambda *_: 1 / 0)
    monkeypatch.setattr("mmc_bench.stages.job.pretrain", lambda *_: 1 / 0)
    again = bench.tiny(*words[:-1], "connect.points=5")
    assert "1 cell: 1 computed" in again.err
    records = [record for record in bench.records().values() if record["kind"] == "cell"]
    first, second = sorted(records, key=lambda record: len(record["paths"]["linear"]["test"]["t"]))
    assert (len(first["paths"]["linear"]["test"]["t"]), len(second["paths"]["linear"]["test"]["t"])) == (3, 5)
    for name in ("metrics", "parameters", "weights_sha256", "invariance"):
        assert first[name] == second[name]
    ends = [record["paths"]["linear"]["test"]["splits"]["C"]["loss"] for record in (first, second)]
    assert (ends[0][0], ends[0][-1]) == (ends[1][0], ends[1][-1])
    files = (bench.folder / "results" / "cells").glob("*.json")
    kept = [json.loads(file.read_bytes())["provenance"]["training"] for file in files]
    assert sorted(training is None for training in kept) == [False, True]
    assert "1 cell: 0 computed, 1 cached" in bench.tiny(*words[:-1], "connect.points=5").err


def test_a_new_version_of_scoring_scores_kept_weights_anew_and_trains_nothing(bench, monkeypatch):
    words = ("--seeds", "0", "--methods", "tiny-ft")
    bench.tiny(*words, "--keep-weights")
    before = bench.records()
    monkeypatch.setitem(versions.STAGES, "score", replace(versions.STAGES["score"], version=99))
    monkeypatch.setattr("mmc_bench.stages.job.fine_tune", lambda *_: 1 / 0)
    monkeypatch.setattr("mmc_bench.stages.job.pretrain", lambda *_: 1 / 0)
    versions.versions_of_stages.cache_clear()
    try:
        again = bench.tiny(*words)
    finally:
        versions.versions_of_stages.cache_clear()
    assert "1 cell: 1 computed" in again.err
    anew = [record for name, record in bench.records().items() if name not in before]
    assert sorted(record["kind"] for record in anew) == ["cell", "pretraining"]
    for record in anew:
        old = next(one for one in before.values() if one["kind"] == record["kind"])
        assert (record["metrics"], record["weights_sha256"]) == (old["metrics"], old["weights_sha256"])


@pytest.mark.parametrize("damage", ["flipped bit", "another cell's"])
def test_kept_weights_that_are_not_the_cells_own_are_set_aside_and_never_scored(bench, damage):
    words = ("--seeds", "0", "--methods", "tiny-ft,tiny-still", "--set", "connect.points=3")
    bench.tiny(*words, "--keep-weights")
    before = {record["cell"]["method"]["name"]: record for record in bench.records().values() if "cell" in record}
    one, other = sorted((bench.folder / "results" / "fine-tuned").glob("*.safetensors"))
    content = other.read_bytes()
    one.write_bytes(content if damage == "another cell's" else content[:-1] + bytes([content[-1] ^ 1]))
    again = bench.tiny(*words[:-1], "connect.points=5")
    assert "2 cells: 2 computed" in again.err
    assert f"{one.name} is damaged or another job's: set aside as {one.stem}.damaged, and made again" in again.err
    assert one.with_suffix(".damaged").exists()
    anew = [r for r in bench.records().values() if "cell" in r and len(r["paths"]["linear"]["test"]["t"]) == 5]
    for record in anew:
        assert record["metrics"] == before[record["cell"]["method"]["name"]]["metrics"]


def test_cached_cells_that_keep_no_weights_are_told_of(bench):
    bench.tiny("--seeds", "0", "--methods", "tiny-ft")
    result = bench.tiny("--seeds", "0", "--methods", "tiny-ft,tiny-still", "--keep-weights")
    assert "1 cached cell keeps no weights: delete its record" in result.err
    (bench.folder / "results" / "cells" / _record_of(bench, "tiny-ft")).unlink()
    assert "no weights" not in bench.tiny("--seeds", "0", "--methods", "tiny-ft,tiny-still", "--keep-weights").err
    assert len(list((bench.folder / "results" / "fine-tuned").glob("*.safetensors"))) == 2


def _record_of(bench, method):
    return next(
        name
        for name, record in bench.records().items()
        if record.get("cell", {}).get("method", {}).get("name") == method
    )


def test_a_plugin_edited_between_runs_is_run_anew(bench):
    folder = bench.folder / "mine"
    folder.mkdir()
    method = (
        "from mmc_bench import MethodSpec, hookimpl\n"
        "@hookimpl\n"
        "def register_methods(register):\n"
        "    register(MethodSpec(name='mine', target=':Mine'))\n"
        "class Mine:\n"
        "    def fine_tune(self, task):\n"
        "        {body}\n"
        "        return task.model\n"
    )
    (folder / "mine.py").write_text(method.format(body="pass"))
    words = ["run", "--suite", "tiny.yaml", "--workers", 0, "--seeds", 0, "--methods", "mine", "--plugins-dir", folder]
    assert "1 computed" in bench(*words).err
    assert "1 cached" in bench(*words).err
    (folder / "mine.py").write_text(method.format(body="task.model.head.bias.data += 1"))
    assert "1 computed" in bench.apart(*words).err  # as a process that has imported neither


def test_a_method_may_keep_its_config_where_it_likes_and_leave_the_program(bench):
    folder = bench.folder / "mine"
    folder.mkdir()
    (folder / "mine.py").write_text(
        "import sys\n"
        "from mmc_bench import BaseConfig, MethodSpec, hookimpl\n"
        "@hookimpl\n"
        "def register_methods(register):\n"
        "    register(MethodSpec(name='keeping', target=':Mine'))\n"
        "    register(MethodSpec(name='leaving', target=':Mine', defaults={'leave': True}))\n"
        "class Mine:\n"
        "    class Config(BaseConfig):\n"
        "        leave: bool = False\n"
        "    def __init__(self, config):\n"
        "        self.c = config\n"
        "    def fine_tune(self, task):\n"
        "        return sys.exit(3) if self.c.leave else task.model\n"
    )
    result = bench.tiny("--seeds", "0", "--methods", "leaving,keeping", "--plugins-dir", folder, "--json")
    content = json.loads(result.out)
    assert (content["computed"], content["failed"]) == (1, 1)
    assert "SystemExit: the plugin called sys.exit(3) (mine.py, line 13)" in content["failures"][0]["error"]
    (cell,) = (record for record in bench.records().values() if record.get("parameters") is not None)
    assert cell["parameters"] == {"leave": False}


def test_an_unknown_member_of_a_family_is_refused_before_anything_runs(bench):
    result = bench.tiny("--backbones", "timm/resnet10x")
    assert result.code == 4
    assert result.err.count("timm has no model 'resnet10x': did you mean resnet10t") == 1
    assert not bench.records()
    assert len(bench.tiny("--backbones", "timm/zzz").err) < 400


def test_a_dry_run_does_not_ask_a_family_for_its_members(bench):
    folder = bench.folder / "mine"
    folder.mkdir()
    (folder / "mine.py").write_text(
        "from mmc_bench import BackboneSpec, hookimpl\n"
        "@hookimpl\n"
        "def register_backbones(register):\n"
        "    register(BackboneSpec(name='zoo/*', target=':build', check_member=':check'))\n"
        "def check(model):\n"
        "    raise LookupError(model)\n"
    )
    words = ["--backbones", "zoo/lion", "--plugins-dir", folder]
    assert bench.tiny(*words, "--dry-run").code == 0
    result = bench.tiny(*words)
    assert result.code == 4
    assert "backbone 'zoo/lion' of mine: check_member ':check' failed: LookupError: lion" in result.err


def test_a_run_in_this_process_looks_for_plugins_once(bench, monkeypatch):
    discover, found = Registry.discover, []
    monkeypatch.setattr(Registry, "discover", lambda folders: found.append(folders) or discover(folders))
    done = bench.tiny("--methods", "tiny-still", "--seeds", "0")
    assert (done.code, len(found)) == (0, 1), done.err
