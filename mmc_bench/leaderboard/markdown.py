"""The payload as Markdown and CSV."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmc_bench.leaderboard import critical_picture, untrusted
from mmc_bench.leaderboard.protocols import GAP
from mmc_bench.report.row_tables import shown
from mmc_bench.report.rows import COLUMNS
from mmc_bench.report.tables import ABSENT, csv_text

SHOWN = ("NC", "C", "RC", "RI", "cue_reliance", "barrier_C", "seconds")
HEADERS = {"cue_reliance": "cue reliance", "barrier_C": "barrier C"}

MOST_MISSING = 3
#: The files of the critical-difference picture, by colour scheme.
PICTURES = {scheme: f"critical-difference-{scheme}.svg" for scheme in critical_picture.COLOURS}

Payload = Mapping[str, Any]


def readme(payload: Payload) -> str:
    """Return the leaderboard's README: an introduction, the methods over all settings, and a table for each."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mmc_bench.leaderboard", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        autoescape=False,
    )
    environment.filters["md"] = untrusted.markdown
    settings = [
        {"title": _title(setting), "caption": _caption(setting, payload), "tables": _setting_tables(setting, payload)}
        for setting in payload["settings"]
    ]
    pictured = pictured_protocol(payload)
    text = environment.get_template("README.md.j2").render(
        title=payload["title"],
        baseline=payload["baseline"],
        counted=payload["counted"],
        fewest=payload["fewest_seeds"],
        notes=payload["notes"],
        protocols=payload["protocols"],
        gap=GAP,
        pictured=pictured,
        critical=payload["critical"].get(pictured),
        pictures=PICTURES,
        settings=settings,
        overall=_overall_table(payload) if payload["overall"] else "",
    )
    return text.rstrip("\n") + "\n"


def pictured_protocol(payload: Payload) -> str | None:
    """Return the protocol whose critical differences the README shows: the one to show first, if it has any."""
    found: Mapping[str, Any] = payload["critical"]
    return payload["protocol"] if payload["protocol"] in found else next(iter(found), None)


def rows_csv(payload: Payload) -> str:
    """Return all rows with all columns: fractions, nats and seconds, an empty field where there is no value."""
    settings = {setting["id"]: setting for setting in payload["settings"]}
    versions = sorted({name for row in payload["rows"] for name in row["versions"]})
    return _csv([_flat(settings[row["setting"]], row, versions) for row in payload["rows"]])


def overall_csv(payload: Payload) -> str:
    """Return the methods over all settings."""
    return _csv(
        {
            "protocol": method["protocol"],
            "tier": method["tier"],
            "method": method["method"],
            "note": method["note"],
            "worst_split": method["mean"],
            "worst_split_half_width": method["half_width"],
            "gap": method["gap"] and method["gap"][0],
            "gap_half_width": method["gap"] and method["gap"][1],
            "settings": method["settings"],
            "missing": "; ".join(method["missing"]),
        }
        for method in payload["overall"]
    )


def _flat(setting: Mapping[str, Any], row: Mapping[str, Any], versions: Iterable[str]) -> dict[str, Any]:
    paired, verified, disputed, tuning = row["paired"], row["verified"], row["disputed"], row["tuning"]
    flat: dict[str, Any] = {
        "dataset": setting["dataset"],
        "setting_note": setting["note"],
        "backbone": setting["backbone"],
        "cue_rate": setting["cue_rate"],
        "classes": setting["classes"],
        "protocol": row["protocol"],
        "tier": row["tier"],
        "method": row["method"],
        "note": row["note"],
        "needs": " ".join(row["needs"]),
        "seeds": _words(row["seeds"]),
        "missing_seeds": _words(row["missing"]),
    }
    for name in COLUMNS:
        flat[name], flat[f"{name}_half_width"] = row["values"][name] or (None, None)
    flat["baseline"] = paired and paired["baseline"]
    flat["difference"], flat["difference_half_width"] = paired["difference"] if paired else (None, None)
    flat["difference_seeds"] = _words(paired["seeds"]) if paired else None
    flat["difference_same_start"] = paired and str(paired["same_start"]).lower()
    flat["gap"], flat["gap_half_width"] = row["gap"] or (None, None)
    flat |= {
        "trials": tuning and tuning["trials"],
        "close_trials": tuning and tuning["close"],
        "tuning_seeds": tuning and _words(tuning["seeds"]),
        "given": _pairs(row["given"]),
        "chosen": tuning and _pairs(tuning["chosen"]),
        "selection": tuning and tuning["selection"],
        "standing": row["standing"],
        "by": row["by"],
        "re_run_by": (verified or disputed or {}).get("by"),
        "cells_re_run": verified and verified["cells"],
        "cells_disputed": disputed and disputed["cells"],
        "cells": len(row["records"]),
        "device": row["device"],
        "precision": row["precision"],
    }
    flat |= {f"version of {name}": row["versions"].get(name) for name in versions}
    return {**flat, "records": " ".join(row["records"])}


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    lines = [{untrusted.csv_field(name): _field(value) for name, value in row.items()} for row in rows]
    return csv_text(list(lines[0]), lines) if lines else ""


def _field(value: Any) -> Any:
    return untrusted.csv_field(value) if isinstance(value, str) else value


def _words(values: Iterable[Any]) -> str:
    return " ".join(map(str, values))


def _pairs(parameters: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in parameters.items())


def _title(setting: Mapping[str, Any]) -> str:
    note = f" ({setting['note']})" if setting["note"] else ""
    place = f"{setting['dataset']} · {setting['backbone']} · cue rate {setting['cue_rate']:g}{note}"
    return untrusted.markdown(place)


