"""Images that take more memory than they may: decoded into a file bit by bit, and read from it batch by batch."""

import copy
import errno
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mmc_bench
from mmc_bench import UserError
from mmc_bench.data import decoded
from mmc_bench.data.augmentation import augmented
from mmc_bench.data.cued_images import cued_images
from mmc_bench.data.decoded import DecodedShape, PictureFiles, decode
from mmc_bench.data.stored import StoredImages, in_memory, rows_of

SIZE = 8
BYTES = 3 * SIZE * SIZE


def pictures(root, n=9, size=(SIZE, SIZE)):
    """Write `n` noisy images, and return them as files to decode."""
    rng = np.random.default_rng(0)
    for index in range(n):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / f"{index}.png")
    return PictureFiles(root, tuple(f"{index}.png" for index in range(n)), "content")


def shape(channels=3, fit="stretch"):
    return DecodedShape((SIZE, SIZE), channels, fit)


class Plain:
    """What draws a cue as a brighter first row."""

    def render(self, images, cue):
        return torch.cat([images[:, :, :1] + cue.view(-1, 1, 1, 1), images[:, :, 1:]], dim=2)


def test_images_beyond_the_memory_stay_in_their_file_and_make_the_same_batches(tmp_path):
    files = pictures(tmp_path)
    small, large = decode(files, shape(), memory=9 * BYTES), decode(files, shape(), memory=9 * BYTES - 1)
    assert isinstance(small, torch.Tensor) and isinstance(large, StoredImages)
    assert (large.shape, large.ndim, len(large), large.dtype) == (small.shape, 4, 9, small.dtype)
    assert torch.equal(in_memory(large), small)
    index, labels = torch.tensor([8, 0, 3, 3, 5, 1, 7]), torch.arange(7)
    sets = [cued_images(Plain(), images, index, labels, labels % 3) for images in (small, large)]
    crops = [augmented(images, torch.Generator().manual_seed(1)) for images in sets]
    for left, right in (sets, [one.subset(torch.tensor([6, 2])) for one in sets], crops):
        for passes in (lambda one: one.in_order(2), lambda one: one.shuffled(3, torch.Generator().manual_seed(0))):
            batches = list(zip(passes(left), passes(right), strict=True))
            assert batches and all(torch.equal(a, b) for pair in batches for a, b in zip(*pair))
    assert rows_of(large, index).is_contiguous(memory_format=torch.channels_last)


def test_images_in_a_file_are_copied_and_sent_by_their_place(tmp_path):
    images = decode(pictures(tmp_path), shape(), memory=0)
    index = torch.tensor([4, 0, 8])
    for other in (copy.deepcopy(images), pickle.loads(pickle.dumps(images))):
        assert other is not images and torch.equal(other.rows(index), images.rows(index))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_processes_read_without_disturbing_each_other(tmp_path):
    images = decode(pictures(tmp_path), shape(), memory=0)
    expected = in_memory(images)
    child = os.fork()
    wrong = sum(not torch.equal(images.rows(torch.tensor([n % 9])), expected[[n % 9]]) for n in range(2000))
    if child == 0:
        os._exit(1 if wrong else 0)
    assert (wrong, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) == (0, 0)


def test_a_pass_that_is_given_up_leaves_no_reader_behind(tmp_path):
    images = decode(pictures(tmp_path), shape(), memory=0)
    sets = cued_images(Plain(), images, torch.arange(9), torch.zeros(9).long(), torch.zeros(9).long())
    passing = sets.in_order(2)
    next(passing)
    passing.close()
    assert len(list(sets.in_order(2))) == 5


