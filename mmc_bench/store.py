"""Results on disk: records, weights and failures; the only module that writes them.

    RESULTS/pretrained/<key>.json          the record of a pretraining
    RESULTS/pretrained/<key>.safetensors   its weights
    RESULTS/cells/<key>.json               the record of a cell
    RESULTS/cells/<key>.safetensors        its weights, when they are kept
    RESULTS/pairs/<key>.json               the record of a pair of pretrained models
    RESULTS/connections/<key>.json         the record of two checkpoints that somebody pointed at
    RESULTS/*/<key>.failure.json           why there is no record yet
    RESULTS/locks/<key>.<n>.lease          says which run makes the record (`mmc_bench.leases`)

Something is done when its valid record exists. Files appear under their name only when they are whole:
written beside it, flushed to the disk, renamed.
"""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from mmc_bench.cells import Cell, Connection, Job, Pretraining, models_of
from mmc_bench.errors import UserError
from mmc_bench.files import read_whole, sweep, write_whole
from mmc_bench.leases import Leases
from mmc_bench.parameters import first_problem
from mmc_bench.records import AnyRecord, CellRecord, ConnectionRecord, Failure, PairRecord, PretrainRecord

if TYPE_CHECKING:
    import torch

FOLDERS = {"pretraining": "pretrained", "cell": "cells", "pair": "pairs", "connection": "connections"}

RECORD_TYPES: dict[str, type[AnyRecord]] = {
    "pretraining": PretrainRecord,
    "cell": CellRecord,
    "pair": PairRecord,
}
OneRecord = TypeVar("OneRecord", PretrainRecord, CellRecord, PairRecord)


class UnwritableError(UserError):
    """The results folder cannot be written."""


class LostWeightsError(UserError):
    """The weights of a pretraining are gone, or are not those that its record names."""

    def __init__(self, message: str, pretraining: Pretraining) -> None:
        super().__init__(message, pretraining)
        self.pretraining = pretraining

    def __str__(self) -> str:
        return str(self.args[0])


class Store:
    """A results folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def check_writable(self) -> None:
        """Create the folders and try a file in each.

        Raises
        ------
        UserError
            When the folder cannot be made or written.
        """
        for name in FOLDERS.values():
            folder = self.root / name
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass
            except OSError as error:
                raise UserError(
                    f"results folder {self.root} cannot be written ({error.strerror}): choose another with --results"
                ) from None

    def find(self, job: Job) -> AnyRecord | None:
        """Return the valid record of a job, or None when it has yet to be made.

        A cell or pair that was made from other weights than its pretrainings' records name has yet to be made, too.
        """
        content = _read_if_there(self._path(job, ".json"))
        if content is None:
            return None
        try:
            record = RECORD_TYPES[kind_of(job)].model_validate_json(content)
        except ValidationError:
            return None
        if record.key != job.key:
            return None
        for pretraining, weights in zip(models_of(job), _made_from(record), strict=True):
            start = self.find(pretraining)
            if isinstance(start, PretrainRecord) and start.weights_sha256 != weights:
                return None
        return record

    def find_connection(self, connection: Connection) -> ConnectionRecord | None:
        """Return the valid record of a connection, or None."""
        content = _read_if_there(self.file_of(connection))
        try:
            record = None if content is None else ConnectionRecord.model_validate_json(content)
        except ValidationError:
            return None
        return record if record and record.key == connection.key else None

    def files_of_keys(self, prefix: str) -> list[Path]:
        """Return the files of all records whose keys begin with `prefix`."""
        return [path for kind in FOLDERS for path in self._record_files(kind, prefix)]

    def has_weights(self, pretraining: Pretraining) -> bool:
        """Tell whether a pretraining's weights are there."""
        return self._path(pretraining, ".safetensors").exists()

    @property
    def locks(self) -> Path:
        """The folder of the leases: who does which job."""
        return self.root / "locks"

    def unwritable(self, error: OSError) -> "UnwritableError":
        """Return the error that says why this folder cannot be written."""
        return UnwritableError(f"results folder {self.root} cannot be written ({error.strerror})")

    def failed_keys(self) -> set[str]:
        """Return the keys of the jobs whose last try failed."""
        names = (path.name for folder in FOLDERS.values() for path in (self.root / folder).glob("*.failure.json"))
        return {name.removesuffix(".failure.json") for name in names}

    def find_failure(self, job: Job) -> Failure | None:
        """Return why the last try at this job failed, or None."""
        content = _read_if_there(self._path(job, ".failure.json"))
        try:
            return None if content is None else Failure.model_validate_json(content)
        except ValidationError:
            return None

    def cell_records(self) -> Iterator[CellRecord]:
        """Yield every cell record in the folder, in the order of their keys.

        Raises
        ------
        UserError
            When a record is not valid; the message names its file.
        """
        for path in self._record_files("cell"):
            yield _read(path, CellRecord)

    def pretrain_records(self) -> Iterator[PretrainRecord]:
        """Yield every pretraining's record in the folder; raises like `cell_records`."""
        for path in self._record_files("pretraining"):
            yield _read(path, PretrainRecord)

    def pair_records(self) -> Iterator[PairRecord]:
        """Yield every pair's record in the folder; raises like `cell_records`."""
        for path in self._record_files("pair"):
            yield _read(path, PairRecord)

    def _record_files(self, kind: str, prefix: str = "") -> list[Path]:
        paths = (self.root / FOLDERS[kind]).glob(f"{prefix}*.json")
        return sorted(path for path in paths if not path.name.endswith(".failure.json"))

    def save(self, record: AnyRecord) -> None:
        """Write a record and forget an earlier failure."""
        job = job_of(record)
        self._write(self._path(job, ".json"), (record.model_dump_json(indent=1) + "\n").encode())
        self._path(job, ".failure.json").unlink(missing_ok=True)

    def save_connection(self, record: ConnectionRecord) -> Path:
        """Write the record of a connection, and return its file."""
        path = self.file_of(record.connection)
        self._write(path, (record.model_dump_json(indent=1) + "\n").encode())
        return path

    def save_failure(self, job: Job, failure: Failure) -> None:
        """Write why a job failed, beside the place of its record."""
        self._write(self._path(job, ".failure.json"), (failure.model_dump_json(indent=1) + "\n").encode())

    def save_weights(self, job: Job, weights: "dict[str, torch.Tensor]") -> str:
        """Write weights as safetensors and return the file's SHA-256."""
        from safetensors.torch import save

        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
        self._write(self._path(job, ".safetensors"), content)
        return hashlib.sha256(content).hexdigest()

    def load_weights(self, record: PretrainRecord) -> "dict[str, torch.Tensor]":
        """Return a pretraining's weights after comparing them with their record's checksum.

        Raises
        ------
        LostWeightsError
            When the file was damaged or replaced. It is set aside, so that the next run makes it anew.
        """
        from safetensors.torch import load

        path = self._path(record.pretraining, ".safetensors")
        content = _read_if_there(path)
        if content is None:
            raise LostWeightsError(f"weights file {path} is gone", record.pretraining)
        if hashlib.sha256(content).hexdigest() != record.weights_sha256:
            aside = path.with_suffix(".damaged")
            with contextlib.suppress(FileNotFoundError):  # another worker was faster
                path.replace(aside)
            raise LostWeightsError(
                f"weights file {path} does not match its record's checksum: set aside as {aside.name}",
                record.pretraining,
            )
        return load(content)

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_whole(path, content)
        except OSError as error:
            raise self.unwritable(error) from None

    def sweep(self) -> None:
        """Remove what killed runs left: half-written files, and their leases."""
        with contextlib.suppress(OSError), Leases(self.locks) as leases:
            leases.sweep()
            for folder in (*FOLDERS.values(), self.locks.name):
                sweep(self.root / folder)

    def file_of(self, job: Job | Connection) -> Path:
        """Return where the record is, or will be."""
        return self._path(job, ".json")

    def _path(self, job: Job | Connection, suffix: str) -> Path:
        return self.root / FOLDERS[kind_of(job)] / f"{job.key}{suffix}"


