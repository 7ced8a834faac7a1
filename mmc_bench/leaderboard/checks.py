"""Checking a leaderboard: what lies in its folders, and whether the records can all be true."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmc_bench.leaderboard.compared_settings import setting_key
from mmc_bench.leaderboard.record_checks import problems_of_cell, problems_of_pretraining, problems_of_trial
from mmc_bench.leaderboard.schemas import BoardSettings, Verification, Versions, plugin_name
from mmc_bench.leaderboard.selection_checks import selection_problems
from mmc_bench.leaderboard.submissions import (
    CHECKSUMS,
    GENERATED,
    RECORD_NAME,
    RESULTS,
    SETTINGS,
    SUBMISSION,
    SUBMISSION_NAME,
    VERIFICATIONS,
    VERSIONS,
    Board,
    Entry,
    Problem,
    cells_of,
    entries_of,
    plugins_of,
    pretrained_of,
    pretraining_of,
    read_entries,
    read_manifest,
    read_verifications,
    sha256_of,
    stage_versions_of,
    was_left,
)
from mmc_bench.results.canonical import canonical_json
from mmc_bench.results.jobs import Pretraining
from mmc_bench.results.metrics import SPLITS
from mmc_bench.results.records import CellRecord, PretrainRecord, TrialRecord
from mmc_bench.results.selections import SelectionRecord

WEIGHTS = frozenset({".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz", ".npy", ".pkl", ".h5", ".onnx"})


@dataclass(frozen=True)
class Inspection:
    """Everything that was sent in and is readable, and all that is wrong with a leaderboard's folder."""

    entries: tuple[Entry, ...]
    verifications: Mapping[str, Verification]
    problems: tuple[Problem, ...]


def inspect(board: Board) -> Inspection:
    """Read and check a leaderboard, but for the files that are generated from it."""
    entries, problems = read_entries(board)
    verifications, bad_verifications = read_verifications(board)
    problems += bad_verifications
    problems += _foreign_files(board.root)
    problems += _manifest_problems(board, entries)
    problems += entry_problems(entries, board.settings)
    problems += _version_problems(entries, board.versions)
    problems += duplicates(entries)
    problems += disagreements(entries, board.settings)
    problems += selection_problems(entries, board.settings)
    problems += _verification_problems(verifications, entries, board.settings)
    return Inspection(tuple(entries), verifications, tuple(sorted(set(problems))))


def entry_problems(entries: Sequence[Entry], settings: BoardSettings) -> Iterator[Problem]:
    """Yield what is wrong with records by themselves and beside those of their submission that they rest on."""
    before = {(entry.folder, record.key): record for entry, record in pretrained_of(entries)}
    used = {(entry.folder, record.pretraining_key) for entry, record in cells_of(entries)}
    used |= {(entry.folder, record.pretraining_key) for entry, record in entries_of(entries, TrialRecord)}
    classes: dict[str, tuple[int, str]] = {}
    for entry in entries:
        record, p = entry.record, pretraining_of(entry.record)
        images = _test_images(p, settings)
        if isinstance(record, SelectionRecord):
            continue  # `selection_problems` reads it beside its trials
        if isinstance(record, PretrainRecord):
            reasons = list(problems_of_pretraining(record, images))
            if (entry.folder, record.key) not in used:
                reasons.append("is the pretraining of no cell and no trial of its submission")
        else:
            start = before.get((entry.folder, record.pretraining_key))
            own = (
                problems_of_cell(record, start, images) if isinstance(record, CellRecord) else problems_of_trial(record)
            )
            reasons = [*own, *_problems_of_start(record, start)]
        number, other = classes.setdefault(setting_key(p), (record.num_classes, entry.file))
        if number != record.num_classes:
            reasons.append(f"says {record.num_classes} classes where {other} says {number}")
        yield from (Problem(entry.file, reason) for reason in reasons)


