"""Adding a run's records to the leaderboard: valid ones, of known or installed versions, and none twice."""

import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import ValidationError

from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.leaderboard.checks import disagreements, duplicates, entry_problems, identity
from mmc_bench.leaderboard.protocols import place_of, places_of
from mmc_bench.leaderboard.schemas import KnownVersion, Submission, Versions, as_yaml, plugin_name
from mmc_bench.leaderboard.selection_checks import selection_problems
from mmc_bench.leaderboard.submissions import (
    CHECKSUMS,
    RESULTS,
    SUBMISSION,
    VERSIONS,
    Board,
    Entry,
    cell_of,
    cells_of,
    entries_of,
    manifest,
    parse_record,
    plugins_of,
    pretrained_of,
    read_entries,
    sha256_of,
    stage_versions_of,
)
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.records import TrialRecord
from mmc_bench.results.selections import SelectionRecord
from mmc_bench.results.versions import version_of_stage
from mmc_bench.system.files import is_intact, read_whole, temporary_name, write_whole
from mmc_bench.system.validation import first_problem

MOST_SHOWN = 5
#: Stands for the submission's folder, whose name is not known yet; no submission is called so.
NEW = f"{RESULTS}/+/"


@dataclass(frozen=True)
class Added:
    """What was added: the submission's folder, its records, and the versions that were unknown before."""

    folder: Path
    cells: int
    pretrainings: int
    selections: int
    trials: int
    methods: tuple[str, ...]
    already_there: int
    new_versions: tuple[str, ...]


def add(
    board: Board, results: Path, registry: Registry, by: str, day: date, note: str = "", methods: Sequence[str] = ()
) -> Added:
    """Take the cells of a results folder into a new submission, with all that they rest on; all of it, or nothing.

    That is their pretrainings, and the selections and trials that the parameters of tuned methods come from.

    Cells that are on the leaderboard already are left out; one that is there in another version is refused.

    Parameters
    ----------
    registry
        The installed plugins: a version that is not known yet must be one of theirs.
    methods
        Take only cells of methods that match one of these globs; all where there is none.

    Raises
    ------
    UserError
        When a record is not valid, lacks its pretraining, comes from a version that is neither known nor installed, is
        there twice or in another version, or contradicts another; the message names the files.
    NothingSelectedError
        When there is nothing to take.
    """
    try:
        submission = Submission(by=by, date=day, note=note)
    except ValidationError as error:
        raise UserError(f"a submission's {first_problem(error)}") from None
    on_board, _ = read_entries(board)
    known = {record.key for _, record in cells_of(on_board)}
    cells = list(_cells(results, submission, methods))
    new = [entry for entry in cells if entry.record.key not in known]
    _refuse(results, list(_in_other_versions(on_board, new)))
    had = {record.key for _, record in entries_of(on_board, SelectionRecord)}
    selections = [entry for entry in _selections(results, submission, cells) if entry.record.key not in had]
    if not new and not selections:
        what = f"all {len(cells)} cells are on the leaderboard already" if cells else "no cell is selected"
        raise NothingSelectedError(f"nothing in {results} to take in: {what}")
    runs = [*_trials(results, submission, selections), *new]
    entries = [*_pretrainings(results, submission, runs), *selections, *runs]
    everything = [*on_board, *entries]
    problems = [*entry_problems(everything, board.settings), *duplicates(entries)]
    problems += [*disagreements(everything, board.settings), *selection_problems(everything, board.settings)]
    _refuse(results, [f"{one.file} {one.reason}" for one in problems if NEW in f"{one.file} {one.reason}"])
    versions, added = _versions(board.versions, entries, registry, results)
    folder = _write(board, submission, entries, results, versions if added else None)
    return Added(
        folder=folder,
        cells=len(new),
        pretrainings=sum(1 for _ in pretrained_of(entries)),
        selections=len(selections),
        trials=sum(1 for _ in entries_of(entries, TrialRecord)),
        methods=tuple(sorted({cell_of(entry).cell.method.name for entry in new})),
        already_there=len(cells) - len(new),
        new_versions=added,
    )


