"""Coloured MNIST: a colour that goes with a noisy label in training, and against it at test."""

import torch
from torch.nn import functional as F

from mmc_bench.data.contract import ImageSources, LabelledImages, SourceImages

NOISE = 0.25
#: How often the colour agrees with the label, in turn: two environments of training images, and one at test.
TRAINING, TEST = (0.8, 0.9), (0.1,)
SEED = 20190705
PADDING = 2  # pixels: 28 become 32


class ColouredMnist:
    """MNIST in red or green (Arjovsky et al., 2019).

    The label is 0 for the digits 0 to 4 and 1 for 5 to 9, and wrong for a quarter of the images. Label and colour (0
    green, 1 red) agree on 80 % of every second of the 60,000 training images and 90 % of the others, and on 10 % of the
    10,000 test images. The authors have 50,000 training images and test on the other 10,000, at 14 x 14 pixels.
    """

    num_classes = 2
    train: LabelledImages
    test: LabelledImages

    def load(self, sources: ImageSources) -> None:
        """Colour MNIST; noise and colours are the same in each run."""
        train, test = sources.load("mnist")
        generator = torch.Generator().manual_seed(SEED)
        self.train, self.test = _coloured(train, TRAINING, generator), _coloured(test, TEST, generator)


def _coloured(source: SourceImages, agreement: tuple[float, ...], generator: torch.Generator) -> LabelledImages:
    """Return images (N, 3, 32, 32) whose colour agrees with the label as often as `agreement` says in turn."""
    n = len(source.labels)
    digit_label = (source.labels >= 5).long()
    labels = digit_label ^ (torch.rand(n, generator=generator) < NOISE).long()
    often = torch.tensor(agreement)[torch.arange(n) % len(agreement)]  # (N,)
    colours = labels ^ (torch.rand(n, generator=generator) >= often).long()
    assert isinstance(source.images, torch.Tensor)
    grey = F.pad(source.images[:, 0], [PADDING] * 4)  # (N, 32, 32)
    images = torch.stack([grey * (colours == 1)[:, None, None], grey * (colours == 0)[:, None, None], grey * 0], dim=1)
    return LabelledImages(images, labels, colours)
