"""A comparison with a published table as text: Markdown, CSV, JSON."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from tabulate import tabulate

from mmc_bench.report.compare import (
    FAILS,
    HOLDS,
    NO_RECORDS,
    Comparison,
    Difference,
    Judgement,
    Measured,
    Setting,
    count,
)
from mmc_bench.report.rows import Statistic
from mmc_bench.results.records import SPLITS

CSV_COLUMNS = (
    *("kind", "dataset", "backbone", "cue_rate", "seeds", "method", "split", "claim", "check"),
    *("ours", "ours_std", "published", "difference", "verdict", "claim_verdict", "published_verdict"),
)


def render(comparison: Comparison, form: str) -> str:
    """Return the comparison in one of `FORMATS`."""
    return FORMATS[form](comparison)


def markdown(comparison: Comparison) -> str:
    """Return a table for each setting, then one for each claim."""
    table = comparison.table
    source = f" ({table.claims.source})" if table.claims else ""
    blocks = [
        f"**Ours against {table.name}**{source}\n\n"
        "Accuracies in per cent, ours as mean ± standard deviation over the seeds. Δ = ours − paper, in points.\n"
    ]
    for setting, group in groupby(comparison.differences, key=lambda difference: difference.setting):
        blocks.append(f"**{_title(setting)}**\n\n{_differences_table(list(group))}\n")
    if not comparison.differences:
        blocks.append(f"No selected record has a number in {table.name}.\n")
    if comparison.missing:
        blocks.append(f"Without a selected record: {_places(comparison.missing)}.\n")
    if table.claims:
        blocks.append(
            "**The claims, checked.** Values in points, with the numbers behind them; in brackets the value of the "
            "paper's own numbers. A claim holds where every check of its row does.\n"
        )
    for claim in table.claims.claims if table.claims else ():
        judgements = comparison.of_claim(claim)
        ours = _tally(count([judgement.verdict for judgement in judgements]))
        theirs = _tally(comparison.published_counts[claim.statement])
        heading = f"**{claim.statement}.** Ours: {ours}. The paper's numbers: {theirs}."
        blocks.append(f"{heading}\n\n{_claim_table(judgements)}\n")
    return "\n".join(blocks)


def as_csv(comparison: Comparison) -> str:
    """Return one flat CSV: a line of kind ``number`` for every number, of kind ``check`` for every check."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for item in comparison.differences:
        writer.writerow(
            {
                "kind": "number",
                **_setting(item.setting),
                "seeds": " ".join(map(str, item.seeds)),
                "method": item.method,
                "split": item.split,
                "ours": item.ours.mean,
                "ours_std": item.ours.std,
                "published": item.published,
                "difference": item.points,
            }
        )
    for judgement in comparison.judgements:
        for ours, theirs in zip(judgement.checks, judgement.published, strict=True):
            writer.writerow(
                {
                    "kind": "check",
                    **_setting(judgement.setting),
                    "seeds": _seeds(judgement.seeds),
                    "claim": judgement.claim.statement,
                    "check": ours.check.text,
                    "ours": ours.value,
                    "published": theirs.value,
                    "difference": ours.less(theirs),
                    "verdict": ours.verdict,
                    "claim_verdict": judgement.verdict,
                    "published_verdict": theirs.verdict if theirs.value is not None else None,
                }
            )
    return text.getvalue()


def as_json(comparison: Comparison) -> str:
    """Return a JSON object: ``numbers``, ``claims`` with their settings and checks, ``without_records``."""
    table = comparison.table
    content = {
        "table": table.name,
        "source": table.claims.source if table.claims else None,
        "unit": "per cent",
        "numbers": [
            {
                **_setting(item.setting),
                "method": item.method,
                "seeds": list(item.seeds),
                "split": item.split,
                "ours": {"mean": item.ours.mean, "std": item.ours.std},
                "published": item.published,
                "difference": item.points,
            }
            for item in comparison.differences
        ],
        "claims": [
            {
                "statement": claim.statement,
                "published_counts": dict(comparison.published_counts[claim.statement]),
                "settings": [_judgement(judgement) for judgement in comparison.of_claim(claim)],
            }
            for claim in (table.claims.claims if table.claims else ())
        ],
        "without_records": [{"dataset": dataset, "cue_rate": cue_rate} for dataset, cue_rate in comparison.missing],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Comparison], str]] = {"md": markdown, "csv": as_csv, "json": as_json}


