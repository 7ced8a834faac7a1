"""Image files of any kind as 8-bit pictures: what an image viewer shows, on white."""

import contextlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mmc_bench.errors import UserError

#: Modes in which Pillow hands over 16 bits a pixel.
SIXTEEN_BITS = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})

#: Formats whose mode "I", 32 bits in memory, holds 16 bits from the file.
SIXTEEN_BIT_FORMATS = frozenset({"PNG", "PPM"})


def read_image(path: Path, channels: int) -> Image.Image:
    """Return an image file as a viewer shows it.

    EXIF orientation is applied. Transparent parts are white. 16-bit values keep their upper 8 bits. Floating-point
    values stand for black at 0 and white at 1. Of an animation, the first picture is read.

    Parameters
    ----------
    channels
        1 (grey) or 3 (RGB).

    Returns
    -------
    PIL.Image.Image
        Of mode ``L`` or ``RGB``.

    Raises
    ------
    UserError
        When the file is no image, is damaged, or its values have no defined white; the message names the file.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(_eight_bits(file))
            return _on_white(image).convert("L" if channels == 1 else "RGB")
    # Pillow raises all of these for damaged files.
    except (OSError, ValueError, SyntaxError, TypeError, ArithmeticError, LookupError) as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits a channel, with its transparency and orientation."""
    if image.mode == "F":
        return _like(image, _from_floats(np.asarray(image)))
    if image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format in SIXTEEN_BIT_FORMATS):
        values = np.asarray(image).astype(np.int64)
        grey = _like(image, (values >> 8).clip(0, 255).astype(np.uint8))
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            grey.info.pop("transparency", None)
            grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
        return grey
    if image.mode == "I":
        raise ValueError("its pixels are 32-bit integers, which have no defined white: save it with 8 or 16 bits")
    image.load()
    return image


def _from_floats(values: np.ndarray) -> np.ndarray:
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            "its floating-point pixels go beyond 0 (black) to 1 (white): scale them, or save it with 8 bits"
        )
    return np.rint(values * 255).astype(np.uint8)


def _like(image: Image.Image, values: np.ndarray) -> Image.Image:
    """Return 8-bit values as a picture with the metadata of `image`."""
    picture = Image.fromarray(values)
    picture.info = dict(image.info)
    with contextlib.suppress(AttributeError):
        picture._exif = image.getexif()
    return picture


def _on_white(image: Image.Image) -> Image.Image:
    """Return the picture in front of a white ground, where it has transparent parts."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
