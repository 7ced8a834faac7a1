"""The files that are generated from what was sent in: the same bytes on every machine, whatever is installed."""

from collections.abc import Mapping

from mmc_bench.errors import UserError
from mmc_bench.leaderboard import critical_picture, markdown
from mmc_bench.leaderboard.checks import Inspection
from mmc_bench.leaderboard.page import page_html
from mmc_bench.leaderboard.payload import ReRun, make_payload
from mmc_bench.leaderboard.standings import make_standings
from mmc_bench.leaderboard.submissions import GENERATED, Board, Problem
from mmc_bench.system.files import write_whole


def generated_files(board: Board, inspection: Inspection) -> dict[str, bytes]:
    """Return the content of the generated files by name.

    Raises
    ------
    UserError
        When something is wrong with what was sent in: tables are made of valid records only.
    """
    if inspection.problems:
        first, more = inspection.problems[0], len(inspection.problems) - 1
        others = f" (and {more} more problems: see mmc-bench leaderboard check)" if more else ""
        raise UserError(f"{board.path(first.file)}: {first.reason}{others}")
    re_runs = [ReRun(one.by, cell) for one in inspection.verifications.values() for cell in one.cells]
    standings = make_standings(inspection.entries, board.settings)
    payload = make_payload(board.settings, standings, board.versions, re_runs)
    texts = {
        "README.md": markdown.readme(payload),
        "leaderboard.csv": markdown.rows_csv(payload),
        "overall.csv": markdown.overall_csv(payload),
        "index.html": page_html(payload),
    }
    if (pictured := markdown.pictured_protocol(payload)) is not None:
        for scheme, name in markdown.PICTURES.items():
            texts[name] = critical_picture.draw(payload["critical"][pictured], scheme)
    return {name: text.encode() for name, text in texts.items()}


def write_generated(board: Board, files: Mapping[str, bytes]) -> list[str]:
    """Write the generated files that differ from what is there, each whole, and return their names.

    One that is not made any more is removed.
    """
    changed = [name for name in GENERATED if _content(board, name) != files.get(name)]
    for name in changed:
        try:
            if name in files:
                write_whole(board.path(name), files[name])
            else:
                board.path(name).unlink()
        except OSError as error:
            raise UserError(f"{board.path(name)} cannot be written: {error.strerror}") from None
    return changed


def stale_files(board: Board, files: Mapping[str, bytes]) -> list[Problem]:
    """Return the generated files that are not what a build would write."""
    return [
        Problem(name, "differs from what the records say: run mmc-bench leaderboard build")
        for name in GENERATED
        if _content(board, name) != files.get(name)
    ]


def _content(board: Board, name: str) -> bytes | None:
    path = board.path(name)
    return path.read_bytes() if path.is_file() else None
