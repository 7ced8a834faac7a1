"""The observers for TensorBoard and MLflow, read back with TensorBoard and MLflow themselves."""

import pytest

from mmc_bench.plugin.registry import Registry
from mmc_bench.running.tracking import settings_of


def records_by_kind(bench):
    return {record["kind"]: record for record in bench.records().values() if "kind" in record}


# --- TensorBoard


@pytest.fixture
def charts():
    """Return a reader of one of TensorBoard's folders."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder):
        events = EventAccumulator(str(folder))
        events.Reload()
        scalars = {
            tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
        }
        texts = {
            tag.removesuffix("/text_summary"): events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
            for tag in events.Tags()["tensors"]
        }
        return scalars, texts

    return read


def test_tensorboard_shows_curves_figures_and_settings_of_every_job(bench, charts):
    bench.tiny("--seeds", 0, "--methods", "tiny-ft,tiny-raise", "--observe", "tensorboard")
    folders = {folder.name.rpartition("-")[2]: folder for folder in (bench.folder / "results/tensorboard").iterdir()}
    assert len(folders) == 3
    records = records_by_kind(bench)
    for record, stage in ((records["pretraining"], "pretrain"), (records["cell"], "fine-tune")):
        scalars, texts = charts(folders.pop(record["key"][:8]))
        assert [step for step, _ in scalars[f"training/{stage}/loss"]] == [1, 2]
        assert all(value > 0 for _, value in scalars[f"training/{stage}/images_per_second"])
        for split in ("NC", "C", "RC", "RI"):
            assert scalars[f"accuracy/{split}"] == [(0, pytest.approx(record["metrics"][split]["accuracy"]))]
        for epoch, point in enumerate(record.get("curve", ()), start=1):
            assert scalars["learning curve/C"][epoch - 1] == (epoch, pytest.approx(point["C"]))
        assert "| pretrain.lr | 0.05 |" in texts["settings"]
    assert "| method | tiny-ft |" in texts["settings"]
    height = records["cell"]["paths"]["linear"]["test"]["barriers"]["C"]["loss"]
    assert scalars["barrier/linear/C"] == [(0, pytest.approx(height))]
    (failed,) = folders.values()
    assert "tiny-raise" in failed.name
    assert "planted in two lines" in charts(failed)[1]["failure"]


def test_a_job_that_is_tried_again_replaces_its_earlier_curve_in_tensorboard(tmp_path, charts, cell):
    offer = Registry.discover().get("observer", "tensorboard")
    for losses in ([3.0, 2.0, 1.0], [5.0]):  # the first try was killed after three epochs
        observer = offer.make({})
        observer.run_started(tmp_path)
        observer.job_started(cell)
        for loss in losses:
            event = {"stage": "fine-tune", "epoch": 1, "epochs": 3, "loss": loss, "images_per_second": float("nan")}
            observer.job_event(cell, event)
        observer.run_finished()
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert charts(folder)[0] == {"training/fine-tune/loss": [(1, 5.0)]}


# --- MLflow


@pytest.mark.slow
def test_mlflow_has_a_run_for_every_job(bench, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    words = ["--seeds", 0, "--methods", "tiny-ft,tiny-raise", "--observe", "mlflow", "--set", "mlflow.experiment=mine"]
    assert "observer" not in bench.tiny(*words).err
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("mine")
    runs = {run.data.tags["mlflow.runName"]: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == 3
    by_key = {run.data.tags["mmc_bench.key"]: run for run in runs.values()}
    for kind, record in records_by_kind(bench).items():
        run = by_key[record["key"]]
        assert (run.info.status, run.data.tags["mmc_bench.kind"]) == ("FINISHED", kind)
        assert run.data.metrics["accuracy/RI"] == pytest.approx(record["metrics"]["RI"]["accuracy"])
        assert run.data.params["pretrain.lr"] == "0.05"
        stage = "pretrain" if kind == "pretraining" else "fine-tune"
        history = client.get_metric_history(run.info.run_id, f"training/{stage}/loss")
        assert [point.step for point in history] == [1, 2]
    parameters = by_key[records_by_kind(bench)["cell"]["key"]].data.params
    assert (parameters["method.behaviour"], parameters["method.lr"]) == ("ft", "0.05")
    (failed,) = (run for run in runs.values() if run.info.status == "FAILED")
    assert "planted in two lines" in failed.data.tags["mmc_bench.error"]
    assert failed.data.params["method"] == "tiny-raise"


# --- what both are told of a job


def test_settings_of_a_job_are_flat_and_those_of_a_pair_say_where_the_second_differs(cell):
    from mmc_bench.results.jobs import Pair

    settings = settings_of(cell)
    assert (settings["dataset"], settings["dataset.size"], settings["pretrain.epochs"]) == ("digits-box", 3, 2)
    assert (settings["method"], settings["method.lr"], settings["seed"]) == ("ft", 0.1, 3)
    other = cell.pretraining.model_copy(update={"seed": 4})
    pair = Pair(first=cell.pretraining, second=other, data=other, connect=cell.connect)
    assert settings_of(pair) == {**settings_of(cell.pretraining), "second.seed": 4}