def _test_images(pretraining: Pretraining, settings: BoardSettings) -> int | None:
    """Return how many test images a pretraining is scored on, where it is known."""
    known = settings.test_images.get(pretraining.dataset.name)
    if known is None or not set(pretraining.images.values()) <= {"original"}:
        return None
    return min(known, pretraining.data.test_images or known)


def _problems_of_start(record: CellRecord | TrialRecord, start: PretrainRecord | None) -> Iterator[str]:
    if start is None:
        yield f"lacks the record of its pretraining, pretrained/{record.pretraining_key}.json"
    elif start.weights_sha256 != record.pretrained_sha256:
        yield "was made from other pretrained weights than its pretraining's record names"


def identity(record: CellRecord) -> str:
    """Return what identifies a cell: place, method, parameters in force and seed, whatever the versions."""
    method = record.cell.method
    place = setting_key(record.cell.pretraining)
    return canonical_json([place, record.cell.pretraining.seed, method.distribution, method.name, record.parameters])


def duplicates(entries: Iterable[Entry]) -> Iterator[Problem]:
    """Yield cells that are there twice: under one key, or as one cell in other versions."""
    keys: dict[str, Entry] = {}
    identities: dict[str, Entry] = {}
    for entry, record in cells_of(entries):
        first = keys.setdefault(record.key, entry)
        if first is not entry:
            yield Problem(entry.file, f"is of the same key as {first.file}: {record.cell.label}")
            continue
        first = identities.setdefault(identity(record), entry)
        if first is not entry:
            yield Problem(entry.file, f"is the same cell as {first.file}: {record.cell.label}")


def disagreements(entries: Sequence[Entry], settings: BoardSettings) -> Iterator[Problem]:
    """Yield records that contradict earlier ones: in what a version makes of parameters, or in a model's scores."""
    in_force: dict[str, tuple[Entry, str]] = {}
    for entry, record in cells_of(entries):
        parameters = canonical_json(record.parameters)
        first, others = in_force.setdefault(canonical_json(record.cell.method.content()), (entry, parameters))
        if parameters != others:
            yield Problem(entry.file, f"has other parameters in force than {first.file}, of the same version and given")
    trained: dict[str, tuple[Entry, PretrainRecord]] = {}
    tolerance = settings.tolerances.same_code
    for entry, model in pretrained_of(entries):
        first, other = trained.setdefault(model.key, (entry, model))
        difference = max(abs(_accuracy(model, split) - _accuracy(other, split)) for split in SPLITS)
        if not within(difference, tolerance):
            what = f"is {difference:.3g} off in accuracy from {first.file}, which is the same pretraining"
            yield Problem(entry.file, f"{what}; they may lie {tolerance:g} apart")


def _accuracy(record: PretrainRecord, split: str) -> float:
    accuracy: float = getattr(record.metrics, split).accuracy
    return accuracy


def _version_problems(entries: Iterable[Entry], versions: Versions) -> Iterator[Problem]:
    for entry in entries:
        for stage, version in stage_versions_of(entry.record).items():
            if version not in versions.stages.get(stage, ()):
                yield Problem(entry.file, f"comes from an unknown version of {stage}, {version}")
        for kind, plugin in plugins_of(entry.record):
            if versions.find(kind, plugin) is None:
                yield Problem(
                    entry.file, f"comes from an unknown version of {plugin_name(kind, plugin)}, {plugin.version}"
                )


def _foreign_files(root: Path) -> Iterator[Problem]:
    """Yield the files and links in a leaderboard's folder that are none of its own and belong to no submission."""
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        if here == root:
            folders[:] = [name for name in folders if name != ".git"]  # a leaderboard may be a repository of its own
        for name in [*files, *(name for name in folders if (here / name).is_symlink())]:
            file = (here / name).relative_to(root).as_posix()
            if (here / name).is_symlink() or not _belongs(file):
                yield Problem(file, _why_foreign(file))


