"""Reading images: torchvision's CIFAR-10 files, class folders, their cache, and what is said of bad ones."""

import hashlib
import http.client
import pickle
import re
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

from mmc_bench import UserError
from mmc_bench.data import decoded, folders
from mmc_bench.data.locations import Wanted, check_present, data_root, identify
from mmc_bench.data.sources import Sources


def write_pickle(path, content):
    path.write_bytes(pickle.dumps(content, protocol=2))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """Write a small CIFAR-10 in its own format and return its folder, pixels and labels by file."""
    root = tmp_path / "cifar"
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    written, listing = {}, {}
    for name, n in (("data_batch_1", 4), ("data_batch_2", 3), ("test_batch", 2)):
        data, labels = rng.integers(0, 256, (n, 3072), dtype=np.uint8), rng.integers(0, 10, n).tolist()
        written[name] = data, labels
        listing[name] = write_pickle(folder / name, {"data": data, "labels": labels})
    _, meta_md5 = write_pickle(folder / "batches.meta", {"label_names": [str(i) for i in range(10)]})
    monkeypatch.setattr("torchvision.datasets.CIFAR10.train_list", [listing["data_batch_1"], listing["data_batch_2"]])
    monkeypatch.setattr("torchvision.datasets.CIFAR10.test_list", [listing["test_batch"]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": meta_md5}
    monkeypatch.setattr("torchvision.datasets.CIFAR10.meta", meta)
    return root, written


def solid(colour, size=(8, 8)):
    return np.full((*size, 3), colour, dtype=np.uint8)


def write_class_folder(root, classes=("ant", "bee"), images=2, size=(8, 8), suffix=".png"):
    """Write random images and return them by part, class and file name."""
    rng = np.random.default_rng(1)
    written = {}
    for part in ("train", "test"):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for index in range(images):
                pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}{suffix}")
                written[part, name, index] = pixels
    return written


def forbid_decoding(monkeypatch):
    def decode(*_):
        raise AssertionError("the images were decoded again")

    monkeypatch.setattr(decoded, "_decoded", decode)


def forbid_network(monkeypatch, error):
    def urlopen(*_, **__):
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


# --- torchvision's files


@pytest.mark.parametrize("download", [False, True])
def test_cifar10_is_read_pixel_by_pixel_and_in_its_own_order(cifar10, monkeypatch, download):
    root, written = cifar10
    forbid_network(monkeypatch, AssertionError("the files are there already"))
    monkeypatch.setenv("MMC_BENCH_DATA", str(root))
    train, test = Sources(download=download).load("cifar10")
    for part, files in ((train, ("data_batch_1", "data_batch_2")), (test, ("test_batch",))):
        pixels = [row for name in files for row in written[name][0].tolist()]
        assert part.images.dtype == torch.uint8 and part.images.shape == (len(pixels), 3, 32, 32)
        for image, row in zip(part.images.tolist(), pixels):
            # CIFAR-10's format: 1,024 red values row by row, then green, then blue
            assert [value for plane in image for line in plane for value in line] == row
        assert part.labels.tolist() == [label for name in files for label in written[name][1]]


def test_a_folder_given_for_cifar10_is_used_instead_of_the_data_root(cifar10):
    root, written = cifar10
    train, _ = Sources(folders={"cifar10": str(root)}).load("cifar10")
    assert train.labels.tolist() == written["data_batch_1"][1] + written["data_batch_2"][1]


def test_a_changed_cifar10_file_is_refused(cifar10):
    root, _ = cifar10
    file = root / "cifar-10-batches-py" / "data_batch_2"
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        Sources(folders={"cifar10": str(root)}).load("cifar10")


def test_a_truncated_cifar10_file_is_one_sentence_even_when_its_checksum_is_accepted(cifar10, monkeypatch):
    root, _ = cifar10
    file = root / "cifar-10-batches-py" / "test_batch"
    file.write_bytes(file.read_bytes()[:50])
    monkeypatch.setattr(
        "torchvision.datasets.CIFAR10.test_list", [[file.name, hashlib.md5(file.read_bytes()).hexdigest()]]
    )
    with pytest.raises(UserError, match="cannot be read") as caught:
        Sources(folders={"cifar10": str(root)}).load("cifar10")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist"])
@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError(ConnectionRefusedError("refused")),
        ConnectionResetError("reset"),
        http.client.BadStatusLine("nonsense"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failing_download_is_one_sentence_that_says_where_to_put_the_files(monkeypatch, name, error):
    forbid_network(monkeypatch, error)
    with pytest.raises(UserError, match=f"{name} could not be downloaded") as caught:
        Sources().load(name)
    message = str(caught.value)
    assert str(data_root()) in message and f"--data {name}=DIR" in message and "\n" not in message


def test_missing_files_are_not_downloaded_against_the_users_will(monkeypatch):
    forbid_network(monkeypatch, AssertionError("no download was asked for"))
    with pytest.raises(UserError, match=f"cifar10 is not in {re.escape(str(data_root()))}"):
        Sources(download=False).load("cifar10")


def test_a_folder_of_ones_own_is_never_downloaded_into(tmp_path, monkeypatch):
    forbid_network(monkeypatch, AssertionError("no download was asked for"))
    with pytest.raises(UserError, match="cifar10 is not in"):
        Sources(folders={"cifar10": str(tmp_path)}, download=True).load("cifar10")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_source_is_refused_and_the_nearest_named():
    with pytest.raises(UserError, match=r"'cifar1O' is not built in.*cifar10"):
        Sources().load("cifar1O")


def test_digits_are_bilinear_enlargements_of_the_scans_in_three_equal_channels():
    from sklearn.datasets import load_digits

    train, test = Sources(download=False).load("digits")
    assert train.images.shape == (1297, 3, 16, 16) and test.images.shape == (500, 3, 16, 16)
    images, labels = torch.cat([train.images, test.images]), torch.cat([train.labels, test.labels])
    assert torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])
    assert torch.bincount(labels).tolist() == np.bincount(load_digits().target).tolist()
    enlarged = {enlarge(scan): label for scan, label in zip(load_digits().images[:60], load_digits().target)}
    found = {tuple(image.flatten().tolist()): label for image, label in zip(images[:, 0], labels.tolist())}
    for pixels, label in enlarged.items():
        assert found[pixels] == label