def kind_of(job: Job | Connection) -> str:
    """Return ``"pretraining"``, ``"cell"``, ``"pair"`` or ``"connection"``."""
    if isinstance(job, Pretraining):
        return "pretraining"
    if isinstance(job, Connection):
        return "connection"
    return "cell" if isinstance(job, Cell) else "pair"


def read_record(path: Path) -> AnyRecord | ConnectionRecord:
    """Return the record in a file, of whatever kind it is.

    Raises
    ------
    UserError
        When there is no such file, or it holds no valid record.
    """
    content = _read_if_there(path)
    if content is None:
        raise UserError(f"there is no record {path}")
    try:
        kind = json.loads(content)["kind"]
    except (ValueError, KeyError, TypeError, RecursionError):
        kind = None
    if not isinstance(kind, str) or kind not in FOLDERS:
        raise UserError(f"{path} is no record of mmc-bench")
    reader: TypeAdapter[Any] = TypeAdapter(Annotated[AnyRecord | ConnectionRecord, Field(discriminator="kind")])
    try:
        record: AnyRecord | ConnectionRecord = reader.validate_json(content)
    except ValidationError as error:
        raise UserError(f"{path} is no valid record: {first_problem(error)}") from None
    return record


def job_of(record: AnyRecord) -> Job:
    """Return what a record is the result of."""
    if isinstance(record, PretrainRecord):
        return record.pretraining
    return record.cell if isinstance(record, CellRecord) else record.pair


def _made_from(record: AnyRecord) -> tuple[str, ...]:
    """Return the checksums of the pretrained weights behind a record, in the order of `models_of`."""
    if isinstance(record, PairRecord):
        return record.weights_sha256
    return (record.pretrained_sha256,) if isinstance(record, CellRecord) else ()


def _read_if_there(path: Path) -> bytes | None:
    try:
        return read_whole(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _read(path: Path, schema: type[OneRecord]) -> OneRecord:
    content = _read_if_there(path)
    if content is None:
        raise UserError(f"{path} is gone, or leads nowhere")
    try:
        return schema.model_validate_json(content)
    except ValidationError as error:
        raise UserError(f"{path} is no valid record: {first_problem(error)}") from None
