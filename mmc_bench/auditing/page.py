"""An audit as one self-contained HTML page, which opens from disk and asks for nothing from the network."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from mmc_bench.auditing.chance import interval, swap_intervals
from mmc_bench.auditing.schema import AHEAD, COSTLY, PICKED_UP, AuditReport
from mmc_bench.mechanisms.verdicts import CONTRAST, FLIPS, HALF, UNKNOWN
from mmc_bench.report.html import asset, environment, harmless, number, policy, shared_style

ABSENT = "–"
THIN = "\u202f"  # a narrow space that does not break, before a per cent sign

#: Width and height of a learning curve, and the room of the line that says when the cue shows.
WIDTH, HEIGHT = 120, 54

#: What the data are that a method can ask for, in words for people who have not read how they are made.
NEEDS = {
    "clean": "clean images",
    "cued": "the cued training images",
    "environments": "which images carry the cue",
    "fully-cued": "images with the cue planted",
}

#: What parameters say how strong a cue is, in words for people who have not read the datasets' descriptions.
STRENGTHS = {"relative_strength": "share of the kind’s own opacity"}

#: The words that are explained only where they occur.
RARE = ("undecided", UNKNOWN)

#: What each word for a repaired network says.
WORDS = {
    "kept": f"a swapped cue changes predictions on over {100 * FLIPS:.0f} points more of the test images than in the "
    "cue-free network, though maybe on far fewer than before the repair",
    "removed": "not kept, and a linear probe reads the cue from the features much less well: its lead over the "
    f"cue-free network is less than {100 * HALF:.0f}{THIN}% of its lead before the repair",
    "hidden": f"not kept, and the probe keeps {100 * HALF:.0f}{THIN}% of its lead or more; the straight path back to "
    "the network before the repair is open, so that little training may bring the cue back",
    "unlinked": "as hidden, but a barrier in the loss lies before the network that did follow the cue",
    "undecided": "not kept, but a probe told the cue hardly better before the repair than in the cue-free network, by "
    f"less than {100 * CONTRAST:.0f} points",
    UNKNOWN: "as hidden, but whether a barrier lies before the network that did follow the cue was not measured",
}


def page_html(report: AuditReport, pictures: Mapping[str, Mapping[float, str]], without: str | None = None) -> str:
    """Return the page of an audit; the same report gives the same text.

    Parameters
    ----------
    report
        What was found.
    pictures
        An image with each cue, by dataset and strength, as a ``data:`` address.
    without
        The same image without a cue.
    """
    style = shared_style("base.css") + shared_style("tables.css") + asset("mmc_bench.auditing", "audit.css")
    templates = environment()
    templates.filters.update(percent=percent, points=points, curve=curve, heat=heat)
    words = {word for method in report.methods for word in method.words}
    classes, tested = report.images.classes, report.images.test
    return templates.from_string(asset("mmc_bench.auditing", "audit.html.j2")).render(
        harmless(report.model_dump(mode="json")),
        style=Markup(style),
        policy=policy(style),
        pictures=pictures,
        without=without,
        absent=ABSENT,
        needs_in_words=NEEDS,
        words={word: meaning for word, meaning in WORDS.items() if words and (word in words or word not in RARE)},
        strengths=report.cues[0].strengths if report.cues else (),
        strength_in_words=STRENGTHS.get(report.strength, f"parameter {report.strength}"),
        any_repairs=any(strength.repairs for cue in report.cues for strength in cue.strengths),
        picked_up_networks=report.picked_up_networks,
        half_interval=interval(tested) if tested else None,
        swap_intervals=swap_intervals(classes, tested) if tested and classes and classes > 1 else None,
        picked_up_from=PICKED_UP,
        ahead_from=AHEAD,
        costly=COSTLY,
        width=WIDTH,
        height=HEIGHT,
    )


def percent(share: float | None, digits: int = 0) -> str:
    """Return a share in per cent.

    >>> percent(0.914), percent(None)
    ('91\\u202f%', '–')
    """
    return ABSENT if share is None else f"{number(100 * share, digits)}{THIN}%"


def points(share: float | None, sign: str = "+", digits: int = 0) -> str:
    """Return a difference of shares in percentage points, with its sign; ``sign=""`` leaves out the plus.

    >>> points(-0.034), points(0.12)
    ('−3', '+12')
    """
    return ABSENT if share is None else number(100 * share, digits, sign)


def heat(share: float | None) -> int:
    """Return a share in tenths, for the shade of its cell."""
    return 0 if share is None else round(10 * min(max(share, 0.0), 1.0))


def curve(learned: Sequence[Mapping[str, Any]], split: str) -> str:
    """Return the path of a learning curve in a picture of `WIDTH` and `HEIGHT`; accuracy 0 lies at the bottom.

    >>> curve([{"epoch": 1, "C": 0.5}, {"epoch": 2, "C": 1.0}], "C")
    'M2.0 27.0L118.0 2.0'
    """
    step = (WIDTH - 4) / max(len(learned) - 1, 1)
    at = [(2 + step * n, 2 + (HEIGHT - 4) * (1 - point[split])) for n, point in enumerate(learned)]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in at) if at else ""
