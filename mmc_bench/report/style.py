"""matplotlib with its own defaults and ours, whatever the user's backend and matplotlibrc say."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

#: What differs from matplotlib's defaults in every figure.
SETTINGS: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "hatch.linewidth": 0.4,
    "svg.hashsalt": "mmc-bench",  # the same figure is the same file
    "savefig.dpi": 160,
}


def _imported() -> Any:
    """Import matplotlib; where the user's backend or matplotlibrc is broken, without them."""
    try:
        return import_module("matplotlib")
    except (ValueError, OSError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]
    before = {name: os.environ.pop(name, None) for name in ("MPLBACKEND", "MATPLOTLIBRC", "MPLCONFIGDIR")}
    os.environ["MATPLOTLIBRC"] = os.devnull
    try:
        with chdir(os.sep):  # a matplotlibrc in the working directory comes before all others
            return import_module("matplotlib")
    finally:
        del os.environ["MATPLOTLIBRC"]
        os.environ.update({name: value for name, value in before.items() if value is not None})


matplotlib = _imported()
if TYPE_CHECKING:
    from matplotlib.figure import Figure as Figure
else:
    Figure = import_module("matplotlib.figure").Figure


@contextmanager
def styled(more: Mapping[str, Any] = {}) -> Iterator[None]:
    """Draw and save in our style, with some more settings; figures made in it need no backend."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**SETTINGS, **more})
        yield
