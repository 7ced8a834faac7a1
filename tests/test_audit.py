"""Audits: which cues are planted and picked up, what the report says of them, and what is refused in one sentence."""

import json
import shutil
import signal
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import PLUGINS
from helpers.audited import write_images

import mmc_bench
from mmc_bench import UserError
from mmc_bench.auditing.chance import of_another
from mmc_bench.auditing.findings import short_names
from mmc_bench.auditing.schema import AuditReport
from mmc_bench.mechanisms.verdicts import reaches

NOTHING = {"progress": False, "plugins_dir": str(PLUGINS), "workers": 0}
SMALL = {
    "data.pretrain_images": 90,
    "data.clean_images": 15,
    "data.validation_images": 15,
    "data.test_images": 24,
    "pretrain.epochs": 6,
    "pretrain.batch_size": 15,
    "pretrain.lr": 0.2,
    "connect.points": 2,
}
TINY = {
    "backbone": "tiny-net",
    "datasets": "images-border",
    "methods": ["tiny-ft", "tiny-still"],
    "axes": {"images-*.relative_strength": [0.02, 1.0]},
    "cue_rate": 1.0,
    "set": SMALL,
    **NOTHING,
}


@pytest.fixture(scope="module")
def finished(made_once):
    """Return a folder with an audit: ``images``, ``results`` and the report in ``<b>out``."""

    def make(folder):
        images = write_images(folder / "images")
        mmc_bench.audit(data={"images": images}, out=folder / "<b>out", results=folder / "results", **TINY)

    return made_once("audit", make)


@pytest.fixture
def again(finished):
    """Return a maker of the same audit, in the same results folder."""

    def run(out, **changes):
        places = {"data": {"images": finished / "images"}, "out": out, "results": finished / "results"}
        return mmc_bench.audit(**{**places, **TINY, **changes})

    return run


@pytest.fixture(scope="module")
def report(finished):
    return AuditReport.model_validate_json((finished / "<b>out" / "audit.json").read_bytes())


@pytest.mark.slow
def test_a_strong_cue_is_picked_up_and_an_invisible_one_is_not(report):
    (cue,) = report.cues
    weak, strong = cue.strengths
    assert (cue.dataset, cue.name, weak.word, strong.word) == ("images-border", "border", "weak", "strong")
    assert (weak.picked_up, strong.picked_up) == (False, True)
    assert strong.fall >= 0.1 > weak.fall
    assert strong.fall == pytest.approx(min(1, (strong.accuracy.C - strong.accuracy.RC) * 3 / 2))
    assert strong.first_epoch is not None and len(strong.curve) == 6
    first = strong.curve[strong.first_epoch - 1]
    assert first.C - first.NC >= 0.1
    assert all(point.C - point.NC < 0.1 for point in strong.curve[: strong.first_epoch - 1])


@pytest.mark.slow
def test_numbers_are_those_of_the_records(finished, report):
    cells = [json.loads(path.read_text()) for path in (finished / "results" / "cells").glob("*.json")]
    (cell,) = [
        one
        for one in cells
        if one["cell"]["method"]["name"] == "tiny-ft"
        and one["cell"]["pretraining"]["dataset"]["parameters"]["relative_strength"] == 1.0
    ]
    models = {path.stem: json.loads(path.read_text()) for path in (finished / "results" / "pretrained").glob("*.json")}
    before = models[cell["pretraining_key"]]["metrics"]
    (reference,) = [one for one in models.values() if one["pretraining"]["cue_rate"] == 0]
    strong = report.cues[0].strengths[1]
    repair = next(one for one in strong.repairs if one.method == "tiny-ft")
    assert before["RC"]["accuracy"] == strong.accuracy.RC
    changed = cell["effects"]["randomise cue"]["flips"][0]
    assert strong.chance == pytest.approx(3 * (changed / 24) ** 0.5 * 3 / 2)
    assert cell["metrics"]["NC"]["accuracy"] == repair.accuracy.NC
    assert repair.gain == pytest.approx(cell["metrics"]["NC"]["accuracy"] - before["NC"]["accuracy"])
    assert reference["metrics"]["NC"]["accuracy"] == report.reference.NC
    assert repair.behind_reference == pytest.approx(report.reference.NC - repair.accuracy.NC)
    assert repair.seconds == pytest.approx(cell["timing"]["seconds"]["fine_tune"])
    images = report.images
    assert (images.classes, images.pretraining, images.clean, images.test) == (3, 90, 15, 24)
    assert report.path_points == 2
    assert images.largest_class == pytest.approx(1 / 3)


