"""A comparison with a published table as a report."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from mmc_bench.report.claim_tables import claim_blocks, claim_content, claim_lines, setting_content
from mmc_bench.report.compare import Difference, PublishedComparison
from mmc_bench.report.rows import Statistic
from mmc_bench.report.tables import ABSENT, Report, TextTable, rounded
from mmc_bench.results.metrics import SPLITS

COLUMNS = (
    *("kind", "dataset", "backbone", "cue_rate", "seeds", "method", "split", "claim", "check"),
    *("ours", "ours_std", "published", "difference", "verdict", "claim_verdict", "published_verdict"),
)


def render(comparison: PublishedComparison, form: str) -> str:
    """Return a comparison in one of `mmc_bench.report.tables.FORMATS`: a table for each setting, one for each claim."""
    table = comparison.table
    claims = table.claims.claims if table.claims else ()
    numbers = [_content(item) for item in comparison.differences]
    checks = claim_lines(claims, comparison.judgements)
    return Report(
        blocks=list(_blocks(comparison)),
        columns=COLUMNS,
        lines=[*map(_line, numbers), *({"kind": "check", **line} for line in checks)],
        content={
            "table": table.name,
            "source": table.claims.source if table.claims else None,
            "unit": "per cent",
            "numbers": numbers,
            "claims": claim_content(claims, comparison.judgements, comparison.published_counts),
            "without_records": [{"dataset": dataset, "cue_rate": rate} for dataset, rate in comparison.missing],
        },
    ).render(form)


def _blocks(comparison: PublishedComparison) -> Iterator[str | TextTable]:
    table = comparison.table
    yield f"**Ours against {table.name}**{f' ({table.claims.source})' if table.claims else ''}"
    yield "Accuracies in per cent, ours as mean ± standard deviation over the seeds. Δ = ours − paper, in points."
    for setting, group in groupby(comparison.differences, key=lambda difference: difference.setting):
        yield _table(list(group), setting.dataset, setting.backbone, f"cue rate {setting.cue_rate:g}")
    if not comparison.differences:
        yield f"No selected record has a number in {table.name}."
    if comparison.missing:
        yield f"Without a selected record: {_places(comparison.missing)}."
    if table.claims:
        yield (
            "**The claims, checked.** Values in points, with the numbers behind them; in brackets the value of the "
            "paper's own numbers. A claim holds where every check of its row does."
        )
        yield from claim_blocks(table.claims.claims, comparison.judgements, comparison.published_counts)


def _table(differences: Sequence[Difference], *title: str) -> TextTable:
    headers = ["method", *(word for split in SPLITS for word in (split, "paper", "Δ")), "seeds"]
    lines = []
    for method, group in groupby(differences, key=lambda difference: difference.method):
        items = {item.split: item for item in group}
        line = [method]
        for split in SPLITS:
            item = items.get(split)
            shown = item and [_mean(item.ours), str(item.published), rounded(item.points, 1, "+")]
            line += shown or [ABSENT] * 3
        lines.append([*line, " ".join(map(str, next(iter(items.values())).seeds))])
    return TextTable(headers, lines, title=title)


def _content(item: Difference) -> dict[str, Any]:
    return {
        **setting_content(item.setting),
        "method": item.method,
        "seeds": list(item.seeds),
        "split": item.split,
        "ours": {"mean": item.ours.mean, "std": item.ours.std},
        "published": item.published,
        "difference": item.points,
    }


def _line(number: dict[str, Any]) -> dict[str, Any]:
    ours = {"ours": number["ours"]["mean"], "ours_std": number["ours"]["std"]}
    return {"kind": "number", **number, "seeds": " ".join(map(str, number["seeds"])), **ours}


def _places(places: Sequence[tuple[str, float]]) -> str:
    rates: dict[str, list[str]] = {}
    for dataset, cue_rate in places:
        rates.setdefault(dataset, []).append(f"{cue_rate:g}")
    return "; ".join(f"{dataset} at {', '.join(own)}" for dataset, own in rates.items())


def _mean(value: Statistic) -> str:
    return rounded(value.mean, 1) if value.std is None else f"{rounded(value.mean, 1)} ± {rounded(value.std, 1)}"
