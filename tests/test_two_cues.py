"""Two cues at once: where each is, what models are scored on besides the four splits, and what tables say of it."""

import itertools
from dataclasses import replace
from functools import cache

import pytest
import torch
from conftest import PLUGINS
from helpers.records import cell_record, pretrain_record
from torch import nn

import mmc_bench
from mmc_bench import UserError
from mmc_bench.data.contract import SourceImages
from mmc_bench.data.splits import derive_experiment
from mmc_bench.data.stored import StoredImages
from mmc_bench.plugin.registry import Registry
from mmc_bench.report.other_cue import with_reliance
from mmc_bench.report.row_tables import render
from mmc_bench.report.rows import make_rows
from mmc_bench.results.codec import encoded
from mmc_bench.results.metrics import SPLITS, Metrics, Score
from mmc_bench.results.scores import ScoreReader
from mmc_bench.results.settings import DataSettings
from mmc_bench.stages.score import score

KINDS = ("box", "patch", "border", "texture", "frequency")
CLASSES, PIXELS = 5, 20
OTHERS = ("other_absent", "other_random_NC", "other_random_C")


class Noise:
    """Sources with noise in every class, 100 images for training and 200 for testing."""

    def __init__(self, classes=CLASSES, pixels=PIXELS):
        self.classes, self.pixels = classes, pixels

    def load(self, name, size=None):
        generator = torch.Generator().manual_seed(0)
        return tuple(
            SourceImages(
                torch.randint(
                    256, (n * self.classes, 3, self.pixels, self.pixels), generator=generator, dtype=torch.uint8
                ),
                torch.arange(n * self.classes) % self.classes,
            )
            for n in (100, 200)
        )


@cache
def offered(name):
    return Registry.discover().get("dataset", name)


def load(name="images-two-cues", sources=None, **parameters):
    offer = offered(name)
    dataset = offer.make(offer.configure(parameters))
    dataset.load(sources or Noise())
    return dataset


@pytest.fixture(scope="module")
def dataset():
    return load(other_rate=0.6)


@pytest.fixture(scope="module")
def data(dataset):
    return derive_experiment(dataset, DataSettings(clean_images=100), cue_rate=0.9, seed=0)


def colours(images, dataset):
    """Return each image's colour where all second cues of the dataset are, as whole numbers (n, 3)."""
    row, column = (dataset.other_masks == 1).all(0)[0].nonzero()[0].tolist()
    return images[:, :, row, column].mul(127.5).add(127.5).round().long()


@pytest.fixture(scope="module")
def patches(dataset):
    """The colour of the patch of each class (K, 3), as it is in the test images."""
    return colours(dataset.test.images[:CLASSES].float() / 127.5 - 1, dataset)


def carried(images, dataset, patches):
    """Return the class whose patch each image carries (n,), and -1 where it carries none."""
    same = (colours(images, dataset)[:, None] == patches).all(2)  # (n, K)
    return torch.where(same.any(1), same.int().argmax(1), -1)


# --- the images


def test_the_clean_set_has_the_second_cue_at_its_rate_and_never_the_first(dataset, data, patches):
    plain = Noise().load("images")[0].images
    images, labels = data.clean.batch(slice(None))
    found = carried(images, dataset, patches)
    assert ((found == labels) | (found == -1)).all()
    assert (found == labels).double().mean().item() == pytest.approx(0.6, abs=0.1)
    outside = (dataset.other_masks == 0).all(0)[0]
    assert torch.equal(images[..., outside], (plain[data.clean.index] * (2 / 255) - 1)[..., outside])


def test_the_second_cue_is_on_the_same_share_of_each_class_and_goes_not_with_the_order(dataset, patches):
    found = carried(dataset.train.images.float() / 127.5 - 1, dataset, patches)
    shares = [(found[dataset.train.labels == label] == label).double().mean().item() for label in range(CLASSES)]
    assert shares == pytest.approx([0.6] * CLASSES)
    first_half = (found[:250] >= 0).double().mean().item()  # the first cue is on a class's first images
    assert first_half == pytest.approx(0.6, abs=0.1)


def test_each_test_set_has_the_cues_that_its_name_says(dataset, data, patches):
    sets = {**data.splits, **data.other_tests}
    assert tuple(data.other_tests) == OTHERS
    images = {name: one.batch(slice(None))[0] for name, one in sets.items()}
    labels = data.splits["NC"].labels
    for name, one in sets.items():
        assert torch.equal(one.labels, labels), name
    plain = Noise().load("images")[1].images[data.splits["NC"].index].float() * (2 / 255) - 1
    assert torch.allclose(images["other_absent"], plain, atol=1e-6)
    for name in ("NC", "C", "RC"):
        assert torch.equal(carried(images[name], dataset, patches), labels)
    random = carried(images["other_random_NC"], dataset, patches)
    assert torch.equal(carried(images["other_random_C"], dataset, patches), random)
    elsewhere = (dataset.other_masks == 0).all(0)[0]
    assert torch.equal(images["other_random_NC"][..., elsewhere], images["NC"][..., elsewhere])
    assert torch.equal(images["other_random_C"][..., elsewhere], images["C"][..., elsewhere])