@pytest.mark.slow
def test_what_chance_may_do_is_known_before_any_repair(again, finished, report, monkeypatch, tmp_path):
    from mmc_bench.auditing import report as reporting

    read = reporting._records

    def trained(*arguments):
        return {key: one for key, one in read(*arguments).items() if one.kind == "pretraining"}

    monkeypatch.setattr(reporting, "_records", trained)
    strong = again(tmp_path).report.cues[0].strengths[1]
    own, random = strong.accuracy.C, strong.accuracy.RC
    independent = own * (1 - random) + random * (1 - own)
    assert strong.flips is None and strong.fall == report.cues[0].strengths[1].fall
    assert strong.chance == pytest.approx(3 * (independent / 24) ** 0.5 * 3 / 2)


@pytest.mark.slow
def test_a_method_that_changes_nothing_leaves_everything(report):
    still = next(method for method in report.methods if method.method == "tiny-still")
    assert (still.repaired, still.gain) == (1, 0.0)
    assert still.flips == still.flips_before == report.cues[0].strengths[1].flips
    assert still.reference_flips is not None
    assert still.words == {"kept": 1}


def test_only_networks_that_picked_up_their_cue_are_probed_and_all_against_one_that_saw_none(finished, report):
    probes = [json.loads(path.read_text()) for path in (finished / "results" / "probes").glob("*.json")]
    strengths = [one["probe"]["experiment"]["dataset"]["parameters"]["relative_strength"] for one in probes]
    assert {*strengths} == {1.0} and 3 <= len(probes) <= 4  # tiny-still's weights are those of θ_C
    assert all(repair.words == () for repair in report.cues[0].strengths[0].repairs)
    assert all(len(repair.words) == 1 for repair in report.cues[0].strengths[1].repairs)