def _why_foreign(file: str) -> str:
    if was_left(file):
        left = "was left by a command that was killed, or is being written by one that runs"
        return f"{left}: mmc-bench leaderboard build removes it; where it cannot tell which, delete it"
    weights = Path(file).suffix.lower() in WEIGHTS
    what = "weights do not belong here" if weights else "a file that does not belong here"
    return f"{what}: only records, their {SUBMISSION} and {CHECKSUMS} do"


def _belongs(file: str) -> bool:
    part, *below = file.split("/")
    if not below:
        return part in (SETTINGS, VERSIONS, *GENERATED)
    if below == [".gitkeep"]:
        return part in (RESULTS, VERIFICATIONS)
    if part == VERIFICATIONS:
        return len(below) == 1 and below[0].endswith(".yaml")
    if part != RESULTS or not SUBMISSION_NAME.fullmatch(below[0]):
        return False
    inner = "/".join(below[1:])
    return inner in (SUBMISSION, CHECKSUMS) or RECORD_NAME.fullmatch(inner) is not None


def _manifest_problems(board: Board, entries: Iterable[Entry]) -> Iterator[Problem]:
    digests = {entry.file: entry.sha256 for entry in entries}
    for folder in board.submission_folders:
        name = f"{RESULTS}/{folder.name}"
        try:
            listed = read_manifest(folder / CHECKSUMS)
        except ValueError as error:
            yield Problem(f"{name}/{CHECKSUMS}", str(error))
            continue
        files = {path.relative_to(folder).as_posix() for path in folder.glob("*/*.json")} | {SUBMISSION}
        for file in sorted(files | listed.keys()):
            path = folder / file
            if file not in listed:
                yield Problem(f"{name}/{file}", f"is not listed in {CHECKSUMS}")
            elif file not in files or not path.is_file():
                yield Problem(f"{name}/{file}", f"is listed in {CHECKSUMS} and is not there")
            elif listed[file] != (digests.get(f"{name}/{file}") or sha256_of(path.read_bytes())):
                yield Problem(f"{name}/{file}", _how_changed(path, listed[file]))


def _how_changed(path: Path, checksum: str) -> str:
    if sha256_of(path.read_bytes().replace(b"\r\n", b"\n")) == checksum:
        return "has other line ends than it was sent in with: write `* -text` into .gitattributes and clone it again"
    return f"was changed since it was sent in: {CHECKSUMS} has another checksum"


def _verification_problems(
    verifications: Mapping[str, Verification], entries: Iterable[Entry], settings: BoardSettings
) -> Iterator[Problem]:
    cells = {entry.file: (entry, record) for entry, record in cells_of(entries)}
    tolerances = settings.tolerances
    widest = max(tolerances.same_machine, tolerances.same_code, tolerances.other)
    for file, verification in verifications.items():
        for cell in verification.cells:
            entry, record = cells.get(cell.record, (None, None))
            if entry is None or record is None:
                yield Problem(file, f"names {cell.record}, which is not there")
            elif entry.sha256 != cell.sha256:
                yield Problem(file, f"is about another content of {cell.record}")
            elif cell.reported != {split: getattr(record.metrics, split).accuracy for split in SPLITS}:
                yield Problem(file, f"says other accuracies than {cell.record}")
            elif cell.found.keys() != cell.reported.keys():
                yield Problem(file, f"lacks an accuracy for {cell.record}")
            elif cell.agrees != within(cell.difference, cell.tolerance):
                yield Problem(file, f"has a verdict on {cell.record} that does not follow from its accuracies")
            elif cell.tolerance > widest:
                yield Problem(
                    file, f"grants {cell.record} a tolerance of {cell.tolerance}, more than the leaderboard's"
                )


def within(difference: float, tolerance: float) -> bool:
    """Tell whether accuracies that lie so far apart agree; rounding of their decimal notation is let through."""
    return difference <= tolerance or math.isclose(difference, tolerance, abs_tol=1e-9)
