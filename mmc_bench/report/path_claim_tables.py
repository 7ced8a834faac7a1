"""Verdicts on claims on paths as text: Markdown, CSV, JSON."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from tabulate import tabulate

from mmc_bench.report.compare import FAILS, HOLDS, NO_RECORDS, Measured
from mmc_bench.report.path_claims import DIFFERING, PathClaim, PathClaims, PathJudgement, PathSetting

CSV_COLUMNS = (
    *("claim", "dataset", "backbone", "cue_rate", "second", "seeds"),
    *("check", "value", "verdict", "claim_verdict"),
)


def render(name: str, claims: PathClaims, judgements: Sequence[PathJudgement], form: str) -> str:
    """Return the verdicts in one of `FORMATS`."""
    return FORMATS[form](name, claims, judgements)


def markdown(name: str, claims: PathClaims, judgements: Sequence[PathJudgement]) -> str:
    """Return a table for each claim, a row for each setting."""
    blocks = [
        f"**Our records against {name}** ({claims.source})\n\n"
        "Drops and barriers in points of accuracy, loss barriers in nats, as means over the seeds. A claim holds "
        "where every check of its row does.\n"
    ]
    for claim in claims.claims:
        own = _of(claim, judgements)
        blocks.append(f"**{claim.statement}.** {_tally(own)}.\n")
        if own:
            blocks.append(_table(claim, own) + "\n")
    return "\n".join(blocks)


def as_csv(name: str, claims: PathClaims, judgements: Sequence[PathJudgement]) -> str:
    """Return a line for every check in every setting; a claim without any has one line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for claim in claims.claims:
        own = _of(claim, judgements)
        if not own:
            writer.writerow({"claim": claim.statement, "claim_verdict": NO_RECORDS})
        for judgement in own:
            place = {**_setting(judgement.setting), "seeds": " ".join(judgement.setting.seeds)}
            for done in judgement.checks:
                checked = {"check": done.check.text, "value": done.value, "verdict": done.verdict}
                writer.writerow(
                    {"claim": claim.statement, **place, **checked, "claim_verdict": judgement.verdict},
                )
    return text.getvalue()


def as_json(name: str, claims: PathClaims, judgements: Sequence[PathJudgement]) -> str:
    """Return a JSON object: ``claims``, each with its settings and their checks."""
    content = {
        "table": name,
        "source": claims.source,
        "claims": [
            {
                "statement": claim.statement,
                "counts": _counts(_of(claim, judgements)),
                "settings": [_as_data(judgement) for judgement in _of(claim, judgements)],
            }
            for claim in claims.claims
        ],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[str, PathClaims, Sequence[PathJudgement]], str]] = {
    "md": markdown,
    "csv": as_csv,
    "json": as_json,
}


def _of(claim: PathClaim, judgements: Sequence[PathJudgement]) -> list[PathJudgement]:
    return [judgement for judgement in judgements if judgement.claim == claim]


def _table(claim: PathClaim, judgements: Sequence[PathJudgement]) -> str:
    has_second = any(judgement.setting.second for judgement in judgements)
    places = ["dataset", "backbone", *["second model"] * has_second]
    headers = [*places, "cue rate", "seeds", *(check.text for check in claim.checks), "verdict"]
    lines = []
    for judgement in judgements:
        setting = judgement.setting
        words = [setting.dataset, setting.backbone, *[setting.second] * has_second]
        verdict = f"**{FAILS}**" if judgement.verdict == FAILS else judgement.verdict
        lines.append(
            [
                *(" ".join(word.split()).replace("|", r"\|") for word in words),
                f"{setting.cue_rate:g}",
                " ".join(setting.seeds),
                *(_value(done) for done in judgement.checks),
                verdict,
            ]
        )
    alignment = ("left",) * len(places) + ("right",) * (len(headers) - len(places))
    return tabulate(lines, headers, tablefmt="pipe", disable_numparse=True, colalign=alignment)


def _value(done: Measured) -> str:
    if done.value is None:
        return "–"
    quantity = done.check.quantities[0]
    form = ".3f" if quantity.startswith("loss") else "g" if quantity.startswith(DIFFERING) else ".1f"
    text = format(done.value, form)
    return f"**{text}**" if done.verdict == FAILS else text


def _tally(judgements: Sequence[PathJudgement]) -> str:
    """Return ``"Holds in 3 of 4 settings (1 more without records)"``."""
    counts = _counts(judgements)
    judged = counts[HOLDS] + counts[FAILS]
    if not judged:
        return NO_RECORDS.capitalize()
    left = f" ({counts[NO_RECORDS]} more without records)" if counts[NO_RECORDS] else ""
    return f"Holds in {counts[HOLDS]} of {judged} setting{'s' * (judged != 1)}{left}"


def _counts(judgements: Sequence[PathJudgement]) -> dict[str, int]:
    verdicts = [judgement.verdict for judgement in judgements]
    return {verdict: verdicts.count(verdict) for verdict in (HOLDS, FAILS, NO_RECORDS)}


def _as_data(judgement: PathJudgement) -> dict[str, Any]:
    return {
        **_setting(judgement.setting),
        "seeds": list(judgement.setting.seeds),
        "verdict": judgement.verdict,
        "checks": [
            {
                "check": done.check.text,
                **done.check.bound,
                "numbers": dict(done.numbers),
                "value": done.value,
                "verdict": done.verdict,
            }
            for done in judgement.checks
        ],
    }


def _setting(setting: PathSetting) -> dict[str, Any]:
    return {
        "dataset": setting.dataset,
        "backbone": setting.backbone,
        "cue_rate": setting.cue_rate,
        "second": setting.second,
    }
