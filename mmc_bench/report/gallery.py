"""A gallery: the same test images on all test sets, one row a set and one column an image."""

from collections.abc import Mapping
from typing import Any

import torch

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.errors import UserError
from mmc_bench.report.figures import STYLES
from mmc_bench.report.style import SETTINGS, Figure, styled
from mmc_bench.results.metrics import SPLITS

COLUMNS = 10
FEW = 6  # columns at least, as far as images go: of few classes, several images of each are shown
GAP = 2  # white pixels between images
CELL = 96  # dots that an image is at least enlarged to, by a whole factor


def draw_gallery(title: str, splits: Mapping[str, CuedImages]) -> Figure:
    """Draw a test image of each class, or several of few classes, on each of the splits; of ten classes at most.

    The four splits come first, then the dataset's further test sets, in their order. Pixels are what
    the network sees: -1 is black, 1 is white, and 0 lies half-way.

    Raises
    ------
    UserError
        When the dataset's inputs are not images of one or three channels.
    """
    rows = sample_rows(splits["NC"].labels)
    names = [*SPLITS, *(name for name in splits if name not in SPLITS)]
    batches = [splits[name].batch(rows.to(splits[name].index.device))[0].float().cpu() for name in names]
    shape = tuple(batches[0].shape[1:])
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UserError(f"{title} has inputs of shape {shape}: only images of 1 or 3 channels can be drawn")
    mosaic = tiled(torch.stack(batches))
    zoom = -(-CELL // shape[2])  # dots a pixel
    with styled():
        figure, axes = _sized_axes(mosaic, zoom)
        axes.imshow(mosaic.numpy(), interpolation="nearest")
        height, width = shape[1] + GAP, shape[2] + GAP
        labels = splits["NC"].labels[rows].tolist()
        axes.set_xticks([column * width + (shape[2] - 1) / 2 for column in range(len(labels))], labels)
        axes.set_yticks(
            [row * height + (shape[1] - 1) / 2 for row in range(len(names))],
            [f"{name}\n{STYLES[name][3]}" if name in SPLITS else name.replace("_", " ") for name in names],
        )
        axes.set_xlabel("label")
        axes.set_title(title, fontsize=10)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    return figure


def sample_rows(labels: torch.Tensor) -> torch.Tensor:
    """Return the rows of the first images of each class shown, by class; `labels` has shape (N,).

    Where there are more than ten classes, ten are shown, evenly spread.
    """
    present = labels.unique().tolist()
    count = min(COLUMNS, len(present))
    shown = [present[round(index * (len(present) - 1) / max(count - 1, 1))] for index in range(count)]
    return torch.cat([(labels == label).nonzero()[: max(FEW // count, 1), 0] for label in shown])


def tiled(images: torch.Tensor) -> torch.Tensor:
    """Return images of shape (R, N, C, H, W) in [-1, 1] as one of R rows and N columns, (…, …, 3) in [0, 1]."""
    r, n, _, h, w = images.shape
    colours = ((images + 1) / 2).clamp(0, 1).expand(r, n, 3, h, w)
    mosaic = torch.ones(r, h + GAP, n, w + GAP, 3)
    mosaic[:, :h, :, :w] = colours.permute(0, 3, 1, 4, 2)  # (R, H, N, W, 3)
    return mosaic.reshape(r * (h + GAP), n * (w + GAP), 3)[:-GAP, :-GAP]


def _sized_axes(mosaic: torch.Tensor, zoom: int) -> tuple[Figure, Any]:
    """Return a figure whose axes give each pixel of the mosaic `zoom` dots, with margins (inches) for the labels."""
    height, width = (side * zoom / SETTINGS["savefig.dpi"] for side in mosaic.shape[:2])
    left, right, bottom, top = 1.35, 0.15, 0.45, 0.35
    size = width + left + right, height + bottom + top
    figure = Figure(figsize=size)
    return figure, figure.add_axes((left / size[0], bottom / size[1], width / size[0], height / size[1]))
