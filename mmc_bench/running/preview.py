"""What a run would do, without doing it."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from statistics import mean
from typing import TYPE_CHECKING, Any

from mmc_bench.results.jobs import Job, Pretraining, Trial
from mmc_bench.results.store import Store
from mmc_bench.running.fit import check_fit_of_present
from mmc_bench.running.forecast import PRETRAINING, cells_after_trials, mean_of_alike
from mmc_bench.running.observers import Observers
from mmc_bench.running.profile import kind_of_work
from mmc_bench.running.runner import Missing, check_plugins, find_missing
from mmc_bench.running.session import Session
from mmc_bench.running.tuning import expected_cells
from mmc_bench.suites.grouped import about_left_out
from mmc_bench.suites.plan import Plan
from mmc_bench.system.words import counted

if TYPE_CHECKING:
    import pandas as pd

MOST_LINES = 60
MOST_RECORDS_READ = 200


@dataclass(frozen=True)
class Preview:
    """What a run would do: what would run, what is cached, and the estimated work.

    Parameters
    ----------
    plan, store, missing
        The plan, the results folder, and what the plan still needs.
    """

    plan: Plan
    store: Store
    missing: Missing

    @cached_property
    def seconds(self) -> float | None:
        """Estimated seconds of one worker; None until a first pretraining and cell of the suite have run."""
        return estimate_seconds(self.plan, self.store, self.missing)

    def as_dict(self) -> dict[str, Any]:
        """Return it as ``mmc-bench run --dry-run --json`` prints it."""
        plan, to_run = self.plan, {job.key for job in self.missing.jobs}
        parts: dict[str, Sequence[Job]] = {
            "pretrainings": plan.pretrainings,
            **({"trials": plan.trials} if plan.tunings else {}),
            "cells": plan.cells,
            "pairs": plan.pairs,
        }

        def state_of(key: str) -> str:
            state = _state(key, to_run, self.missing)
            return "failed before" if state == "to run" and key in self.missing.failed_before else state

        def entry(job: Job) -> dict[str, str]:
            return {"key": job.key, "label": job.label + plan.note_of(job), "state": state_of(job.key)}

        return {
            "suite": plan.suite.name,
            "results": str(self.store.root),
            "estimated_seconds": self.seconds,
            **{name: list(map(entry, jobs)) for name, jobs in parts.items()},
        }

    def to_frame(self) -> "pd.DataFrame":
        """Return a pandas frame with a row for each pretraining, cell and pair: its kind, label, state and key."""
        import pandas as pd

        content = self.as_dict()
        kinds = {"pretraining": "pretrainings", "trial": "trials", "cell": "cells", "pair": "pairs"}
        rows = [{"kind": kind, **entry} for kind, part in kinds.items() for entry in content.get(part, ())]
        return pd.DataFrame(rows, columns=["kind", "label", "state", "key"])

    def __str__(self) -> str:
        plan, missing = self.plan, self.missing
        lines = _lines(plan, {job.key for job in missing.jobs}, missing)
        left_out = about_left_out([offer for offer, _ in plan.offers])
        shown = [headline(plan, missing), *([left_out] if left_out else []), *lines[:MOST_LINES]]
        if len(lines) > MOST_LINES:
            shown.append(f"… and {len(lines) - MOST_LINES} lines more; --json has them all")
        if missing.jobs and self.seconds is None:
            shown.append("estimated work: unknown until a first pretraining and cell of this suite have run")
        elif missing.jobs:
            shown.append(f"estimated work: {self.seconds:,.0f} s of one worker, by the records at hand")
        return "\n".join(shown)

    __repr__ = __str__


def preview(session: Session, only_failed: bool = False, keep_predictions: bool = False) -> Preview:
    """Return what a session would run, the given parameters of plugins and observers checked.

    Raises
    ------
    UserError
        When a parameter is unknown or not allowed, or weights of the user's own do not fit images that are at hand.
    """
    check_plugins(session.plan, session.set_plugins)
    Observers.of([(offer, given) for offer, given in session.observers if given])
    plan = session.current_plan
    missing = find_missing(plan, session.store, only_failed, keep_predictions)
    if session.own_files:
        check_fit_of_present(session, missing.jobs)
    return Preview(plan, session.store, missing)


def headline(plan: Plan, missing: Missing) -> str:
    """Return how much of a plan is there and how much is to run, as one line."""
    to_run = {job.key for job in missing.jobs}
    pretrainings = [job for job in plan.pretrainings if job.key in to_run]
    cached = sum(job.key in missing.found for job in plan.results)
    left_out = len(plan.results) - cached - len(missing.results)
    results = f"{size_of(plan)}, {cached:,} cached, {len(missing.results):,} to run"
    later = sum(map(len, expected_cells(plan, missing.jobs).values()))
    if later:
        results += f", up to {counted(later, 'cell')} more once parameters are chosen"
    one = len(plan.pretrainings) == 1
    epochs = f"({_epochs(plan)}{'' if one else ' each'})"
    alone, models = "pretraining alone", f"pretraining{'' if one else 's'} to run {epochs}"
    if plan.pretrainings and (own := plan.pretrainings[0].checkpoint):
        alone, models = "scores alone", f"experiment{'' if one else 's'} to score {own.name} in"
    aside = f", {left_out:,} left out" if left_out else ""
    return (
        f"suite {plan.suite.name}: {results if plan.results else alone}{aside}; "
        f"{len(pretrainings):,} of {len(plan.pretrainings):,} {models}{_for_predictions(missing)}"
    )


def _for_predictions(missing: Missing) -> str:
    """Return how many jobs run again because their predictions are to be kept, as a clause; empty where none does."""
    number = len(missing.unpredicted)
    these = (
        "1 of these has a record without predictions"
        if number == 1
        else f"{number} of these have records without predictions"
    )
    return f"; {these}: kept weights are scored again, others made again" if number else ""


def _epochs(plan: Plan) -> str:
    """Return the epochs of a pretraining; an axis may give several."""
    epochs = sorted({pretraining.recipe.epochs for pretraining in plan.pretrainings})
    return counted(epochs[0], "epoch") if len(epochs) == 1 else f"{epochs[0]:,} to {epochs[-1]:,} epochs"


def known_seconds(plan: Plan, store: Store, missing: Missing) -> dict[str, float]:
    """Return the mean seconds of each kind of job in a plan (`kind_of_work`), by some of the records at hand."""
    found: dict[str, list[float]] = defaultdict(list)
    for jobs in (plan.results, plan.pretrainings):
        for job in [job for job in jobs if job.key in missing.found][:MOST_RECORDS_READ]:
            if record := store.find(job):
                found[kind_of_work(job)].append(sum(record.timing.seconds.values()))
    return {kind: mean(seconds) for kind, seconds in found.items()}


def seconds_of_evaluation(plan: Plan, store: Store, missing: Missing) -> float | None:
    """Return what scores and paths add to a cell of a plan with trials, by the scoring of pretrained models at hand.

    The model is scored as it is and as the end of all paths, and each path at its inner points; the straight one is
    always measured. What paths are prepared with is not counted: their training, matched units, BatchNorm's statistics.
    """
    there = [job for job in plan.pretrainings if job.key in missing.found][:MOST_RECORDS_READ] if plan.trials else []
    parts = [record.timing.parts for job in there if (record := store.find(job))]
    scoring = [own["scoring"] for own in parts if "scoring" in own]
    if not scoring or not plan.cells:
        return None
    settings = [cell.connect for cell in plan.cells]
    return mean(2 + len({"linear", *own.paths}) * (own.points - 2) for own in settings) * mean(scoring)


def estimate_seconds(plan: Plan, store: Store, missing: Missing) -> float | None:
    """Return the seconds of one worker that the missing jobs should take, by the records of the others.

    None when nothing is known of a pretraining or of any cell. A method without a record counts as the mean of the
    others.
    """
    known = known_seconds(plan, store, missing)
    later = chain.from_iterable(expected_cells(plan, missing.jobs).values())
    pretraining = known.pop(PRETRAINING, None)
    known |= cells_after_trials(known, seconds_of_evaluation(plan, store, missing))
    others = {trial: mean_of_alike(known, trial) if known else None for trial in (False, True)}
    seconds = [
        pretraining if isinstance(job, Pretraining) else known.get(kind_of_work(job), others[isinstance(job, Trial)])
        for job in chain(missing.jobs, later)
    ]
    return None if None in seconds else sum(filter(None, seconds))


def size_of(plan: Plan) -> str:
    """Return how many cells and pairs a plan has, or pretrainings where it has no other aim, in words."""
    if not plan.results:
        return counted(len(plan.pretrainings), "pretraining")
    trials = [counted(len(plan.trials), "trial")] if plan.trials else []
    cells = [counted(len(plan.cells), "cell")] if plan.cells or not plan.pairs else []
    pairs = [counted(len(plan.pairs), "pair")] if plan.pairs else []
    return " and ".join([*trials, *cells, *pairs])


def _state(key: str, to_run: set[str], missing: Missing) -> str:
    return "to run" if key in to_run else "cached" if key in missing.found else "left out"


def _lines(plan: Plan, to_run: set[str], missing: Missing) -> list[str]:
    """Return one line for each method and setting, with its seeds."""
    seeds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for tuning in plan.tunings:
        for state, number in Counter(_state(job.key, to_run, missing) for job in tuning.jobs).items():
            note = plan.note_of(tuning.jobs[0])
            seeds[state, f"{tuning.label}{note} · {counted(number, 'trial')}"] = [
                str(seed) for seed in tuning.selection.seeds
            ]
    for cell in plan.cells:
        place = f"{' '.join(cell.pretraining.place)} · {cell.method.name}{plan.note_of(cell)}"
        seeds[_state(cell.key, to_run, missing), place].append(str(cell.pretraining.seed))
    for pair in plan.pairs:
        seeds[_state(pair.key, to_run, missing), f"pair {pair.label}{plan.note_of(pair)}"] = []
    width = max((len(state) for state, _ in seeds), default=0)
    return [
        f"  {state:{width}}  {place}{f' · seeds {chr(32).join(which)}' if which else ''}"
        for (state, place), which in seeds.items()
    ]