def enlarge(scan):
    """Enlarge 8x8 values in 0..16 twice, bilinearly, and return 256 values in 0..255."""
    result = []
    for row in range(16):
        for column in range(16):
            y, x = (max((position + 0.5) / 2 - 0.5, 0) for position in (row, column))
            top, left = int(y), int(x)
            bottom, right = min(top + 1, 7), min(left + 1, 7)
            upper = scan[top][left] * (1 - (x - left)) + scan[top][right] * (x - left)
            lower = scan[bottom][left] * (1 - (x - left)) + scan[bottom][right] * (x - left)
            value = (upper * (1 - (y - top)) + lower * (y - top)) / 16
            result.append(round(np.float32(value) * np.float32(255)))
    return tuple(result)


# --- class folders


def test_a_class_folder_is_decoded_exactly_with_classes_in_the_order_of_their_names(tmp_path):
    written = write_class_folder(tmp_path, classes=("bee", "ant", "cat"), images=3)
    parts = dict(zip(("train", "test"), folders.load_folder(tmp_path, size=None, channels=None)))
    for part, loaded in parts.items():
        assert loaded.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        names = [(name, index) for name in ("ant", "bee", "cat") for index in range(3)]
        for image, (name, index) in zip(loaded.images, names):
            assert image.permute(1, 2, 0).tolist() == written[part, name, index].tolist()


def test_images_are_resized_with_an_antialiasing_triangle_filter(tmp_path):
    written = write_class_folder(tmp_path, images=1, size=(12, 16))
    train, _ = folders.load_folder(tmp_path, size=(6, 4), channels=3)
    for image, name in zip(train.images, ("ant", "bee")):
        expected = shrunk(shrunk(written["train", name, 0], 1, 4), 0, 6)
        assert np.abs(image.permute(1, 2, 0).numpy() - expected).max() <= 1


def shrunk(pixels, axis, length):
    """Resize one axis: every output pixel is a mean weighted by a triangle as wide as two of its own."""
    pixels = np.moveaxis(pixels.astype(float), axis, 0)
    scale = len(pixels) / length
    rows = []
    for index in range(length):
        centre = (index + 0.5) * scale
        weights = [max(0.0, 1 - abs(row + 0.5 - centre) / scale) for row in range(len(pixels))]
        rows.append(sum(weight * row for weight, row in zip(weights, pixels)) / sum(weights))
    return np.moveaxis(np.stack(rows), 0, axis)


