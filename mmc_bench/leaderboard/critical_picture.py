"""The critical-difference picture as SVG: one line a method, so that thirty can be read.

The page gives its parts colours by their classes. A picture that stands alone, as in a README, brings its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from mmc_bench.report.html import readable

WIDTH, NAME_WIDTH, LANE, ROW, TOP, BOTTOM = 760, 190, 12, 20, 74, 12
LONGEST_NAME = 25  # letters
COLOURS = {
    "light": {"ink": "#1b1f24", "soft": "#59626c", "rule": "#dde1e5", "dot": "#0072b2", "group": "#1b1f24"},
    "dark": {"ink": "#e6e9ec", "soft": "#a3adb7", "rule": "#343b42", "dot": "#56b4e9", "group": "#e6e9ec"},
}
STYLE = (
    "text{{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',sans-serif;fill:{ink}}}"
    ".cd-soft{{fill:{soft}}}.cd-rule{{stroke:{rule};fill:none}}.cd-one{{fill:none;stroke:{dot};stroke-opacity:.55}}"
    ".cd-mean{{fill:{dot}}}.cd-group{{stroke:{group};stroke-width:4;stroke-linecap:round;fill:none}}"
    ".cd-ruler{{stroke:{ink};stroke-width:1.5;fill:none}}"
)


def draw(found: Mapping[str, Any], scheme: str | None = None) -> Markup:
    """Return the picture of a payload's critical differences.

    Each method has a circle for its rank in each dataset and a dot at their mean. A vertical bar spans methods that
    the datasets do not separate.

    Parameters
    ----------
    scheme
        ``"light"`` or ``"dark"`` for a picture that stands alone; without it the page's style sheet colours it.
    """
    names, groups = found["names"], _in_lanes(found["groups"])
    lanes = 1 + max((lane for _, _, lane in groups), default=0)
    left, right = NAME_WIDTH + 12, WIDTH - 18 - LANE * lanes
    bottom = TOP + ROW * len(names)

    def x(rank: float) -> float:
        return round(left + (rank - 1) / (len(names) - 1) * (right - left), 1)

    parts = [_axis(len(names), x, bottom), _ruler(found["difference"], len(names), x)]
    for index, name in enumerate(names):
        y = TOP + ROW * index + ROW // 2
        parts.append(_line(y, name, found["ranks"][index], found["average"][index], x))
    for first, last, lane in groups:
        at = right + 14 + LANE * lane
        span = f"M{at} {TOP + ROW * first + 5}V{TOP + ROW * (last + 1) - 5}"
        parts.append(Markup('<path class="cd-group" d="{}"/>').format(span))
    style = Markup("<style>{}</style>").format(Markup(STYLE.format(**COLOURS[scheme]))) if scheme else ""
    return Markup(
        '<svg class="cd" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" '
        'aria-label="{label}">{style}{parts}</svg>\n'
    ).format(w=WIDTH, h=bottom + BOTTOM, label=_label(found), style=style, parts=Markup("\n").join(parts))


def _label(found: Mapping[str, Any]) -> str:
    return (
        f"Average ranks of {len(found['names'])} methods over {found['datasets']} datasets, the best first: "
        f"{', '.join(f'{readable(n)} {a:.1f}' for n, a in zip(found['names'], found['average'], strict=True))}. "
        f"Critical difference {found['difference']:.1f}."
    )


def _axis(methods: int, x: Any, bottom: int) -> Markup:
    step = next(size for size in (1, 2, 5, 10, 20, 50, 100, 1000) if methods / size <= 11)
    ticks = sorted({1, *range(step, methods + 1, step)} if step > 1 else set(range(1, methods + 1)))
    parts = [
        Markup('<text class="cd-soft" x="{}" y="{}" text-anchor="end">average rank</text>').format(NAME_WIDTH, TOP - 8)
    ]
    for tick in ticks:
        parts.append(
            Markup('<path class="cd-rule" d="M{x} {top}V{bottom}"/><text class="cd-soft" x="{x}" y="{y}" ').format(
                x=x(tick), top=TOP - 2, bottom=bottom, y=TOP - 8
            )
            + Markup('text-anchor="middle">{}</text>').format(tick)
        )
    return Markup("").join(parts)


def _ruler(difference: float, methods: int, x: Any) -> Markup:
    """Draw the critical difference as a ruler at the axis's scale."""
    start, end = x(1), x(1 + min(difference, methods - 1))
    cut = " (beyond this axis)" if difference > methods - 1 else ""
    text = f"critical difference {difference:.1f}{cut}"
    return Markup(
        '<path class="cd-ruler" d="M{start} 30V40M{start} 35H{end}M{end} 30V40"/><text x="{start}" y="22">{text}</text>'
    ).format(start=start, end=end, text=text)


def _line(y: int, name: str, ranks: Sequence[float], average: float, x: Any) -> Markup:
    whole = readable(name)
    text = whole if len(whole) <= LONGEST_NAME else whole[: LONGEST_NAME - 1] + "…"
    circles = Markup("").join(
        Markup('<circle class="cd-one" cx="{}" cy="{}" r="3.5"/>').format(x(rank), y) for rank in sorted(ranks)
    )
    return Markup(
        '<g><title>{title}</title><text x="{end}" y="{base}" text-anchor="end">{text}</text>'
        '<path class="cd-rule" d="M{low} {y}H{high}"/>{circles}<circle class="cd-mean" cx="{at}" cy="{y}" r="5"/></g>'
    ).format(
        title=f"{whole}: average rank {average:.2f}",
        end=NAME_WIDTH,
        base=y + 4,
        text=text,
        low=x(min(ranks)),
        high=x(max(ranks)),
        y=y,
        circles=circles,
        at=x(average),
    )


def _in_lanes(groups: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Return (first, last, lane) of each group, in the leftmost lane where no other bar stands beside it."""
    ends: list[int] = []
    placed = []
    for first, last in groups:
        lane = next((number for number, end in enumerate(ends) if end < first), len(ends))
        ends[lane : lane + 1] = [last]
        placed.append((first, last, lane))
    return placed
