"""Records as the content of files: written with a checksum, and checked when they are read.

A record that bears the checksum of what was written is as it was written, so that a few of its members can be read
without the rest. One without a checksum is older, or was written by somebody else, and is validated as a whole.
"""

import contextlib
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from pydantic import ValidationError

from mmc_bench.errors import UserError
from mmc_bench.results.records import AnyRecord, CellRecord, ConnectionRecord, Failure, PairRecord, PretrainRecord
from mmc_bench.results.scores import CellScores, ModelScores, ScoreReader
from mmc_bench.system.files import is_intact, read_whole, with_checksum
from mmc_bench.system.validation import first_problem

OneRecord = TypeVar("OneRecord", bound=AnyRecord | ConnectionRecord)

#: Where a record has the checksums of weights: its own, or those it was made from.
WEIGHTS = {
    "pretraining": re.compile(rb'\n "weights_sha256": "(\w+)"'),
    "cell": re.compile(rb'\n "pretrained_sha256": "(\w+)"'),
    "pair": re.compile(rb'\n "weights_sha256": \[\n  "(\w+)",\n  "(\w+)"\n \]'),
}


class DamagedError(UserError):
    """A file holds no valid record; the message names it, and says why."""


def encoded(record: AnyRecord | ConnectionRecord | Failure) -> bytes:
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
    reader: Any = schema
    try:
        record: OneRecord = reader.model_validate_json(content)
    except ValidationError as error:
        raise DamagedError(f"{path} is no valid record: {first_problem(error)}") from None
    if is_intact(content) is False:
        raise DamagedError(f"{path} is no valid record: it does not match its checksum")
    if key not in (None, record.key):
        raise DamagedError(f"{path} is no valid record: it holds that of another key, {record.key}")
    return record


def weights_of(record: AnyRecord) -> tuple[str, ...]:
    """Return the checksums of the weights that a pretraining left, or that lie behind a record, as `models_of` has."""
    if isinstance(record, PairRecord):
        return record.weights_sha256
    return (record.pretrained_sha256 if isinstance(record, CellRecord) else record.weights_sha256,)


def weights_in(content: bytes, kind: str, key: str) -> tuple[str, ...] | None:
    """Return `weights_of` the record in a file that is as it was written; None when it must be looked at closely."""
    start = b'{\n "schema_version": 1,\n "kind": "%s",\n "key": "%s",\n' % (kind.encode(), key.encode())
    found = WEIGHTS[kind].search(content) if content.startswith(start) and is_intact(content) else None
    return tuple(checksum.decode() for checksum in found.groups()) if found else None


def cell_scores_in(path: str, content: bytes, key: str, reader: ScoreReader) -> CellScores | CellRecord:
    """Return the scores of the cell with this key in a file's content; raises like `parsed`."""
    if weights_in(content, "cell", key):
        with contextlib.suppress(msgspec.DecodeError, ValidationError):  # `parsed` says what is wrong
            return reader.cell(content)
    return parsed(path, content, CellRecord, key)


def model_scores_in(path: str, content: bytes, key: str, reader: ScoreReader) -> ModelScores | PretrainRecord:
    """Return the scores of the pretraining with this key in a file's content; raises like `parsed`."""
    if weights_in(content, "pretraining", key):
        with contextlib.suppress(msgspec.DecodeError, ValidationError):
            return reader.model(content)
    return parsed(path, content, PretrainRecord, key)


def read_if_there(path: str | Path) -> bytes | None:
    """Return a file's content, or None when there is no such file.

    Raises
    ------
    UserError
        When it cannot be read.
    """
    try:
        return read_whole(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