def test_decoding_that_was_cut_off_goes_on_where_it_was(tmp_path, monkeypatch):
    files, seen = pictures(tmp_path), []
    monkeypatch.setattr(decoded, "AT_ONCE", 2)
    monkeypatch.setattr(decoded, "FLUSHED_EVERY", 1)
    read = decoded.read_image

    def interrupted(path, *rest):
        seen.append(path.name)
        if path.name == "6.png" and seen.count("6.png") == 1:
            raise KeyboardInterrupt
        return read(path, *rest)

    monkeypatch.setattr(decoded, "read_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decode(files, shape())
    assert "5.png" in seen and "8.png" not in seen
    seen[:] = ["6.png"]
    images = decode(files, shape())
    assert sorted(set(seen)) == ["6.png", "7.png", "8.png"]
    for index in range(9):
        assert np.array_equal(images[index].permute(1, 2, 0), np.asarray(Image.open(tmp_path / f"{index}.png")))


def test_where_the_disk_is_full_small_sets_are_decoded_in_memory_and_large_ones_say_what_they_need(
    tmp_path, monkeypatch
):
    files = pictures(tmp_path)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(decoded.os, "fsync", full)
    assert decode(files, shape()).shape == (9, 3, SIZE, SIZE)
    with pytest.raises(UserError, match=r"need a file of .* GB, and .* cannot hold it \(No space left on device\)"):
        decode(files, shape(), memory=0)
    assert not unfinished()


def unfinished():
    return [path for path in Path(os.environ["MMC_BENCH_CACHE"]).rglob("*") if path.suffix in (".part", ".done")]


def cut_off(files, monkeypatch, name):
    """Decode until an image is reached, two at a time, each flushed to the disk."""
    monkeypatch.setattr(decoded, "AT_ONCE", 2)
    monkeypatch.setattr(decoded, "FLUSHED_EVERY", 1)
    read = decoded.read_image

    def interrupted(path, *rest):
        if path.name == name:
            raise KeyboardInterrupt
        return read(path, *rest)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(decoded, "read_image", interrupted)
        decode(files, shape())
    return unfinished()


@pytest.mark.parametrize("damage", ["part", "notes", "nonsense"])
def test_what_an_earlier_attempt_left_is_used_as_far_as_it_is_whole(tmp_path, monkeypatch, damage):
    files = pictures(tmp_path)
    part, notes = sorted(cut_off(files, monkeypatch, "6.png"), key=lambda path: path.suffix, reverse=True)
    content = part.read_bytes()
    if damage == "part":
        part.write_bytes(content[: 3 * BYTES] + bytes(BYTES) + content[4 * BYTES :])
    else:
        notes.write_text("-3" if damage == "nonsense" else notes.read_text().replace("2, ", "9, ", 1))
    assert torch.equal(decode(files, shape()), torch.from_numpy(pixels_of(files)))
    assert not unfinished()


def test_images_that_are_changed_while_they_are_decoded_are_refused(tmp_path, monkeypatch):
    files, read = pictures(tmp_path), decoded.read_image

    def changing(path, *rest):
        if path.name == "8.png":
            Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "0.png")
        return read(path, *rest)

    with monkeypatch.context() as patched, pytest.raises(UserError, match="were changed while they were decoded"):
        patched.setattr(decoded, "read_image", changing)
        decode(files, shape())
    assert not unfinished()
    assert torch.equal(decode(files, shape()), torch.from_numpy(pixels_of(files)))


def test_what_was_left_unfinished_long_ago_is_removed(tmp_path, monkeypatch):
    files = pictures(tmp_path)
    left = cut_off(files, monkeypatch, "6.png")
    for path in left:
        os.utime(path, (0, 0))
    decode(replace(files, identity="other content"), shape())
    assert left and not any(path.exists() for path in left)


def test_what_was_left_long_ago_is_still_gone_on_with(tmp_path, monkeypatch):
    files, seen = pictures(tmp_path), []
    for path in cut_off(files, monkeypatch, "6.png"):
        os.utime(path, (0, 0))
    read = decoded.read_image
    monkeypatch.setattr(decoded, "read_image", lambda path, *rest: seen.append(path.name) or read(path, *rest))
    decode(files, shape())
    assert sorted(set(seen)) == ["6.png", "7.png", "8.png"]


