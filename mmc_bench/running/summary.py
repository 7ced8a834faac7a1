"""How a run went, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from mmc_bench.running.profile import Profile

if TYPE_CHECKING:
    from mmc_bench.results.records import Failure
    from mmc_bench.suites.plan import Plan


@dataclass
class Summary:
    """How a run went, in trials, cells and pairs; `cached` were there before, or done by another run meanwhile.

    `scored_again` counts those of the computed whose predictions alone were missing. `stopped` says why it could not go
    on; `profile` is the time of what this run did, by parts.
    """

    cells: int
    cached: int
    unit: str = "cells"
    computed: int = 0
    scored_again: int = 0
    failed: int = 0
    pretrained: int = 0
    interrupted: bool = False
    stopped: str | None = None
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    profile: Profile = field(default_factory=Profile)

    @classmethod
    def before(cls, plan: Plan, found: frozenset[str]) -> Self:
        """Return the summary of a run that has done nothing yet; `found` are the keys that have a record."""
        kinds = {"trials": plan.trials, "cells": plan.cells, "pairs": plan.pairs}
        unit = " and ".join([kind for kind, jobs in kinds.items() if jobs]) or "cells"
        cached = sum(job.key in found for job in plan.results)
        return cls(cells=len(plan.results), cached=cached, unit=unit)

    @property
    def not_run(self) -> int:
        """Those that have no record and did not fail: left out, or not reached."""
        return self.cells - self.cached - self.computed - self.failed

    @property
    def exit_code(self) -> int:
        """Pytest's convention: 0 all done, 1 some failed, 2 interrupted."""
        return 2 if self.interrupted else int(bool(self.failures or self.stopped))

    def __str__(self) -> str:
        """The counts in words, as ``"24 cells: 20 computed, 4 cached"``."""
        parts = [f"{self.computed - self.scored_again} computed", f"{self.cached} cached"]
        if self.scored_again:
            parts.insert(1, f"{self.scored_again} scored again")
        if not self.cells:
            parts = [f"{self.pretrained} pretrained"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.not_run:
            parts.append(f"{self.not_run} not run")
        unit = self.unit.removesuffix("s") if self.cells == 1 else self.unit
        return f"{'interrupted: ' if self.interrupted else ''}{self.cells} {unit}: {', '.join(parts)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json`` and for observers."""
        names = ("cells", "cached", "computed", "failed", "not_run", "pretrained", "interrupted", "stopped", "seconds")
        counts = {name: getattr(self, name) for name in names}
        failures = [{"key": item.key, "cell": item.label, "error": item.error} for item in self.failures]
        return {**counts, "failures": failures}
