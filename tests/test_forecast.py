"""How long a run will still take: the forecast against runs of known length, on a clock of their own."""

import heapq
from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers.records import CELL_VERSIONS, plugin, pretraining

from mmc_bench.engines.schedule import Schedule, pretraining_of
from mmc_bench.results.jobs import Cell, Pretraining, Trial
from mmc_bench.results.settings import ConnectSettings
from mmc_bench.running.forecast import MOST_DEALT, Forecast, in_words
from mmc_bench.running.preview import estimate_seconds, seconds_of_evaluation
from mmc_bench.running.profile import kind_of_work
from mmc_bench.running.runner import Missing
from mmc_bench.running.session import Session

#: Seconds of the jobs of `quick` as `--profile` measured them (benchmarks/docs/speed.md), with scores and paths.
MEASURED = {
    "pretraining": 18.7,
    "ft-large": 7.6,
    "ft-medium": 6.0,
    "ft-small": 6.3,
    "llr": 4.3,
    "lpft": 7.1,
    "cbft": 11.8,
    "cbft-no-barrier": 9.1,
    "cbft-no-invariance": 9.3,
}

#: Those of a slower suite, whose methods differ more: the estimator's constants were chosen with these at hand.
QUICK = {
    "pretraining": 17.8,
    "ft-large": 7.1,
    "ft-medium": 6.8,
    "ft-small": 6.8,
    "llr": 4.3,
    "lpft": 12.2,
    "cbft": 13.3,
    "cbft-no-barrier": 9.9,
    "cbft-no-invariance": 9.9,
}


def jobs_of(methods, seeds=3):
    models = [replace(pretraining(seed), recipe=replace(pretraining(seed).recipe, epochs=15)) for seed in range(seeds)]
    cells = [
        Cell(versions=CELL_VERSIONS, pretraining=model, method=plugin(method), connect=ConnectSettings())
        for model in models
        for method in methods
    ]
    return [*models, *cells]


class Run:
    """A run of jobs that take known seconds, in the order of a real one; `forecasts` are made as it goes on.

    Each is the kind of event that it was made at, the seconds that it says are left, and those that are.
    """

    def __init__(self, jobs, seconds, workers, known=None):
        self.now, made = 0.0, []
        forecast = Forecast(jobs, workers, known, lambda: self.now)
        schedule, events, last = Schedule(jobs, workers), [], dict.fromkeys(range(workers))
        idle = list(last)
        while schedule or events:
            for worker in [*idle]:
                if job := next(schedule.candidates(last[worker]), None):
                    schedule.remove(job)
                    idle.remove(worker)
                    last[worker] = pretraining_of(job)
                    for when, event in self._events_of(job, seconds[kind_of_work(job)]):
                        heapq.heappush(events, (self.now + when, len(events), worker, job.key, job, event))
            self.now, _, worker, _, job, event = heapq.heappop(events)
            if event is None:
                forecast.finished(job)
                schedule.finished(job, succeeded=True)
                idle.append(worker)
            else:
                forecast.event(job, event)
            made.append(("end" if event is None else "epoch", job, forecast.seconds(), self.now))
        self.forecasts = [(what, job, left, self.now - then) for what, job, left, then in made]

    @staticmethod
    def _events_of(job, seconds):
        """Return what a job tells, and when: it loads data for a while, trains, and is scored."""
        yield 0.0, {"stage": "train"}
        epochs = 15 if isinstance(job, Pretraining) else 20
        trains = 0.8 if isinstance(job, Pretraining) else 0.5
        for epoch in range(epochs):
            yield seconds * (0.1 + trains * (epoch + 1) / epochs), {"epoch": epoch + 1, "epochs": epochs}
        yield seconds, None

    def after(self, first):
        """Return the forecasts from the first end of a job of a type on, each with the truth."""
        ends = [what == "end" and isinstance(job, first) for what, job, _, _ in self.forecasts]
        return [(left, truth) for _, _, left, truth in self.forecasts[ends.index(True) :]]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("methods", [["cbft", "lpft"], [name for name in QUICK if name != "pretraining"]], ids=len)