def test_one_channel_is_the_images_luma(tmp_path):
    written = write_class_folder(tmp_path)
    train, _ = folders.load_folder(tmp_path, size=(8, 8), channels=1)
    assert train.images.shape == (4, 1, 8, 8)
    red, green, blue = np.moveaxis(written["train", "bee", 1].astype(float), 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    assert np.abs(train.images[3, 0].numpy() - luma).max() <= 1


def test_a_folder_for_a_known_source_gets_that_sources_size_and_channels(tmp_path):
    write_class_folder(tmp_path, size=(40, 36))
    sources = Sources(folders={"cifar10": str(tmp_path), "fashion-mnist": str(tmp_path)})
    assert sources.load("cifar10")[0].images.shape == (4, 3, 32, 32)
    assert sources.load("fashion-mnist")[0].images.shape == (4, 1, 28, 28)


def test_a_folder_for_an_unknown_source_keeps_its_images_size(tmp_path):
    write_class_folder(tmp_path, size=(10, 9))
    train, _ = Sources(folders={"insects": str(tmp_path)}).load("insects")
    assert train.images.shape == (4, 3, 10, 9)


def test_images_of_different_sizes_are_refused_where_no_size_is_given(tmp_path):
    write_class_folder(tmp_path)
    Image.fromarray(solid(7, size=(8, 9))).save(tmp_path / "train" / "bee" / "1.png")
    with pytest.raises(UserError, match=r"1\.png is 9x8, and the first one 8x8: .*--set DATASET\.pixels=32"):
        folders.load_folder(tmp_path, size=None, channels=None)


def test_a_folder_is_decoded_once_and_then_read_from_the_cache(tmp_path, monkeypatch):
    write_class_folder(tmp_path)
    first = folders.load_folder(tmp_path, size=(8, 8), channels=3)
    forbid_decoding(monkeypatch)
    again = folders.load_folder(tmp_path, size=(8, 8), channels=3)
    for before, after in zip(first, again):
        assert torch.equal(before.images, after.images) and before.images.dtype == after.images.dtype
        assert torch.equal(before.labels, after.labels) and after.labels.dtype == torch.int64


def test_another_size_or_channel_count_is_not_answered_from_the_cache(tmp_path):
    write_class_folder(tmp_path)
    shapes = [
        folders.load_folder(tmp_path, size=size, channels=channels)[0].images.shape[1:]
        for size, channels in (((8, 8), 3), ((4, 4), 3), ((8, 8), 1))
    ]
    assert shapes == [(3, 8, 8), (3, 4, 4), (1, 8, 8)]


def test_a_folder_with_an_image_more_is_decoded_again(tmp_path):
    write_class_folder(tmp_path)
    folders.load_folder(tmp_path, size=(8, 8), channels=3)
    Image.fromarray(solid(9)).save(tmp_path / "train" / "ant" / "9.png")
    train, _ = folders.load_folder(tmp_path, size=(8, 8), channels=3)
    assert len(train.labels) == 5 and train.images[2].unique().tolist() == [9]


@pytest.mark.parametrize("damage", ["flipped byte", "truncated", "no checksum", "foreign checksum"])
def test_a_damaged_cache_is_noticed_and_the_images_decoded_again(tmp_path, monkeypatch, damage):
    write_class_folder(tmp_path / "images")
    monkeypatch.setenv("MMC_BENCH_CACHE", str(tmp_path / "cache"))
    first, _ = folders.load_folder(tmp_path / "images", size=(8, 8), channels=3)
    cache = next(path for path in (tmp_path / "cache" / "decoded").glob("*.pixels") if path.stat().st_size == 4 * 192)
    whole = cache.read_bytes()
    checksum = cache.with_suffix(".json")
    if damage == "flipped byte":
        cache.write_bytes(whole[:-10] + bytes([whole[-10] ^ 1]) + whole[-9:])
    elif damage == "truncated":
        cache.write_bytes(whole[:100])
    elif damage == "no checksum":
        checksum.unlink()
    else:
        checksum.write_bytes(b"\xff\xfe")
    again, _ = folders.load_folder(tmp_path / "images", size=(8, 8), channels=3)
    assert torch.equal(again.images, first.images)
    assert cache.read_bytes() == whole
    forbid_decoding(monkeypatch)
    folders.load_folder(tmp_path / "images", size=(8, 8), channels=3)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [(".png", b"not an image"), (".jpg", b""), (".ppm", b"P6 1C 8 255 "), (".png", "truncated")],
)
def test_an_unreadable_image_is_named(tmp_path, suffix, content):
    write_class_folder(tmp_path)
    bad = tmp_path / "train" / "bee" / f"bad{suffix}"
    bad.write_bytes((bad.parent / "0.png").read_bytes()[:80] if content == "truncated" else content)
    with pytest.raises(UserError, match=re.escape(f"{bad} cannot be read as an image")):
        folders.load_folder(tmp_path, size=(8, 8), channels=3)


