"""What MLflow records of a run: one MLflow run for every job, written as a whole when the job has ended.

Where to is MLflow's own matter: ``MLFLOW_TRACKING_URI``, and ``MLFLOW_EXPERIMENT_NAME`` unless the parameter
``experiment`` says otherwise. Parameters are the job's settings. Metrics are the figures of its record,
``accuracy/SET``, ``loss/SET``, ``barrier/PATH/SPLIT`` and ``seconds``; by epoch, ``training/STAGE/loss`` and
``training/STAGE/images_per_second``; and a pretraining's ``learning curve/SET``. The tags ``mmc_bench.suite``, ``.key``
and ``.kind`` lead back to the record, and ``.error`` says why a job failed.

Nothing is written of a job before it ends, so that a run that is killed leaves no MLflow run "running" for ever.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from pydantic import Field

from mmc_bench import BaseConfig, UserError
from mmc_bench.running.tracking import EpochFigures, figures_of, kind_of, learning_curve_of, settings_of

ASKED_ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}

#: MLflow takes no more metrics, and no longer a parameter or tag, at a time.
MOST_METRICS, LONGEST_VALUE = 1000, 5000


class MLflow:
    """Writes an MLflow run for every job."""

    class Config(BaseConfig):
        """How the runs are grouped."""

        experiment: str | None = Field(
            None, min_length=1, description="MLflow experiment; when null, $MLFLOW_EXPERIMENT_NAME or mmc-bench"
        )

    def __init__(self, config: Config) -> None:
        self._name = config.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "mmc-bench"
        self._running: dict[str, _Job] = {}

    def run_started(self, plan: Any) -> None:
        """Find or make the experiment.

        Raises
        ------
        UserError
            When MLflow cannot use the store that it is pointed at, or its server does not answer.
        """
        self._suite = plan.suite.name
        try:
            with _little_patience():
                self._client = mlflow.MlflowClient()
                self._experiment = mlflow.set_experiment(self._name).experiment_id
        except Exception as error:  # MLflow's, the database's, or the network's
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"MLflow cannot use {mlflow.get_tracking_uri()}: {reason}") from None

    def job_started(self, job: Any) -> None:
        """Note when."""
        self._running[job.key] = _Job()

    def job_event(self, job: Any, event: dict[str, Any]) -> None:
        """Keep an epoch until the job has ended."""
        running = self._running[job.key]
        epoch, figures = running.training.read(event)
        running.add(figures, epoch)

    def job_finished(self, job: Any, record: dict[str, Any]) -> None:
        """Write the job's run, with all parameters of its method."""
        running = self._running.pop(job.key)
        for epoch, accuracies in enumerate(learning_curve_of(record), start=1):
            running.add(accuracies, epoch)
        running.add(figures_of(record), 0)
        parameters = {f"method.{name}": value for name, value in record.get("parameters", {}).items()}
        self._write(job, running, settings_of(job) | parameters, "FINISHED", {})

    def job_failed(self, job: Any, failure: dict[str, Any]) -> None:
        """Write the run of a job that failed, unless it never began."""
        if running := self._running.pop(job.key, None):
            self._write(job, running, settings_of(job), "FAILED", {"mmc_bench.error": failure["error"]})

    def _write(self, job: Any, running: "_Job", settings: dict[str, Any], status: str, more: dict[str, str]) -> None:
        tags = {"mmc_bench.suite": self._suite, "mmc_bench.key": job.key, "mmc_bench.kind": kind_of(job), **more}
        run = self._client.create_run(self._experiment, start_time=running.started, run_name=job.label).info.run_id
        self._client.log_batch(
            run,
            params=[Param(name, str(value)[:LONGEST_VALUE]) for name, value in settings.items()],
            tags=[RunTag(name, value[:LONGEST_VALUE]) for name, value in tags.items()],
        )
        for start in range(0, len(running.metrics), MOST_METRICS):
            self._client.log_batch(run, metrics=running.metrics[start : start + MOST_METRICS])
        self._client.set_terminated(run, status=status)


class _Job:
    """What there is to write of a job that is running."""

    def __init__(self) -> None:
        self.started = _now()
        self.training = EpochFigures()
        self.metrics: list[Metric] = []

    def add(self, figures: dict[str, float], step: int) -> None:
        now = _now()
        self.metrics += [Metric(name, value, now, step) for name, value in figures.items()]


@contextlib.contextmanager
def _little_patience() -> Iterator[None]:
    """Let MLflow ask a silent server once, unless the environment says otherwise: it would go on for minutes."""
    added = {name: value for name, value in ASKED_ONCE.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _now() -> int:
    """Return the milliseconds since 1970 that MLflow counts in."""
    return round(1000 * time.time())
