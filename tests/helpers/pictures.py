"""What the network sees of a dataset's images."""

import torch

from mmc_bench.data.cued_images import cued_images


def pictures(dataset, images, cues):
    """Return images (n, …) with these cue codes; a negative one means no cue."""
    rows = torch.arange(len(images))
    return cued_images(dataset, images, rows, rows, cues).batch(slice(None))[0]
