"""Experiments of a second or less, in the shapes that the benchmark's datasets have."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from mmc_bench.data.contract import ImageSources, LabelledImages
from mmc_bench.data.mapped import in_memory
from mmc_bench.data.splits import ExperimentData, derive_experiment
from mmc_bench.results.jobs import DataSettings
from mmc_bench.training import Backbone

IMAGES_OF_A_CLASS = 6  # in each of the clean, the validation and the pretraining set, on average
CUE_RATE = 0.8


@dataclass(frozen=True)
class Shape:
    """What an experiment looks like from a method's side.

    Attributes
    ----------
    name
        For people.
    input_shape
        Of what the network sees.
    num_classes
        K.
    """

    name: str
    input_shape: tuple[int, ...]
    num_classes: int

    @property
    def set_size(self) -> int:
        """Images of each of the clean, the validation and the pretraining set."""
        return IMAGES_OF_A_CLASS * self.num_classes


SQUARE = Shape("10 classes of 3x32x32", (3, 32, 32), 10)
TALL = Shape("10 classes of 3x64x32", (3, 64, 32), 10)
MANY = Shape("100 classes of 3x32x32", (3, 32, 32), 100)
VECTORS = Shape("2 classes of vectors of 128", (128,), 2)
SHAPES = (SQUARE, TALL, MANY, VECTORS)


class TinyImages:
    """Noise whose mean tells the label faintly, and a line of bright pixels that tells it plainly.

    The cue's code is the label, and the line lies in that row.
    """

    def __init__(self, shape: Shape) -> None:
        self.num_classes = shape.num_classes
        self.input_shape = shape.input_shape
        self.train, self.test = self._part(3, seed=0), self._part(1, seed=1)

    def _part(self, sets: int, seed: int) -> LabelledImages:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(sets * IMAGES_OF_A_CLASS * self.num_classes) % self.num_classes
        return LabelledImages(self._images(labels, generator), labels, self._cues(labels, generator))

    def _images(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        channels, _, side = self.input_shape
        noise = torch.randint(156, (len(labels), channels, side, side), generator=generator, dtype=torch.uint8)
        return noise + (100 * labels // self.num_classes).to(torch.uint8)[:, None, None, None]

    def _cues(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return labels.clone()

    def load(self, sources: ImageSources) -> None:
        """Do nothing: the images are there."""

    def random_cue(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` labels."""
        return torch.randint(self.num_classes, (n,), generator=generator)

    def render(self, images: torch.Tensor, cue: torch.Tensor) -> torch.Tensor:
        """Return the images with row `cue` bright."""
        rows = torch.arange(images.shape[-2], device=images.device)
        return torch.where((rows == cue[:, None])[:, None, :, None], 1.0, images)


