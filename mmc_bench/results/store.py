"""Results on disk: records, weights and failures; the only module that writes them.

    RESULTS/pretrained/<key>.json                  the record of a pretraining
    RESULTS/pretrained/<weights key>.safetensors   its weights
    RESULTS/cells/<key>.json                       the record of a cell
    RESULTS/fine-tuned/<weights key>.safetensors   its weights, when they are kept
    RESULTS/trials/<key>.json                      the record of a trial of a method's parameters
    RESULTS/selections/<key>.json                  which trials of a method in a setting are the best
    RESULTS/pairs/<key>.json                       the record of a pair of pretrained models
    RESULTS/connections/<key>.json                 the record of two checkpoints that a user named
    RESULTS/probes/<key>.json                      what a model has left of the cue
    RESULTS/predictions/<key>.npz                  what the model of a record predicts, when that is kept
    RESULTS/*/<key>.failure.json                   why there is no record yet
    RESULTS/locks/<key>.<n>.lease                  which run makes the record (`mmc_bench.results.leases`)

Weights have a key of their own: scores and paths can be measured anew without training again.

Something is done when its valid record exists. Files appear under their name only when they are whole:
written beside it, flushed to the disk, renamed. Records carry a checksum of themselves: one that is damaged, or was
copied from another key's, counts as missing, and is made anew. Those without a checksum are checked by their content.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mmc_bench.errors import UserError
from mmc_bench.results.codec import (
    MODEL_OF,
    DamagedError,
    DiskError,
    StoredKeys,
    encoded,
    is_there,
    job_of,
    names_in,
    parsed,
    read_if_there,
    schema_of,
    scores_in,
    weights_in,
    weights_of,
)
from mmc_bench.results.jobs import Cell, Connection, Job, Pretraining, Probe, Selection, kind_of, models_of
from mmc_bench.system.files import is_intact, sweep, write_whole
from mmc_bench.system.parts import part

if TYPE_CHECKING:
    import torch

    from mmc_bench.results.predictions import Predictions
    from mmc_bench.results.probes import ProbeRecord
    from mmc_bench.results.records import (
        AnyRecord,
        CellRecord,
        ConnectionRecord,
        Failure,
        PairRecord,
        PretrainRecord,
        WeightsOrigin,
    )
    from mmc_bench.results.scores import CellScores, ModelScores, ScoreReader
    from mmc_bench.results.selections import SelectionRecord
    from mmc_bench.results.weights import Weights

FOLDERS = {
    "pretraining": "pretrained",
    "cell": "cells",
    "trial": "trials",
    "selection": "selections",
    "pair": "pairs",
    "connection": "connections",
    "probe": "probes",
}

WEIGHTS_FOLDERS = {"pretraining": "pretrained", "cell": "fine-tuned"}

PREDICTIONS = "predictions"

ALL_FOLDERS = tuple(dict.fromkeys((*FOLDERS.values(), *WEIGHTS_FOLDERS.values())))
Read = TypeVar("Read")
OnDamage = Callable[[DamagedError], None]


class UnwritableError(DiskError):
    """The results folder takes no more files: the disk is full or read-only, or belongs to another user."""


class LostWeightsError(UserError):
    """The weights of a pretraining are gone, or are not those that its record names."""

    def __init__(self, message: str, pretraining: Pretraining) -> None:
        super().__init__(message, pretraining)
        self.pretraining = pretraining

    def __str__(self) -> str:
        return str(self.args[0])


class Store:
    """A results folder.

    Parameters
    ----------
    root
        The folder; it need not be there.
    on_damage
        Called with what is wrong with each file that should hold a record, and counts as missing.
    keep_predictions
        Whether a pretraining or cell is done only with its predictions.
    """

    def __init__(self, root: str | Path, on_damage: OnDamage | None = None, keep_predictions: bool = False) -> None:
        self.root, self.keep_predictions = Path(root), keep_predictions
        self._on_damage = on_damage

    def check_writable(self) -> None:
        """Create the folders and try a file in each; raises `UnwritableError`."""
        for name in (*ALL_FOLDERS, self.locks.name):
            folder = self.root / name
            with self.writing(": choose another with --results"):
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass

    def listing(self) -> StoredKeys:
        """Return the keys of all files in the folder, without opening any."""
        found: dict[str, set[str]] = {".json": set(), ".failure.json": set(), ".safetensors": set()}
        for folder in ALL_FOLDERS:
            for name in names_in(self.root / folder):
                key, dot, ending = name.partition(".")
                found.get(dot + ending, set()).add(key)
        return StoredKeys(*(frozenset(found[ending]) for ending in (".json", ".failure.json", ".safetensors")))

    def find(self, job: Job) -> AnyRecord | None:
        """Return the valid record of a job, or None when it has yet to be made.

        What was made from other weights than its pretrainings' records name has yet to be made, too.
        """
        record: AnyRecord | None = self._read(
            self._name(job), lambda path, content: parsed(path, content, schema_of(kind_of(job)), job.key)
        )
        if record is None or isinstance(job, Pretraining):
            return record
        for pretraining, made_from in zip(models_of(job), weights_of(record), strict=True):
            if self.weights_behind(pretraining) not in (None, (made_from,)):
                return None
        return record

    def done(self, job: Job) -> AnyRecord | None:
        """Return the record of a job that needs not be done: what else it leaves must be there too."""
        record = self.find(job)
        lacks_weights = isinstance(job, Pretraining) and not self.has_weights(job)
        lacks_predictions = self.keep_predictions and self.lacks_predictions(job)
        return None if lacks_weights or lacks_predictions else record

    def weights_behind(self, job: Job) -> tuple[str, ...] | None:
        """Return the checksums of the weights that a pretraining left, or that a cell or pair was made from.

        None when there is no valid record. One that bears the checksum of what was written is not parsed.
        """
        kind = kind_of(job)

        def weights(path: str, content: bytes) -> tuple[str, ...]:
            return weights_in(content, kind, job.key) or weights_of(parsed(path, content, schema_of(kind), job.key))

        return self._read(self._name(job), weights)

    def find_scores(self, cell: Cell, reader: ScoreReader) -> CellScores | CellRecord | None:
        """Return the scores of a cell, whatever weights it was made from, or None when it has no valid record."""
        return self._read(self._name(cell), lambda path, content: scores_in(path, content, "cell", cell.key, reader))

    def find_model_scores(self, pretraining: Pretraining, reader: ScoreReader) -> ModelScores | PretrainRecord | None:
        """Return the scores of a pretrained model, or None when it has no valid record."""
        kind, key = "pretraining", pretraining.key
        return self._read(self._name(pretraining), lambda path, content: scores_in(path, content, kind, key, reader))

    def find_jobless(self, described: Connection | Probe | Selection) -> Any:
        """Return the valid record of what is no job, a connection, probe or selection, or None."""
        schema: Any = schema_of(kind_of(described))
        return self._read(self._name(described), lambda path, content: parsed(path, content, schema, described.key))

    def files_of_keys(self, prefix: str) -> list[Path]:
        """Return the files of all records whose keys begin with `prefix`."""
        return [Path(path) for kind in FOLDERS for path in self._record_files(kind, prefix)]

    def has_weights(self, pretraining: Pretraining) -> bool:
        """Return whether a pretraining's weights are there."""
        return is_there(self.weights_file(pretraining))

    @property
    def locks(self) -> Path:
        """The folder of the leases."""
        return self.root / "locks"

    def find_failure(self, job: Job) -> Failure | None:
        """Return why the last try at this job failed, or None."""
        schema: type[Failure] = schema_of("failure")
        content = read_if_there(self._path(job, ".failure.json"))
        with contextlib.suppress(ValueError):  # pydantic's ValidationError
            return schema.model_validate_json(content) if content and is_intact(content) is not False else None
        return None

    def cell_records(self) -> Iterator[CellRecord]:
        """Yield every valid cell record in the folder, in the order of their keys.

        One that is damaged raises a `DamagedError` where the store has no `on_damage`.
        """
        return self._records("cell")

    def cell_scores(self, reader: ScoreReader) -> Iterator[CellScores | CellRecord]:
        """Yield the scores of every valid cell record in the folder, like `cell_records`."""
        return self._all_scores("cell", reader)

    def model_scores(self, reader: ScoreReader) -> Iterator[ModelScores | PretrainRecord]:
        """Yield the scores of every pretraining's valid record in the folder, like `cell_records`."""
        return self._all_scores("pretraining", reader)

    def pretrain_records(self) -> Iterator[PretrainRecord]:
        """Yield every pretraining's valid record in the folder, like `cell_records`."""
        return self._records("pretraining")

    def pair_records(self) -> Iterator[PairRecord]:
        """Yield every pair's valid record in the folder, like `cell_records`."""
        return self._records("pair")

    def models_of(self, kind: Literal["trial", "probe"]) -> set[str]:
        """Return the keys of the records of models that trials started from, or that were probed."""
        contents = (read_if_there(path) or b"" for path in self._record_files(kind))
        return {found[1].decode() for content in contents if (found := MODEL_OF[kind].search(content))}

    def _read(self, path: str, read: Callable[[str, bytes], Read]) -> Read | None:
        """Return what is read from a file, or None when there is none, or it is damaged."""
        try:
            return None if (content := read_if_there(path)) is None else read(path, content)
        except DamagedError as error:
            if self._on_damage is not None:
                self._on_damage(error)
            return None

    def _records(self, kind: str) -> Iterator[Any]:
        schema = schema_of(kind)
        return self._read_all(kind, lambda path, content: parsed(path, content, schema, _key_in(path)))

    def _all_scores(self, kind: str, reader: ScoreReader) -> Iterator[Any]:
        return self._read_all(kind, lambda path, content: scores_in(path, content, kind, _key_in(path), reader))

    def _read_all(self, kind: str, read: Callable[[str, bytes], Read]) -> Iterator[Read]:
        for path in self._record_files(kind):
            content = read_if_there(path)
            try:
                if content is None:
                    raise DamagedError(f"{path} is gone, or leads nowhere")
                yield read(path, content)
            except DamagedError as error:
                if self._on_damage is None:
                    raise
                self._on_damage(error)

    def _record_files(self, kind: str, prefix: str = "") -> list[str]:
        folder = self.root / FOLDERS[kind]
        names = [name for name in names_in(folder) if name.startswith(prefix) and name.endswith(".json")]
        return [f"{folder}/{name}" for name in sorted(names) if not name.endswith(".failure.json")]

    def save(self, record: AnyRecord) -> None:
        """Write a record and forget an earlier failure; raises `UnwritableError`."""
        job = job_of(record)
        self._write(self.file_of(job), encoded(record))
        with self.writing():
            self._path(job, ".failure.json").unlink(missing_ok=True)

    @part("saving")
    def save_predictions(self, job: Job, predictions: Predictions | None) -> None:
        """Write the predictions of a job's next record, or remove those of an earlier one; raises `UnwritableError`."""
        file = self.predictions_file(job.key)
        with self.writing():
            if predictions is None:
                file.unlink(missing_ok=True)
                return
            from mmc_bench.results.predictions import encoded_predictions

            file.parent.mkdir(exist_ok=True)
            write_whole(file, encoded_predictions(predictions, job.key))

    def save_jobless(self, record: ConnectionRecord | ProbeRecord | SelectionRecord) -> Path:
        """Write the record of what is no job, and return its file; raises `UnwritableError`."""
        path = self.file_of(getattr(record, record.kind))
        self._write(path, encoded(record))
        return path

    def save_failure(self, job: Job, failure: Failure) -> None:
        """Write why a job failed, beside the place of its record; raises `UnwritableError`."""
        self._write(self._path(job, ".failure.json"), encoded(failure))

    @part("saving")
    def save_weights(self, job: Pretraining | Cell, weights: dict[str, torch.Tensor], origin: WeightsOrigin) -> str:
        """Write weights, and how they were made, and return their checksum; raises `UnwritableError`."""
        from mmc_bench.results.weights import encoded_weights

        content, sha256 = encoded_weights(weights, origin)
        self._write(self.weights_file(job), content)
        return sha256

    def load_weights(self, record: PretrainRecord) -> Weights:
        """Return a pretraining's weights after comparing them with their record's checksum.

        Where the file was damaged or replaced, it is set aside, so that the next run makes it anew; raises
        `LostWeightsError`.
        """
        from mmc_bench.results.weights import WeightsFile

        file = WeightsFile(self.weights_file(record.pretraining))
        weights = file.weights()
        if weights is None or weights.sha256 != record.weights_sha256:
            raise LostWeightsError(file.lost(), record.pretraining)
        return weights

    def kept_weights(
        self, job: Pretraining | Cell, made_from: str | None, warn: Callable[[str], object]
    ) -> tuple[Weights, WeightsOrigin] | None:
        """Return a job's weights, and how they were made, where an earlier run left them.

        `made_from` is the checksum of the weights that they must have been fine-tuned from; None for a pretraining.
        A damaged file is set aside, and `warn` gets one sentence about it.
        """
        from mmc_bench.results.weights import WeightsFile

        file = WeightsFile(self.weights_file(job))
        if file.content is None:
            return None
        weights = file.weights()
        if weights is None or weights.origin is None or weights.origin.key != job.weights_key:
            aside = file.set_aside()
            warn(f"weights file {file.path} is damaged or another job's: set aside as {aside.name}, and made again")
            return None
        return (weights, weights.origin) if weights.origin.made_from == made_from else None

    def predictions_file(self, key: str) -> Path:
        """Return where the predictions that belong to a record are, or will be."""
        return self.root / PREDICTIONS / f"{key}.npz"

    def lacks_predictions(self, job: Job) -> bool:
        """Return whether a pretraining's or cell's predictions are missing or damaged."""
        from mmc_bench.results.predictions import checked_predictions

        path = str(self.predictions_file(job.key))
        return kind_of(job) in WEIGHTS_FOLDERS and not self._read(path, partial(checked_predictions, job.key))

    def find_predictions(self, key: str) -> Predictions | None:
        """Return the predictions that belong to a record, or None where they are missing or damaged."""
        from mmc_bench.results.predictions import decoded_predictions

        path = str(self.predictions_file(key))
        return self._read(path, partial(decoded_predictions, key))

    def weights_file(self, job: Pretraining | Cell) -> Path:
        """Return where the weights are, or will be."""
        return self.root / WEIGHTS_FOLDERS[kind_of(job)] / f"{job.weights_key}.safetensors"

    def sweep(self) -> None:
        """Remove what killed runs left: half-written files, and their leases."""
        from mmc_bench.results.leases import Leases

        with contextlib.suppress(OSError), Leases(self.locks) as leases:
            leases.sweep()
            for folder in (*ALL_FOLDERS, PREDICTIONS, self.locks.name):
                sweep(self.root / folder)

    def file_of(self, job: Job | Connection | Probe | Selection) -> Path:
        """Return where the record is, or will be."""
        return self._path(job, ".json")

    def _path(self, job: Job | Connection | Probe | Selection, suffix: str) -> Path:
        return self.root / FOLDERS[kind_of(job)] / f"{job.key}{suffix}"

    def _name(self, job: Job | Connection | Probe | Selection) -> str:
        """Return the path of a record's file as text: to make a `Path` takes about as long as to read it."""
        return f"{self.root}/{FOLDERS[kind_of(job)]}/{job.key}.json"

    def _write(self, path: Path, content: bytes) -> None:
        with self.writing():
            write_whole(path, content)

    @contextlib.contextmanager
    def writing(self, advice: str = "") -> Iterator[None]:
        """Turn what the disk refuses meanwhile into an `UnwritableError`."""
        try:
            yield
        except OSError as error:
            message = f"results folder {self.root} cannot be written ({error.strerror or type(error).__name__}){advice}"
            raise UnwritableError(message, error.errno) from None


def _key_in(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".json")
