"""Reading a leaderboard's folder: its settings, the records that were sent in, and their checksums.

    BOARD/results/<submission>/pretrained/<key>.json   records, as a results folder has them
    BOARD/results/<submission>/cells/<key>.json
    BOARD/results/<submission>/selections/<key>.json   what tuned cells' parameters come from
    BOARD/results/<submission>/trials/<key>.json
    BOARD/results/<submission>/submission.yaml         who ran them
    BOARD/results/<submission>/checksums.sha256        of all these, as sha256sum writes and checks them

A key covers what was asked for and not what came out: the checksums show that a result was changed.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from mmc_bench.errors import UserError
from mmc_bench.leaderboard.schemas import BoardSettings, Submission, Verification, Versions, read_model
from mmc_bench.results.jobs import PluginRef, Pretraining, references_of
from mmc_bench.results.records import CellRecord, PretrainRecord, TrialRecord
from mmc_bench.results.selections import SelectionRecord
from mmc_bench.system.files import is_temporary, read_whole, sweep
from mmc_bench.system.validation import first_problem

RESULTS, VERIFICATIONS = "results", "verifications"
SETTINGS, VERSIONS = "leaderboard.yaml", "versions.yaml"
GENERATED = (
    "README.md",
    "leaderboard.csv",
    "overall.csv",
    "index.html",
    "critical-difference-light.svg",
    "critical-difference-dark.svg",
)
SUBMISSION, CHECKSUMS = "submission.yaml", "checksums.sha256"
SUBMISSION_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
RECORD_NAME = re.compile(r"(pretrained|cells|trials|selections)/([0-9a-f]{64})\.json")
LARGEST_RECORD = 2**20  # bytes; one takes some six thousand
LARGEST_NUMBER = 1e15  # of nats or seconds, or whatever else is no whole number

SentRecord = PretrainRecord | CellRecord | TrialRecord | SelectionRecord
SCHEMAS: dict[str, type[SentRecord]] = {
    "pretrained": PretrainRecord,
    "cells": CellRecord,
    "trials": TrialRecord,
    "selections": SelectionRecord,
}
Kind = TypeVar("Kind", bound=SentRecord)


@dataclass(frozen=True, order=True)
class Problem:
    """What is wrong with a file of the leaderboard; `file` is relative to it."""

    file: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """A record that was sent in; `file` is relative to the leaderboard."""

    file: str
    sha256: str
    submission: Submission
    record: SentRecord

    @property
    def folder(self) -> str:
        """The submission's name."""
        return self.file.split("/")[1]


@dataclass(frozen=True)
class Board:
    """A leaderboard's folder and what people wrote in it."""

    root: Path
    settings: BoardSettings
    versions: Versions

    @classmethod
    def open(cls, root: str | Path) -> "Board":
        """Read the settings and the known versions.

        Raises
        ------
        UserError
            When the folder is no leaderboard, or one of the two files is not valid.
        """
        root = Path(root)
        if not (root / SETTINGS).is_file():
            raise UserError(f"{root} is no leaderboard, which has a {SETTINGS}: name one with --board")
        versions = root / VERSIONS
        return cls(
            root,
            read_model(root / SETTINGS, BoardSettings, "leaderboard"),
            read_model(versions, Versions, "versions") if versions.exists() else Versions(),
        )

    @cached_property
    def submission_folders(self) -> list[Path]:
        """The submissions' folders, by name."""
        results = self.root / RESULTS
        folders = results.iterdir() if results.is_dir() else []
        return sorted(
            folder
            for folder in folders
            if folder.is_dir() and not folder.is_symlink() and SUBMISSION_NAME.fullmatch(folder.name)
        )

    def path(self, file: str) -> Path:
        """Return where a file lies whose name is relative to the leaderboard."""
        return self.root / file

    def sweep(self) -> None:
        """Remove what commands that were killed left half written; what one that runs is writing stays."""
        for folder in (self.root, self.root / RESULTS, self.root / VERIFICATIONS):
            with contextlib.suppress(OSError):
                sweep(folder)


def was_left(file: str) -> bool:
    """Tell whether a file, whose name is relative to the leaderboard, is or lies in what `Board.sweep` looks at."""
    part, *below = file.split("/")
    return is_temporary(below[0] if below and part in (RESULTS, VERIFICATIONS) else part)


