"""Verdicts on claims in reports: a table for each claim, flat lines for CSV, plain data for JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmc_bench.report.claims import (
    DIFFERING,
    FAILS,
    HOLDS,
    NO_RECORDS,
    Claims,
    JudgedSetting,
    Judgement,
    Measured,
    PublishedClaim,
    count,
)
from mmc_bench.report.tables import ABSENT, Report, Table, rounded

PLACE = ("dataset", "backbone", "cue_rate", "second", "seeds")
COLUMNS = ("claim", *PLACE, "check", "ours", "verdict", "claim_verdict")

PublishedCounts = Mapping[str, Mapping[str, int]]


def render(name: str, claims: Claims, judgements: Sequence[Judgement], form: str) -> str:
    """Return the verdicts on a file of claims in one of `mmc_bench.report.tables.FORMATS`."""
    intro = (
        f"**Our records against {name}** ({claims.source})\n\n"
        "Accuracies in per cent, drops and barriers in points of accuracy, loss barriers in nats, as means over the "
        "seeds. A claim holds where every check of its row does."
    )
    return Report(
        blocks=[intro, *claim_blocks(claims.claims, judgements)],
        columns=COLUMNS,
        lines=[{name: line.get(name) for name in COLUMNS} for line in claim_lines(claims.claims, judgements)],
        content={"table": name, "source": claims.source, "claims": claim_content(claims.claims, judgements)},
    ).render(form)


def claim_blocks(
    claims: Sequence[PublishedClaim], judgements: Sequence[Judgement], published: PublishedCounts | None = None
) -> Iterator[str | Table]:
    """Yield for each claim its verdicts in a sentence, and a table with a row for each setting.

    Parameters
    ----------
    published
        How often each claim, by its statement, holds of the published numbers.
    """
    for claim in claims:
        own = _of(claim, judgements)
        tally = _tally(_counts(own))
        if published is None:
            yield f"**{claim.statement}.** {tally[0].upper()}{tally[1:]}."
        else:
            theirs = _tally(published[claim.statement])
            yield f"**{claim.statement}.** Ours: {tally}. The paper's numbers: {theirs}."
        if own:
            yield _table(claim, own)


def claim_lines(claims: Sequence[PublishedClaim], judgements: Sequence[Judgement]) -> Iterator[dict[str, Any]]:
    """Yield a flat line for every check in every setting; a claim without any has one line."""
    for claim in claims:
        own = _of(claim, judgements)
        if not own:
            yield {"claim": claim.statement, "claim_verdict": NO_RECORDS}
        for judgement in own:
            for ours, theirs in zip(judgement.checks, _published(judgement), strict=True):
                published = theirs.value if theirs else None
                yield {
                    "claim": claim.statement,
                    **setting_content(judgement.setting),
                    "seeds": _seeds(judgement.seeds),
                    "check": ours.check.text,
                    "ours": ours.value,
                    "published": published,
                    "difference": None if ours.value is None or published is None else ours.value - published,
                    "verdict": ours.verdict,
                    "claim_verdict": judgement.verdict,
                    "published_verdict": theirs.verdict if theirs and published is not None else None,
                }


def claim_content(
    claims: Sequence[PublishedClaim], judgements: Sequence[Judgement], published: PublishedCounts | None = None
) -> list[dict[str, Any]]:
    """Return the claims as plain data: each with its counts, and its settings with their checks."""
    return [
        {
            "statement": claim.statement,
            "counts": _counts(_of(claim, judgements)),
            **({} if published is None else {"published_counts": dict(published[claim.statement])}),
            "settings": [_judgement_content(judgement) for judgement in _of(claim, judgements)],
        }
        for claim in claims
    ]


def setting_content(setting: JudgedSetting) -> dict[str, Any]:
    """Return a setting as plain data; the second model is that of a pair."""
    second = {"second": setting.second} if setting.second else {}
    return {"dataset": setting.dataset, "backbone": setting.backbone, "cue_rate": setting.cue_rate, **second}


def _judgement_content(judgement: Judgement) -> dict[str, Any]:
    published = {"published_verdict": judgement.published_verdict} if judgement.published else {}
    return {
        **setting_content(judgement.setting),
        "seeds": {method: list(seeds) for method, seeds in judgement.seeds.items()},
        "verdict": judgement.verdict,
        **published,
        "checks": [
            {
                "check": ours.check.text,
                **ours.check.bound,
                "numbers": dict(ours.numbers),
                "value": ours.value,
                "verdict": ours.verdict,
                **({"published_numbers": dict(theirs.numbers), "published_value": theirs.value} if theirs else {}),
            }
            for ours, theirs in zip(judgement.checks, _published(judgement), strict=True)
        ],
    }


def _table(claim: PublishedClaim, judgements: Sequence[Judgement]) -> Table:
    has_second = any(judgement.setting.second for judgement in judgements)
    has_published = any(judgement.published for judgement in judgements)
    words = ["dataset", "backbone", *["second model"] * has_second]
    checks = [check.text for check in claim.checks]
    lines = []
    for judgement in judgements:
        setting = judgement.setting
        lines.append(
            [
                *(setting.dataset, setting.backbone, *[setting.second] * has_second),
                *(f"{setting.cue_rate:g}", _seeds(judgement.seeds)),
                *(_value(*pair) for pair in zip(judgement.checks, _published(judgement), strict=True)),
                f"**{FAILS}**" if judgement.verdict == FAILS else judgement.verdict,
                *[judgement.published_verdict or ABSENT] * has_published,
            ]
        )
    headers = [*words, "cue rate", "seeds", *checks, "verdict", *["paper"] * has_published]
    return Table(headers, lines, words=len(words))


def _value(ours: Measured, theirs: Measured | None) -> str:
    """Return ``"54.0 − 49.0 = +5.0 (-2.6)"``: the numbers, their difference, and the paper's difference."""
    sign = "+" if ours.check.difference else ""
    text = ABSENT
    if ours.value is not None:
        text = " − ".join(_number(name, number or 0.0) for name, number in ours.numbers.items())
        text = f"{text} = {_number(ours.check.quantities[0], ours.value, sign)}" if sign else text
        text = f"**{text}**" if ours.verdict == FAILS else text
    if theirs is None or theirs.value is None:
        return text
    return f"{text} ({_number(ours.check.quantities[0], theirs.value, sign)})"


