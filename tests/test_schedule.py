"""The order in which jobs are handed out."""

from dataclasses import replace

import pytest

from mmc_bench.engines.schedule import Schedule


def take(schedule, last=None):
    """Take the best candidate out, or return None."""
    job = next(schedule.candidates(last), None)
    if job is not None:
        schedule.remove(job)
    return job


@pytest.fixture
def jobs(cell):
    """Return two pretrainings, and two cells of each."""
    pretrainings = [replace(cell.pretraining, seed=seed) for seed in (0, 1)]
    methods = [replace(cell.method, name=name) for name in ("a", "b")]
    cells = [
        replace(cell, pretraining=pretraining, method=method) for pretraining in pretrainings for method in methods
    ]
    return pretrainings, cells


def test_a_lone_worker_finishes_a_pretrainings_cells_before_the_next_pretraining(jobs):
    (first, second), (a0, b0, a1, b1) = jobs
    schedule, last, order = Schedule([first, second, a0, b0, a1, b1], workers=1), None, []
    while job := take(schedule, last):
        order.append(job)
        last = first.key if job in (first, a0, b0) else second.key
        schedule.finished(job, succeeded=True)
    assert order == [first, a0, b0, second, a1, b1]


def test_several_workers_pretrain_first_and_then_stay_with_the_model_they_trained(jobs):
    (first, second), (a0, b0, a1, b1) = jobs
    schedule = Schedule([first, second, a0, b0, a1, b1], workers=2)
    assert [take(schedule), take(schedule)] == [first, second]
    assert take(schedule) is None  # nothing is ready
    schedule.finished(first, succeeded=True)
    schedule.finished(second, succeeded=True)
    assert take(schedule, second.key) == a1
    assert take(schedule, first.key) == a0
    assert take(schedule, second.key) == b1


def test_cells_of_a_failed_pretraining_are_given_back_and_never_handed_out(jobs):
    (first, second), (a0, b0, a1, b1) = jobs
    schedule = Schedule([first, second, a0, b0, a1, b1], workers=1)
    assert take(schedule) == first
    assert schedule.finished(first, succeeded=False) == [a0, b0]
    assert take(schedule) == second
    schedule.finished(second, succeeded=True)
    assert [take(schedule), take(schedule), take(schedule)] == [a1, b1, None]
