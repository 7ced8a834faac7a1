"""What TensorBoard shows of a run: a folder for every job, named by its label and the beginning of its key.

Scalars, by epoch: ``training/STAGE/loss`` and ``training/STAGE/images_per_second`` while the job goes on; for a
pretraining, when it has ended, ``learning curve/SET`` on the training images and the splits NC and C. And one value
each: the figures of the record, ``accuracy/SET``, ``loss/SET``, ``barrier/PATH/SPLIT`` and ``seconds``. Texts: the
job's ``settings``, and the ``failure`` of one that failed.
"""

import re
from pathlib import Path
from typing import Any

from pydantic import Field
from torch.utils.tensorboard import SummaryWriter

from mmc_bench import BaseConfig, UserError
from mmc_bench.running.tracking import EpochFigures, figures_of, learning_curve_of, settings_of


class TensorBoard:
    """Writes event files for TensorBoard."""

    class Config(BaseConfig):
        """Where the files are."""

        path: str | None = Field(
            None, min_length=1, description="folder for tensorboard --logdir; when null, RESULTS/tensorboard/"
        )

    def __init__(self, config: Config) -> None:
        self._config = config
        self._running: dict[str, tuple[SummaryWriter, EpochFigures]] = {}

    def run_started(self, results: Path) -> None:
        """Make the folder.

        Raises
        ------
        UserError
            When it cannot be made.
        """
        self._folder = Path(self._config.path) if self._config.path else results / "tensorboard"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"TensorBoard's folder {self._folder} cannot be made: {error.strerror}") from None

    def job_started(self, job: Any) -> None:
        """Open the job's folder; what an earlier, interrupted try at the job left there is superseded."""
        name = f"{re.sub(r'[^0-9A-Za-z.=_-]+', '-', job.label)}-{job.key[:8]}"
        writer = SummaryWriter(str(self._folder / name), purge_step=0)
        writer.add_text("settings", _table(settings_of(job)))
        self._running[job.key] = writer, EpochFigures()

    def job_event(self, job: Any, event: dict[str, Any]) -> None:
        """Add an epoch to the curves of its stage."""
        writer, training = self._running[job.key]
        epoch, figures = training.read(event)
        for name, value in figures.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    def job_finished(self, job: Any, record: dict[str, Any]) -> None:
        """Add the learning curve and the figures, and close the job's folder."""
        writer, _ = self._running.pop(job.key)
        for epoch, accuracies in enumerate(learning_curve_of(record), start=1):
            for name, value in accuracies.items():
                writer.add_scalar(name, value, epoch)
        for name, value in figures_of(record).items():
            writer.add_scalar(name, value, 0)
        writer.close()

    def job_failed(self, job: Any, failure: dict[str, Any]) -> None:
        """Add the reason, unless the job never began."""
        if job.key in self._running:
            writer, _ = self._running.pop(job.key)
            writer.add_text("failure", failure["error"])
            writer.close()

    def run_finished(self) -> None:
        """Close the folders of jobs that were interrupted."""
        for writer, _ in self._running.values():
            writer.close()


def _table(settings: dict[str, Any]) -> str:
    """Return settings as a table in Markdown."""
    return "\n".join(["| setting | value |", "| --- | --- |", *(f"| {name} | {settings[name]} |" for name in settings)])
