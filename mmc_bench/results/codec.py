"""Records as the content of files: written with a checksum, and checked when they are read.

A record whose checksum matches is as it was written, so a few of its members can be read without the rest. One
without a checksum comes from another program, and is validated as a whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mmc_bench.errors import UserError
from mmc_bench.system.files import is_intact, read_whole, with_checksum

if TYPE_CHECKING:  # records are models of pydantic, and many commands read none
    from mmc_bench.results.jobs import Job
    from mmc_bench.results.probes import ProbeRecord
    from mmc_bench.results.records import AnyRecord, ConnectionRecord, Failure
    from mmc_bench.results.scores import ScoreReader
    from mmc_bench.results.selections import SelectionRecord

OneRecord = TypeVar("OneRecord", bound="AnyRecord | SelectionRecord | ConnectionRecord | ProbeRecord")

#: Where a record has the checksums of weights: its own, or those it was made from.
WEIGHTS = {
    "pretraining": re.compile(rb'\n "weights_sha256": "(\w+)"'),
    "cell": re.compile(rb'\n "pretrained_sha256": "(\w+)"'),
    "trial": re.compile(rb'\n "pretrained_sha256": "(\w+)"'),
    "pair": re.compile(rb'\n "weights_sha256": \[\n  "(\w+)",\n  "(\w+)"\n \]'),
}


#: What records are of.
KINDS = ("pretraining", "cell", "trial", "selection", "pair", "connection", "probe")


#: Where the record of a trial has the key of its pretraining, and that of a probe the key of the model's record.
MODEL_OF = {
    "trial": re.compile(rb'\n "pretraining_key": "(\w+)"'),
    "probe": re.compile(rb'\n   "record": "(\w+)"'),
}


class DiskError(UserError):
    """A file of a results folder cannot be read or written; `errno` is the system's number of the error."""

    def __init__(self, message: str, errno: int | None) -> None:
        super().__init__(message, errno)
        self.errno = errno

    def __str__(self) -> str:
        return str(self.args[0])


class DamagedError(UserError):
    """A file holds no valid record; the message names it, and says why."""


@dataclass(frozen=True)
class StoredKeys:
    """The keys in a results folder, by its files' names: of records, of failures, of weights (by weights key)."""

    records: frozenset[str]
    failures: frozenset[str]
    weights: frozenset[str]


def schema_of(kind: str) -> Any:
    """Return the class of a kind of records, or of a ``"failure"``."""
    from mmc_bench.results import probes, records, selections

    return {
        "pretraining": records.PretrainRecord,
        "cell": records.CellRecord,
        "trial": records.TrialRecord,
        "selection": selections.SelectionRecord,
        "pair": records.PairRecord,
        "connection": records.ConnectionRecord,
        "probe": probes.ProbeRecord,
        "failure": records.Failure,
    }[kind]


def encoded(record: AnyRecord | SelectionRecord | ConnectionRecord | ProbeRecord | Failure) -> bytes:
    """Return the content of a record's file."""
    return with_checksum((record.model_dump_json(indent=1) + "\n").encode())


def parsed(path: str | Path, content: bytes, schema: type[OneRecord], key: str | None = None) -> OneRecord:
    """Return the record in a file's content.

    Parameters
    ----------
    key
        What the record must be the result of, where that is known.

    Raises
    ------
    DamagedError
        When it is no valid record, does not match its checksum, or is another key's.
    """
    from pydantic import ValidationError

    from mmc_bench.system.validation import first_problem

    reader: Any = schema
    try:
        record: OneRecord = reader.model_validate_json(content)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            if problem["loc"] == ("schema_version",) and isinstance(problem["input"], int):
                version = f"its schema version is {problem['input']}, from another version of mmc-bench"
                raise DamagedError(f"{path} is no valid record here: {version}") from None
        raise DamagedError(f"{path} is no valid record: {first_problem(error)}") from None
    if is_intact(content) is False:
        raise DamagedError(f"{path} is no valid record: it does not match its checksum")
    if key not in (None, record.key):
        raise DamagedError(f"{path} is no valid record: it holds that of another key, {record.key}")
    return record


def job_of(record: AnyRecord) -> Job:
    """Return what a record is the result of."""
    job: Job = getattr(record, record.kind)
    return job


def weights_of(record: AnyRecord) -> tuple[str, ...]:
    """Return the checksums of the weights that a pretraining left, or that lie behind a record, as `models_of` has."""
    from mmc_bench.results.records import PairRecord, PretrainRecord

    if isinstance(record, PairRecord):
        return record.weights_sha256
    return (record.weights_sha256 if isinstance(record, PretrainRecord) else record.pretrained_sha256,)


def weights_in(content: bytes, kind: str, key: str) -> tuple[str, ...] | None:
    """Return `weights_of` the record in a file that is as it was written; None when it must be looked at closely."""
    start = b'{\n "schema_version": 3,\n "kind": "%s",\n "key": "%s",\n' % (kind.encode(), key.encode())
    found = WEIGHTS[kind].search(content) if content.startswith(start) and is_intact(content) else None
    return tuple(checksum.decode() for checksum in found.groups()) if found else None


def scores_in(path: str, content: bytes, kind: str, key: str, reader: ScoreReader) -> Any:
    """Return the scores of the cell or pretraining with this key in a file's content; raises like `parsed`."""
    if weights_in(content, kind, key):
        with contextlib.suppress(ValueError):  # `parsed` says what is wrong
            return reader.cell(content) if kind == "cell" else reader.model(content)
    return parsed(path, content, schema_of(kind), key)


def read_if_there(path: str | Path) -> bytes | None:
    """Return a file's content, or None when there is no such file.

    Raises
    ------
    DiskError
        When it cannot be read.
    """
    try:
        return read_whole(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DiskError(f"{path} cannot be read: {error.strerror}", error.errno) from None


def is_there(path: Path) -> bool:
    """Tell whether a file is there.

    Raises
    ------
    DiskError
        When its disk does not say.
    """
    try:
        return path.exists()
    except OSError as error:
        raise DiskError(f"{path} cannot be read: {error.strerror}", error.errno) from None


def names_in(folder: str | Path) -> list[str]:
    """Return the names of all files in a folder but the hidden ones, which are being written.

    Raises
    ------
    DiskError
        When it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DiskError(f"{folder} cannot be read: {error.strerror}", error.errno) from None


def read_record(path: Path) -> AnyRecord | SelectionRecord | ConnectionRecord | ProbeRecord:
    """Return the record in a file, of whatever kind it is.

    Raises
    ------
    UserError
        When there is no such file, or it holds no valid record.
    """
    content = read_if_there(path)
    if content is None:
        raise UserError(f"there is no record {path}")
    try:
        kind = json.loads(content)["kind"]
    except (ValueError, KeyError, TypeError, RecursionError):
        kind = None
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{path} is no record of mmc-bench")
    record: AnyRecord | SelectionRecord | ConnectionRecord | ProbeRecord = parsed(path, content, schema_of(kind))
    return record
