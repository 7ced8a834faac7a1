"""The Python API: it says what the command line says, with the same records, and errors are sentences."""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest
import yaml
from conftest import PLUGINS, TINY_SUITE

import mmc_bench
from mmc_bench.errors import NothingSelectedError, UserError
from mmc_bench.suites.suite import load_suite

pytestmark = pytest.mark.slow

TINY = {"workers": 0, "progress": False}


@pytest.fixture
def here(bench, monkeypatch):
    """Return the bench of a folder that is the current one, with the tiny plugins."""
    monkeypatch.chdir(bench.folder)
    bench("list", "suites")  # sets the folder and the plugins
    return bench


class Unchanged:
    """Return the model as it is."""

    def fine_tune(self, task):
        return task.model


class Headless:
    needs = frozenset({"cued"})

    def __init__(self, lr: float = 0.05):
        self.lr = lr

    def fine_tune(self, task):
        return task.training(lr=self.lr, epochs=2, batch_size=6).fit()


# --- what it costs


def test_importing_it_loads_nothing_heavy_and_knows_every_public_name():
    code = (
        "import sys, mmc_bench\n"
        "assert not {'torch', 'pandas', 'pydantic', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert set(mmc_bench.__all__) <= set(dir(mmc_bench))\n"
        "assert all(getattr(mmc_bench, name) for name in mmc_bench.__all__)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- runs


def test_a_run_has_the_rows_and_the_table_of_the_command(here):
    results = mmc_bench.run("tiny.yaml", **TINY)
    frame = results.to_frame()
    assert list(frame["method"]) == ["tiny-ft", "tiny-still"] * 2 and list(frame["seed"]) == [0, 0, 1, 1]
    assert list(results.to_frame("pretrained")["method"]) == ["pretrained"] * 2
    assert str(results.table()) == here.tiny().out == here("table", "--suite", "tiny.yaml").out
    assert results.summary.computed == 4 and repr(results).startswith("4 cells: 4 computed, 0 cached in")
    record = next(record for record in results.cells if record.key == frame["key"][0])
    assert record.metrics.RC.accuracy == frame["RC"][0]
    again = mmc_bench.run("tiny.yaml", **TINY)
    assert (again.summary.computed, again.summary.cached) == (0, 4)
    assert "<table" in results._repr_html_() and "<table" in results.table()._repr_html_()


def test_a_suite_is_a_path_a_mapping_or_itself(here):
    content = yaml.safe_load((here.folder / "tiny.yaml").read_text())
    suites = ["tiny.yaml", here.folder / "tiny.yaml", content, load_suite("tiny.yaml", {})]
    plans = [mmc_bench.dry_run(suite).plan for suite in suites]
    assert all(plan.cells == plans[0].cells for plan in plans)
    with pytest.raises(UserError, match="suite: unknown key 'method': did you mean methods"):
        mmc_bench.run({**content, "method": "x"})


def test_lists_settings_and_shards_select_as_options_do(here):
    named = {"methods": "tiny-ft,tiny-still", "seeds": 1, "set": {"tiny-ft.lr": 0.02, "pretrain.epochs": 1}}
    of_python = mmc_bench.dry_run("tiny.yaml", **named, shard=(1, 2))
    words = "--methods tiny-ft,tiny-still --seeds 1 --set tiny-ft.lr=0.02 --set pretrain.epochs=1 --shard 1/2"
    of_command = here("run", "--suite", "tiny.yaml", "--dry-run", *words.split())
    assert f"{of_python}\n" == of_command.out
    assert list(of_python.to_frame()["state"]) == ["to run", "to run"]
    assert str(mmc_bench.dry_run("tiny.yaml", **named, shard="1/2")) == str(of_python)


def test_a_class_and_an_object_run_in_this_process_too(here):
    slow = Headless(lr=0.01)
    slow.name = "slow-headless"
    results = mmc_bench.run("tiny.yaml", methods=[Unchanged, Headless, slow, "tiny-ft"], seeds=0, **TINY)
    scores = results.to_frame().set_index("method")
    assert list(scores.index) == ["unchanged", "headless", "slow-headless", "tiny-ft"]
    columns = ["NC", "C", "RC", "RI", "barrier_C"]
    assert list(scores.loc["headless", columns]) == list(scores.loc["tiny-ft", columns])
    assert scores.loc["slow-headless", "parameters"] == {"lr": 0.01}
    assert len(mmc_bench.load(methods=[Headless])) == 1
    assert "headless" in here("table").out


def test_failures_raise_nothing_and_are_named(here):
    results = mmc_bench.run("tiny.yaml", methods=["tiny-raise", "tiny-still"], seeds=0, **TINY)
    (failure,) = results.failures
    assert "ZeroDivisionError: planted" in failure.error and "planted" in repr(results)
    assert results.summary.failed == 1 and list(results.to_frame()["method"]) == ["tiny-still"]
    assert mmc_bench.run("tiny.yaml", methods="tiny-raise", seeds=0, retry_failed=True, **TINY).failures


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"suite": "tinny.yaml"}, "tinny.yaml"),
        ({"methods": "tiny-fr"}, "unknown method 'tiny-fr': did you mean tiny-ft"),
        ({"methods": 3}, "3 is no method"),
        ({"seeds": "x"}, "arguments: seeds.0 = 'x'"),
        ({"cue_rates": 2}, "arguments: cue_rates.0 = 2"),
        ({"set": {"tiny-ft.lr": -1}}, "method tiny-ft: lr = -1"),
        ({"set": {"epochs": 1}}, "set 'epochs': write 'SECTION.key' or 'PLUGIN.parameter'"),
        ({"set": "pretrain.epoch=1"}, "unknown key 'pretrain.epoch'"),
        ({"data": {"cifar10": "nowhere"}}, "cifar10"),
        ({"device": "tpu9"}, "tpu9 cannot be used"),
        ({"precision": "fp16"}, "unknown precision 'fp16': write auto, fp32, bf16"),
        ({"workers": -1}, "workers = -1: must be a whole number, 0 or more"),
        ({"time_limit": 0}, "time_limit = 0: must be a finite number above 0"),
        ({"time_limit": "1"}, "time_limit = '1': must be a finite number above 0"),
        ({"suite": ""}, "suite '': give a suite's name, its file or its content, or leave it out"),
        ({"suite": {}}, "suite {}: give a suite's name"),
        ({"methods": ""}, "methods = '' is empty: give one or more, or leave it out"),
        ({"datasets": " , "}, "datasets = ' , ' is empty"),
        ({"set": {1: 2}}, "set 1: write 'SECTION.key'"),
        ({"set": 5}, "set = 5: give a mapping"),
        ({"set": 5, "tune": 2}, "set = 5: give a mapping"),
        ({"axes": 5}, "axes = 5: give a mapping of settings"),
        ({"time_limit": True}, "time_limit = True: must be a finite number above 0"),
        ({"data": "cifar10=x"}, "data = 'cifar10=x': give folders by image source"),
        ({"data": ["cifar10=x"]}, "give folders by image source"),
        ({"engine": "slurm"}, "unknown engine 'slurm'"),
        ({"cpus_per_cell": 2}, "--engine ray"),
        ({"shard": "9/8"}, "'9/8' is no part of a suite"),
        ({"shard": 3}, "'3' is no part of a suite"),
        ({"plugins_dir": "nowhere"}, "plugin folder nowhere does not exist"),
        ({"plugins_dir": 5}, "plugins_dir = 5: give a folder or file of plugins, or several"),
        ({"observe": "event-lgo"}, "did you mean event-log"),
        ({"observe": [object]}, "observe = [<class 'object'>]: give an observer's name, or several"),
        ({"results": "tiny.yaml"}, "tiny.yaml"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence_and_nothing_runs(here, arguments, says):
    with pytest.raises(UserError) as caught:
        mmc_bench.run(**{"suite": "tiny.yaml", **TINY, **arguments})
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not list(here.folder.glob("results/cells/*"))


# --- progress and interrupts


def test_progress_is_lines_on_stderr_a_function_or_nothing(here, capsys):
    lines = []
    mmc_bench.run("tiny.yaml", seeds=0, workers=0, precision="fp32", progress=lines.append)
    assert "2 cells, 0 cached, 2 to run" in lines[0] and "this process with 1 thread on cpu in fp32" in lines[1]
    assert [line[:5] for line in lines if line[0] == "["] == ["[1/3]", "[2/3]", "[3/3]"] and "2 computed" in lines[-1]
    assert re.search(r"about \d+ (s|min) left$", next(line for line in lines if line.startswith("[2/3]")))
    assert capsys.readouterr() == ("", "")
    mmc_bench.run("tiny.yaml", seeds=0, workers=0)
    out, err = capsys.readouterr()
    assert out == "" and "2 cells: 0 computed, 2 cached" in err


def test_an_interrupt_raises_with_what_is_finished_kept_and_handlers_restored(here):
    before = signal.getsignal(signal.SIGINT)

    def interrupt(line):
        if "tiny-still" in line:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        mmc_bench.run("tiny.yaml", methods=["tiny-still", "tiny-ft"], workers=0, progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    assert len(mmc_bench.load()) == 1


def test_a_time_limit_returns_what_there_is(here, monkeypatch):
    monkeypatch.setenv("TINY_NAP", "60")
    results = mmc_bench.run("tiny.yaml", methods="tiny-nap", seeds=0, time_limit=0.05, **TINY)
    assert results.summary.interrupted and len(results) == 0


def test_it_runs_in_another_thread(here):
    found = []
    thread = threading.Thread(target=lambda: found.append(mmc_bench.run("tiny.yaml", seeds=0, **TINY)))
    thread.start()
    thread.join()
    assert len(found[0]) == 2


# --- records at hand


def test_load_selects_as_the_table_does(here):
    mmc_bench.run("tiny.yaml", **TINY)
    assert len(mmc_bench.load()) == 4
    loaded = mmc_bench.load("results", methods="*-ft", seeds=1)
    assert list(loaded.to_frame()["seed"]) == [1] and len(loaded.pretrained) == 1
    assert str(loaded.table("csv")) == here("table", "--methods", "*-ft", "--seeds", 1, "--format", "csv").out
    nothing = mmc_bench.load(methods="other")
    assert len(nothing.to_frame()) == 0 and "no record in results is selected" in repr(nothing)
    with pytest.raises(UserError, match="no record in results is selected"):
        mmc_bench.plot(nothing)
    with pytest.raises(UserError, match="there is no results folder nowhere"):
        mmc_bench.load("nowhere")
    with pytest.raises(UserError, match="unknown format 'xml'"):
        loaded.table("xml")
    for wrong in ({"seeds": "0"}, {"seeds": -1}, {"cue_rates": "0.9"}, {"cue_rates": 90}):
        with pytest.raises(UserError, match=f"{next(iter(wrong))}.0 = "):
            mmc_bench.load(**wrong)


def test_plot_draws_what_the_command_draws(here):
    results = mmc_bench.run("tiny.yaml", seeds=0, **TINY)
    pictures = mmc_bench.plot(results)
    here("plot", "--out", "by-command")
    pictures.save("by-python")
    by_command, by_python = (
        {path.name: path.read_bytes() for path in (here.folder / name).iterdir() if path.suffix != ".png"}
        for name in ("by-command", "by-python")
    )
    assert by_command == by_python and len(by_command) == 2 * len(pictures) == 6
    assert pictures._repr_html_().count("data:image/png") == 3
    assert [path.suffix for path in pictures[0].save("one", "svg")] == [".svg"]
    with pytest.raises(UserError, match="figures are saved as png, svg, csv, not as 'pdf'"):
        pictures.save("others", ["csv", "pdf"])
    assert not (here.folder / "others").exists()


def test_lists_are_frames(here):
    frame = mmc_bench.list("methods")
    assert frame.loc[frame["name"] == "tiny-ft", "needs"].item() == ["clean", "cued"]
    assert set(mmc_bench.list("suites")["name"]) >= {"quick"}
    with pytest.raises(UserError, match="unknown kind 'method': did you mean methods"):
        mmc_bench.list("method")


# --- development


PLACE = {"suite": "tiny.yaml", "precision": "fp32", "threads": 1, "progress": False}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Return a task for tests that change nothing of it, made once."""
    folder = tmp_path_factory.mktemp("task")
    (folder / "tiny.yaml").write_text(TINY_SUITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MMC_BENCH_PLUGINS", str(PLUGINS))
        return mmc_bench.task(seed=0, **PLACE)


def test_a_task_scores_what_a_run_records(here):
    task = mmc_bench.task("tiny-set", "tiny-net", 0.9, 1, **PLACE)
    scores = mmc_bench.score(Headless().fine_tune(task), task)
    again = mmc_bench.score(Headless().fine_tune(task.fresh()), task)
    results = mmc_bench.run("tiny.yaml", methods=Headless, seeds=1, precision="fp32", threads=1, **TINY)
    assert results.summary.pretrained == 0
    row = results.to_frame().iloc[0]
    assert list(scores) == list(again) == [row[name] for name in scores.index]
    before = mmc_bench.score(task.pretrained, task)
    assert list(before) == list(results.to_frame("pretrained").iloc[0][list(before.index)])


def test_an_untrained_network_has_weights_of_its_own_for_each_seed(here):
    from torch import equal

    task = mmc_bench.task(seed=0, **PLACE)
    first, trained = task.untrained().state_dict(), task.pretrained.state_dict()
    again, other = task.fresh().untrained().state_dict(), mmc_bench.task(seed=1, **PLACE).untrained().state_dict()
    assert all(equal(value, again[name]) for name, value in first.items())
    for weights in (trained, other):
        assert weights.keys() == first.keys()
        assert not all(equal(value, first[name]) for name, value in weights.items())


def test_a_task_keeps_what_is_not_declared(here):
    task = mmc_bench.task(needs=(), **PLACE)
    with pytest.raises(UserError, match="declare needs"):
        _ = task.cued
    for wrong, says in (("test", "a method can need"), (["environments"], "and so 'cued' as well"), (5, "needs = 5")):
        with pytest.raises(UserError, match=says):
            mmc_bench.task(needs=wrong, **PLACE)
    assert len(mmc_bench.task(needs="cued", **PLACE).cued)


def test_a_task_has_everything_unless_needs_are_given(task):
    assert len(task.cued) == len(task.environments) and len(task.fully_cued)


def fails(images):
    raise ValueError("7 channels are wanted")


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (
            lambda images: images.flatten(1)[:, :5],
            r"the model returns \(2, 5\) for 2 images: logits \(2, \d+\) are wanted",
        ),
        (lambda images: (images, images), "the model returns tuple for 2 images"),
        (fails, "the model fails on images .* of torch.float32: ValueError: 7 channels are wanted"),
    ],
)
def test_a_model_that_gives_no_logits_of_the_task_is_not_scored(task, forward, says):
    from torch import nn

    model = nn.Sequential(nn.Identity())
    model.forward = forward
    model.train()[0].eval()
    with pytest.raises(UserError, match=says):
        mmc_bench.score(model, task)
    assert model.training and not model[0].training


def test_models_in_memory_connect_as_their_weights_do(here):
    task = mmc_bench.task(seed=0, **PLACE)
    mmc_bench.run("tiny.yaml", methods=Headless, seeds=0, precision="fp32", threads=1, keep_weights=True, **TINY)
    model = Headless().fine_tune(task.fresh())
    by_model = mmc_bench.connect(task.pretrained, model, task, paths="linear", points=3)
    keys = [record.key for records in (mmc_bench.load().pretrained, mmc_bench.load().cells) for record in records]
    place = {"paths": ["linear"], "points": 3, "precision": "fp32", "threads": 1}
    by_key = mmc_bench.connect(*keys, **place)
    curve = by_model.record.comparison.paths["linear"].test
    assert curve == by_key.record.comparison.paths["linear"].test and len(curve.t) == 3
    assert (
        mmc_bench.connect(keys[0], model, task, paths="linear", points=3).record.comparison
        == by_model.record.comparison
    )
    assert mmc_bench.connect(task.pretrained, model, task, paths="linear", points=3).cached
    assert "linear" in by_model.table() and "data:image/png" in by_model._repr_html_()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda task, net: mmc_bench.score(net, "task"), "str is no task of mmc_bench.task"),
        (lambda task, net: mmc_bench.score("net", task), "str is no model"),
        (lambda task, net: mmc_bench.connect(net, net), "a model in memory needs the task"),
        (lambda task, net: mmc_bench.connect(net, 3, task), "int is no model"),
        (lambda task, net: mmc_bench.connect(net, net.head, task), "does not fit tiny-net"),
        (lambda task, net: mmc_bench.connect(net, net, task, paths="bent"), "unknown path 'bent'"),
        (lambda task, net: mmc_bench.connect(net, net, task, points=1), "points = 1"),
        (lambda task, net: mmc_bench.connect(net, net, task, paths="linear", points=2).table("C,RX"), "unknown split"),
        (lambda task, net: mmc_bench.plot(net), "plot takes results"),
    ],
)
def test_wrong_models_and_tasks_are_refused_in_a_sentence(here, task, call, says):
    with pytest.raises(UserError) as caught:
        call(task, task.pretrained)
    assert says in str(caught.value)


def test_a_gallery_shows_the_task_s_images(task):
    assert "data:image/png" in mmc_bench.gallery(task)._repr_html_()


def test_several_experiments_make_no_task(here):
    with pytest.raises(UserError, match=r"2 experiments are selected \(.*\): name one dataset, backbone, cue rate and"):
        mmc_bench.task(cue_rate=[0.5, 0.9], **PLACE)
    with pytest.raises(NothingSelectedError):
        mmc_bench.task("no-such-*", **PLACE)


def test_a_task_is_at_one_point_of_its_suite_s_axes(here):
    axes = {"data.clean_images": [4, 6], "tiny-ft.lr": [1, 2], "connect.points": [2, 3]}  # the first alone changes it
    suite = {**yaml.safe_load(TINY_SUITE), "axes": axes}
    place = {**PLACE, "suite": suite}
    with pytest.raises(UserError, match=r"has data.clean_images = 4, 6: choose one, as set={'data.clean_images': …}"):
        mmc_bench.task(**place)
    assert len(mmc_bench.task(set={"data.clean_images": 6}, **place).clean) == 6
