"""What the fuzzing tests share: how many cases, one command line in this process, and what must be true of its answer.

In CI few cases are drawn, always the same ones. ``HYPOTHESIS_PROFILE=long`` draws thousands of new ones:

    HYPOTHESIS_PROFILE=long pytest -n 0 tests/test_fuzz_*.py
"""

import contextlib
import io
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, settings

from mmc_bench.cli.main import run_command_line

LONGEST_SENTENCE = 1500  # letters
MOST_SECONDS = 60  # for one command; a loaded machine takes a second or two

settings.register_profile(
    "ci", max_examples=6, derandomize=True, database=None, deadline=20_000, suppress_health_check=list(HealthCheck)
)
settings.register_profile(
    "long",
    max_examples=3000,
    derandomize=False,
    database=None,
    deadline=20_000,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

#: Words that commands understand, beside what only Hypothesis thinks of.
ODD_TEXTS = (
    *("", " ", ".", "..", "/", "~", "*", "?", "[", "[!", "[z-a]", "**/*", "timm/*", "timm/..", "a:b:c", ":", "=", "-1"),
    *("nan", ".nan", "inf", "-.inf", "1e400", "1e-400", "9" * 5000, "0x", "0b1", "1_000", "12:30:45", "true", "null"),
    *("2020-13-45", "2020-01-01", "\N{BYTE ORDER MARK}", "ä", "\N{RIGHT-TO-LEFT OVERRIDE}x", "\x1b[31m", "a\nb", "\t"),
    *("\x85", "\N{LINE SEPARATOR}", "$x^{", "%s", "{0}", "../../x", "x" * 300, "é" * 2000, "\udcff", "!!int", "&a *a"),
)


@dataclass(frozen=True)
class Answer:
    """What a command line left behind."""

    code: int
    out: str
    err: str


class HangError(Exception):
    """A command took longer than any may."""


def answer(folder, *words, **environment):
    """Run a command line in `folder`, in this process, on streams as a terminal's: strict in what they take."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    with (
        contextlib.chdir(folder),
        mock.patch.object(sys, "argv", ["mmc-bench", *map(str, words)]),
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        no_longer_than(MOST_SECONDS),
        forgetting_modules(),
    ):
        code = run_command_line()
    out.flush(), err.flush()
    return Answer(code, out.buffer.getvalue().decode("utf-8"), err.buffer.getvalue().decode("utf-8"))


@contextlib.contextmanager
def no_longer_than(seconds):
    """Raise when a block takes longer; also where the block swallows whatever is raised in it."""
    late = []

    def stop(*_):
        late.append(True)
        raise HangError(f"still busy after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    if late:
        raise HangError(f"still busy after {seconds} s")


@contextlib.contextmanager
def forgetting_modules():
    """Forget the folder plugins that a block imports."""
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if "folder_plugin" in name:
                del sys.modules[name]


@contextlib.contextmanager
def own_folder():
    """Give a case a folder of its own; Hypothesis runs many in one test, and so in one of pytest's."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        yield Path(name)


def check(found, codes=(0, 4, 5)):
    """Check that a command ended as one should: a known exit code, and on stderr nothing but printable lines."""
    assert "Traceback" not in found.err and "internal error" not in found.err, found.err
    assert found.code in codes, found
    lines = found.err.split("\n")[:-1]
    for line in lines:
        assert line.isprintable() and len(line) <= LONGEST_SENTENCE, line
    if found.code in (4, 5):
        assert lines and lines[-1].startswith("mmc-bench: ") and found.out == "", found
    return found


def check_sentence(found, codes=(0, 4, 5)):
    """Check as `check` does, and that a mistake is answered in one line."""
    check(found, codes)
    if found.code in (4, 5):
        assert found.err.count("\n") == 1, found.err
    return found
