"""Dominoes: pairing, enlargement, rendering and randomisation, against loops over single images."""

import gzip
import hashlib
import json
import struct

import numpy as np
import pytest
import torch
from helpers.pictures import pictures
from PIL import Image
from scipy.stats import chi2_contingency, chisquare

from mmc_bench import UserError
from mmc_bench.data.contract import SourceImages
from mmc_bench.data.sources import MNIST_MD5, Sources
from mmc_bench.data.splits import derive_experiment
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.settings import DataSettings

SETTINGS = DataSettings(clean_images=30, validation_images=30)


def part(counts, channels, size, seed):
    """Return random images of these counts by class, in a shuffled order."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    images = torch.randint(256, (len(labels), channels, size, size), generator=generator, dtype=torch.uint8)
    return SourceImages(images, labels)


class FakeSources:
    """Shuffled random images; Fashion-MNIST has more of some classes than CIFAR-10, and fewer of others."""

    def __init__(self, lower=(20,) * 10, upper_train=(25, 20, 7, 1, 20, 31, 20, 20, 20, 20), upper_test=(9, 30) * 5):
        self.parts = {
            "cifar10": (part(lower, 3, 32, 1), part(lower, 3, 32, 2)),
            "fashion-mnist": (part(upper_train, 1, 28, 3), part(upper_test, 1, 28, 4)),
        }

    def load(self, name):
        return self.parts[name]


def loaded(sources):
    offer = Registry.discover().get("dataset", "dominoes")
    dataset = offer.make(offer.configure({}))
    dataset.load(sources)
    return dataset


def test_cues_make_groups_of_the_upper_images_class():
    sources = FakeSources()
    dataset = loaded(sources)
    codes = dataset.random_cue(200, torch.Generator().manual_seed(0))
    (upper_train, upper_test) = sources.parts["fashion-mnist"]
    labels = upper_train.labels.tolist() + upper_test.labels.tolist()
    assert dataset.cue_groups(codes).tolist() == [labels[code] for code in codes.tolist()]
    groups = derive_experiment(dataset, SETTINGS, cue_rate=0.9, seed=0).rc_groups
    assert groups is not None and len(groups.unique()) > 10


# --- the slow version


def partner_by_hand(labels, upper_labels, row):
    """Return the row of the image that goes with the row-th of `labels`, counting one by one."""
    label = labels[row]
    rank = sum(other == label for other in labels[:row])
    same = [index for index, other in enumerate(upper_labels) if other == label]
    return same[rank % len(same)]


def enlarged_by_hand(image):
    """Enlarge 28x28 values in 0..255 to 32x32, bilinearly, and return whole numbers."""
    result = np.zeros((32, 32), dtype=np.float32)
    for row in range(32):
        for column in range(32):
            y, x = (min(max((place + 0.5) * 28 / 32 - 0.5, 0), 27) for place in (row, column))
            top, left = int(y), int(x)
            bottom, right = min(top + 1, 27), min(left + 1, 27)
            # Rounded after each axis, halves up.
            upper = int(int(image[top, left]) * (1 - (x - left)) + int(image[top, right]) * (x - left) + 0.5)
            lower = int(int(image[bottom, left]) * (1 - (x - left)) + int(image[bottom, right]) * (x - left) + 0.5)
            result[row, column] = int(upper * (1 - (y - top)) + lower * (y - top) + 0.5)
    return result


def domino_by_hand(lower, upper):
    """Return a 3x64x32 image of a CIFAR-10 image and a Fashion-MNIST image, or None."""
    pixels = np.zeros((3, 64, 32), dtype=np.float32)
    if upper is not None:
        pixels[:, :32] = enlarged_by_hand(upper[0].numpy()) / np.float32(255)
    pixels[:, 32:] = lower.numpy().astype(np.float32) * np.float32(2 / 255) - 1
    return torch.from_numpy(pixels)


# --- pairing


def test_the_ith_image_of_a_class_is_paired_with_the_ith_of_that_class_in_its_own_part():
    sources = FakeSources()
    dataset = loaded(sources)
    (lower, lower_test), (upper, upper_test) = sources.parts["cifar10"], sources.parts["fashion-mnist"]
    for row in range(200):
        expected = partner_by_hand(lower.labels.tolist(), upper.labels.tolist(), row)
        assert dataset.train.cues[row] == expected < len(upper.labels)
        expected = partner_by_hand(lower_test.labels.tolist(), upper_test.labels.tolist(), row)
        assert dataset.test.cues[row] == len(upper.labels) + expected
        assert upper_test.labels[expected] == lower_test.labels[row]


def test_where_fashion_mnist_has_fewer_images_of_a_class_they_are_used_again_in_order():
    sources = FakeSources()
    dataset = loaded(sources)
    lower, upper = sources.parts["cifar10"][0], sources.parts["fashion-mnist"][0]
    seventh = (upper.labels == 2).nonzero()[:, 0].tolist()
    assert dataset.train.cues[lower.labels == 2].tolist() == [*seventh, *seventh, *seventh[:6]]
    assert dataset.train.cues[lower.labels == 3].unique().numel() == 1


def test_where_it_has_more_the_first_are_used_once_each():
    sources = FakeSources()
    dataset = loaded(sources)
    lower, upper = sources.parts["cifar10"][0], sources.parts["fashion-mnist"][0]
    of_class = (upper.labels == 5).nonzero()[:, 0].tolist()
    assert dataset.train.cues[lower.labels == 5].tolist() == of_class[:20]


# --- rendering


@pytest.mark.slow
def test_every_split_and_set_is_what_a_loop_over_images_builds():
    sources = FakeSources()
    dataset = loaded(sources)
    data = derive_experiment(dataset, SETTINGS, 0.5, seed=1)
    assert data.input_shape == (3, 64, 32)
    (lower, lower_test), (upper, upper_test) = sources.parts["cifar10"], sources.parts["fashion-mnist"]
    for name, split in data.splits.items():
        images, labels = split.batch(slice(None))
        for row in range(0, 200, 9):
            own = data.splits["NC"].index[row].item()
            assert labels[row] == lower_test.labels[own]
            pair = partner_by_hand(lower_test.labels.tolist(), upper_test.labels.tolist(), own)
            if name == "RC":
                pair = split.cues[row].item() - len(upper.labels)
                assert 0 <= pair < len(upper_test.labels)
            shown = lower_test.images[split.index[row] if name == "RI" else own]
            expected = domino_by_hand(shown, None if name == "NC" else upper_test.images[pair])
            assert torch.equal(images[row, :, :32], expected[:, :32]), (name, row)
            assert torch.allclose(images[row], expected, rtol=0, atol=1e-6), (name, row)
    for images in (data.pretraining, data.clean):
        pixels, _ = images.batch(slice(0, 20))
        for row in range(20):
            own = images.index[row].item()
            pair = partner_by_hand(lower.labels.tolist(), upper.labels.tolist(), own)
            cued = images is data.pretraining and images.cues[row] >= 0
            expected = domino_by_hand(lower.images[own], upper.images[pair] if cued else None)
            assert torch.allclose(pixels[row], expected, rtol=0, atol=1e-6)


def test_upper_halves_are_to_the_bit_what_pillow_makes_of_fashion_mnist():
    sources = FakeSources()
    everything = torch.cat([part.images for part in sources.parts["fashion-mnist"]])
    rows = torch.arange(len(everything))
    images = loaded(sources).render(torch.zeros(len(rows), 3, 32, 32), rows)
    for row, upper in enumerate(everything):
        enlarged = np.array(Image.fromarray(upper[0].numpy()).resize((32, 32), Image.Resampling.BILINEAR))
        assert torch.equal((images[row, 0, :32] * 255).round().byte(), torch.from_numpy(enlarged))


@pytest.mark.slow
def test_random_cues_are_training_images_on_training_splits_and_test_images_on_test_splits():
    sources = FakeSources()
    data = derive_experiment(loaded(sources), SETTINGS, 0.5, seed=1)
    first_test = len(sources.parts["fashion-mnist"][0].labels)
    assert (data.train_splits["RC"].cues < first_test).all()
    assert (data.splits["RC"].cues >= first_test).all()
    assert len(data.train_splits["RC"].cues.unique()) > 50


@pytest.mark.parametrize("rate", [0.0, 0.6, 1.0])
def test_the_first_of_each_class_carry_the_cue(rate):
    data = derive_experiment(loaded(FakeSources()), SETTINGS, rate, seed=0)
    order = data.pretraining.index.argsort()
    labels, cued = data.pretraining.labels[order], data.pretraining.cues[order] >= 0
    for label in range(10):
        flags = cued[labels == label].tolist()
        quota = int(rate * len(flags))
        assert flags == [True] * quota + [False] * (len(flags) - quota)


def test_the_upper_half_has_three_equal_channels_in_zero_to_one_and_is_zero_without_a_cue():
    sources = FakeSources()
    dataset = loaded(sources)
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    before = images.clone()
    rendered = pictures(dataset, images, torch.tensor([0, 7, -1, -9, 3]))
    assert rendered.shape == (5, 3, 64, 32)
    upper = rendered[:, :, :32]
    assert torch.equal(upper[:, 0], upper[:, 1]) and torch.equal(upper[:, 0], upper[:, 2])
    assert upper.min() == 0 and 0.9 < upper.max() <= 1
    assert not upper[2:4].any() and all(upper[row].any() for row in (0, 1, 4))
    assert torch.equal(rendered[:, :, 32:], before)
    rendered.zero_()
    assert torch.equal(images, before)
    assert torch.equal(dataset.render(images, torch.tensor([0, 7, -1, -9, 3]))[:, :, 32:], before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_rendering_keeps_the_images_type(dtype):
    images = torch.rand(2, 3, 32, 32, dtype=dtype)
    assert loaded(FakeSources()).render(images, torch.tensor([0, -1])).dtype == dtype


def test_images_are_stored_as_bytes_and_rendered_where_the_batch_lies():
    dataset = loaded(FakeSources())
    assert dataset.train.images.dtype == dataset.test.images.dtype == torch.uint8
    images, cue = torch.zeros(2, 3, 32, 32, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta")
    assert dataset.render(images, cue).device.type == "meta"


# --- randomisation


def test_random_cues_are_uniform_over_the_test_images_alone_and_fixed_by_the_seed():
    sources = FakeSources()
    dataset = loaded(sources)
    upper, upper_test = sources.parts["fashion-mnist"]
    drawn = dataset.random_cue(20_000, torch.Generator().manual_seed(0)) - len(upper.labels)
    assert drawn.min() >= 0
    counts = torch.bincount(drawn, minlength=len(upper_test.labels))
    assert len(counts) == len(upper_test.labels)
    assert chisquare(counts.numpy()).pvalue > 0.001
    first, again, other = (dataset.random_cue(50, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.slow
def test_random_cues_and_images_do_not_depend_on_the_label():
    sources = FakeSources(lower=(300,) * 10, upper_test=(40,) * 10)
    dataset = loaded(sources)
    data = derive_experiment(dataset, SETTINGS, 0.5, seed=0)
    uppers = torch.cat([images.labels for images in sources.parts["fashion-mnist"]])
    labels = data.splits["NC"].labels
    assert torch.equal(uppers[data.splits["C"].cues], labels)
    assert torch.equal(data.splits["RI"].cues, data.splits["C"].cues)
    for theirs in (uppers[data.splits["RC"].cues], dataset.test.labels[data.splits["RI"].index]):
        together = np.zeros((10, 10))
        np.add.at(together, (labels.numpy(), theirs.numpy()), 1)
        assert chi2_contingency(together).pvalue > 0.001
        assert chisquare(together.sum(0)).pvalue > 0.001
    again, other = (derive_experiment(dataset, SETTINGS, 0.5, seed=seed).splits for seed in (0, 1))
    assert torch.equal(again["RC"].cues, data.splits["RC"].cues)
    assert torch.equal(again["RI"].index, data.splits["RI"].index)
    assert not torch.equal(other["RC"].cues, data.splits["RC"].cues)
    assert not torch.equal(other["RI"].index, data.splits["RI"].index)


# --- class folders


def write_class_folders(root, classes, per_class, size, mode):
    rng = np.random.default_rng(0)
    for name in classes:
        for place, count in (("train", per_class), ("test", 3)):
            (root / place / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (size, size, 3) if mode == "RGB" else (size, size), dtype=np.uint8)
                Image.fromarray(pixels).save(root / place / name / f"{index}.png")


@pytest.fixture
def folders(tmp_path):
    """Write ten classes of six images, and Fashion-MNIST with only four of each."""
    write_class_folders(tmp_path / "lower", "abcdefghij", 6, 32, "RGB")
    write_class_folders(tmp_path / "upper", "0123456789", 4, 28, "L")
    return {"cifar10": str(tmp_path / "lower"), "fashion-mnist": str(tmp_path / "upper")}


def test_small_class_folders_pair_in_the_order_of_their_names(folders):
    dataset = loaded(Sources(folders=folders))
    assert dataset.train.cues.reshape(10, 6).tolist() == [[4 * k + i % 4 for i in range(6)] for k in range(10)]
    assert dataset.test.cues.tolist() == list(range(40, 70))


SUITE = """
datasets: [dominoes]
backbones: [tiny-net]
methods: [tiny-ft, irm]
cue_rates: [0.6]
seeds: [0]
threads: 1
data: {clean_images: 10, validation_images: 10}
pretrain: {epochs: 1, batch_size: 20, lr: 0.05}
connect: {points: 2}
parameters: {irm: {epochs: 2, batch_size: 5}}
"""


@pytest.mark.slow
def test_a_suite_runs_on_small_class_folders(bench, folders):
    (bench.folder / "suite.yaml").write_text(SUITE)
    data = [word for name, folder in folders.items() for word in ("--data", f"{name}={folder}")]
    result = bench("run", "--suite", "suite.yaml", "--workers", 0, *data, "--json")
    assert (result.code, json.loads(result.out)["computed"]) == (0, 2), result.err
    images = {frozenset(record["pretraining"]["images"]) for record in bench.records().values() if "curve" in record}
    assert images == {frozenset({"cifar10", "fashion-mnist"})}


@pytest.mark.slow
def test_upper_folders_of_another_number_of_classes_are_refused(bench, tmp_path, folders):
    write_class_folders(tmp_path / "nine", "012345678", 1, 28, "L")
    data = ["--data", f"cifar10={folders['cifar10']}", "--data", f"fashion-mnist={tmp_path / 'nine'}"]
    result = bench("run", "--datasets", "dominoes", *data)
    assert result.code == 4
    assert "9 classes, but the cue is made for 10" in result.err


@pytest.mark.parametrize(("source", "index"), [("cifar10", 0), ("cifar10", 1), ("fashion-mnist", 0)])
def test_a_class_without_images_is_refused(source, index):
    sources = FakeSources()
    parts = list(sources.parts[source])
    keep = parts[index].labels != 4
    parts[index] = SourceImages(parts[index].images[keep], parts[index].labels[keep])
    sources.parts[source] = tuple(parts)
    with pytest.raises(UserError, match=f"{source} has images of 9 classes.*made for 10"):
        loaded(sources)


# --- Fashion-MNIST's own files


def idx(values):
    """Return the bytes of an array in the IDX format of MNIST."""
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def fashion_mnist(tmp_path, monkeypatch):
    """Write a small Fashion-MNIST in its own format and return its folder, pixels and labels by part."""
    raw = tmp_path / "fashion" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng, written = np.random.default_rng(0), {}
    for name, count in (("train", 30), ("t10k", 20)):
        labels = rng.permutation(np.arange(count) % 10).astype(np.uint8)
        written[name] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), labels
        (raw / f"{name}-images-idx3-ubyte").write_bytes(idx(written[name][0]))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
        files = (raw / f"{name}-{values}-ubyte" for values in ("images-idx3", "labels-idx1"))
        sums = tuple(hashlib.md5(file.read_bytes()).hexdigest() for file in files)
        monkeypatch.setitem(MNIST_MD5, ("fashion-mnist", name == "train"), sums)
    return raw, written


def test_fashion_mnist_is_read_pixel_by_pixel_from_its_own_files(fashion_mnist):
    raw, written = fashion_mnist
    parts = Sources(folders={"fashion-mnist": str(raw.parents[1])}).load("fashion-mnist")
    for images, (pixels, labels) in zip(parts, written.values()):
        assert images.images.shape == (len(labels), 1, 28, 28) and images.images.dtype == torch.uint8
        assert images.images[:, 0].tolist() == pixels.tolist()
        assert images.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("part", ["train", "t10k"])
@pytest.mark.parametrize("values", ["images-idx3", "labels-idx1"])
def test_files_of_another_dataset_are_not_taken_for_fashion_mnist(fashion_mnist, part, values):
    raw, written = fashion_mnist
    other = 255 - written[part][0] if "images" in values else 9 - written[part][1]
    (raw / f"{part}-{values}-ubyte").write_bytes(idx(other))
    with pytest.raises(UserError, match=r"^fashion-mnist: the files in .* are damaged, or those of another dataset"):
        Sources(folders={"fashion-mnist": str(raw.parents[1])}).load("fashion-mnist")


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "still compressed", "fewer labels"])
def test_a_wrong_fashion_mnist_file_is_one_sentence(fashion_mnist, file, damage):
    raw, written = fashion_mnist
    content = (raw / file).read_bytes()
    fewer = written["train"][0][:7] if "images" in file else written["t10k"][1][:7]
    (raw / file).write_bytes(
        {
            "truncated": content[:-3],
            "empty": b"",
            "text": b"<html>not found</html>",
            "still compressed": gzip.compress(content),
            "fewer labels": idx(fewer),
        }[damage]
    )
    with pytest.raises(UserError, match=r"fashion-mnist (in|is not in) .*(cannot be read|is damaged)") as caught:
        Sources(folders={"fashion-mnist": str(raw.parents[1])}, download=False).load("fashion-mnist")
    assert "\n" not in str(caught.value)