def test_no_images_are_refused(tmp_path):
    with pytest.raises(UserError, match="there are no images to decode"):
        decode(PictureFiles(tmp_path, (), "none"), shape())


@pytest.mark.parametrize("amount", ["inf", "nan", "0"])
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_an_amount_of_memory_that_is_none_is_refused(bench, amount, more):
    result = bench("run", "--methods", "llr", "--image-memory", amount, *more)
    assert result.code == 4 and "image" in result.err and "Traceback" not in result.err


@pytest.mark.slow
def test_the_kit_looks_at_images_in_a_file(bench, tmp_path, monkeypatch):
    from mmc_bench.data import sources

    for part in ("train", "test"):
        for label in range(10):
            (tmp_path / part / str(label)).mkdir(parents=True)
            for index in range(6):
                noise = np.random.default_rng(10 * index + label).integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / part / str(label) / f"{index}.png")
    load = sources.load_folder
    monkeypatch.setattr(sources, "load_folder", lambda folder, size, channels, *_: load(folder, size, channels, 0))
    result = bench("check", "images-box", "--data", f"images={tmp_path}")
    assert "FAILED" not in result.out, result.out


def test_a_large_file_is_checked_again_only_when_it_was_changed(tmp_path, monkeypatch):
    files = pictures(tmp_path)
    first = decode(files, shape(), memory=0)
    monkeypatch.setattr(decoded, "ALWAYS_CHECKED", 0)
    digest, checked = decoded._digest, []
    monkeypatch.setattr(decoded, "_digest", lambda path: checked.append(path) or digest(path))
    assert torch.equal(in_memory(decode(files, shape(), memory=0)), in_memory(first)) and not checked
    (cache,) = Path(os.environ["MMC_BENCH_CACHE"]).rglob("*.pixels")
    whole = cache.read_bytes()
    cache.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert torch.equal(in_memory(decode(files, shape(), memory=0)), torch.from_numpy(pixels_of(files)))
    assert cache.read_bytes() == whole


def pixels_of(files):
    return np.stack([np.asarray(Image.open(files.root / name)) for name in files.names]).transpose(0, 3, 1, 2)


def test_long_decoding_says_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(decoded, "AT_ONCE", 4)
    monkeypatch.setattr(decoded, "TOLD_EVERY", 0)
    said = []
    decode(pictures(tmp_path), shape(), report=said.append)
    assert said == [f"{tmp_path}: {n} of 9 images are decoded" for n in (4, 8, 9)]


@pytest.mark.parametrize(
    ("fit", "expected"),
    [("stretch", [255] * 4), ("cover", [255] * 4), ("contain", [0, 255, 255, 0])],
)
def test_a_wide_image_is_stretched_cut_or_framed(tmp_path, fit, expected):
    Image.new("RGB", (16, 8), "white").save(tmp_path / "a.png")
    images = decode(PictureFiles(tmp_path, ("a.png",), fit), DecodedShape((4, 4), 3, fit))
    assert images[0, 0, :, 2].tolist() == expected


def test_cover_shows_the_middle_of_an_image_undistorted(tmp_path):
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = np.arange(4, dtype=np.uint8)[:, None] * 50 + 10
    Image.fromarray(wide).save(tmp_path / "a.png")
    images = decode(PictureFiles(tmp_path, ("a.png",), "x"), DecodedShape((4, 4), 3, "cover"))
    assert torch.equal(images[0].permute(1, 2, 0), torch.from_numpy(wide[:, 4:8]))