def test_a_random_second_cue_depends_on_neither_the_label_nor_the_random_first_one(dataset, data, patches):
    random = carried(data.other_tests["other_random_NC"].batch(slice(None))[0], dataset, patches)
    n = len(random)
    for other in (data.splits["NC"].labels, data.splits["RC"].cues):
        together = torch.bincount(random * CLASSES + other, minlength=CLASSES**2).double() / n
        assert (together - 1 / CLASSES**2).abs().max() < 0.03  # 5 standard deviations of a share of 1,000
    assert len(dataset.random_cue(5, torch.Generator())) == 5


@pytest.mark.parametrize("cues", list(itertools.permutations(KINDS, 2)), ids="-".join)
def test_any_two_kinds_are_told_apart_in_the_size_of_digits_and_none_hides_the_other(cues):
    dataset = load("digits-two-cues", Noise(10, 16), cues=cues)
    images = torch.zeros(10, 3, 16, 16)
    shown = dataset.render(images, torch.arange(10)) != images
    masks = dataset.masks > 0
    assert torch.equal(shown.any(1) | masks[:, 0], masks[:, 0])  # nothing is drawn beside the mask
    with_other, without = dataset.test.images, dataset.other_tests["other_absent"].images
    changed = (with_other != without).any(1)
    assert changed.any((1, 2)).all()
    assert not (changed & (dataset.other_masks[dataset.test.labels, 0] == 0)).any()
    if not {"texture", "frequency"} & {*cues}:
        assert not (dataset.masks.amax(0) * dataset.other_masks.amax(0)).any()


# --- what is refused


