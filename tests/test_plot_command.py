"""Which figures a results folder or a suite gets from `mmc-bench plot`, and the files that they are."""

import pytest
from conftest import PLUGINS
from helpers.panels import NAMES, cell, curves, lines_of, model, pair, value
from helpers.records import pretrain_record

from mmc_bench.plugin.registry import Registry
from mmc_bench.results.store import Store
from mmc_bench.suites.plan import make_plan
from mmc_bench.suites.suite import load_suite


def names_of(folder):
    return sorted(path.name for path in folder.iterdir())


def stored(bench, *records):
    store = Store(bench.folder / "results")
    store.check_writable()
    for record in records:
        store.save(record)


@pytest.mark.slow
def test_a_figure_is_a_picture_a_drawing_and_its_numbers(bench):
    stored(bench, model(0.6))
    result = bench("plot", "--out", "f")
    assert (result.code, result.err) == (0, "")
    assert names_of(bench.folder / "f") == ["learning-digits.csv", "learning-digits.png", "learning-digits.svg"]
    assert (bench.folder / "f" / "learning-digits.png").read_bytes().startswith(b"\x89PNG")
    assert "training accuracy" in (bench.folder / "f" / "learning-digits.svg").read_text()


@pytest.mark.slow
def test_every_kind_of_figure_has_its_numbers(bench):
    stored(bench, model(0.6), model(0.8), pair(0.6, paths=["linear"]))
    stored(bench, cell(0.6, "tune"), cell(0.8, "tune"))
    assert bench("plot", "--out", "f", "--format", "csv", "--format", "svg").code == 0
    stems = {name.removesuffix(".csv") for name in names_of(bench.folder / "f") if name.endswith(".csv")}
    assert {stem for stem in stems if stem.startswith(("cells", "pairs", "learning"))} == {
        "cells-test-linear-digits-net",
        "cells-test-permuted-digits-net",
        "pairs-test-digits-net-of-cue-rate-0",
        "pairs-training-digits-net-of-cue-rate-0",
    }
    assert {stem for stem in stems if stem.startswith("splits")} == {"splits-digits-net-0.6", "splits-digits-net-0.8"}
    bars = lines_of((bench.folder / "f" / "splits-digits-net-0.6.csv").read_text())
    assert [(line["method"], float(line["RI"])) for line in bars] == [("pretrained", 0.8), ("tune", 0.2)]
    path = lines_of((bench.folder / "f" / "path-digits-net-cue-rate-0.8-seed-0-tune.csv").read_text())
    assert {float(line["accuracy"]) for line in path if line["split"] == "C"} == set(
        curves(0.8, 0, "tune", "linear")["C"]
    )


@pytest.mark.slow
def test_pictures_of_accuracy_and_loss_share_one_file_of_numbers_which_is_named_once(bench):
    stored(bench, model(0.6), pair(0.6, train=False, paths=["linear"]))
    printed = bench("plot", "--out", "f").out.splitlines()
    name = "pairs-test-digits-net-of-cue-rate-0"
    wanted = [f"{name}-{measure}.{form}" for measure in ("accuracy", "loss") for form in ("png", "svg")]
    assert [file for file in names_of(bench.folder / "f") if file.startswith("pairs")] == [*wanted, f"{name}.csv"]
    assert len(printed) == len(set(printed)) == len(names_of(bench.folder / "f"))
    lines = lines_of((bench.folder / "f" / f"{name}.csv").read_text())
    assert all(float(line["loss"]) == pytest.approx(2 - 2 * float(line["accuracy"])) for line in lines) and lines
    drawn = [(bench.folder / "f" / f"{name}-{measure}.svg").read_text() for measure in ("accuracy", "loss")]
    assert ["test loss (nats)" in text for text in drawn] == [False, True]


