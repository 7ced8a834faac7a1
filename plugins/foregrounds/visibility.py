"""Whether a cut-out is seen, and a scene behind it: otherwise a cue is read where nothing shows it, or the reverse."""

from pathlib import Path

import torch

from mmc_bench import UserError
from mmc_bench.data.stored import Images, rows_of

from .layout import Pictures
from .placement import AT_ONCE

HALF = 128  # the least opacity, of 255, with which a pixel counts as one of the cut-out
OPAQUE = 255


def check_seen(images: Images, placed: Images, root: Path, pictures: Pictures) -> None:
    """Raise a `UserError` that names a cut-out that shows nothing, or behind which nothing of a scene is seen.

    Parameters
    ----------
    images
        Cut-outs (N, 4, H, W) as they lie in their files.
    placed
        The same in their places.
    root, pictures
        Where their files are.
    """
    for rows in torch.arange(len(images)).split(AT_ONCE):
        opacity = rows_of(images, rows)[:, 3].contiguous()  # (n, H, W)
        in_place = opacity if placed is images else rows_of(placed, rows)[:, 3].contiguous()
        largest, hidden = opacity.amax((1, 2)), in_place.amax((1, 2)) < HALF
        wrong = (largest < HALF) | _rectangular(opacity) | hidden | (in_place.amin((1, 2)) == OPAQUE)
        for row in wrong.nonzero()[:, 0].tolist():
            number = int(rows[row])
            name = root / pictures.names[number]
            mask = root / pictures.masks[number] if pictures.masks else None
            if largest[row] < HALF:
                why = f"the largest value of its mask {mask} is {int(largest[row])}, and white, 255, means opaque"
                raise UserError(f"{name} shows nothing: {why if mask else 'none of its pixels is opaque'}")
            if _rectangular(opacity[row : row + 1]):
                why = f"its mask {mask} is white, which means opaque, everywhere; what is not opaque must be black"
                raise UserError(f"{name} hides all of a scene: {why if mask else 'it is an opaque rectangle'}")
            does = "shows nothing" if hidden[row] else "hides all of a scene"
            raise UserError(f"{name} {does} in its place: bring scale nearer to 1, or shift and soften nearer to 0")


def _rectangular(opacity: torch.Tensor) -> torch.Tensor:
    """Tell which of n pictures (n, H, W) are opaque but for equal bars at two sides, which fit them into a square."""
    found = torch.zeros(len(opacity), dtype=torch.bool)
    for axis in (1, 2):
        least, most = opacity.amin(axis), opacity.amax(axis)  # (n, W), or (n, H)
        bars = (least == most).all(1) & ((most == 0) | (most == OPAQUE)).all(1) & (most == OPAQUE).any(1)
        found |= bars & (most != most.flip(1)).sum(1).le(2)  # one bar may be wider by a pixel
    return found