def test_opacity_is_a_fourth_channel_from_the_file_or_from_a_mask(tmp_path):
    Image.new("RGBA", (4, 4), (10, 20, 30, 40)).save(tmp_path / "own.png")
    Image.new("RGB", (4, 4), (10, 20, 30)).save(tmp_path / "masked.png")
    Image.new("L", (4, 4), 90).save(tmp_path / "mask.png")
    Image.new("L", (5, 4), 90).save(tmp_path / "other.png")

    def opened(name, *masks):
        files = PictureFiles(tmp_path, (name,), name + str(masks), masks or None)
        return decode(files, DecodedShape((4, 4), 4))[0, :, 0, 0].tolist()

    assert opened("own.png") == [10, 20, 30, 40]
    assert opened("masked.png") == [10, 20, 30, 255]
    assert opened("masked.png", "mask.png") == [10, 20, 30, 90]
    with pytest.raises(UserError, match=r"other\.png is 5x4, and .*masked\.png 4x4: a mask has the size of its image"):
        opened("masked.png", "other.png")


MEASURE = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from mmc_bench.data.cued_images import cued_images
from mmc_bench.data.stored import StoredImages
from mmc_bench.training import Progress, Training, evaluate
from torch import nn

torch.set_num_threads(1)
N, SIDE, ALLOWED = 8192, 64, 24 * 2**20  # 96 MiB of images
path = Path(sys.argv[1])
path.open("wb").truncate(N * SIDE * SIDE * 3)
held = int(sys.argv[2])

class Plain:
    def render(self, images, cue):
        return images

def set_of(n):
    images = StoredImages(path, (N, 3, SIDE, SIDE))
    images = images.rows(torch.arange(n)) if held else images
    return cued_images(Plain(), images, torch.arange(n), torch.arange(n) % 2, torch.zeros(n).long())

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, stride=8), nn.Linear(4, 2)
    def forward_features(self, x):
        return self.conv(x)
    def forward_head(self, x, pre_logits=False):
        x = x.mean((2, 3))
        return x if pre_logits else self.fc(x)
    def forward(self, x):
        return self.forward_head(self.forward_features(x))

def work(images):
    model, generator = Small(), torch.Generator().manual_seed(0)
    progress = Progress(lambda event: None)
    Training(model, images, lr=.01, epochs=1, batch_size=64, generator=generator, progress=progress).fit()
    return evaluate(model, images)

def peak(images):
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    assert work(images).loss > 0
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

few = max(peak(set_of(512)) for _ in range(3))  # what batches and the network take
print(peak(set_of(N)) - few, N * SIDE * SIDE * 3, ALLOWED)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux, which tells a process's memory")
def test_a_set_four_times_as_large_as_the_memory_trains_and_scores_within_it(tmp_path):
    def grown(held):
        words = [sys.executable, "-c", MEASURE, str(tmp_path / "pixels"), str(held)]
        answer = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        growth, whole, allowed = map(int, answer)
        assert whole == 4 * allowed
        return growth / allowed

    assert grown(0) <= 1
    assert grown(1) > 2  # what is seen of a set that is held


@pytest.mark.slow
def test_a_run_within_little_memory_finds_what_a_run_in_memory_does(tmp_path):
    rng = np.random.default_rng(0)
    for part, n in (("train", 40), ("test", 10)):
        for label in range(10):
            folder = tmp_path / "images" / part / str(label)
            folder.mkdir(parents=True)
            for index in range(n):
                grey = np.clip(rng.normal(20 * label + 30, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(grey).save(folder / f"{index}.png")

    def scores(name, **options):
        outcome = mmc_bench.run(
            methods=["ft-medium", "groupdro"],
            cue_rates=[0.9],
            seeds=[0],
            data={"digits": tmp_path / "images"},
            set={
                "pretrain.epochs": 1,
                "ft-medium.epochs": 1,
                "groupdro.epochs": 1,
                "connect.points": 3,
                "data.clean_images": 60,
                "data.validation_images": 60,
            },
            results=tmp_path / name,
            workers=0,
            **options,
        )
        assert len(outcome.cells) == 2
        return [(record.metrics, record.paths) for record in outcome.cells]

    assert scores("small", image_memory=1e-5) == scores("large")
