"""The leaderboard as one self-contained HTML page that opens from disk and asks for nothing from the network.

Text in a record is untrusted. It reaches the page in two ways only: through the template, which escapes it, and as
JSON whose ``<``, ``>`` and ``&`` are escaped, which the script shows by ``textContent`` alone. The page's policy allows
the one style sheet and the one script whose digests it carries, and nothing else.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from mmc_bench.leaderboard import critical_picture
from mmc_bench.leaderboard.protocols import GAP
from mmc_bench.report.html import asset, environment, harmless, number, policy, shared_style

ABSENT = "–"
UNKNOWN = "unknown"  # needs of a method whose plugin is unknown
SPLITS = {"NC": "no cue", "C": "cue", "RC": "randomised cue", "RI": "randomised image"}
SCRIPTS = ("charts.js", "details.js", "page.js")  # each uses those before it
WORDS = ("method", "setting", "standing", "needs")  # the columns without numbers
SETTING_PARTS = ("dataset", "note", "backbone", "cue_rate")
LONGEST_NOTE = 3  # missing settings named in the open; more are folded away

# In JSON inside a script element, nothing may end the element or start a comment.
SCRIPT_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}

Pair = Sequence[float | None]  # mean and half-width of the interval


def page_html(payload: Mapping[str, Any]) -> str:
    """Return the page of a leaderboard; the same payload gives the same text.

    Parameters
    ----------
    payload
        What `make_payload` returns: accuracies as fractions, losses in nats, times in seconds; each value is a mean
        with the half-width of its interval, or None. Seconds are a median without one.
    """
    shown = harmless({**payload, "rows": [_row(row) for row in payload["rows"]]})
    gaps = any(row["gap"] for row in shown["rows"])
    style = shared_style("base.css") + _asset("controls.css") + shared_style("tables.css") + _asset("page.css")
    script = "\n".join(map(_asset, SCRIPTS))
    templates = environment()
    templates.filters.update(FILTERS)
    return templates.from_string(_asset("page.html.j2")).render(
        title=shown.get("title", "Leaderboard"),
        policy=policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data=Markup(script_json(shown)),
        groups=_groups(shown),
        rows=shown["rows"],
        overall=shown["overall"] if shown.get("counted", 0) > 1 else [],  # of one setting it is the table below
        protocols=shown.get("protocols", {}),
        first=shown.get("protocol"),
        critical=shown.get("critical", {}),
        pictures={name: critical_picture.draw(found) for name, found in shown.get("critical", {}).items()},
        notes=shown.get("notes", ()),
        fewest=shown.get("fewest_seeds"),
        choices=_choices(shown),
        columns=_columns(shown.get("baseline") or _baseline(shown["rows"]), gaps),
        gaps=gaps,
        gap=GAP,
        splits=SPLITS,
        absent=ABSENT,
        longest_note=LONGEST_NOTE,
    )


def script_json(content: Any) -> str:
    """Return JSON that can stand inside a script element: ASCII, without ``<``, ``>`` and ``&``.

    >>> script_json({"name": "</script>"})
    '{"name":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.translate(SCRIPT_ESCAPES)


def record_link(path: str) -> str | None:
    """Return a percent-encoded link to a file below the page; None where the path leads elsewhere.

    >>> record_link("results/a b/cells/1.json"), record_link("../secret"), record_link("//host/x")
    ('./results/a%20b/cells/1.json', None, None)
    """
    parts = path.split("/")
    if "\\" in path or any(part in ("", ".", "..") for part in parts):
        return None
    return "./" + quote(path, safe="/", errors="replace")


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with links to its records, and without needs where they are unknown."""
    needs = row["needs"]
    return {
        "missing": [],
        "disputed": None,
        **row,
        "needs": None if needs is None or UNKNOWN in needs else needs,
        "records": [{"path": path, "link": record_link(path)} for path in row["records"]],
    }


def _asset(name: str) -> str:
    return asset("mmc_bench.leaderboard", name)


# --- what the template shows


def _groups(payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of each setting and protocol, as (index in the payload, row), the pretrained model first."""
    groups = []
    for setting in payload["settings"]:
        name = " · ".join(str(part) for part in map(setting.get, SETTING_PARTS) if part != "")
        for protocol in payload["protocols"]:
            numbered = [
                (i, row)
                for i, row in enumerate(payload["rows"])
                if (row["setting"], row["protocol"]) == (setting["id"], protocol)
            ]
            numbered.sort(key=lambda pair: not pair[1]["pretrained"])
            seeds = sorted({seed for _, row in numbered for seed in row["seeds"]})
            if numbered:
                groups.append(
                    {"setting": setting, "protocol": protocol, "name": name, "rows": numbered, "seeds": seeds}
                )
    return groups