def _number(quantity: str, value: float, sign: str = "") -> str:
    digits = 3 if quantity.startswith("loss") else 1
    return f"{value:{sign}g}" if quantity.startswith(DIFFERING) else rounded(value, digits, sign)


def _published(judgement: Judgement) -> Sequence[Measured | None]:
    return judgement.published or [None] * len(judgement.checks)


def _of(claim: PublishedClaim, judgements: Sequence[Judgement]) -> list[Judgement]:
    return [judgement for judgement in judgements if judgement.claim == claim]


def _counts(judgements: Sequence[Judgement]) -> dict[str, int]:
    return count([judgement.verdict for judgement in judgements])


def _tally(counts: Mapping[str, int]) -> str:
    """Return ``"holds in 3 of 4 settings (2 more without records)"``."""
    judged, left = counts[HOLDS] + counts[FAILS], counts[NO_RECORDS]
    if not judged:
        return NO_RECORDS
    settings = f"{judged} setting{'s' * (judged != 1)}"
    return f"holds in {counts[HOLDS]} of {settings}" + (f" ({left} more without records)" if left else "")


def _seeds(seeds: Mapping[str, Sequence[int | str]]) -> str:
    """Return the seeds behind a check, method by method where they differ."""
    words = {method: " ".join(map(str, own)) for method, own in seeds.items()}
    if len(set(words.values())) <= 1:
        return next(iter(words.values()), ABSENT)
    return ", ".join(f"{method}: {own}" for method, own in words.items())