@pytest.mark.parametrize("seconds", [MEASURED, QUICK], ids=["measured", "slower"])
def test_after_the_first_cell_the_time_left_is_right_within_a_factor_of_one_and_a_half(methods, workers, seconds):
    run = Run(jobs_of(methods), seconds, workers)
    told = [(left, truth) for left, truth in run.after(Cell) if truth > 10]
    assert len(told) > 10
    assert [(left, truth) for left, truth in told if not truth / 1.5 <= left <= 1.5 * truth] == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pretrainings_second_epoch_gives_a_first_forecast_and_nothing_before_it_does(workers):
    run = Run(jobs_of(["cbft", "lpft"]), QUICK, workers)
    lefts = [left for _, _, left, _ in run.forecasts]
    assert lefts[: 2 * workers] == [None] * 2 * workers  # each has begun, and ended an epoch
    left, truth = next((left, truth) for _, _, left, truth in run.forecasts if left is not None)
    assert truth / 2 <= left <= 2 * truth  # a guess: nothing is known of a cell


def test_records_at_hand_give_a_forecast_before_anything_ran_and_give_way_to_what_is_measured():
    jobs = jobs_of(["cbft", "lpft"])
    assert Forecast(jobs, 1, QUICK).seconds() == pytest.approx(3 * (17.8 + 12.2 + 13.3))
    assert Forecast(jobs, 1, {"cbft": 4.0}).seconds() is None  # nothing of a pretraining
    slower = Run(jobs, {kind: 10 * seconds for kind, seconds in QUICK.items()}, 1, QUICK)
    assert all(truth / 1.5 <= left <= 1.5 * truth for left, truth in slower.after(Cell) if truth > 200)


def test_a_forecast_says_what_it_rests_on():
    cells = [job for job in jobs_of(["cbft"]) if isinstance(job, Cell)]
    guess = "the records at hand; a guess until a cell has ended"
    assert Forecast(cells, 1, {"pretraining": 20.0}).basis == guess  # all models are there, and no cell of the method
    assert Forecast(cells, 1, QUICK).basis == "the records at hand"
    assert Forecast(jobs_of(["cbft"]), 1).basis == "the first epochs; a guess until a cell has ended"


def test_a_long_job_at_the_end_counts_in_full():
    model, *cells = jobs_of(["short", "long"], seeds=1)
    known = {"pretraining": 10.0, "short": 1.0, "long": 100.0}
    assert Forecast([model, *cells], 2, known).seconds() == 110.0  # no cell starts before its model is there
    assert Forecast(cells, 2, known).seconds() == 100.0


def test_what_fails_or_was_done_elsewhere_is_no_measure():
    now = [0.0]
    model, cell, other = jobs_of(["mine", "yours"], seeds=1)
    forecast = Forecast([cell, other], 1, {"mine": 10.0, "yours": 10.0}, lambda: now[0])
    forecast.event(cell, {"stage": "train"})
    now[0] = 500.0
    forecast.finished(cell, measured=False)
    assert forecast.seconds() == 10.0 and model.key != cell.key


@pytest.mark.parametrize("pace", [1, 2])
def test_cells_of_which_only_trials_were_measured_take_their_scores_and_paths_besides(pace):
    now = [0.0]
    model, cell = jobs_of(["mine"], seeds=1)
    versions = {stage: CELL_VERSIONS[stage] for stage in ("fine-tune", "score")}
    trials = [Trial(versions=versions, pretraining=model, method=plugin("mine", lr=lr), number=lr) for lr in (1, 2)]
    known = {"pretraining": 500.0, "yours": 10.0}
    forecast = Forecast([*trials, cell], 1, known, lambda: now[0], {"a choice": [cell, cell]}, evaluation=70.0)
    other = jobs_of(["yours"], seeds=1)[1]
    forecast.event(other, {"stage": "train"})
    now[0] = 10.0 * pace
    forecast.finished(other)
    forecast.event(trials[0], {"stage": "train"})
    now[0] += 3.0
    forecast.finished(trials[0])
    assert forecast.seconds() == pytest.approx(3 + 3 * (3 + pace * 70))
    for epoch in range(3):
        forecast.event(cell, {"epoch": epoch, "epochs": 10})
        now[0] += 1.0
    assert forecast.seconds() == pytest.approx(3 + 3 * (3 + pace * 70) - 3)
    now[0] += 87.0
    forecast.finished(cell)
    assert forecast.seconds() == pytest.approx(3 + 2 * 90)  # what was measured of a cell counts alone