@pytest.mark.parametrize(
    ("cues", "message"),
    [
        (["box"], "cues = .*: name two different kinds"),
        (["box", "patch", "border"], "cues = .*: name two different kinds"),
        (["box", "box"], "cues = .*: name two different kinds"),
        (["box", "spot"], "'spot'.* 'texture' or 'frequency'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_two_different_kinds_that_there_are_must_be_named(cues, message):
    with pytest.raises(UserError, match=message) as caught:
        offered("digits-two-cues").configure({"cues": cues})
    assert "\n" not in str(caught.value)


def test_more_classes_than_either_cue_can_tell_are_refused():
    with pytest.raises(UserError, match="30 classes are too many for a box in 4x4 pixels"):
        load(sources=Noise(30, 4), cues=["box", "border"])
    with pytest.raises(UserError, match="30 classes are too many for a box in 4x4 pixels"):
        load(sources=Noise(30, 4), cues=["border", "box"])


def test_a_first_cue_that_hides_the_second_is_refused():
    with pytest.raises(UserError, match="5 classes are too many for a patch"):
        load(cues=["texture", "patch"], strength=1)


def test_images_beyond_the_memory_are_refused_in_a_sentence(tmp_path):
    file = tmp_path / "images"
    file.write_bytes(bytes(4 * 3 * PIXELS**2))

    class Large:
        def load(self, name, size=None):
            images = StoredImages(file, (4, 3, PIXELS, PIXELS))
            return SourceImages(images, torch.arange(4)), SourceImages(images, torch.arange(4))

    with pytest.raises(UserError, match="--image-memory"):
        load(sources=Large())


@pytest.mark.slow
def test_images_with_a_second_cue_are_not_cut_and_mirrored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    how = {"plugins_dir": PLUGINS, "workers": 0, "progress": False, "set": {"pretrain.augment": "crop-flip"}}
    results = mmc_bench.run(datasets="digits-two-cues", backbones="tiny-net", methods="tiny-still", seeds=0, **how)
    failure = results.failures[0]
    assert "crop-flip cuts and mirrors the second cue, which is part of the images of digits-two-cues" in failure.error


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (lambda test: {"NC": test}, "begin with other_"),
        (lambda test: {"other_order": replace(test, labels=test.labels.flip(0))}, "in order"),
    ],
)
def test_further_test_sets_have_names_of_their_own_and_the_labels_of_the_test_set(others, message):
    dataset = load()
    dataset.other_tests = others(dataset.test)
    with pytest.raises(UserError, match=message):
        derive_experiment(dataset, DataSettings(), cue_rate=0.9, seed=0)


# --- scores


class Looks(nn.Module):
    """A model that answers with the class of a second cue, or of a first one, and looks at nothing else."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return nn.functional.one_hot(self.answer(x).clamp(min=0), CLASSES).float() * 9


def scores_of(answer, data):
    metrics, _ = score(Looks(answer), data, data.clean)
    splits = {name: one.accuracy for name, one in metrics.splits.items()}
    others = {name: one.accuracy for name, one in metrics.others.items()}
    return splits, with_reliance(others, splits, CLASSES)


def test_a_model_that_looks_at_the_second_cue_alone_relies_on_it_alone(dataset, data, patches):
    splits, others = scores_of(lambda x: carried(x, dataset, patches), data)
    assert (splits["NC"], splits["C"], splits["RC"]) == (1, 1, 1)
    assert splits["RI"] == pytest.approx(1 / CLASSES, abs=0.05)
    for name in OTHERS:
        assert others[name] == pytest.approx(1 / CLASSES, abs=0.05)
    assert others["other_reliance_NC"] == pytest.approx(1, abs=0.06)
    assert others["other_reliance_C"] == pytest.approx(1, abs=0.06)


def test_a_model_that_looks_at_the_first_cue_alone_does_not_rely_on_the_second(dataset, data):
    red = torch.tensor([1.0, -1.0, -1.0])[:, None, None]

    def box(x):
        missing = ((x - red).abs().sum(1, keepdim=True)[:, None] * dataset.masks).sum((2, 3, 4))  # (n, K)
        return missing.argmin(1)

    splits, others = scores_of(box, data)
    assert (splits["C"], splits["RI"], others["other_random_C"]) == (1, 1, 1)
    assert others["other_reliance_C"] == 0
    assert others["other_reliance_NC"] == pytest.approx(0, abs=0.05)


# --- records and tables


def with_others(record, **accuracies):
    others = {name: Score(accuracy=value, loss=1.0) for name, value in accuracies.items()}
    return record.model_copy(update={"metrics": record.metrics.model_copy(update={"others": others})})


def test_records_without_further_test_sets_are_what_they_were_and_those_with_keep_them():
    plain, other = cell_record(), with_others(cell_record(), other_random_NC=0.25)
    assert b"others" not in encoded(plain)
    splits = {name: Score(accuracy=1, loss=0) for name in (*SPLITS, "train", "validation")}
    assert list(Metrics(**splits).model_dump()) == list(splits)
    for record in (plain, other):
        assert type(record).model_validate_json(encoded(record)) == record
    read = ScoreReader().cell(encoded(other)).metrics.others
    assert {name: one.accuracy for name, one in read.items()} == {"other_random_NC": 0.25}
    assert ScoreReader().cell(encoded(plain)).metrics.others == {}


def test_growth_is_each_seed_s_own_and_tables_say_under_which_methods_there_is_any():
    before = [with_others(pretrain_record(seed), other_random_NC=0.5 - 0.18 * seed) for seed in (0, 1)]  # of NC .5
    cells = [
        with_others(cell_record(seed, method, accuracy=(0.9, 0.9, 0.9, 0.1)), other_random_NC=random)
        for method, randoms in (("grows", (0.45, 0.27)), ("stays", (0.9, 0.72)), ("differs", (0.45, 0.9)))
        for seed, random in enumerate(randoms)
    ]
    rows = make_rows(cells, before)
    reliance = {row.method: row.values["other_reliance_NC"] for row in rows}
    growth = {row.method: row.values.get("other_growth_NC") for row in rows}
    assert reliance["pretrained"].mean == pytest.approx(0.1)
    assert reliance["grows"].mean == pytest.approx(0.6)
    assert growth["pretrained"] is None
    assert (growth["grows"].mean, growth["grows"].std) == pytest.approx((0.5, 0))
    assert (growth["stays"].mean, growth["stays"].std) == pytest.approx((0, 0), abs=1e-9)
    text = render(rows, "md")
    first, _, second = text.partition("· two cues**")
    assert "other" not in first
    assert "other reliance NC |   other growth NC |" in second
    assert "+0.50 ± 0.00" in second
    assert second.rstrip().endswith("standard deviation over seeds on NC under grows (+0.50 ± 0.00).")
    header = render(rows, "csv").splitlines()[0].split(",")
    assert {"other_random_NC", "other_reliance_NC", "other_growth_NC", "other_growth_NC_std"} <= {*header}


def test_a_cell_whose_pretrained_model_has_no_record_has_no_growth():
    (row,) = make_rows([with_others(cell_record(), other_random_NC=0.5)], [])
    assert "other_growth_NC" not in row.values
    assert "grew" not in render([row], "md")


@pytest.mark.slow
def test_a_run_keeps_the_scores_and_the_frame_has_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = {"pretrain.epochs": 1, "connect.points": 2, "data.pretrain_images": 100}
    how = {"plugins_dir": PLUGINS, "precision": "fp32", "set": small, "progress": False}
    results = mmc_bench.run(
        datasets="digits-two-cues", backbones="tiny-net", methods="tiny-still", seeds=0, workers=0, **how
    )
    assert not results.failures
    assert set(results.cells[0].metrics.others) == set(results.pretrained[0].metrics.others) == {*OTHERS}
    cell, before = results.to_frame().iloc[0], results.to_frame("pretrained").iloc[0]
    assert cell["other_reliance_NC"] == pytest.approx((cell["NC"] - cell["other_random_NC"]) / 0.9)
    assert cell["other_growth_C"] == pytest.approx(cell["other_reliance_C"] - before["other_reliance_C"])
    assert "two cues" in results.table()
    task = mmc_bench.task("digits-two-cues", backbone="tiny-net", seed=0, **how)
    columns = [*OTHERS, "other_reliance_NC", "other_reliance_C"]
    assert mmc_bench.score(task.pretrained, task)[columns].to_list() == pytest.approx(before[columns].to_list())