def test_numbers_alone_are_written_without_drawing_anything(bench, monkeypatch):
    stored(bench, model(0.6), cell(0.6, "tune"))
    for name in ("draw_bars", "draw_path", "draw_panels"):
        monkeypatch.setattr(f"mmc_bench.report.pictures.{name}", lambda *_: 1 / 0)
    assert bench("plot", "--out", "f", "--format", "csv").code == 0
    assert len(names_of(bench.folder / "f")) == 4


def test_pretrained_models_alone_draw_learning_curves_or_else_bars(bench):
    stored(bench, model(0.6), model(0.8))
    assert bench("plot", "--out", "f", "--format", "csv").code == 0
    assert names_of(bench.folder / "f") == ["learning-digits.csv"]
    stored(bench, pretrain_record(cue_rate=0.6), pretrain_record(cue_rate=0.8))
    bench("plot", "--out", "g", "--format", "csv")
    assert names_of(bench.folder / "g") == ["splits-digits-net-0.6.csv", "splits-digits-net-0.8.csv"]


def test_one_cue_rate_and_straight_paths_draw_what_they_always_did(bench):
    stored(bench, model(0.6), cell(0.6, "tune", paths=("linear",)))
    bench("plot", "--out", "f", "--format", "csv")
    assert names_of(bench.folder / "f") == ["path-digits-net-cue-rate-0.6-seed-0-tune.csv", "splits-digits-net-0.6.csv"]


SUITE = """
datasets: [tiny-set]
backbones: [tiny-net]
methods: []
cue_rates: [0.6, 0.9]
"""
PAIRS = """
pairs:
  - second: {cue_rate: 0.0, seed: 1}
connect: {points: 3, paths: [quadratic, linear], train_images: 12}
"""


def done_suite(bench, text):
    """Write a suite and the records of all its jobs, as a run would leave them."""
    (bench.folder / "mine.yaml").write_text(text)
    plan = make_plan(load_suite(str(bench.folder / "mine.yaml"), {}), Registry.discover([str(PLUGINS)]))
    for job in plan.pretrainings:
        record = model(job.cue_rate, job.seed).model_copy(update={"key": job.key, "pretraining": job})
        stored(bench, record)
    for job in plan.pairs:
        stored(
            bench, pair(job.first.cue_rate, paths=job.connect.paths).model_copy(update={"key": job.key, "pair": job})
        )
    stored(bench, pair(0.7), model(0.7))  # of no suite
    return bench("plot", "--suite", "mine.yaml", "--out", "f", "--format", "csv")


@pytest.mark.slow
def test_a_suite_of_pairs_alone_is_plotted(bench):
    assert done_suite(bench, SUITE + PAIRS).code == 0
    name = "pairs-{}-tiny-set-tiny-net-of-cue-rate-0.csv"
    assert names_of(bench.folder / "f") == ["learning-tiny-set.csv", name.format("test"), name.format("training")]
    lines = lines_of((bench.folder / "f" / name.format("training")).read_text())
    assert {(line["row"], line["cue_rate"]) for line in lines} == {
        (NAMES[index], rate) for index in (0, 2) for rate in ("0.6", "0.9")
    }
    found = {(line["row"], line["column"], line["cue_rate"], line["t"]): float(line["accuracy"]) for line in lines}
    assert found[NAMES[0], "RC", "0.9", "0.5"] == value("train", 0.9, 0, "quadratic", "RC", 1)


def test_a_suite_of_pretrainings_alone_is_plotted(bench):
    assert done_suite(bench, SUITE).code == 0
    assert names_of(bench.folder / "f") == ["learning-tiny-set.csv"]
    lines = lines_of((bench.folder / "f" / "learning-tiny-set.csv").read_text())
    assert {line["cue_rate"] for line in lines} == {"0.6", "0.9"}


def test_a_gallery_has_no_numbers(bench):
    result = bench("plot", "--dataset", "tiny-set", "--format", "csv")
    assert (result.code, result.err) == (4, "mmc-bench: --dataset draws png and svg, not csv\n")
