"""What an observer promises, besides what every plugin does."""

from functools import cached_property
from typing import Any

from mmc_bench.running.observers import functions_of
from mmc_bench.testing.checks import NotChecked, Property
from mmc_bench.testing.common import COMMON, Subject


class ObserverSubject(Subject):
    """One observer under test."""

    @cached_property
    def target(self) -> Any:
        """The plugin's class, unless a package that it needs is not there."""
        if self.offer.spec.remedy:
            raise NotChecked(f"{self.label} {self.offer.spec.remedy}")
        return self.offer.load()


def listens(subject: ObserverSubject) -> str:
    """It has functions that a run calls, and they ask for arguments that there are."""
    observer = subject.offer.make({}) if subject.target else None
    return f"has {', '.join(functions_of(subject.label, observer))}"


PROPERTIES = (
    *COMMON,
    Property(
        "listens to what a run tells",
        listens,
        "mmc_bench.running.observers lists the functions that a run calls, and the arguments that each may name",
    ),
)