def _choices(payload: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what can be chosen in the filters, each value once."""
    settings = payload["settings"]
    return {
        "datasets": _sorted_once(setting["dataset"] for setting in settings),
        "backbones": _sorted_once(setting["backbone"] for setting in settings),
        "rates": _sorted_once(setting["cue_rate"] for setting in settings),
        "needs": _sorted_once(need for row in payload["rows"] for need in row["needs"] or ()),
    }


def _sorted_once(values: Iterable[Any]) -> list[Any]:
    return sorted(set(values))


def _baseline(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the name of the baseline that every paired difference is to."""
    names = {row["paired"]["baseline"] for row in rows if row["paired"]}
    return names.pop() if len(names) == 1 else "baseline"


def _columns(baseline: str, gaps: bool) -> list[dict[str, Any]]:
    """Return the columns: key, heading, what it says in words, which way it is sorted at first, if of numbers."""
    columns = [
        ("tier", "Tier", "a tier holds what the seeds do not separate from the method that opens it", "ascending"),
        ("method", "Method", "", "ascending"),
        ("setting", "Setting", "dataset, backbone, cue rate", "ascending"),
        ("worst_split", "Worst split", "lowest of NC, C and RC, per cent", "descending"),
        *((name, name, f"accuracy, {meaning}, per cent", "descending") for name, meaning in SPLITS.items()),
        ("cue_reliance", "Cue reliance", "0 at chance, 1 when the cue alone decides", "ascending"),
        ("paired", f"vs {baseline}", "worst split, paired difference over the same seeds, points", "descending"),
        *[("gap", "Gap", f"worst split of the {GAP[0]} choice minus that of the {GAP[1]} one, points", "ascending")]
        * gaps,
        ("standing", "Standing", "reported, or verified by a second run; a row opens who ran it", "descending"),
        ("needs", "Needs", "data that the method asks for", "ascending"),
        ("seeds", "Seeds", "number of seeds", "descending"),
        ("seconds", "Seconds", "time of the fine-tuning, the median over seeds", "ascending"),
    ]
    return [
        {"key": key, "heading": heading, "meaning": meaning, "first": first, "number": key not in WORDS}
        for key, heading, meaning, first in columns
    ]


# --- numbers as text


def _mean(pair: Pair | None, factor: float = 1, digits: int = 2, sign: str = "") -> str:
    return ABSENT if pair is None or pair[0] is None else number(factor * pair[0], digits, sign)


def _spread(pair: Pair | None, factor: float = 1, digits: int = 2) -> str:
    return "" if pair is None or pair[0] is None or pair[1] is None else f"±{number(factor * pair[1], digits)}"


def _bar(pair: Pair | None) -> dict[str, str] | None:
    """Return the width of a bar and the path of its whisker, in hundredths of the cell's width."""
    if pair is None or pair[0] is None:
        return None
    width = _hundredths(pair[0])
    if pair[1] is None:
        return {"width": width, "whisker": ""}
    low, high = _hundredths(pair[0] - pair[1]), _hundredths(pair[0] + pair[1])
    return {"width": width, "whisker": f"M{low} 4H{high}M{low} 1V7M{high} 1V7"}


def _hundredths(fraction: float) -> str:
    return f"{100 * min(1.0, max(0.0, fraction)):.1f}"


FILTERS = {
    "mean": _mean,
    "spread": _spread,
    "bar": _bar,
    "number": number,
}
