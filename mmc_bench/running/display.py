"""Which display of a run suits the place: a notebook, a terminal, or lines."""

import sys
from collections.abc import Callable

from mmc_bench.running.lines import LineDisplay

#: What a caller may ask for: lines or bars to suit (None, True), nothing (False), or a function that takes each line.
Progress = Callable[[str], object] | bool | None


def display_of(suite: str, progress: Progress = None) -> LineDisplay:
    """Return a bar in a notebook, live bars on a terminal, lines elsewhere; or what `progress` asks for."""
    if progress is False:
        return LineDisplay(lambda line: None)
    if callable(progress):
        return LineDisplay(progress)
    if _in_notebook():
        from mmc_bench.running.notebook import NotebookDisplay

        return NotebookDisplay(suite)
    if not sys.stderr.isatty():
        return LineDisplay()
    from mmc_bench.running.terminal import TerminalDisplay

    return TerminalDisplay(suite)


def _in_notebook() -> bool:
    """Return whether this process is a Jupyter kernel."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return hasattr(get_shell(), "kernel")