def _differences_table(differences: Sequence[Difference]) -> str:
    headers = ["method", *(word for split in SPLITS for word in (split, "paper", "Δ")), "seeds"]
    lines = []
    for method, group in groupby(differences, key=lambda difference: difference.method):
        items = {item.split: item for item in group}
        line = [_cell(method)]
        for split in SPLITS:
            item = items.get(split)
            line += [_mean(item.ours), str(item.published), _signed(item.points)] if item else ["–"] * 3
        lines.append([*line, " ".join(map(str, next(iter(items.values())).seeds))])
    return _pipes(headers, lines)


def _claim_table(judgements: Sequence[Judgement]) -> str:
    checks = [check.text for check in judgements[0].claim.checks]
    headers = ["dataset", "backbone", "cue rate", "seeds", *checks, "verdict", "paper"]
    lines = []
    for judgement in judgements:
        setting = judgement.setting
        place = [_cell(setting.dataset), _cell(setting.backbone), f"{setting.cue_rate:g}", _seeds(judgement.seeds)]
        values = [_value(*pair) for pair in zip(judgement.checks, judgement.published, strict=True)]
        verdict = f"**{FAILS}**" if judgement.verdict == FAILS else judgement.verdict
        lines.append([*place, *values, verdict, judgement.published_verdict or "–"])
    return _pipes(headers, lines)


def _value(ours: Measured, theirs: Measured) -> str:
    """Return ``"54.0 − 49.0 = +5.0 (-2.6)"``: the numbers, their difference, and the paper's difference."""
    form = _signed if ours.check.difference else "{:.1f}".format
    text = "–"
    if ours.value is not None:
        numbers = " − ".join(f"{number:.1f}" for number in ours.numbers.values())
        text = f"{numbers} = {_signed(ours.value)}" if ours.check.difference else numbers
        text = f"**{text}**" if ours.verdict == FAILS else text
    return text if theirs.value is None else f"{text} ({form(theirs.value)})"


def _judgement(judgement: Judgement) -> dict[str, Any]:
    return {
        **_setting(judgement.setting),
        "seeds": {method: list(seeds) for method, seeds in judgement.seeds.items()},
        "verdict": judgement.verdict,
        "published_verdict": judgement.published_verdict,
        "checks": [
            {
                "check": ours.check.text,
                **ours.check.bound,
                "numbers": dict(ours.numbers),
                "value": ours.value,
                "verdict": ours.verdict,
                "published_numbers": dict(theirs.numbers),
                "published_value": theirs.value,
            }
            for ours, theirs in zip(judgement.checks, judgement.published, strict=True)
        ],
    }


def _setting(setting: Setting) -> dict[str, Any]:
    return {"dataset": setting.dataset, "backbone": setting.backbone, "cue_rate": setting.cue_rate}


def _title(setting: Setting) -> str:
    return f"{_cell(setting.dataset)} · {_cell(setting.backbone)} · cue rate {setting.cue_rate:g}"


def _seeds(seeds: Mapping[str, tuple[int, ...]]) -> str:
    """Return the seeds behind a check, method by method where they differ."""
    words = {method: " ".join(map(str, own)) for method, own in seeds.items()}
    if len(set(words.values())) <= 1:
        return next(iter(words.values()), "–")
    return ", ".join(f"{method}: {own}" for method, own in words.items())


def _tally(counts: Mapping[str, int]) -> str:
    """Return ``"holds in 3 of 4 settings (2 more without records)"``."""
    judged, left = counts[HOLDS] + counts[FAILS], counts[NO_RECORDS]
    if not judged:
        return NO_RECORDS
    settings = f"{judged} setting{'s' * (judged != 1)}"
    return f"holds in {counts[HOLDS]} of {settings}" + (f" ({left} more without records)" if left else "")


def _places(places: Sequence[tuple[str, float]]) -> str:
    rates: dict[str, list[str]] = {}
    for dataset, cue_rate in places:
        rates.setdefault(dataset, []).append(f"{cue_rate:g}")
    return "; ".join(f"{dataset} at {', '.join(own)}" for dataset, own in rates.items())


def _mean(value: Statistic) -> str:
    return f"{value.mean:.1f}" if value.std is None else f"{value.mean:.1f} ± {value.std:.1f}"


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}"  # + 0.0 turns -0.0 into 0.0


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _pipes(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    words = sum(header in {"method", "dataset", "backbone"} for header in headers)
    alignment = ("left",) * words + ("right",) * (len(headers) - words)
    return tabulate(lines, headers, tablefmt="pipe", disable_numparse=True, colalign=alignment)