def _caption(setting: Mapping[str, Any], payload: Payload) -> str:
    seeds = setting["seeds"]
    few = "" if setting["tiers"] else " Too few seeds for tiers."
    counts = few if setting["counts"] else f"{few} Does not count over all settings."
    tunings = [row["tuning"] for row in _rows(setting, payload) if row["tuning"]]
    tuned = f" Tuned in {tunings[0]['trials']} trials on {_seeds(tunings[0]['seeds'])}." if tunings else ""
    return f"{setting['classes']} classes, {_seeds(seeds)}.{tuned}{counts}"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {_words(seeds)}"


def _rows(setting: Mapping[str, Any], payload: Payload) -> list[Mapping[str, Any]]:
    return [row for row in payload["rows"] if row["setting"] == setting["id"]]


def _setting_tables(setting: Mapping[str, Any], payload: Payload) -> list[tuple[str, str]]:
    """Return each protocol of a setting with its table, the one to show first before the others."""
    rows = _rows(setting, payload)
    present = {row["protocol"] for row in rows}
    ordered = sorted(payload["protocols"], key=lambda protocol: protocol != payload["protocol"])
    tables = [(protocol, [row for row in rows if row["protocol"] == protocol]) for protocol in ordered]
    return [(protocol, _setting_table(own, payload)) for protocol, own in tables if protocol in present]


def _setting_table(rows: Sequence[Mapping[str, Any]], payload: Payload) -> str:
    gaps = any(row["gap"] for row in rows)
    names = [HEADERS.get(name, name) for name in SHOWN]
    baseline = untrusted.markdown(payload["baseline"])
    header = ["tier", "method", "worst split", f"vs {baseline}", *["gap"] * gaps, *names, "needs", "standing"]
    lines = []
    for row in rows:
        method = untrusted.markdown(f"{row['method']} ({row['note']})" if row["note"] else row["method"])
        if row["missing"]:
            method += f" (no mean: seed{'s' if len(row['missing']) > 1 else ''} {_words(row['missing'])} missing)"
        values = [_value(name, row["values"][name]) for name in SHOWN]
        lines.append(
            [
                _tier(row),
                method,
                _value("worst_split", row["values"]["worst_split"]),
                _difference(row["paired"]),
                *[_value("worst_split", row["gap"], "+")] * gaps,
                *values,
                untrusted.markdown(", ".join(row["needs"])),
                _standing(row),
            ]
        )
    return _table(header, lines, "rl" + "r" * (len(SHOWN) + 2 + gaps) + "ll")


def _overall_table(payload: Payload) -> str:
    """Return the methods with a tier and a mean for each protocol, in the order of the one to show first."""
    protocols = sorted(payload["protocols"], key=lambda protocol: protocol != payload["protocol"])
    methods: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for protocol in protocols:
        for method in payload["overall"]:
            if method["protocol"] == protocol:
                methods.setdefault((method["method"], method["note"]), {})[protocol] = method
    gaps = any(method["gap"] for method in payload["overall"])
    lines = []
    for (name, note), own in methods.items():
        line = [untrusted.markdown(f"{name} ({note})" if note else name)]
        for protocol in protocols:
            found = own.get(protocol)
            mean = (found["mean"], found["half_width"]) if found and found["mean"] is not None else None
            line += [_tier(found) if found else ABSENT, _value("worst_split", mean)]
        missing = {protocol: _missing(one["missing"]) for protocol, one in own.items() if one["missing"]}
        if len({*missing.values()}) == 1 and len(missing) == len(protocols):
            missing = {"": next(iter(missing.values()))}
        texts = [f"{protocol}: {text}" if protocol else text for protocol, text in missing.items()]
        gap = next((one["gap"] for one in own.values() if one["gap"]), None)
        lines.append([*line, *[_value("worst_split", gap, "+")] * gaps, "; ".join(texts)])
    header = ["method", *(text for protocol in protocols for text in ("tier", protocol)), *["gap"] * gaps, "missing"]
    return _table(header, lines, "l" + "rr" * len(protocols) + "r" * gaps + "l")


def _missing(names: Sequence[str]) -> str:
    """Return what is missing, by name where it is little."""
    more = len(names) - MOST_MISSING
    shown = untrusted.markdown(", ".join(names[:MOST_MISSING]))
    return f"{shown} and {more} more" if more > 0 else shown


def _tier(row: Mapping[str, Any]) -> str:
    return ABSENT if row["tier"] is None else str(row["tier"])


def _standing(row: Mapping[str, Any]) -> str:
    reporter = untrusted.markdown(row["by"])
    if row["disputed"]:
        return f"disputed by {_re_run_by(row['disputed'])}; reported by {reporter}"
    if row["verified"]:
        verb = "verified" if row["standing"] == "verified" else "re-run"
        return f"{verb} by {_re_run_by(row['verified'])}; reported by {reporter}"
    return f"reported by {reporter}"


def _re_run_by(found: Mapping[str, Any]) -> str:
    return f"{untrusted.markdown(found['by'])} ({found['cells']} of {found['of']} cells)"


def _difference(paired: Mapping[str, Any] | None) -> str:
    if paired is None:
        return ABSENT
    return _value("worst_split", paired["difference"], "+") + ("" if paired["same_start"] else " †")


def _value(column: str, value: Sequence[float | None] | None, sign: str = "") -> str:
    mean, spread = value or (None, None)
    return shown(column, mean, spread, sign)


def _table(header: Sequence[str], lines: Iterable[Sequence[str]], alignment: str) -> str:
    """Return a Markdown table without padding, whose width would depend on how wide a library thinks a letter is."""
    rule = ["---:" if side == "r" else ":---" for side in alignment]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))