class TinyPairs(TinyImages):
    """The cue is another image on top, a code for each image."""

    def _cues(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return labels + self.num_classes * torch.randint(3, (len(labels),), generator=generator)

    def random_cue(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` codes of upper images."""
        return torch.randint(3 * self.num_classes, (n,), generator=generator)

    def render(self, images: torch.Tensor, cue: torch.Tensor) -> torch.Tensor:
        """Return images of twice the height, with a bright row in the upper half."""
        upper = super().render(torch.zeros_like(images), cue)
        return torch.cat([upper, images], dim=2)

    def without_cue(self, images: torch.Tensor) -> torch.Tensor:
        """Return images of twice the height, with an upper half of 0."""
        return torch.cat([torch.zeros_like(images), images], dim=2)


class TinyTens(TinyImages):
    """The cue's code has two numbers: row and brightness."""

    def _cues(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.stack([labels % 10, labels // 10 / 10], dim=1).float()

    def random_cue(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return row and brightness of `n` random labels."""
        return self._cues(super().random_cue(n, generator), generator)

    def render(self, images: torch.Tensor, cue: torch.Tensor) -> torch.Tensor:
        """Return the images with one row of one brightness."""
        rows = torch.arange(images.shape[-2], device=images.device)
        here = (rows == cue[:, :1])[:, None, :, None]
        return torch.where(here, cue[:, 1, None, None, None].to(images.dtype), images)


class TinyVectors(TinyImages):
    """Vectors; the cue is the value of the second coordinate."""

    def _images(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        scale = float(self.input_shape[0] ** 0.5)
        vectors = torch.randn(len(labels), *self.input_shape, generator=generator) / scale
        vectors[:, 0] = (2 * labels - 1) / scale
        return vectors

    def render(self, images: torch.Tensor, cue: torch.Tensor) -> torch.Tensor:
        """Return the vectors with the cue's value."""
        value = (2 * cue - 1).to(images.dtype)
        return torch.cat([images[:, :1], value[:, None], images[:, 2:]], dim=1)


DATASETS: dict[Shape, type[TinyImages]] = {SQUARE: TinyImages, TALL: TinyPairs, MANY: TinyTens, VECTORS: TinyVectors}


def tiny_experiment(shape: Shape, device: torch.device) -> ExperimentData:
    """Return all sets of an experiment, derived as those of any dataset are."""
    return _derive(DATASETS[shape](shape), shape, device)


def other_hidden_data(shape: Shape, needs: Collection[str]) -> ExperimentData:
    """Return the same experiment on the CPU, except for what a method with these needs has no right to.

    Training images outside its sets and all test images are noise, and have the next class's labels.
    """
    cpu, dataset = torch.device("cpu"), DATASETS[shape](shape)
    data = _derive(dataset, shape, cpu)
    hidden = torch.ones(len(dataset.train.labels), dtype=torch.bool)
    own = {"cued": data.pretraining, "fully-cued": data.fully_cued}
    for images in (data.clean, data.validation, *(images for need, images in own.items() if need in needs)):
        hidden[images.index] = False
    generator = torch.Generator().manual_seed(2)
    for part, rows in ((dataset.train, hidden), (dataset.test, torch.ones_like(dataset.test.labels).bool())):
        pixels = in_memory(part.images)
        like = pixels[rows]
        noise = torch.rand(like.shape, generator=generator)
        pixels[rows] = noise.mul(256).to(torch.uint8) if like.dtype == torch.uint8 else noise.to(like.dtype)
        part.labels[rows] = (part.labels[rows] + 1) % shape.num_classes
    return _derive(dataset, shape, cpu)


def _derive(dataset: TinyImages, shape: Shape, device: torch.device) -> ExperimentData:
    settings = DataSettings(clean_images=shape.set_size, validation_images=shape.set_size)
    return derive_experiment(dataset, settings, CUE_RATE, seed=0, device=device)


def tensors_of(data: ExperimentData) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what a method could spoil for those who come after it: images, labels and cues."""
    yield "images", in_memory(data.clean.storage)
    sets = {name: getattr(data, name) for name in ("pretraining", "clean", "validation")}
    for name, images in {**sets, "fully cued": data.train_splits["C"], "all fully cued": data.fully_cued}.items():
        yield f"labels of the {name} set", images.labels
        yield f"cues of the {name} set", images.cues


class TinyNet(Backbone):
    """A convolution, a residual block with BatchNorm, a pool and a linear layer, with timm's interface."""

    def __init__(self, num_classes: int, input_shape: tuple[int, ...], width: int = 8) -> None:
        super().__init__()
        self.num_classes, self.num_features = num_classes, width
        self.stem = nn.Conv2d(input_shape[0], width, kernel_size=5, stride=4, padding=2, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.act = nn.ReLU()
        self.head = nn.Linear(width, num_classes)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return feature maps (n, F, h, w)."""
        x = self.act(self.norm1(self.stem(x)))
        maps: torch.Tensor = self.act(x + self.norm2(self.conv(x)))
        return maps

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return logits (n, K), or pooled features (n, F)."""
        x = x.mean((2, 3))
        return x if pre_logits else self.head(x)


class TinyTwoLayer(TinyNet):
    """Linear, ReLU, Linear, for vectors."""

    def __init__(self, num_classes: int, input_shape: tuple[int, ...], width: int = 16) -> None:
        nn.Module.__init__(self)
        self.num_classes, self.num_features = num_classes, width
        self.hidden = nn.Linear(input_shape[0], width)
        self.act = nn.ReLU()
        self.head = nn.Linear(width, num_classes)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the hidden neurons put out, (n, F)."""
        outputs: torch.Tensor = self.act(self.hidden(x))
        return outputs

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return logits (n, K), or the features as they are."""
        return x if pre_logits else self.head(x)


def tiny_network(shape: Shape, device: torch.device) -> Backbone:
    """Return a network for a shape, with fixed random weights, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return random_network(shape.num_classes, shape.input_shape, device).eval()


def random_network(num_classes: int, input_shape: tuple[int, ...], device: torch.device) -> Backbone:
    """Return a network for inputs of a shape, with weights from torch's global generator."""
    network = TinyTwoLayer if len(input_shape) == 1 else TinyNet
    return network(num_classes, input_shape).to(device).to(memory_format=torch.channels_last)