def test_an_error_while_decoding_leaves_no_cache_behind(tmp_path):
    write_class_folder(tmp_path)
    bad = tmp_path / "train" / "bee" / "bad.png"
    bad.write_bytes(b"not an image")
    with pytest.raises(UserError):
        folders.load_folder(tmp_path, size=(8, 8), channels=3)
    Image.fromarray(solid(5)).save(bad)
    train, _ = folders.load_folder(tmp_path, size=(8, 8), channels=3)
    assert len(train.labels) == 5


# --- what is checked before anything is decoded


def checks(folder):
    return identify({"cifar10": str(folder)}, {"cifar10": Wanted(2)})


@pytest.mark.parametrize("check", [checks, lambda folder: folders.load_folder(folder, size=None, channels=None)])
def test_a_class_without_images_is_named(tmp_path, check):
    write_class_folder(tmp_path)
    for image in (tmp_path / "test" / "bee").iterdir():
        image.rename(image.with_suffix(".txt"))
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'test' / 'bee'} holds no image")):
        check(tmp_path)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_in_only_one_of_train_and_test_is_named(tmp_path, part):
    write_class_folder(tmp_path)
    (tmp_path / part / "wasp").mkdir()
    with pytest.raises(UserError, match="class 'wasp' is in only one of train and test"):
        checks(tmp_path)


def test_a_folder_without_classes_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(UserError, match="has no class folders"):
        checks(tmp_path)


def test_the_wrong_number_of_classes_is_refused_where_the_cue_needs_a_certain_one(tmp_path):
    write_class_folder(tmp_path, classes=("ant", "bee", "cat"))
    with pytest.raises(UserError, match="3 classes, but the cue is made for 10"):
        identify({"cifar10": str(tmp_path)}, {"cifar10": Wanted(10)})
    assert identify({"insects": str(tmp_path)}, {"insects": Wanted()})


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: there is no such folder"):
        checks(tmp_path / "nowhere")


def test_a_folder_with_neither_layout_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no class folders .*, and not torchvision's .* either"):
        checks(tmp_path)


def test_a_folder_for_a_source_that_no_dataset_reads_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--data cifar1O=.*cifar10"):
        identify({"cifar1O": str(tmp_path)}, {"cifar10": Wanted(10)})


def test_missing_files_are_reported_before_the_run_when_nothing_may_be_downloaded(tmp_path):
    with pytest.raises(UserError, match=r"cifar10 is not in .* --no-download was given"):
        check_present({}, {"cifar10": Wanted(10), "digits": Wanted(10)}, download=False)
    check_present({"cifar10": str(tmp_path)}, {"cifar10": Wanted(10), "digits": Wanted(10)}, download=False)
    (data_root() / "cifar-10-batches-py").mkdir(parents=True)
    check_present({}, {"cifar10": Wanted(10)}, download=False)


def test_torchvisions_own_files_need_no_identity(cifar10):
    root, _ = cifar10
    assert identify({"cifar10": str(root)}, {"cifar10": Wanted(10)}) == {}


def test_a_class_folders_identity_follows_its_files_and_not_its_place(tmp_path):
    for place in ("here", "there"):
        write_class_folder(tmp_path / place)
    identity = checks(tmp_path / "here")["cifar10"]
    assert re.fullmatch("folder:[0-9a-f]{16}", identity) and identity == checks(tmp_path / "there")["cifar10"]
    (tmp_path / "there" / "train" / "ant" / "0.png").unlink()
    assert checks(tmp_path / "there")["cifar10"] != identity
