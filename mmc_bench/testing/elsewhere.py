"""Running code on a plugin in a fresh interpreter, with nothing imported, drawn or hashed beforehand."""

import json
import os
import subprocess
import sys
from typing import Any

from mmc_bench.plugin.offers import Plugin
from mmc_bench.testing.checks import NotChecked

# What every question begins with: the plugin's candidate, not yet imported, and what was said besides.
FINDING = """
import json, sys
from mmc_bench.plugin.discovery import entry_point_candidates, folder_candidates

*wanted, more = json.loads(sys.argv[1])
candidates = entry_point_candidates() if wanted[2].startswith("entry point ") else folder_candidates(wanted[2:])
candidate = next((one for one in candidates if [one.name, one.distribution, one.origin] == wanted), None)
if candidate is None:
    sys.exit("the plugin was not found there")
"""


def ask_elsewhere(plugin: Plugin, question: str, more: Any) -> Any:
    """Run Python code in a fresh interpreter that hashes strings otherwise, and return what it prints last, as JSON.

    Parameters
    ----------
    question
        The code. It has ``candidate``, the plugin that can be imported, and ``more``.
    more
        Anything that JSON can tell.

    Raises
    ------
    NotChecked
        When the code ends with an error.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1",
    }
    argument = json.dumps([plugin.name, plugin.distribution, plugin.origin, more])
    done = subprocess.run(
        [sys.executable, "-c", FINDING + question, argument], env=environment, capture_output=True, text=True
    )
    if done.returncode or not done.stdout.strip():
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise NotChecked(f"a fresh interpreter could not load the plugin: {reason}")
    return json.loads(done.stdout.splitlines()[-1])
