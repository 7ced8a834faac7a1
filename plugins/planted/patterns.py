"""What each kind of cue looks like: for every class a picture, and how much of it is seen at each pixel."""

import colorsys
import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

SEED = 20260201

#: Pixels of the shortest wave: one of two is 0 at every pixel.
SHORTEST = 3

#: Pictures (K, 3, H, W) in [-1, 1], and their shares (K, 1, H, W) in [0, 1].
Patterns = tuple[torch.Tensor, torch.Tensor]


def box(classes: int, height: int, width: int, size: float) -> Patterns:
    """Return a red box for each class, in a place of its own on a square grid."""
    side = _pixels(size, height, width)
    per_row = math.ceil(math.sqrt(classes))
    shares = torch.zeros(classes, 1, height, width)
    for k in range(classes):
        row, column = divmod(k, per_row)
        top, left = (
            round(place * (length - side) / max(per_row - 1, 1)) for place, length in ((row, height), (column, width))
        )
        shares[k, :, top : top + side, left : left + side] = 1
    return _filled(torch.tensor([[1.0, -1.0, -1.0]]).expand(classes, 3), height, width), shares


def patch(classes: int, height: int, width: int, size: float) -> Patterns:
    """Return a square in the upper left corner, in a hue of each class's own."""
    side = _pixels(size, height, width)
    shares = torch.zeros(classes, 1, height, width)
    shares[:, :, :side, :side] = 1
    return _filled(hues(classes), height, width), shares


def border(classes: int, height: int, width: int, size: float) -> Patterns:
    """Return a frame in a hue of each class's own; `size` is that of both of its sides together."""
    side = max(_pixels(size, height, width) // 2, 1)
    shares = torch.ones(classes, 1, height, width)
    shares[:, :, side : height - side, side : width - side] = 0
    return _filled(hues(classes), height, width), shares


def texture(classes: int, height: int, width: int, size: float) -> Patterns:
    """Return a noise of each class's own all over the image; `size` is that of its grains."""
    grain = _pixels(size, height, width)
    cells = math.ceil(height / grain), math.ceil(width / grain)
    noise = torch.rand(classes, 3, *cells, generator=torch.Generator().manual_seed(SEED)) * 2 - 1
    enlarged = F.interpolate(noise, scale_factor=grain, mode="nearest")
    return enlarged[:, :, :height, :width].contiguous(), torch.ones(classes, 1, height, width)


def frequency(classes: int, height: int, width: int, size: float) -> Patterns:
    """Return a grey wave of each class's own direction and length all over the image; `size` is the longest one."""
    longest = size * min(height, width)
    rows, columns = torch.arange(height)[:, None].float(), torch.arange(width).float()
    waves = []
    for k in range(classes):
        angle, length = math.pi * k / classes, longest / (1 + k % 3)
        along = rows * math.sin(angle) + columns * math.cos(angle)
        waves.append(torch.sin(2 * math.pi * along / max(length, SHORTEST)))
    pictures = torch.stack(waves)[:, None].expand(-1, 3, -1, -1)
    return pictures.contiguous(), torch.ones(classes, 1, height, width)


#: By the name of a kind of cue: what draws it, and its usual size and strength.
KINDS: dict[str, tuple[Callable[[int, int, int, float], Patterns], float, float]] = {
    "box": (box, 0.1, 1.0),
    "patch": (patch, 0.2, 1.0),
    "border": (border, 0.1, 1.0),
    "texture": (texture, 0.1, 0.2),
    "frequency": (frequency, 0.5, 0.2),
}

#: Kinds that are blended into all of the image.
ALL_OVER = frozenset({"texture", "frequency"})


def hues(classes: int) -> torch.Tensor:
    """Return K colours (K, 3) in [-1, 1], evenly around the circle of hues."""
    return 2 * torch.tensor([colorsys.hsv_to_rgb(k / classes, 1.0, 1.0) for k in range(classes)]) - 1


def _pixels(size: float, height: int, width: int) -> int:
    """Return a share of the shorter side in pixels, one at least."""
    return max(round(size * min(height, width)), 1)


def _filled(colours: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return colours[:, :, None, None].expand(-1, -1, height, width).contiguous()
