"""What a check is: one property of a plugin, and what was found."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmc_bench.errors import PromiseError, UserError, message_of
from mmc_bench.system.process_state import kept

Outcome = Literal["ok", "failed", "not checked"]


class Fault(Exception):  # noqa: N818 - the error is the plugin's
    """A property does not hold.

    Parameters
    ----------
    message
        What is wrong, with the value, and where.
    remedy
        How to mend it.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class NotChecked(Exception):  # noqa: N818 - it is no error
    """A property cannot be checked here; the message says why, and what to do about it."""


@dataclass(frozen=True)
class Check:
    """What was found of one property.

    Attributes
    ----------
    name
        The property, as a predicate: ``"leaves the pretrained model as it was"``.
    outcome
        ``"ok"``, ``"failed"`` or ``"not checked"``.
    message
        What is wrong and where, why it was not checked, or a note on what holds; it may be empty.
    remedy
        How to mend a failure.
    """

    name: str
    outcome: Outcome
    message: str = ""
    remedy: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong; what could not be checked is not wrong."""
        return self.outcome != "failed"


@dataclass(frozen=True)
class Property:
    """One promise, and the function that puts it to the test.

    Attributes
    ----------
    name
        The promise, as a predicate.
    test
        Is given the subject. It returns a note (or None) where the promise holds, and raises `Fault` where it
        does not, or `NotChecked`.
    remedy
        What to say where the plugin's own code raises an error.
    """

    name: str
    test: Callable[[Any], str | None]
    remedy: str = "let it work on what the check hands over, or raise UserError with one sentence that says why not"

    def check(self, subject: Any) -> Check:
        """Return what was found; an error of the plugin's is a finding too, and so is a process that it changed."""
        changes: list[str] = []
        with kept("the plugin's code", changes.append, but=("sys.path",)):
            check = self._checked(subject)
        if changes and check.passed:
            return Check(self.name, "failed", changes[0], "change nothing that outlives a call, or put it back in it")
        return check

    def _checked(self, subject: Any) -> Check:
        try:
            return Check(self.name, "ok", self.test(subject) or "")
        except Fault as fault:
            return Check(self.name, "failed", str(fault), fault.remedy)
        except PromiseError as broken:
            return Check(self.name, "failed", broken.problem, broken.remedy)
        except NotChecked as reason:
            return Check(self.name, "not checked", str(reason))
        except UserError as error:
            return Check(self.name, "failed", str(error), self.remedy)
        except (Exception, SystemExit) as error:  # whatever the plugin's code may raise
            return Check(self.name, "failed", one_line(error), self.remedy)


def one_line(error: BaseException) -> str:
    """Return an error as one line with its type, and with the place where the plugin raised it."""
    own, libraries = Path(__file__).parents[1], ("site-packages", "dist-packages")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    theirs = [
        frame
        for frame in frames
        if own not in Path(frame.filename).parents and not set(libraries) & set(Path(frame.filename).parts)
    ]
    innermost = (theirs or frames)[-1:]
    where = "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in innermost)
    return f"{type(error).__name__}: {message_of(error) or 'no message'}{where}"