def read_entries(board: Board) -> tuple[list[Entry], list[Problem]]:
    """Return the valid records of all submissions, in the order of their files, and what is wrong with others."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    for folder in board.submission_folders:
        name = f"{RESULTS}/{folder.name}"
        try:
            submission = read_model(folder / SUBMISSION, Submission, "submission")
        except UserError as error:
            problems.append(Problem(f"{name}/{SUBMISSION}", str(error)))
            continue
        for path in sorted(folder.glob("*/*.json")):
            file = path.relative_to(folder).as_posix()
            if not RECORD_NAME.fullmatch(file) or path.is_symlink() or not path.is_file():
                continue  # a foreign file, which `checks` reports
            content = path.read_bytes()
            try:
                record = parse_record(file, content)
            except ValueError as error:
                problems.append(Problem(f"{name}/{file}", str(error)))
                continue
            entries.append(Entry(f"{name}/{file}", sha256_of(content), submission, record))
    return entries, problems


def read_verifications(board: Board) -> tuple[dict[str, Verification], list[Problem]]:
    """Return the verifications by file, in order, and what is wrong with others."""
    found, problems = {}, []
    for path in sorted((board.root / VERIFICATIONS).glob("*.yaml")):
        file = f"{VERIFICATIONS}/{path.name}"
        try:
            found[file] = read_model(path, Verification, "verification")
        except UserError as error:
            problems.append(Problem(file, str(error)))
    return found, problems


def parse_record(file: str, content: bytes) -> SentRecord:
    """Return the record in a file that is named as `RECORD_NAME` says.

    Raises
    ------
    ValueError
        When it is no JSON, holds a number that is none or a key twice, is no valid record, is of a dataset without
        counterfactuals, or does not bear its file's name.
    """
    named = RECORD_NAME.fullmatch(file)
    assert named is not None
    if len(content) > LARGEST_RECORD:
        raise ValueError(f"is larger than a record can be ({len(content)} bytes)")
    try:
        json.loads(content, parse_constant=_no_constant, parse_float=_float, parse_int=_int, object_pairs_hook=_once)
    except UnicodeDecodeError:
        raise ValueError("is no UTF-8 text") from None
    except RecursionError:
        raise ValueError("is nested deeper than a record can be") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error}") from None
    try:
        record = SCHEMAS[named[1]].model_validate_json(content)
    except ValidationError as error:
        raise ValueError(f"is no valid record: {first_problem(error)}") from None
    if pretraining_of(record).cue_rate is None:
        raise ValueError("is of a dataset that has groups and no counterfactuals, and cannot be ranked here")
    if record.key != named[2]:
        raise ValueError(f"bears another key's name: its record's key is {record.key}")
    return record


def _no_constant(name: str) -> Any:
    raise ValueError(f"holds {name}, which is no number")


def _float(text: str) -> float:
    value = float(text)
    if abs(value) > LARGEST_NUMBER:
        raise ValueError(f"holds {text}, which is too large a number")
    return value


def _int(text: str) -> int:
    value = int(text)
    if abs(value) >= 2**64:  # seeds need as much
        raise ValueError(f"holds {text}, which is too large a number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"has the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return content


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 of a file's content, as sha256sum prints it."""
    return hashlib.sha256(content).hexdigest()


def manifest(digests: Mapping[str, str]) -> bytes:
    """Return the checksums of a submission's files, by name, as ``sha256sum --check`` reads them."""
    return "".join(f"{digest}  {file}\n" for file, digest in sorted(digests.items())).encode()


def read_manifest(path: Path) -> dict[str, str]:
    """Return the checksums in a manifest by file.

    Raises
    ------
    ValueError
        When it is missing or has a line that is not as ``sha256sum`` writes it.
    """
    try:
        lines = read_whole(path).decode().splitlines()
    except (OSError, UnicodeDecodeError):
        raise ValueError("is missing, or no text") from None
    return dict(_checksum(line) for line in lines)


def _checksum(line: str) -> tuple[str, str]:
    matched = re.fullmatch(r"([0-9a-f]{64})  (\S+)", line)
    if matched is None:
        raise ValueError(f"has a line that is no checksum: {line[:100]!r}")
    return matched[2], matched[1]


def cell_of(entry: Entry) -> CellRecord:
    """Return the record of an entry that is a cell."""
    assert isinstance(entry.record, CellRecord)
    return entry.record


def run_of(entry: Entry) -> PretrainRecord | CellRecord | TrialRecord:
    """Return the record of an entry that was run, and has a provenance."""
    assert not isinstance(entry.record, SelectionRecord)
    return entry.record


def entries_of(entries: Iterable[Entry], kind: type[Kind]) -> Iterator[tuple[Entry, Kind]]:
    """Yield the entries that are records of a kind, with their records."""
    for entry in entries:
        if isinstance(entry.record, kind):
            yield entry, entry.record


def cells_of(entries: Iterable[Entry]) -> Iterator[tuple[Entry, CellRecord]]:
    """Yield the entries that are cells, with their records."""
    return entries_of(entries, CellRecord)


def pretrained_of(entries: Iterable[Entry]) -> Iterator[tuple[Entry, PretrainRecord]]:
    """Yield the entries that are pretrainings, with their records."""
    return entries_of(entries, PretrainRecord)


def pretraining_of(record: SentRecord) -> Pretraining:
    """Return the pretraining that a record is about, or starts from."""
    described = getattr(record, record.kind)
    pretraining: Pretraining = described if isinstance(described, Pretraining) else described.pretraining
    return pretraining


def stage_versions_of(record: SentRecord) -> dict[str, str]:
    """Return the versions of the stages behind a record, by stage."""
    own = {} if isinstance(record, SelectionRecord) else getattr(record, record.kind).versions
    return {**own, **pretraining_of(record).versions}


def plugins_of(record: SentRecord) -> list[tuple[str, PluginRef]]:
    """Return the kind and the reference of each plugin behind a record."""
    described = getattr(record, record.kind)
    methods = [] if isinstance(record, PretrainRecord) else [("method", described.method)]
    return [*references_of(pretraining_of(record)), *methods]