@pytest.mark.slow
def test_a_network_that_cannot_be_probed_is_named_and_the_rest_reported(again, report, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise UserError("the network is not deep enough")

    monkeypatch.setattr("mmc_bench.running.probing.Prober.hold_of_record", refuse)
    audited = again(tmp_path)
    assert [problem.error for problem in audited.report.problems] == ["the network is not deep enough"]
    assert "the network is not deep enough" in audited.page.read_text(encoding="utf-8")
    assert audited.report.cues[0].strengths[1].flips == report.cues[0].strengths[1].flips


@pytest.mark.slow
def test_an_interrupted_audit_reports_what_had_finished(again, report, tmp_path, monkeypatch):
    from mmc_bench.running.summary import Summary

    stopped = Summary(cells=6, cached=4, interrupted=True)
    monkeypatch.setattr("mmc_bench.auditing.report.run_session", lambda *arguments: stopped)
    audited = again(tmp_path / "out", methods=["tiny-ft", "tiny-still", "llr"])
    assert (audited.report.missing, len(audited.report.cues[0].strengths[1].repairs)) == (2, 2)
    assert audited.report.answer[0].startswith("Not finished: 2 trainings and repairs have not run yet")
    assert audited.report.cues[0].strengths[1].repairs[0].words == report.cues[0].strengths[1].repairs[0].words
    assert audited.page.read_text(encoding="utf-8").count("Not finished") == 1
    with pytest.raises(KeyboardInterrupt):
        again(tmp_path / "out", results=tmp_path / "empty")


def test_devices_may_be_a_list(again, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr("mmc_bench.auditing.report.audit", lambda session, computing, *others: given.append(computing))
    with pytest.raises(AttributeError):  # nothing is returned
        again(tmp_path / "out", device=["cuda:0", "cuda:1"])
    assert given[0].device == "cuda:0,cuda:1"


@pytest.mark.slow
def test_a_second_call_computes_nothing_and_says_the_same(again, report, tmp_path, monkeypatch):
    monkeypatch.setattr("mmc_bench.stages.probe.probe_weights", None)
    audited = again(tmp_path)
    assert (audited.summary.computed, audited.summary.pretrained, audited.summary.cached) == (0, 0, 4)
    assert (audited.report.cues, audited.report.methods) == (report.cues, report.methods)
    assert (audited.report.answer, audited.report.missing) == (report.answer, 0)
    assert audited.page.is_file() and repr(audited).startswith(report.answer[0])


class Page(HTMLParser):
    """What a page has: its tags, and the addresses that it refers to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.pictures, self.frames = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        own = dict(attributes)
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        self.pictures += [own] if tag == "img" else []
        self.frames += [own["srcdoc"]] if tag == "iframe" else []


def test_the_page_stands_alone_and_every_picture_has_words(finished):
    page = Page((finished / "<b>out" / "audit.html").read_text(encoding="utf-8"))
    assert all(address.startswith("data:") for address in page.addresses)
    assert len(page.pictures) == 3 and all(picture["alt"] for picture in page.pictures)
    assert "script" not in page.tags


def test_names_from_outside_are_shown_and_are_no_markup(report, finished):
    from mmc_bench.auditing.page import page_html

    hostile = "<img src=x onerror=alert(1)>"
    images = report.images.model_copy(update={"folders": (hostile,)})
    cue = report.cues[0].model_copy(update={"name": hostile, "summary": hostile})
    text = page_html(report.model_copy(update={"images": images, "cues": (cue,), "backbone": hostile}), {})
    assert "<img" not in text and text.count("&lt;img src=x onerror=alert(1)&gt;") > 4


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1200, "light")])
def test_the_page_fits_a_phone_and_a_desk(chromium, finished, width, scheme):
    chromium.get_log("browser")
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    chromium.get((finished / "<b>out" / "audit.html").as_uri())
    for part in chromium.find_elements("css selector", "details"):
        chromium.execute_script("arguments[0].open = true", part)
    widths = "return [document.documentElement.scrollWidth, document.querySelector('h1').getBoundingClientRect().width]"
    whole, heading = chromium.execute_script(widths)
    assert whole == width and heading > 300
    pictures = "return [...document.images].map((image) => image.complete && image.naturalWidth)"
    assert chromium.execute_script(pictures) == [16, 16, 16]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert chromium.get_log("browser") == []


@pytest.mark.slow
def test_the_command_prints_the_answer_and_a_report_of_what_there_is(bench, finished):
    words = ["audit", "--data", f"images={finished / 'images'}", "--results", finished / "results", "--workers", 0]
    words += ["--backbone", "tiny-net", "--datasets", "images-border", "--cue-rates", 1.0]
    words += ["--methods", "tiny-ft,tiny-still", "--axis", "images-*.relative_strength=0.02,1.0"]
    words += [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    dry = bench(*words, "--dry-run")
    assert dry.code == 0 and "4 cells, 4 cached, 0 to run" in dry.out
    ran = bench(*words, "--json", "--out", "out")
    assert ran.code == 0 and json.loads(ran.out) == json.loads((bench.folder / "out" / "audit.json").read_text())
    assert json.loads(ran.out)["answer"][0].startswith("After 6 epochs, tiny-net picks up the one kind of cue")


def test_every_training_begins_with_weights_of_ones_own_where_they_are_given(finished, tmp_path):
    from mmc_bench.auditing.plan import AuditSession
    from mmc_bench.running.session import Session

    weights = next((finished / "results" / "pretrained").glob("*.safetensors"))
    lists, places = {"datasets": "images-box", "backbones": "tiny-net"}, {"data": {"images": finished / "images"}}
    given = Session.of(None, lists, start=f"mine={weights}", plugins_dir=str(PLUGINS), results=tmp_path, **places)
    plan = AuditSession.auditing(given).plan
    assert {model.start.name for model in plan.pretrainings} == {"mine"} and len(plan.pretrainings) == 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": {}}, "give them with --data images=DIR"),
        ({"backbone": "resnat8"}, "did you mean"),
        ({"cue_rate": 0.0}, "one cue rate above 0"),
        ({"backbone": "tiny-*,resnet8"}, "is of one backbone, not of resnet8, tiny-net"),
        ({"datasets": ["images-border", "grouped-tiny"]}, "grouped-tiny has groups"),
        (
            {"datasets": ["images-border", "digits-box"]},
            "does not reach dataset digits-box: leave that dataset",
        ),
        ({"axes": {"pretrain.lr": [0.1, 0.2]}}, "has 2"),
        ({"suite": "quick", "datasets": ()}, "no selected dataset reads"),
        ({"set": {**SMALL, "tune": 2}}, "neither tunes methods"),
    ],
)
def test_what_is_no_audit_is_refused_in_one_sentence(again, tmp_path, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        again(tmp_path, **changes)


def test_too_few_images_of_a_class_are_refused(tmp_path):
    folder = write_images(tmp_path / "images", train=5)
    with pytest.raises(UserError, match="holds 5 images: an audit needs 10 of each class"):
        mmc_bench.audit(data={"images": folder}, out=tmp_path, results=tmp_path, **TINY)


@pytest.mark.slow
def test_an_audit_of_which_nothing_could_be_trained_says_why(finished, tmp_path):
    broken = {**TINY, "set": {**SMALL, "images-border.size": 0.5, "images-border.pixels": 4, "data.clean_images": 500}}
    with pytest.raises(UserError, match=r"no network of this audit has been trained yet: .*too few"):
        mmc_bench.audit(data={"images": finished / "images"}, out=tmp_path, results=tmp_path / "r", **broken)


def test_short_names_leave_out_the_word_that_all_share():
    assert short_names(["images-box", "images-border"]) == {"images-box": "box", "images-border": "border"}
    assert short_names(["digits-box"]) == {"digits-box": "box"}
    assert short_names(["one", "two"]) == {"one": "one", "two": "two"}


def test_ten_points_exactly_count_and_a_random_cue_of_the_own_class_counts_for_nothing():
    assert reaches(0.7 - 0.6, 0.1) and reaches(0.4 - 0.3, 0.1) and not reaches(0.0999, 0.1)
    rng = np.random.default_rng(0)
    own, drawn = rng.integers(0, 3, (2, 30_000))
    follows = np.mean(drawn != own)  # a network that names the cue's class changes each prediction whose cue differs
    assert of_another(float(follows), 3) == pytest.approx(1, abs=0.02)


def test_networks_without_weights_are_named_with_the_remedy(again, tmp_path, monkeypatch):
    from mmc_bench.auditing import report as reporting

    read = reporting._records

    def without_weights(*arguments):
        found = read(*arguments)
        lost = [key for key, one in found.items() if one.kind == "cell" and one.cell.method.name == "tiny-ft"]
        return found | {key: found[key].model_copy(update={"weights_sha256": None}) for key in lost}

    monkeypatch.setattr(reporting, "_records", without_weights)
    audited = again(tmp_path)
    (problem,) = audited.report.problems
    assert "1 repaired network keeps no weights" in problem.error and "delete their records" in problem.error
    words = {repair.method: repair.words for repair in audited.report.cues[0].strengths[1].repairs}
    assert words == {"tiny-ft": (), "tiny-still": ("kept",)}


@pytest.mark.slow
def test_probes_that_are_missing_are_counted_and_those_at_hand_are_read(again, finished, tmp_path, monkeypatch):
    results = tmp_path / "results"
    shutil.copytree(finished / "results", results)
    first = again(tmp_path / "out", results=results)
    for path in (results / "probes").glob("*.json"):
        path.unlink()

    def interrupt(*arguments):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("mmc_bench.stages.probe.probe_weights", interrupt)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command line raises nothing outside a run, either
    try:
        stopped = again(tmp_path / "out", results=results)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (stopped.report.unprobed, stopped.summary.interrupted) == (2, True)
    assert stopped.report.answer[0].startswith("Not finished: 2 probes have not run yet.")
    assert stopped.report.answer[1:4] == first.report.answer[:3] and repr(stopped).startswith("Not finished")


def test_an_interruption_before_any_job_still_leaves_a_report(again, report, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmc_bench.auditing.report.run_session", interrupt)
    audited = again(tmp_path)
    assert audited.summary.interrupted and audited.report.cues == report.cues and audited.page.is_file()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_trained(again, tmp_path, monkeypatch):
    monkeypatch.setattr("mmc_bench.auditing.report.run_session", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file: name a folder"):
        again(tmp_path / "file")
    with pytest.raises(UserError, match=r"cannot be written to .*: choose another --out"):
        again(tmp_path / "file" / "out")


@pytest.mark.slow
def test_a_notebook_shows_the_page_in_a_frame_of_its_own(again, tmp_path):
    audited = again(tmp_path)
    shown = Page(audited._repr_html_())
    assert shown.tags == ["iframe"]
    assert shown.frames == [audited.page.read_text(encoding="utf-8")]
