"""CIFAR-100's coloured box, against per-image loops and colorsys; its reader, on files in CIFAR-100's own format."""

import colorsys
import hashlib
import json
import pickle

import numpy as np
import pytest
import torch
from helpers.pictures import pictures
from mmc_bench_plugins.box_cue.colour import cues_of, saturated_colour
from scipy.stats import chi2_contingency, chisquare, kstest

from mmc_bench import UserError
from mmc_bench.data.contract import SourceImages
from mmc_bench.data.sources import Sources
from mmc_bench.data.splits import derive_experiment
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.settings import DataSettings

NAME = "cifar100-box-color"

# Upper-left corners (row, column) of the ten boxes in an image of 32x32 pixels.
CORNERS = [(0, 0), (0, 14), (0, 29), (14, 0), (14, 14), (14, 29), (29, 0), (29, 14), (29, 29), (6, 6)]


class FakeSources:
    """Small random images of a hundred classes, in a shuffled order, whatever source is asked for."""

    def __init__(self, per_class=1, classes=100, size=(32, 32)):
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(classes).repeat(per_class)
        labels = labels[torch.randperm(len(labels), generator=generator)]
        shape = (len(labels), 3, *size)
        self.part = SourceImages(torch.randint(256, shape, generator=generator, dtype=torch.uint8), labels)

    def load(self, name):
        return self.part, self.part


def loaded(sources=None):
    offer = Registry.discover().get("dataset", NAME)
    dataset = offer.make(offer.configure({}))
    dataset.load(sources or FakeSources())
    return dataset


@pytest.fixture(scope="module")
def dataset():
    return loaded()


def channels_of(hue):
    """Return the authors' channel order, (B, R, G), of a saturated hue."""
    red, green, blue = colorsys.hsv_to_rgb(hue, 1.0, 1.0)
    return blue, red, green


def drawn_by_hand(image, corner, colour):
    pixels = image.tolist()
    for channel in range(3):
        for row in range(corner[0], corner[0] + 3):
            for column in range(corner[1], corner[1] + 3):
                pixels[channel][row][column] = colour[channel]
    return torch.tensor(pixels)


def scaled(pixels):
    return torch.tensor(pixels.tolist()) * (2 / 255) - 1


# --- rendering