def _cells(results: Path, submission: Submission, methods: Sequence[str]) -> Iterator[Entry]:
    """Yield the selected cells of a results folder; refuse the folder when a record of it is not valid."""
    for entry in _read(results, submission, _files(results, "cells")):
        name = cell_of(entry).cell.method.name
        if not methods or any(fnmatchcase(name, pattern) for pattern in methods):
            yield entry


def _files(results: Path, folder: str) -> list[str]:
    """Return the records' files in a part of a results folder."""
    names = sorted(path.name for path in (results / folder).glob("*.json"))
    return [f"{folder}/{name}" for name in names if not name.endswith(".failure.json")]


def _read(results: Path, submission: Submission, files: Iterable[str]) -> list[Entry]:
    """Return the records in files; refuse the folder when one is not valid."""
    problems, entries = [], []
    for file in files:
        try:
            entries.append(_entry(results, file, submission))
        except ValueError as error:
            problems.append(f"{file} {error}")
    _refuse(results, problems)
    return entries


def _selections(results: Path, submission: Submission, cells: Sequence[Entry]) -> list[Entry]:
    """Return the selections of the methods of cells, in their settings; one that is missing is reported later."""
    named = {cell_of(entry).cell.selection for entry in cells}
    places = {place_of(cell_of(entry).cell) for entry in cells}
    found = _read(results, submission, _files(results, "selections"))
    return [
        entry
        for entry, record in entries_of(found, SelectionRecord)
        if record.key in named or not places.isdisjoint(places_of(record))
    ]


def _trials(results: Path, submission: Submission, entries: Sequence[Entry]) -> list[Entry]:
    """Return the trials behind selections; one that is missing is reported with its selection, later."""
    keys = {key for _, record in entries_of(entries, SelectionRecord) for own in record.selection.trials for key in own}
    files = [f"trials/{key}.json" for key in sorted(keys)]
    return _read(results, submission, [file for file in files if (results / file).is_file()])


def _in_other_versions(on_board: Iterable[Entry], cells: Iterable[Entry]) -> Iterator[str]:
    """Yield what is wrong with cells that are on the leaderboard under another key."""
    there = {identity(record): entry for entry, record in cells_of(on_board)}
    for entry in cells:
        other = there.get(identity(cell_of(entry)))
        if other is not None:
            yield (
                f"{_inner(entry)} is on the leaderboard in another version or measured along other paths: to replace "
                f"it, delete the submission {RESULTS}/{other.folder} first"
            )


def _pretrainings(results: Path, submission: Submission, entries: Sequence[Entry]) -> list[Entry]:
    """Return the pretrainings that cells and trials start from; one that is missing is reported with them, later."""
    keys = {record.pretraining_key for _, record in cells_of(entries)}
    keys |= {record.pretraining_key for _, record in entries_of(entries, TrialRecord)}
    files = [f"pretrained/{key}.json" for key in sorted(keys)]
    return _read(results, submission, [file for file in files if (results / file).is_file()])


def _entry(results: Path, file: str, submission: Submission) -> Entry:
    try:
        content = read_whole(results / file)
    except OSError as error:
        raise UserError(f"{results / file} cannot be read: {error.strerror}") from None
    if not re.fullmatch(r"\w+/[0-9a-f]{64}\.json", file):
        raise ValueError("is not named as a record is")
    record = parse_record(file, content)
    if is_intact(content) is False:
        raise ValueError("does not match its own checksum")
    return Entry(f"{NEW}{file}", sha256_of(content), submission, record)


def _inner(entry: Entry) -> str:
    return entry.file.split("/", 2)[2]


