"""The tutorial in plugins/README.md, run as it is written, in an environment of its own."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "plugins" / "README.md"
SECTION = "## From nothing to a row in the table"
LEFT_OUT = "…"

#: What `run` is given besides: how long and where it trains, and on how many images, is not what the tutorial is about.
SIZES = ("pretrain.epochs=1", "data.pretrain_images=200", "foo.epochs=1", "connect.points=3")
SHORT = [word for size in SIZES for word in ("--set", size)] + ["--workers", "1"]

#: A command of the environment: a module run as a program.
SCRIPT = """#!{python}
import runpy, sys
if sys.argv[1:2] == ["run"]:
    sys.argv += {short}
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


def tutorial():
    """Return the tutorial's commands, each with the lines of output that are shown."""
    section = README.read_text(encoding="utf-8").partition(SECTION)[2].partition("\n## ")[0]
    steps = []
    for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            elif line != LEFT_OUT:
                steps[-1][1].append(line)
    return steps


def without_numbers(line):
    """Return a line with its numbers and their spacing masked, since times and scores differ between machines."""
    without_minutes = re.sub(r" \(\d+:\d+:\d+\)", "", line)  # which pytest adds when it takes longer
    return re.sub(r"[\s=:|-]+", " ", re.sub(r"\d+(\.\d+)?", "#", without_minutes)).strip()


@pytest.fixture
def fresh_environment(tmp_path):
    """Return the variables of a virtual environment that has what this one has, and nothing of the user's."""
    root = tmp_path / "environment"
    venv.create(root, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(root), "platbase": str(root)}))
    (packages / "parent.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    for command, module in (("mmc-bench", "mmc_bench"), ("pip", "pip"), ("pytest", "pytest")):
        script = root / "bin" / command
        script.write_text(SCRIPT.format(python=root / "bin" / "python", short=SHORT, module=module))
        script.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MMC_BENCH_", "PYTEST_"))}
    return {
        **kept,
        "PATH": f"{root}/bin{os.pathsep}{os.environ['PATH']}",
        "MMC_BENCH_CACHE": str(tmp_path / "cache"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as the option's value: 0 is no isolation
        "CUDA_VISIBLE_DEVICES": "",  # on a GPU two checks more are made than the tutorial shows
        "OMP_NUM_THREADS": "1",
    }


def test_the_tutorial_is_the_way_that_its_first_lines_name():
    chain = "mmc-bench new method foo && pip install -e ./foo && mmc-bench check foo && mmc-bench run --methods foo"
    assert f"`{chain}`" in README.read_text(encoding="utf-8")
    commands = [command for command, _ in tutorial()]
    assert [command for command in commands if command in chain.split(" && ")] == chain.split(" && ")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the environment is laid out as on Unix")
def test_the_tutorial_s_commands_run_as_written_and_print_what_it_shows(fresh_environment, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    for command, shown in tutorial():
        done = subprocess.run(
            command, shell=True, cwd=folder, env=fresh_environment, capture_output=True, text=True, timeout=600
        )
        printed = done.stdout + done.stderr
        assert done.returncode == 0, f"{command}\n{printed}"
        lines = {without_numbers(line) for line in printed.splitlines()}
        assert [line for line in shown if without_numbers(line) not in lines] == [], f"{command}\n{printed}"
