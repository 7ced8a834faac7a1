"""Standings as the plain data that the page and the tables show: numbers rounded, nothing of this machine."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from mmc_bench.leaderboard.compared_settings import ComparedSetting
from mmc_bench.leaderboard.critical import CriticalDifference
from mmc_bench.leaderboard.inference import DIGITS, Interval
from mmc_bench.leaderboard.overall import Overall
from mmc_bench.leaderboard.protocols import MEANINGS
from mmc_bench.leaderboard.ranked_rows import RankedRow
from mmc_bench.leaderboard.schemas import BoardSettings, VerifiedCell, Versions
from mmc_bench.leaderboard.standings import Standings
from mmc_bench.leaderboard.submissions import Entry, run_of, stage_versions_of
from mmc_bench.results.canonical import canonical_json
from mmc_bench.results.jobs import PROTOCOLS, PUBLISHED, PluginRef
from mmc_bench.results.records import CellRecord
from mmc_bench.results.versions import STAGES

UNKNOWN = "unknown"
#: The protocol to show first, where it has rows: tuned, and without knowledge of the cue.
FAIR = "clean"
#: Trials whose validation accuracies differ by no more could have won for a few images.
CLOSE = 0.01


@dataclass(frozen=True)
class ReRun:
    """A cell that was re-run, and by whom."""

    by: str
    cell: VerifiedCell


def make_payload(
    board: BoardSettings, standings: Standings, versions: Versions, re_runs: Sequence[ReRun]
) -> dict[str, Any]:
    """Return what is shown, as plain data that JSON can hold: fractions, nats, seconds; schema 2.

    `protocols` are those that have rows, with their meanings, and `protocol` is the one to show first. An incomplete
    row's values are all null; so are its barriers where its paths were not measured as the baseline's. `given` are the
    parameters that a method was given in place of its defaults; `tuning` says of a tuned row how others were chosen.
    `standing` is ``"verified"`` where at least one cell of a row was re-run by one of the board's verifiers who did not
    report it, and all that were re-run agree; `verified` names them and how many cells they re-ran. Elsewhere it names
    who re-ran how many, whoever it was, and `disputed` does so where one disagrees.
    """
    verifiers = {name.casefold() for name in board.verifiers}
    by_record: dict[str, list[ReRun]] = {}
    for re_run in re_runs:
        by_record.setdefault(re_run.cell.record, []).append(re_run)
    ids = {setting.key: f"s{number}" for number, setting in enumerate(standings.settings)}
    present = {row.protocol for row in standings.rows}
    return {
        "schema": 2,
        "title": board.title,
        "baseline": board.baseline.partition(":")[2],
        "counted": len(standings.places),
        "fewest_seeds": board.fewest_seeds,
        "notes": list(board.notes),
        "protocols": {protocol: MEANINGS[protocol] for protocol in PROTOCOLS if protocol in present},
        "protocol": FAIR if FAIR in present else PUBLISHED,
        "settings": [_setting(ids[setting.key], setting) for setting in standings.settings],
        "rows": [
            {"id": f"r{number}", "setting": ids[row.setting.key], **_row(row, versions, by_record, verifiers)}
            for number, row in enumerate(standings.rows)
        ],
        "overall": [_overall(method) for method in standings.overall],
        "critical": {
            protocol: _critical(found, len({place.dataset for place in standings.places}))
            for protocol, found in standings.critical.items()
        },
    }


def _setting(name: str, setting: ComparedSetting) -> dict[str, Any]:
    return {
        "id": name,
        "dataset": setting.dataset,
        "note": setting.note,
        "backbone": setting.backbone,
        "cue_rate": setting.cue_rate,
        "classes": setting.num_classes,
        "seeds": list(setting.seeds),
        "counts": setting.counts,
        "tiers": setting.has_tiers,
    }


def _row(
    row: RankedRow, versions: Versions, re_runs: Mapping[str, Sequence[ReRun]], verifiers: Set[str]
) -> dict[str, Any]:
    summary, needs = _said_of(row, versions)
    runs = [run_of(entry) for entry in row.entries]
    return {
        "protocol": row.protocol,
        "method": row.method,
        "note": row.note,
        "summary": summary,
        "needs": needs,
        "tier": row.tier,
        "pretrained": row.is_pretrained,
        "seeds": list(row.seeds),
        "missing": list(row.missing),
        "values": {name: _interval(value) for name, value in row.values.items()},
        "paired": _paired(row),
        "gap": _interval(row.gap),
        "given": _given(row),
        "tuning": _tuning(row),
        **_standing(row, re_runs, verifiers),
        "device": _joined(run.provenance.device for run in runs),
        "precision": _joined(run.provenance.precision for run in runs),
        "versions": _versions(row.entries),
        "curves": _curves(row),
        "records": [entry.file for entry in row.entries],
    }


def _said_of(row: RankedRow, versions: Versions) -> tuple[str, list[str]]:
    """Return a method's summary and what it needs, as its plugin said when its records were added."""
    if row.is_pretrained:
        return "the pretrained model that the methods start from", []
    method = _method_of(row.entries[0])
    known = versions.find("method", method) if method else None
    if known is None or known.needs is None:
        return (known.summary if known else ""), [UNKNOWN]
    return known.summary, ["clean", *sorted(known.needs)]