def test_each_label_has_its_own_place_and_colour(dataset):
    images = torch.rand(100, 3, 32, 32) * 2 - 1
    rendered = dataset.render(images, cues_of(torch.arange(100)))
    for label in range(100):
        expected = drawn_by_hand(images[label], CORNERS[label % 10], channels_of((label // 10) / 10))
        assert torch.equal(rendered[label], expected), label


def test_a_hundred_labels_make_a_hundred_different_images(dataset):
    blank = torch.full((100, 3, 32, 32), -0.5)
    rendered = dataset.render(blank, cues_of(torch.arange(100)))
    assert len(rendered.flatten(1).unique(dim=0)) == 100


def test_the_first_colours_are_green_and_then_towards_blue(dataset):
    # Red, moved one channel on, is green: the colour of the box on ten classes.
    channels = [cues_of(torch.tensor([label]))[0, 1:].tolist() for label in (0, 10, 50)]
    assert channels == [[0, 1, 0], [0, 1, pytest.approx(0.6)], [1, 0, 1]]


def test_colours_are_those_of_colorsys_for_any_hue():
    hues = torch.rand(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hues = torch.cat([hues, torch.arange(60, dtype=torch.float64) / 60])
    expected = [colorsys.hsv_to_rgb(hue, 1.0, 1.0) for hue in hues.tolist()]
    assert torch.allclose(saturated_colour(hues), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14)


def test_codes_may_be_mixed_and_a_negative_place_is_no_box(dataset):
    cues = cues_of(torch.tensor([57, 3, 99, 57]))
    cues[1] = -1
    images = torch.rand(4, 3, 32, 32)
    rendered = pictures(dataset, images, cues)
    assert torch.equal(rendered[1], images[1])
    for index, label in ((0, 57), (2, 99), (3, 57)):
        expected = drawn_by_hand(images[index], CORNERS[label % 10], channels_of((label // 10) / 10))
        assert torch.equal(rendered[index], expected)


def test_the_ninth_box_lies_a_quarter_of_each_side_from_the_middle_of_a_rectangle():
    dataset = loaded(FakeSources(size=(64, 48)))
    (rendered,) = dataset.render(torch.zeros(1, 3, 64, 48), cues_of(torch.tensor([9])))
    assert rendered[1].nonzero().min(0).values.tolist() == [30 - 16, 22 - 12]
    assert rendered[1].nonzero().max(0).values.tolist() == [30 - 16 + 2, 22 - 12 + 2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_rendering_keeps_the_images_type_and_leaves_them_unchanged(dtype, dataset):
    images = torch.rand(100, 3, 32, 32, dtype=dtype)
    before = images.clone()
    rendered = dataset.render(images, cues_of(torch.arange(100)))
    assert rendered.dtype == dtype
    rendered.zero_()
    assert torch.equal(images, before)


# --- the random cue


def hues_of(cues):
    return np.array([colorsys.rgb_to_hsv(red, green, blue)[0] for _, blue, red, green in cues.tolist()])


def test_random_places_and_hues_are_uniform_and_independent_of_each_other(dataset):
    cues = dataset.random_cue(20_000, torch.Generator().manual_seed(0))
    places, hues = cues[:, 0].long(), hues_of(cues)
    assert chisquare(torch.bincount(places, minlength=10).numpy()).pvalue > 0.001
    assert kstest(hues, "uniform").pvalue > 0.001
    together = np.zeros((10, 10))
    np.add.at(together, (places.numpy(), (hues * 10).astype(int)), 1)
    assert chi2_contingency(together).pvalue > 0.001
    assert len(np.unique(hues)) > 19_000  # continuous, not the ten hues of the labels


def test_random_cues_are_saturated_colours_fixed_by_the_generators_seed(dataset):
    first, again, other = (dataset.random_cue(50, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert (first[:, 1:].max(1).values == 1).all() and (first[:, 1:].min(1).values == 0).all()


# --- the splits


@pytest.mark.slow
def test_every_split_is_what_a_loop_over_images_draws():
    sources = FakeSources(per_class=4)
    dataset, part = loaded(sources), sources.part
    data = derive_experiment(dataset, DataSettings(clean_images=40, validation_images=40), 0.5, seed=3)
    for name, split in data.splits.items():
        assert len(split) == 400
        images, labels = split.batch(slice(None))
        for row in range(0, 400, 7):
            own, label = data.splits["NC"].index[row].item(), labels[row].item()
            assert label == part.labels[own]
            shown = scaled(part.images[split.index[row]])
            if name == "NC":
                expected = shown
            elif name == "RC":
                place, *colour = split.cues[row].tolist()
                expected = drawn_by_hand(shown, CORNERS[int(place)], colour)
            else:
                expected = drawn_by_hand(shown, CORNERS[label % 10], channels_of((label // 10) / 10))
            assert (split.index[row] == own) or name == "RI"
            assert torch.allclose(images[row], expected, rtol=0, atol=1e-6), (name, row)
    assert (data.splits["RI"].index != data.splits["NC"].index).sum() > 380


def test_half_of_each_classs_pretraining_images_carry_their_cue_at_rate_one_half(dataset):
    data = derive_experiment(
        loaded(FakeSources(per_class=6)), DataSettings(clean_images=2, validation_images=2), 0.5, seed=0
    )
    cued = data.pretraining.cues[:, 0] >= 0
    for label in range(100):
        mine = data.pretraining.labels == label
        assert cued[mine].sum() == round(mine.sum().item() * 0.5)
    assert torch.equal(data.pretraining.cues[cued], cues_of(data.pretraining.labels[cued]))


@pytest.mark.slow
def test_random_cues_and_images_do_not_depend_on_the_label():
    dataset = loaded(FakeSources(per_class=60))
    splits = derive_experiment(dataset, DataSettings(clean_images=40, validation_images=40), 0.5, seed=0).splits
    labels, places = splits["RC"].labels, splits["RC"].cues[:, 0].long()
    others = dataset.test.labels[splits["RI"].index]
    for theirs, mine in ((places, labels % 10), (others % 10, labels % 10), (others // 10, labels // 10)):
        together = np.zeros((10, 10))
        np.add.at(together, (mine.numpy(), theirs.numpy()), 1)
        assert chi2_contingency(together).pvalue > 0.001
    drawn = torch.bincount(splits["RI"].index, minlength=6000).reshape(60, 100).sum(1)
    assert chisquare(drawn.numpy()).pvalue > 0.001


# --- CIFAR-100's own files


def write_pickle(path, content):
    path.write_bytes(pickle.dumps(content, protocol=2))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar100(tmp_path, monkeypatch):
    """Return a maker of small CIFAR-100s in its own format; gives their folder, pixels and labels by file."""

    def make(classes=100, **replaced):
        folder = tmp_path / "cifar" / "cifar-100-python"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        written, listing = {}, {}
        for name, per_class in (("train", 4), ("test", 1)):
            labels = rng.permutation(np.repeat(np.arange(classes), per_class)).tolist()
            data = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
            content = {"data": data, "fine_labels": labels, "coarse_labels": [label // 5 for label in labels]}
            content = {key: value for key, value in {**content, **replaced}.items() if value is not None}
            listing[name] = [name, write_pickle(folder / name, content)]
            written[name] = data, labels
        names = {"fine_label_names": [str(label) for label in range(classes)]}
        meta = {"filename": "meta", "key": "fine_label_names", "md5": write_pickle(folder / "meta", names)}
        monkeypatch.setattr("torchvision.datasets.CIFAR100.train_list", [listing["train"]])
        monkeypatch.setattr("torchvision.datasets.CIFAR100.test_list", [listing["test"]])
        monkeypatch.setattr("torchvision.datasets.CIFAR100.meta", meta)
        return folder.parent, written

    return make


def accept_checksum(monkeypatch, file):
    monkeypatch.setattr(
        "torchvision.datasets.CIFAR100.train_list", [["train", hashlib.md5(file.read_bytes()).hexdigest()]]
    )


def test_cifar100_is_read_pixel_by_pixel_with_its_fine_labels(cifar100):
    root, written = cifar100()
    parts = dict(zip(("train", "test"), Sources(folders={"cifar100": str(root)}).load("cifar100")))
    for name, part in parts.items():
        data, labels = written[name]
        assert part.images.dtype == torch.uint8 and part.images.shape == (len(labels), 3, 32, 32)
        # 1,024 red values row by row, then green, then blue
        assert part.images.flatten(1).tolist() == data.tolist()
        assert part.labels.tolist() == labels


def test_a_changed_cifar100_file_is_refused(cifar100):
    root, _ = cifar100()
    file = root / "cifar-100-python" / "test"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match=r"cifar100 is not in .*, or is damaged"):
        Sources(folders={"cifar100": str(root)}).load("cifar100")


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "another pickle"])
def test_a_wrong_cifar100_file_is_one_sentence_even_when_its_checksum_is_accepted(cifar100, monkeypatch, damage):
    root, _ = cifar100()
    file = root / "cifar-100-python" / "train"
    content = {
        "truncated": file.read_bytes()[:2000],
        "empty": b"",
        "text": b"<html>not found</html>",
        "another pickle": pickle.dumps([1, 2]),
    }
    file.write_bytes(content[damage])
    accept_checksum(monkeypatch, file)
    assert_one_sentence(root, "cifar100 in .* cannot be read")


def assert_one_sentence(root, match):
    with pytest.raises(UserError, match=match) as caught:
        loaded(Sources(folders={"cifar100": str(root)}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "replaced",
    [
        {"fine_labels": None},  # coarse labels alone are another task
        {"fine_labels": list(range(100))},  # fewer labels than images
        {"data": np.zeros((400, 3000), dtype=np.uint8)},
        {"data": None},
    ],
    ids=["no fine labels", "too few labels", "pixels missing", "no pixels"],
)
def test_cifar100_files_of_another_content_are_one_sentence(cifar100, replaced):
    root, _ = cifar100(**replaced)
    assert_one_sentence(root, "cifar100 in .* cannot be read")


def test_files_of_another_number_of_classes_are_refused(cifar100):
    root, _ = cifar100(classes=20)
    assert_one_sentence(root, "20 classes.*made for 100")


SUITE = f"""
datasets: [{NAME}]
backbones: [tiny-net]
methods: [tiny-ft, vrex]
cue_rates: [0.6]
seeds: [0]
threads: 1
data: {{clean_images: 100, validation_images: 60}}
pretrain: {{epochs: 1, batch_size: 60, lr: 0.05}}
connect: {{points: 2}}
parameters: {{vrex: {{epochs: 1, batch_size: 50}}}}
"""


@pytest.mark.slow
def test_a_suite_runs_on_cifar100s_files(bench, cifar100):
    root, _ = cifar100()
    (bench.folder / "suite.yaml").write_text(SUITE)
    result = bench("run", "--suite", "suite.yaml", "--workers", 0, "--data", f"cifar100={root}", "--json")
    assert (result.code, json.loads(result.out)["computed"]) == (0, 2), result.err
    for record in bench.records().values():
        assert record["num_classes"] == 100
        assert set(record["metrics"]) >= {"NC", "C", "RC", "RI"}


def test_a_damaged_file_fails_the_command_with_one_line(bench, cifar100):
    root, _ = cifar100()
    (root / "cifar-100-python" / "train").write_bytes(b"")
    result = bench("plot", "--dataset", NAME, "--data", f"cifar100={root}")
    assert result.code == 4
    assert result.err.count("\n") == 1 and "cifar100 is not in" in result.err