def test_epochs_of_a_cell_may_say_more_than_trials_and_unmeasured_trials_are_like_the_others():
    now = [0.0]
    model, mine, yours = jobs_of(["mine", "yours"], seeds=1)
    versions = {stage: CELL_VERSIONS[stage] for stage in ("fine-tune", "score")}
    tried, *others = (
        Trial(versions=versions, pretraining=model, method=plugin(name, lr=lr), number=lr)
        for name, lr in (("mine", 1), ("yours", 1), ("yours", 2))
    )
    forecast = Forecast([tried, *others, mine, yours], 1, {}, lambda: now[0], {"a choice": [mine]}, evaluation=7.0)
    forecast.event(tried, {"stage": "train"})
    now[0] = 3.0
    forecast.finished(tried)
    assert forecast.seconds() == pytest.approx(2 * 3 + 3 * (3 + 7))
    for epoch in range(3):
        forecast.event(mine, {"epoch": epoch, "epochs": 10})
        now[0] += 20.0
    assert forecast.seconds() == pytest.approx(2 * 3 + (200 - 60) + 2 * 200)


def test_scores_and_paths_of_a_cell_take_a_pretrained_model_s_scoring_for_each_point(tmp_path):
    paths = ConnectSettings(paths=("quadratic", "permuted"), points=5)
    plan = Session.of("quick", {"methods": "llr"}, {"tune": 2, "connect.points": 5}, results=tmp_path).plan
    plan = replace(plan, cells=tuple(replace(cell, connect=paths) for cell in plan.cells))
    found = Missing((), frozenset(), frozenset(job.key for job in plan.pretrainings))
    parts = iter([{"scoring": 2.0}, {"scoring": 4.0}, {"training": 9.0}, {}])
    store = SimpleNamespace(find=lambda job: SimpleNamespace(timing=SimpleNamespace(parts=next(parts))))
    assert seconds_of_evaluation(plan, store, found) == (2 + 3 * 3) * 3.0
    assert seconds_of_evaluation(plan, store, replace(found, found=frozenset())) is None
    assert seconds_of_evaluation(replace(plan, tunings=()), store, found) is None


def test_a_dry_run_expects_of_cells_after_trials_what_a_run_does(tmp_path, monkeypatch):
    plan = Session.of("quick", {"methods": "llr", "seeds": 0}, {"tune": 2, "connect.points": 5}, results=tmp_path).plan
    monkeypatch.setattr("mmc_bench.running.preview.known_seconds", lambda *given: {"llr (trial)": 3.0})
    monkeypatch.setattr("mmc_bench.running.preview.seconds_of_evaluation", lambda *given: 70.0)
    missing = Missing((*plan.trials, *plan.cells), frozenset(), frozenset(job.key for job in plan.pretrainings))
    assert estimate_seconds(plan, None, missing) == 2 * 3 + 3 * 73  # a cell as published, and one by each rule


@pytest.mark.slow
def test_many_jobs_are_summed_up():
    cells = jobs_of(["mine"], seeds=MOST_DEALT + 2)[MOST_DEALT + 2 :]
    assert Forecast(cells, 4, {"mine": 2.0}).seconds() == pytest.approx(2.0 * len(cells) / 4)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "5 s"), (42, "40 s"), (91, "2 min"), (5340, "89 min"), (7500, "2 h 5 min")]
)
def test_seconds_are_said_as_people_do(seconds, words):
    assert in_words(seconds) == words