def _method_of(entry: Entry) -> PluginRef | None:
    return entry.record.cell.method if isinstance(entry.record, CellRecord) else None


def _paired(row: RankedRow) -> dict[str, Any] | None:
    if row.paired is None:
        return None
    return {
        "baseline": row.paired.baseline,
        "difference": _interval(row.paired.difference),
        "seeds": list(row.paired.seeds),
        "same_start": row.paired.same_start,
    }


def _given(row: RankedRow) -> dict[str, str]:
    """Return the parameters that the suite, the command or the method's definition set, before any search."""
    own = [method for entry in row.entries if (method := _method_of(entry))]
    methods = own if row.selection is None else [row.selection.selection.method]
    return {name: str(value) for method in methods for name, value in method.parameters.items()}


def _tuning(row: RankedRow) -> dict[str, Any] | None:
    """Return how a tuned row's parameters were chosen: from what, in how many trials, on which seeds, and which.

    `close` is the number of other sets of parameters whose validation NC accuracy is within `CLOSE` of that of the
    clean winner: trials can have drawn the same.
    """
    if row.selection is None:
        return None
    trials, winners = row.selection.trials, row.selection.winners
    chosen = trials[winners[row.protocol]].parameters
    clean = {
        canonical_json(trial.parameters): trial.validation["NC"].accuracy for trial in trials if trial.diverged is None
    }
    lowest = trials[winners[FAIR]].validation["NC"].accuracy - CLOSE
    return {
        "trials": len(trials),
        "close": sum(round(accuracy - lowest, DIGITS) >= 0 for accuracy in clean.values()) - 1,
        "seeds": list(row.selection.selection.seeds),
        "space": row.selection.space,
        "chosen": {name: str(value) for name, value in chosen.items()},
        "selection": row.selection.key,
    }


def _standing(row: RankedRow, re_runs: Mapping[str, Sequence[ReRun]], verifiers: Set[str]) -> dict[str, Any]:
    """Return who reported a row and who re-ran cells of it, by whom each record was sent in."""
    own = [(entry, re_run) for entry in row.entries for re_run in re_runs.get(entry.file, ())]
    disputed = [re_run for _, re_run in own if not re_run.cell.agrees]
    by_verifiers = [
        re_run
        for entry, re_run in own
        if re_run.by.casefold() in verifiers and re_run.by.casefold() != entry.submission.by.casefold()
    ]
    agreeing = by_verifiers or [re_run for _, re_run in own]
    cells = len(row.entries)
    return {
        "standing": "verified" if by_verifiers and not disputed else "reported",
        "by": _joined(entry.submission.by for entry in row.entries),
        "verified": None if disputed else _re_run_by(agreeing, cells),
        "disputed": _re_run_by(disputed, cells),
    }


def _re_run_by(re_runs: Sequence[ReRun], cells: int) -> dict[str, Any] | None:
    """Return who re-ran how many cells, of how many."""
    if not re_runs:
        return None
    return {"by": _joined(one.by for one in re_runs), "cells": len({one.cell.record for one in re_runs}), "of": cells}


def _versions(entries: Sequence[Entry]) -> dict[str, str]:
    records = [run_of(entry) for entry in entries]
    versions = {"mmc-bench": _joined(record.provenance.mmc_bench for record in records)}
    stages = [stage_versions_of(record) for record in records]
    for name in STAGES:
        if found := [own[name] for own in stages if name in own]:
            versions[f"stage {name}"] = _joined(found)
    for name in sorted({name for record in records for name in record.provenance.packages}):
        versions[name] = _joined(record.provenance.packages.get(name, UNKNOWN) for record in records)
    if methods := [method for entry in entries if (method := _method_of(entry))]:
        versions["plugin"] = _joined(method.version for method in methods)
    return versions


def _curves(row: RankedRow) -> dict[str, Any] | None:
    if not row.curves:
        return None
    splits = {
        split: {"accuracy": [_number(value) for value in accuracy], "loss": [_number(value) for value in loss]}
        for split, (accuracy, loss) in row.curves.items()
    }
    return {"t": [_number(t) for t in row.t], "splits": splits}


def _overall(method: Overall) -> dict[str, Any]:
    mean, half_width = _interval(method.mean) or (None, None)
    return {
        "protocol": method.protocol,
        "tier": method.tier,
        "method": method.method,
        "note": method.note,
        "mean": mean,
        "half_width": half_width,
        "gap": _interval(method.gap),
        "settings": method.settings,
        "missing": list(method.missing),
    }


def _critical(found: CriticalDifference, datasets: int) -> dict[str, Any]:
    return {
        "datasets": datasets,
        "names": list(found.names),
        "ranks": [list(own) for own in found.ranks],
        "average": [_number(rank) for rank in found.average],
        "p_value": _number(found.p_value),
        "difference": _number(found.difference),
        "groups": [list(group) for group in found.groups],
    }


def _interval(value: Interval | None) -> list[float | None] | None:
    if value is None:
        return None
    return [_number(value.mean), None if value.half_width is None else _number(value.half_width)]


def _number(value: float) -> float:
    return round(value, DIGITS) + 0.0  # + 0.0 turns -0.0 into 0.0


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(sorted(set(texts)))
