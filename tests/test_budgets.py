"""What a training visits and computes: the counts in records, against arithmetic."""

import copy
import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim.optimizer import _global_optimizer_post_hooks

import mmc_bench
from mmc_bench.data.sources import Sources
from mmc_bench.errors import UserError
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.store import Store
from mmc_bench.stages.finetune import fine_tune, task_of
from mmc_bench.stages.resources import Resources
from mmc_bench.system.tally import running_tally
from mmc_bench.testing.networks import first_difference
from mmc_bench.testing.tiny_data import VECTORS, tiny_experiment, tiny_network
from mmc_bench.training import evaluate
from mmc_bench.training.passes import place_of_passes
from mmc_bench.training.returned import hooks_of

CPU = torch.device("cpu")
N = VECTORS.set_size  # images of each of the clean, the validation and the pretraining set
EPOCHS, BATCH = 2, 5
STEPS = EPOCHS * -(-N // BATCH)
SHORT = {"epochs": EPOCHS, "batch_size": BATCH}
NAMES = ("clean_images", "cued_images", "validation_images", "optimiser_steps", "forward_passes", "backward_passes")


@pytest.fixture(scope="module")
def registry():
    return Registry.discover()


class OneMethod(Resources):
    """Resources that offer one method, whatever is asked for."""

    def offer(self, kind, reference):
        return self.only

    def model(self, pretraining, data):
        return tiny_network(VECTORS, CPU)


@pytest.fixture
def run(cell, registry):
    """Return what runs the fine-tuning stage with a built-in method, or with a function of the task."""

    def run(method, needs=(), **parameters):
        resources = OneMethod(registry, Store("."), Sources(), CPU, threads=1)
        if callable(method):
            made = SimpleNamespace(fine_tune=method)
            config = SimpleNamespace(model_dump=lambda mode: {})
            spec = SimpleNamespace(needs=frozenset(needs))
            resources.only = SimpleNamespace(spec=spec, configure=lambda _: config, make=lambda _: made)
        else:
            offer = registry.get("method", method)
            configured = offer.configure(parameters)
            resources.only = SimpleNamespace(
                spec=offer.spec, configure=lambda _: configured, make=lambda config: offer.make(config)
            )
        network, data = tiny_network(VECTORS, CPU), tiny_experiment(VECTORS, CPU)
        model, *_, budget = fine_tune(cell, network, data, resources, lambda event: None)
        return model, tuple(getattr(budget, name) for name in NAMES)

    return run


@pytest.mark.parametrize(
    ("method", "parameters", "expected"),
    [
        ("ft-medium", SHORT, (2 * N, 0, 0, STEPS, 2 * N, 2 * N)),
        ("from-scratch", SHORT, (2 * N, 0, 0, STEPS, 2 * N, 2 * N)),
        ("llr", SHORT, (N, 0, 0, STEPS, N, 0)),  # features once; no gradient comes to them
        ("llr-pooled", SHORT, (N, N, 0, STEPS, 2 * N, 0)),
        (
            "lpft",
            {**SHORT, "probe_epochs": EPOCHS, "lrs": (0.1, 0.01)},  # a probe, two trainings, two scores
            (N + 4 * N, 0, 2 * N, 3 * STEPS, N + 4 * N + 2 * N, 4 * N),
        ),
        # Each step has a barrier on the cued batch; the second epoch compares features on the same cued batch.
        ("cbft", SHORT, (2 * N, 2 * N, 0, 2 * STEPS, 5 * N, 5 * N)),
        ("ft-sam", SHORT, (2 * N, 0, 0, STEPS, 4 * N, 4 * N)),
        ("coral", SHORT, (2 * N, 2 * N, 0, STEPS, 4 * N, 4 * N)),
    ],
)
def test_the_counts_of_methods_are_those_of_arithmetic(run, method, parameters, expected):
    assert run(method, **parameters)[1] == expected


def test_images_of_a_joined_set_count_for_the_set_that_they_come_from(run):
    rows = torch.randperm(2 * N, generator=torch.Generator().manual_seed(0))[:N]

    def visit(task):
        batches = task.clean.joined(task.cued).subset(rows).in_order(BATCH)
        for x, _ in batches:
            task.model(x)
        return task.model

    clean = int((rows < N).sum())
    assert 0 < clean < N
    assert run(visit, {"cued"})[1] == (clean, N - clean, 0, 0, N, 0)


def test_joined_sets_of_one_role_and_of_none_and_their_subsets_are_counted(run):
    def visit(task):
        unknown = copy.copy(task.validation)
        object.__setattr__(unknown, "role", None)
        unknown.batch(slice(4))
        task.clean.joined(task.clean).batch(torch.arange(N - 1, N + 2))  # 3 clean
        joined = unknown.joined(task.cued).joined(task.clean).joined(task.validation)
        joined.batch(torch.tensor([0, N, N + 1, 2 * N, 3 * N, 3 * N, 3 * N]))  # 2 cued, 1 clean, 3 of validation
        joined.subset(slice(N - 1, 2 * N)).batch(torch.arange(N + 1) < 4)  # the first has no role: 3 cued
        return task.model

    assert run(visit, {"cued"})[1][:3] == (3 + 1, 2 + 3, 3)


def test_a_loop_of_ones_own_is_counted_by_whatever_way_it_runs_a_network(run):
    def own(task):
        model = copy.deepcopy(task.model)  # a copy is counted, too
        optimiser = torch.optim.Adam(model.parameters())
        for x, y in task.clean.shuffled(BATCH, task.generator):
            optimiser.zero_grad()
            with torch.no_grad():
                task.pretrained(x)  # N forward
            halves = model.forward_head(model.forward_features(x))  # N forward, N backward
            moved = functional_call(model, dict(model.named_parameters()), (x,))  # N forward, N backward
            (F.cross_entropy(halves, y) + F.cross_entropy(moved, y)).backward()
            optimiser.step()
        evaluate(model, task.validation.subset(slice(7)))
        return torch.optim.swa_utils.AveragedModel(model)

    assert run(own)[1] == (N, 0, 7, STEPS // EPOCHS, 3 * N + 7, 2 * N)


@pytest.mark.slow
def test_compiled_passes_are_counted_once(run, monkeypatch):
    monkeypatch.setattr("mmc_bench.training.training.is_worth_compiling", lambda device, steps: True)
    monkeypatch.setattr("mmc_bench.training.training.compiled", lambda forward: torch.compile(forward, backend="eager"))
    assert run("ft-medium", **SHORT)[1] == (2 * N, 0, 0, STEPS, 2 * N, 2 * N)


def test_counting_changes_no_number(run, cell, registry):
    offer = registry.get("method", "lpft")
    method = offer.make(offer.configure({**SHORT, "probe_epochs": 1}))
    resources = Resources(registry, Store("."), Sources(), CPU, threads=1)
    network, data = tiny_network(VECTORS, CPU), tiny_experiment(VECTORS, CPU)
    task, _ = task_of(cell.pretraining, network, data, resources, offer.spec.needs)
    plain = method.fine_tune(task)
    counted, _ = run("lpft", probe_epochs=1, **SHORT)
    assert first_difference(plain.state_dict().items(), counted.state_dict().items()) is None


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_of_the_counting(run, fails):
    given = []

    def method(task):
        given.extend([task.model, task.pretrained])
        if fails:
            raise UserError("planted")
        return task.model

    before = list(_global_optimizer_post_hooks)
    with pytest.raises(UserError, match="planted") if fails else nullcontext():
        given.append(run(method)[0])
    assert len(given) == 3 - fails and [hook for network in given for hook in hooks_of(network)] == []
    assert running_tally() is None and list(_global_optimizer_post_hooks) == before


class Shared(nn.Module):
    """A network whose last module runs twice; or without any module at all."""

    def __init__(self, layers=True):
        super().__init__()
        self.first, self.twice = (nn.Linear(2, 3), nn.Linear(3, 3)) if layers else (torch.sin, torch.cos)

    def forward_features(self, x):
        return self.twice(self.twice(self.first(x)))

    def forward(self, x):
        return self.forward_features(x)


def test_passes_are_counted_at_the_last_module_that_each_goes_through_once(tiny_net):
    assert place_of_passes(tiny_net(dtype=torch.float32), torch.randn(4, 2, 6, 6)) == "norm2"
    assert place_of_passes(Shared(), torch.randn(4, 2)) == "first"
    assert place_of_passes(Shared(layers=False), torch.randn(4, 2)) == ""


@pytest.mark.slow
def test_records_have_budgets_that_kept_weights_bring_along(bench, monkeypatch):
    words = ("--seeds", "0", "--methods", "tiny-ft")
    bench.tiny(*words, "--keep-weights")
    before = bench.records()
    pretraining, cell = (next(r for r in before.values() if r["kind"] == kind) for kind in ("pretraining", "cell"))
    trained = {"cued_images": 2 * 60, "optimiser_steps": 2 * 5, "forward_passes": 2 * 60, "backward_passes": 2 * 60}
    assert pretraining["budget"] == dict.fromkeys(NAMES, 0) | trained
    monkeypatch.setattr("mmc_bench.stages.job.fine_tune", lambda *_: 1 / 0)
    bench.tiny(*words, "--set", "connect.points=5")
    (anew,) = (record for name, record in bench.records().items() if name not in before)
    assert anew["budget"] == cell["budget"] != pretraining["budget"]


@pytest.mark.slow
def test_a_frame_has_the_budgets_and_nothing_where_a_record_has_none(bench, monkeypatch):
    bench.tiny("--seeds", "0")
    file = next(file for file in (bench.folder / "results" / "cells").iterdir() if "tiny-still" in file.read_text())
    record = json.loads(file.read_text())
    del record["budget"], record["provenance"]["sha256"]
    file.write_text(json.dumps(record))
    monkeypatch.chdir(bench.folder)
    frame = mmc_bench.load().to_frame("budgets").set_index("method")
    assert list(frame.index) == ["pretrained", "tiny-ft", "tiny-still"]
    assert list(frame.loc["tiny-ft", list(NAMES)]) == [24, 0, 0, 4, 24, 24]
    assert frame.loc["tiny-still", list(NAMES)].isna().all() and (frame["seconds"] > 0).all()
