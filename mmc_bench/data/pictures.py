"""Image files of any kind as 8-bit pictures: what an image viewer shows, on white."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base
from PIL.Image import Transpose
from PIL.TiffImagePlugin import TiffImageFile

from mmc_bench.errors import UserError
from mmc_bench.system.files import read_whole

#: Modes in which Pillow hands over 16 bits a pixel.
SIXTEEN_BITS = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})

#: Formats whose mode "I", 32 bits in memory, holds 16 bits from the file.
SIXTEEN_BIT_FORMATS = frozenset({"PNG", "PPM"})

#: By the values' kind in a PNG file, what turns its transparent colour into Pillow's 8-bit values.
TO_EIGHT_BITS = {"L;2": (85, 0), "L;4": (17, 0), "RGB;16B": (1, 8)}

#: By the EXIF orientation, what turns the stored picture upright.
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}

#: What Pillow raises on damaged files.
DAMAGED = (
    *(OSError, EOFError, ValueError, SyntaxError, TypeError, ArithmeticError, LookupError, RuntimeError),
    *(MemoryError, struct.error, zlib.error, Image.DecompressionBombError),
)


def read_image(path: Path, channels: int, mask: Path | None = None) -> Image.Image:
    """Return an image file as a viewer shows it.

    EXIF orientation is applied. Transparent parts are white, or stay transparent with four channels. 16-bit values keep
    their upper 8 bits. Floating-point values stand for black at 0 and white at 1. Of an animation, the first picture is
    read. Colour profiles are not applied.

    Parameters
    ----------
    channels
        1 (grey), 3 (RGB) or 4 (RGB and opacity).
    mask
        With four channels, a grey image of the same size: how opaque each pixel is, from black to white.

    Returns
    -------
    PIL.Image.Image
        Of mode ``L``, ``RGB`` or ``RGBA``.

    Raises
    ------
    UserError
        When the file is no image, is damaged, its values have no defined white, or the mask has another size; the
        message names the file.
    """
    image = _as_shown(path, keep_opacity=channels == 4 and mask is None)
    if mask is not None:
        opacity = _as_shown(mask).convert("L")
        if opacity.size != image.size:
            sizes = f"{opacity.width}x{opacity.height}, and {path} {image.width}x{image.height}"
            raise UserError(f"{mask} is {sizes}: a mask has the size of its image")
        image.putalpha(opacity)
    return image.convert("L") if channels == 1 else image


def _as_shown(path: Path, keep_opacity: bool = False) -> Image.Image:
    """Return an image file in RGB, or with its opacity in RGBA."""
    try:
        content = BytesIO(
            read_whole(path)
        )  # of a file that it opens itself, Pillow maps turned TIFFs in the wrong shape
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    try:
        with Image.open(content) as file:
            if file.format == "PNG":
                _scale_transparent_colour(file)
            file.load()
            image = _eight_bits(file)
            image = _with_opacity(image) if keep_opacity else _on_white(image).convert("RGB")
            turn = UPRIGHT.get(_orientation(file))
        return image if turn is None else image.transpose(turn)
    except UnidentifiedImageError:
        raise UserError(f"{path} cannot be read as an image: its content is of no known kind") from None
    except DAMAGED as error:
        raise UserError(f"{path} cannot be read as an image: {str(error) or type(error).__name__}") from None


def _scale_transparent_colour(file: Image.Image) -> None:
    """Give a PNG's transparent colour in the 8-bit values that Pillow makes of 2-, 4- and 16-bit ones."""
    colour = file.info.get("transparency")
    factor, shift = TO_EIGHT_BITS.get(file.tile[0].args, (1, 0))  # type: ignore[attr-defined]
    if isinstance(colour, int):
        file.info["transparency"] = colour * factor >> shift
    elif isinstance(colour, tuple):
        file.info["transparency"] = tuple(value * factor >> shift for value in colour)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; that of damaged metadata is 1, upright."""
    try:
        return int(image.getexif().get(Base.Orientation, 1))
    except DAMAGED:
        return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits a channel, with its transparency."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    white_is_zero = tags.get(Base.PhotometricInterpretation) == 0  # Pillow heeds it up to 8 bits
    if image.mode == "F":
        grey = _from_floats(np.asarray(image))
        return Image.fromarray(255 - grey if white_is_zero else grey)
    if image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format in SIXTEEN_BIT_FORMATS):
        bits = 12 if tags.get(Base.BitsPerSample) == (12,) else 16
        values = np.asarray(image).astype(np.int64)
        grey = (values >> (bits - 8)).astype(np.uint8)
        picture = Image.fromarray(255 - grey if white_is_zero else grey)
        if "transparency" in image.info:
            picture.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
        return picture
    if image.mode == "I":
        raise ValueError("its pixels are signed or 32-bit integers, which have no defined white: save it with 8 bits")
    return image


def _from_floats(values: np.ndarray) -> np.ndarray:
    """Return 8-bit values of floating-point ones from 0, black, to 1, white."""
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ValueError("its floating-point pixels leave the range from 0 (black) to 1 (white): save it with 8 bits")
    eight_bits: np.ndarray = np.rint(values * 255).astype(np.uint8)
    return eight_bits


def _with_opacity(image: Image.Image) -> Image.Image:
    """Return the picture in RGBA."""
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def _on_white(image: Image.Image) -> Image.Image:
    """Return the picture in front of a white ground, where it has transparent parts."""
    if not image.has_transparency_data:
        return image
    image = _with_opacity(image)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