def _refuse(results: Path, problems: Sequence[str]) -> None:
    if problems:
        shown = "; ".join(problem.replace(NEW, "") for problem in problems[:MOST_SHOWN])
        more = f"; and {len(problems) - MOST_SHOWN} more" if len(problems) > MOST_SHOWN else ""
        among_themselves = any(problem.count(NEW) > 1 for problem in problems)
        hint = "; records of several runs contradict each other: run what you send in into a --results of its own"
        raise UserError(f"nothing of {results} was taken in: {shown}{more}{hint if among_themselves else ''}")


def _versions(
    known: Versions, entries: Iterable[Entry], registry: Registry, results: Path
) -> tuple[Versions, tuple[str, ...]]:
    """Return the known versions and the installed ones that the records come from; refuse all others."""
    stages: dict[str, set[str]] = defaultdict(set)
    plugins: dict[str, dict[str, KnownVersion]] = defaultdict(dict)
    unknown: dict[str, str] = {}
    for entry in entries:
        for stage, version in stage_versions_of(entry.record).items():
            if version not in known.stages.get(stage, ()):
                stages[stage].add(version)
                if version != version_of_stage(stage):
                    unknown[f"{stage} {version}"] = f"installed is {version_of_stage(stage)}"
        for kind, plugin in plugins_of(entry.record):
            name = plugin_name(kind, plugin)
            if known.find(kind, plugin) is None and plugin.version not in plugins[name]:
                found = _at_hand(registry, kind, f"{plugin.distribution}:{plugin.name}")
                if found and found[0] == plugin.version:
                    plugins[name][plugin.version] = found[1]()
                else:
                    unknown[f"{name} {plugin.version}"] = f"installed is {found[0]}" if found else "not installed"
    if unknown:
        shown = "; ".join(f"{name} ({why})" for name, why in sorted(unknown.items())[:MOST_SHOWN])
        raise UserError(
            f"nothing of {results} was taken in: its records come from versions that are neither known to the "
            f"leaderboard nor at hand: {shown}; install them, or run anew into another --results"
        )
    plugins = {name: own for name, own in plugins.items() if own}
    added = [f"{stage} {version}" for stage, own in stages.items() for version in own]
    added += [f"{name} {version}" for name, own in plugins.items() for version in own]
    return known.including(stages, plugins), tuple(sorted(added))


def _at_hand(registry: Registry, kind: str, name: str) -> tuple[str, Callable[[], KnownVersion]] | None:
    """Return the version of an installed plugin, and what makes its entry."""
    try:
        offer = registry.get(kind, name)
    except UserError:
        return None
    needs = tuple(sorted(offer.spec.needs)) if kind == "method" else None
    return offer.version, lambda: KnownVersion(summary=offer.spec.summary, needs=needs)


def _write(
    board: Board, submission: Submission, entries: Sequence[Entry], results: Path, versions: Versions | None
) -> Path:
    """Write a submission beside its place, then put it there by one rename; versions first, which alone do no harm.

    What a killed process leaves has a name that `Board.sweep` knows.
    """
    root = board.root / RESULTS
    stage = temporary_name(root / "new")
    try:
        root.mkdir(parents=True, exist_ok=True)
        stage.mkdir()
        contents = {SUBMISSION: as_yaml(submission), **{_inner(e): (results / _inner(e)).read_bytes() for e in entries}}
        for file, content in contents.items():
            (stage / file).parent.mkdir(exist_ok=True)
            (stage / file).write_bytes(content)
        (stage / CHECKSUMS).write_bytes(manifest({file: sha256_of(content) for file, content in contents.items()}))
        if versions is not None:
            write_whole(board.root / VERSIONS, as_yaml(versions))
        return stage.rename(_free_name(root, submission))
    except OSError as error:
        raise UserError(f"{root} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _free_name(root: Path, submission: Submission) -> Path:
    """Return a folder that is not there yet, named after the day and who sends it in."""
    person = re.sub(r"[^a-z0-9]+", "-", submission.by.lower()).strip("-")[:40] or "anonymous"
    name = f"{submission.date.isoformat()}-{person}"
    tried, number = root / name, 1
    while tried.exists():
        number += 1
        tried = root / f"{name}-{number}"
    return tried
