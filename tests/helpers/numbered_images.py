"""Fake images whose pixels spell their own number, with a cue that spells its code, and sets derived from them."""

from types import SimpleNamespace

import torch

from mmc_bench.data.contract import LabelledImages
from mmc_bench.data.splits import derive_experiment
from mmc_bench.results.settings import DataSettings

K = 3


def numbered(n, labels):
    """Return `n` images of one channel and two pixels, which hold the image's number in base 256."""
    number = torch.arange(n)
    pixels = torch.stack([number // 256, number % 256], 1).to(torch.uint8)  # (N, 2)
    return LabelledImages(pixels.reshape(n, 1, 1, 2), labels, cues=labels.clone())


def with_cue_channel(images, cue):
    assert (cue >= 0).all()
    return torch.cat([images, cue.to(images.dtype)[:, None, None, None].expand(-1, 1, 1, 2)], 1)


def without_cue(images):
    return torch.cat([images, torch.full_like(images, -1)], 1)


def fake_dataset(train=60, test=30, clean=10, validation=8, in_class_order=False):
    generator = torch.Generator().manual_seed(0)
    labels = [torch.randint(K, (n,), generator=generator) for n in (train, test)]
    if in_class_order:
        labels = [part.sort().values for part in labels]
    return SimpleNamespace(
        num_classes=K,
        clean_images=clean,
        validation_images=validation,
        train=numbered(train, labels[0]),
        test=numbered(test, labels[1]),
        random_cue=lambda n, generator: torch.randint(K, (n,), generator=generator),
        render=with_cue_channel,
        without_cue=without_cue,
    )


def derived(dataset=None, cue_rate=0.5, seed=0, **settings):
    return derive_experiment(dataset or fake_dataset(), DataSettings(**settings), cue_rate, seed)


def contents(images):
    """Return (number, cue, label) of every image as the network gets to see them, in the set's order."""
    rows = []
    for x, y in images.in_order(batch_size=7):
        for image, label in zip(x, y.tolist()):
            high, low = ((image[0, 0] + 1) * 255 / 2).round().int().tolist()
            rows.append((256 * high + low, int(image[1, 0, 0]), label))
    return rows


def numbers(images):
    return [number for number, _, _ in contents(images)]
