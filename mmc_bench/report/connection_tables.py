"""The connections between models as text: Markdown, CSV, JSON."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from tabulate import tabulate

from mmc_bench.landscape.barriers import TOLERANCE
from mmc_bench.report.connections import JUDGED, Connection, tally, unpermuted
from mmc_bench.report.curves import PATHS

SHOWN = ("C", "NC")
WORDS = {True: "yes", False: "no", None: "–"}
RULE = (
    f"Linearly connected: along the straight path, or along it after permutation, the loss on {JUDGED} rises at most "
    f"{TOLERANCE:g} nats above the chord between the ends."
)


def render(found: Sequence[Connection], form: str) -> str:
    """Return the table in one of `FORMATS`."""
    return FORMATS[form](found)


def markdown(found: Sequence[Connection]) -> str:
    """Return a table of pairs and one of cells, and how often connected models are similar."""
    blocks = [
        "**Connections.** Barriers are of the loss (nats) on test images: on C, on NC, and the "
        "largest of all splits. Mode connected: on C, on NC, and on every split along this path (mechanistically). "
        f"{RULE}\n"
    ]
    for _, group in groupby(found, key=lambda item: item.kind):
        blocks.append(_table(list(group)) + "\n")
    return "\n".join([*blocks, _counts(found)])


def as_csv(found: Sequence[Connection]) -> str:
    """Return a line for each pair and cell, and one of kind ``count`` for each of the four counts."""
    names = _path_names(found)
    head = ["kind", "first", "second", *(f"{name}_{column}" for name in names for column in _path_columns())]
    head += ["linearly_connected", "similar", "pattern_distance", "count"]
    text = io.StringIO()
    writer = csv.DictWriter(text, head, lineterminator="\n")
    writer.writeheader()
    for item in found:
        paths = {f"{name}_{key}": value for name in item.paths for key, value in _path(item, name).items()}
        writer.writerow({"kind": item.kind, "first": item.first, "second": item.second, **paths, **_verdicts(item)})
    for (connected, similar), count in tally(found).items():
        writer.writerow({"kind": "count", "linearly_connected": connected, "similar": similar, "count": count})
    return text.getvalue()


def as_json(found: Sequence[Connection]) -> str:
    """Return a JSON object: ``connections``, the ``rule`` and ``tolerance`` of the verdicts, and their ``counts``."""
    content = {
        "rule": RULE,
        "tolerance": TOLERANCE,
        "connections": [
            {
                "kind": item.kind,
                "first": item.first,
                "second": item.second,
                "paths": {name: _path(item, name) for name in item.paths},
                **_verdicts(item),
            }
            for item in found
        ],
        "counts": [
            {"linearly_connected": connected, "similar": similar, "count": count}
            for (connected, similar), count in tally(found).items()
        ],
        "not_permuted": unpermuted(found),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Sequence[Connection]], str]] = {"md": markdown, "csv": as_csv, "json": as_json}


def _table(found: Sequence[Connection]) -> str:
    names = _path_names(found)
    headers = ["first", "second"]
    for name in names:
        headers += [f"{PATHS.get(name, name)}: barrier C / NC / largest", "mode connected C / NC / all"]
    headers += ["linearly connected", "similar"]
    has_distance = any(item.pattern_distance is not None for item in found)
    lines = []
    for item in found:
        line = [_cell(item.first), _cell(item.second)]
        for name in names:
            line += _shown(item, name) if name in item.paths else ["–", "–"]
        line += [WORDS[item.linearly_connected], WORDS[item.similar]]
        if has_distance:
            line.append("–" if item.pattern_distance is None else f"{item.pattern_distance:.3f}")
        lines.append(line)
    return _pipes([*headers, *["W1 of patterns"] * has_distance], lines, 2)


def _shown(item: Connection, name: str) -> list[str]:
    path = item.paths[name]
    barriers = (*(path.barriers[split] for split in SHOWN), path.largest)
    connected = (*(path.mode_connected[split] for split in SHOWN), path.mechanistically_connected)
    return [" / ".join(f"{value:.2f}" for value in barriers), " / ".join(WORDS[value] for value in connected)]


def _counts(found: Sequence[Connection]) -> str:
    counts = tally(found)
    lines = [
        [f"**{name}**", str(counts[connected, True]), str(counts[connected, False])]
        for name, connected in (("linearly connected", True), ("not linearly connected", False))
    ]
    left, total = len(found) - sum(counts.values()), sum(counts.values())
    notes = [
        "Conjecture 1 expects none in the lower left, similar though not linearly connected: "
        f"{counts[False, True]} of {total} are there."
    ]
    if untried := unpermuted(found):
        notes.append(f"Of those not connected, {untried} were not tried with a permutation.")
    if left:
        notes.append(f"Left out, for want of invariances or of a straight path: {left}.")
    return _pipes(["", "similar", "dissimilar"], lines, 1) + "\n\n" + " ".join(notes) + "\n"


def _path_names(found: Sequence[Connection]) -> list[str]:
    return list(dict.fromkeys(name for item in found for name in item.paths))


def _path_columns() -> list[str]:
    columns = [f"{column}_{split}" for column in ("barrier", "connected") for split in SHOWN]
    return [*columns, "largest_barrier", "mechanistically_connected"]


def _path(item: Connection, name: str) -> dict[str, Any]:
    path = item.paths[name]
    values = [column[split] for column in (path.barriers, path.mode_connected) for split in SHOWN]
    return dict(zip(_path_columns(), [*values, path.largest, path.mechanistically_connected], strict=True))


def _verdicts(item: Connection) -> dict[str, Any]:
    return {
        "linearly_connected": item.linearly_connected,
        "similar": item.similar,
        "pattern_distance": item.pattern_distance,
    }


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _pipes(headers: Sequence[str], lines: Sequence[Sequence[str]], words: int) -> str:
    alignment = ("left",) * words + ("right",) * (len(headers) - words)
    return tabulate(lines, headers, tablefmt="pipe", disable_numparse=True, colalign=alignment)
