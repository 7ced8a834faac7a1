"""Image files of every kind that Pillow reads: the picture that a viewer shows, or one sentence that names the file."""

import io
import re
import struct

import numpy as np
import pytest
import torch
from helpers.image_files import exif, png, tiff
from PIL import Image

from mmc_bench import UserError
from mmc_bench.data.folders import load_folder

B, W = 0, 255  # black and white


def put(root, name, content):
    """Write the same image file in all places of class folders, and return one of them."""
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (root / place).mkdir(parents=True)
        (root / place / name).write_bytes(content)
    return root / "train" / "a" / name


def grey(*values):
    return [[value] * 3 for value in values]


def floats(*values, order="<"):
    return struct.pack(f"{order}{len(values)}f", *values)


def saved(picture, suffix, **options):
    file = io.BytesIO()
    picture.save(
        file, {"gif": "GIF", "webp": "WEBP", "jp2": "JPEG2000", "jpg": "JPEG", "bmp": "BMP"}[suffix], **options
    )
    return file.getvalue()


def picture_of(*pixels, dtype=np.uint8):
    return Image.fromarray(np.array([pixels], dtype=dtype))


def bitmap(compression, pixels):
    """Return a BMP file of two pixels of 32 bits; with compression 3, it says that the fourth byte is alpha."""
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII4I", 108, 2, 1, 1, 32, compression, len(pixels), 0, 0, 0, 0, *masks).ljust(
        108, b"\0"
    )
    return b"BM" + struct.pack("<IHHI", 122 + len(pixels), 0, 0, 122) + head + pixels


def gif(transparent=None, frames=1):
    """Return a GIF of a black and a white pixel; further frames are white."""
    first = picture_of(0, 1)
    first = Image.frombytes("P", (2, 1), first.tobytes())
    first.putpalette([0, 0, 0, 255, 255, 255])
    white = Image.new("L", (2, 1), 255)
    options = {"transparency": transparent} if transparent is not None else {}
    more = {"save_all": True, "append_images": [white] * (frames - 1)} if frames > 1 else {}
    return saved(first, "gif", **options, **more)


# One row of pixels each. Black at an alpha of 51 of 255, a fifth, is 204 on white; red is (255, 204, 204).
PINK = [255, 204, 204]
PALETTE = bytes([0, 0, 0, 255, 0, 0, 10, 20, 30, 255, 255, 255])
COLOUR_MAP = [0, 65535] + [0] * 254 + [0, 257 * 7] + [0] * 254 + [0, 257 * 9] + [0] * 254
SHOWN = {
    "1-bit.png": (png([b"\x40"], 1, 0, 2), grey(B, W)),
    "2-bit.png": (png([b"\x1b"], 2, 0, 4), grey(0, 85, 170, 255)),
    "4-bit.png": (png([b"\x2f"], 4, 0, 2), grey(34, 255)),
    "8-bit.png": (png([b"\x07\xc8"], 8, 0, 2), grey(7, 200)),
    "16-bit.png": (png([b"\x07\xff\xc8\x00"], 16, 0, 2), grey(7, 200)),
    "rgb.png": (png([b"\1\2\3\xff\0\x80"], 8, 2, 2), [[1, 2, 3], [255, 0, 128]]),
    "rgb-16-bit.png": (png([b"\1\xff\2\0\3\x80"], 16, 2, 1), [[1, 2, 3]]),
    "alpha.png": (png([b"\0\0\0\x33\0\xff"], 8, 4, 3), grey(W, 204, B)),
    "alpha-16-bit.png": (png([b"\0\0\0\0\0\0\x33\x33\0\0\xff\xff"], 16, 4, 3), grey(W, 204, B)),
    "rgba.png": (png([b"\0\0\0\0\xff\0\0\x33\1\2\3\xff"], 8, 6, 3), [[W, W, W], PINK, [1, 2, 3]]),
    "rgba-16-bit.png": (png([b"\0\0\0\0\0\0\0\0\xff\xff\0\0\0\0\x33\x33"], 16, 6, 2), [[W, W, W], PINK]),
    "palette.png": (png([b"\x02\x01"], 8, 3, 2, PLTE=PALETTE), [[10, 20, 30], [255, 0, 0]]),
    "palette-2-bit.png": (png([b"\x1b"], 2, 3, 4, PLTE=PALETTE), [[0, 0, 0], [255, 0, 0], [10, 20, 30], [W, W, W]]),
    "palette-alphas.png": (png([b"\0\1\2"], 8, 3, 3, PLTE=PALETTE, tRNS=b"\0\x33"), [[W, W, W], PINK, [10, 20, 30]]),
    "palette-hole.png": (png([b"\0\1"], 8, 3, 2, PLTE=PALETTE, tRNS=b"\0"), [[W, W, W], [255, 0, 0]]),
    "key-1-bit.png": (png([b"\x40"], 1, 0, 2, tRNS=b"\0\0"), grey(W, W)),
    "key-2-bit.png": (png([b"\x1b"], 2, 0, 4, tRNS=b"\0\1"), grey(0, W, 170, 255)),
    "key-4-bit.png": (png([b"\x25"], 4, 0, 2, tRNS=b"\0\2"), grey(W, 85)),
    "key-8-bit.png": (png([b"\x02\x03"], 8, 0, 2, tRNS=b"\0\2"), grey(W, 3)),
    "key-16-bit.png": (png([b"\x02\x07\x02\x08"], 16, 0, 2, tRNS=b"\2\7"), grey(W, 2)),
    "key-rgb.png": (png([b"\1\2\3\1\2\4"], 8, 2, 2, tRNS=b"\0\1\0\2\0\3"), [[W, W, W], [1, 2, 4]]),
    "key-rgb-16-bit.png": (png([b"\1\7\2\7\3\7\4\0\5\0\6\0"], 16, 2, 2, tRNS=b"\1\7\2\7\3\7"), [[W, W, W], [4, 5, 6]]),
    "1-bit.tif": (tiff([b"\x40"], [1], 1, 2), grey(B, W)),
    "1-bit-white-at-0.tif": (tiff([b"\x40"], [1], 0, 2), grey(W, B)),
    "8-bit.tif": (tiff([b"\x07\xc8"], [8], 1, 2), grey(7, 200)),
    "8-bit-white-at-0.tif": (tiff([b"\x07\xc8"], [8], 0, 2), grey(248, 55)),
    "12-bit.tif": (tiff([b"\x07\xfc\x80"], [12], 1, 2), grey(7, 200)),
    "16-bit.tif": (tiff([b"\xff\x07\x00\xc8"], [16], 1, 2), grey(7, 200)),
    "16-bit-big-endian.tif": (tiff([b"\x07\xff\xc8\x00"], [16], 1, 2, order=">"), grey(7, 200)),
    "16-bit-white-at-0.tif": (tiff([b"\xff\x07\x00\xc8"], [16], 0, 2), grey(248, 55)),
    "float.tif": (tiff([floats(0, 0.2, 1)], [32], 1, 3, sample_format=[3]), grey(B, 51, W)),
    "float-big-endian.tif": (tiff([floats(0, 0.2, order=">")], [32], 1, 2, order=">", sample_format=[3]), grey(B, 51)),
    "float-white-at-0.tif": (tiff([floats(0, 0.2, 1)], [32], 0, 3, sample_format=[3]), grey(W, 204, B)),
    "rgb.tif": (tiff([b"\1\2\3\xff\0\x80"], [8] * 3, 2, 2), [[1, 2, 3], [255, 0, 128]]),
    "rgb-16-bit.tif": (tiff([b"\xff\1\0\2\x80\3"], [16] * 3, 2, 1), [[1, 2, 3]]),
    "rgbx.tif": (tiff([b"\1\2\3\0"], [8] * 4, 2, 1, extra=[0]), [[1, 2, 3]]),
    "rgba.tif": (tiff([b"\0\0\0\0\xff\0\0\x33"], [8] * 4, 2, 2, extra=[2]), [[W, W, W], PINK]),
    "rgba-premultiplied.tif": (tiff([b"\0\0\0\0\x33\0\0\x33"], [8] * 4, 2, 2, extra=[1]), [[W, W, W], PINK]),
    "alpha.tif": (tiff([b"\0\0\0\x33\7\xff"], [8] * 2, 1, 3, extra=[2]), grey(W, 204, 7)),
    "alpha-premultiplied.tif": (tiff([b"\0\0\0\x33\7\xff"], [8] * 2, 1, 3, extra=[1]), grey(W, 204, 7)),
    "palette.tif": (tiff([b"\1\0"], [8], 3, 2, colour_map=COLOUR_MAP), [[255, 7, 9], [0, 0, 0]]),
    "palette-alpha.tif": (tiff([b"\0\0\0\xff"], [8] * 2, 3, 2, extra=[2], colour_map=COLOUR_MAP), grey(W, B)),
    "cmyk.tif": (tiff([b"\0\0\0\0\0\xff\xff\0\0\0\0\xff"], [8] * 4, 5, 3), [[W, W, W], [255, 0, 0], [0, 0, 0]]),
    "cmyk-16-bit.tif": (tiff([b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0"], [16] * 4, 5, 2), [[W, W, W], [255, 0, 0]]),
    "ycbcr.tif": (tiff([b"\7\x80\x80\xff\x80\x80"], [8] * 3, 6, 2), grey(7, W)),
    "1-bit.pbm": (b"P4 2 1\n\x40", grey(W, B)),
    "8-bit.pgm": (b"P5 2 1 255\n\x07\xc8", grey(7, 200)),
    "4-bit.pgm": (b"P5 2 1 15\n\x05\x0f", grey(85, 255)),
    "16-bit.pgm": (b"P5 2 1 65535\n\x07\xff\xc8\x00", grey(7, 200)),
    "10-bit.pgm": (b"P5 3 1 1000\n\0\0\x01\xf4\x03\xe8", grey(0, 128, 255)),
    "rgb.ppm": (b"P6 1 1 255\n\1\2\3", [[1, 2, 3]]),
    "float.ppm": (b"Pf\n3 1\n-1.0\n" + floats(0, 0.2, 1), grey(B, 51, W)),
    "palette.gif": (gif(), grey(B, W)),
    "hole.gif": (gif(transparent=0), grey(W, W)),
    "animated.gif": (gif(frames=2), grey(B, W)),
    "animated.jfif": (gif(frames=2), grey(B, W)),
    "grey.jpg": (saved(Image.new("L", (2, 1), 100), "jpg"), grey(100, 100)),
    "cmyk.jpg": (saved(Image.new("CMYK", (2, 1), (0, 0, 0, 255)), "jpg"), grey(B, B)),
    "rgba.webp": (saved(picture_of([0, 0, 0, 0], [255, 0, 0, 51]), "webp", lossless=True), [[W, W, W], PINK]),
    "32-bit.bmp": (bitmap(0, b"\0\0\0\0\0\0\xff\x33"), [[0, 0, 0], [255, 0, 0]]),
    "rgba.bmp": (bitmap(3, b"\0\0\0\0\0\0\xff\x33"), [[W, W, W], PINK]),
    "16-bit.jp2": (saved(picture_of(0x07FF, 0xC800, dtype=np.uint16), "jp2"), grey(7, 200)),
    "alpha.jp2": (saved(picture_of([0, 0], [0, 51]), "jp2"), grey(W, 204)),
}


@pytest.mark.parametrize("name", SHOWN)
def test_an_image_is_the_picture_that_a_viewer_shows(tmp_path, name):
    content, expected = SHOWN[name]
    put(tmp_path, name, content)
    colours = load_folder(tmp_path, size=None, channels=3)[0].images[0].permute(1, 2, 0)  # (1, W, 3)
    assert colours.tolist() == [expected]


def test_a_lab_image_is_converted_to_rgb(tmp_path):
    put(tmp_path, "lab.tif", tiff([b"\0\0\0\xff\0\0\x8a\x51\x46"], [8] * 3, 8, 3))
    colours = load_folder(tmp_path, size=None, channels=3)[0].images[0].permute(1, 2, 0)
    # L* 54.3, a* 80.8, b* 69.9 under D50 is sRGB's red, in 8 bits up to rounding.
    assert (colours.int() - torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0]])).abs().max() <= 6


@pytest.mark.parametrize("name", [name for name, (_, shown) in SHOWN.items() if all(len(set(p)) == 1 for p in shown)])
def test_a_grey_image_in_one_channel_has_its_own_values(tmp_path, name):
    content, expected = SHOWN[name]
    put(tmp_path, name, content)
    assert load_folder(tmp_path, size=None, channels=1)[0].images[0].tolist() == [[[value for value, _, _ in expected]]]


REFUSED = {
    "float-255.tif": (tiff([floats(0, 255)], [32], 1, 2, sample_format=[3]), "leave the range from 0"),
    "float-negative.tif": (tiff([floats(-0.5, 1)], [32], 1, 2, sample_format=[3]), "leave the range from 0"),
    "float-nan.tif": (tiff([floats(0, float("nan"))], [32], 1, 2, sample_format=[3]), "leave the range from 0"),
    "double.tif": (tiff([bytes(8)], [64], 1, 1, sample_format=[3]), ""),
    "int-16.tif": (tiff([b"\xff\x07"], [16], 1, 1, sample_format=[2]), "signed or 32-bit integers"),
    "int-32.tif": (tiff([bytes(4)], [32], 1, 1, sample_format=[2]), "signed or 32-bit integers"),
    "uint-32.tif": (tiff([bytes(4)], [32], 1, 1), "signed or 32-bit integers"),
    "alpha-16-bit.tif": (tiff([bytes(4)], [16] * 2, 1, 1, extra=[2]), ""),
    "empty.png": (b"", "its content is of no known kind"),
    "text.png": (b"not an image", "its content is of no known kind"),
    "truncated.png": (png([bytes(100)] * 100, 8, 0, 100)[:60], ""),
    "truncated.jpg": (saved(Image.effect_noise((64, 64), 90), "jpg")[:900], "truncated"),
    "huge.png": (png([b"\0"], 1, 0, 2**31 - 1), "decompression bomb"),
    "damaged.gif": (b"GIF89a" + b"\xff" * 20, ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_image_that_is_damaged_or_has_no_defined_white_is_one_sentence_that_names_it(tmp_path, name):
    content, reason = REFUSED[name]
    file = put(tmp_path, name, content)
    with pytest.raises(UserError, match=f"{re.escape(str(file))} cannot be read as an image: .*{reason}") as caught:
        load_folder(tmp_path, size=None, channels=3)
    assert "\n" not in str(caught.value)


# What the rows 1 2 3 and 4 5 6 look like when they are turned upright.
UPRIGHT = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}
ROWS = [b"\1\2\3", b"\4\5\6"]
DEEP_ROWS = [b"\1\0\2\0\3\0", b"\4\0\5\0\6\0"]


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("8-bit.png", lambda turn: png(ROWS, 8, 0, 3, eXIf=exif(turn))),
        ("16-bit.png", lambda turn: png(DEEP_ROWS, 16, 0, 3, eXIf=exif(turn))),
        ("8-bit.tif", lambda turn: tiff(ROWS, [8], 1, 3, orientation=[turn])),
        ("16-bit.tif", lambda turn: tiff(DEEP_ROWS, [16], 1, 3, order=">", orientation=[turn])),
    ],
)
def test_an_image_is_turned_upright(tmp_path, name, write, orientation):
    put(tmp_path, name, write(orientation))
    assert load_folder(tmp_path, size=None, channels=1)[0].images[0].tolist() == [UPRIGHT[orientation]]


def test_a_photograph_is_turned_upright(tmp_path):
    lying = np.zeros((16, 32), np.uint8)
    lying[:, :16] = 255  # white on the left: at the top, once it is turned clockwise
    put(tmp_path, "photo.jpg", saved(Image.fromarray(lying), "jpg", exif=b"Exif\0\0" + exif(6)))
    photo = load_folder(tmp_path, size=None, channels=1)[0].images[0, 0]
    assert photo.shape == (32, 16) and photo[0].tolist() == [255] * 16 and photo[-1].tolist() == [0] * 16


@pytest.mark.parametrize(
    "metadata", [b"", b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0" + exif(6)[:15], exif(9), exif(0)]
)
def test_an_image_with_damaged_metadata_is_read_as_it_lies(tmp_path, metadata):
    put(tmp_path, "photo.jpg", saved(Image.new("L", (3, 2), 100), "jpg", exif=metadata))
    assert load_folder(tmp_path, size=None, channels=1)[0].images[0].tolist() == [[[100] * 3] * 2]


@pytest.mark.slow
@pytest.mark.parametrize("spread", [256, 257])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_digits_in_16_bits_are_the_very_tensor_that_they_are_in_8(tmp_path, suffix, channels, spread):
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index in range(40):
        scan = (digits.images[index] * 15).astype(np.uint16)  # 0 to 240
        for part in ("train", "test"):
            for depth, values in (("8", scan.astype(np.uint8)), ("16", scan * spread)):
                folder = tmp_path / depth / part / str(digits.target[index])
                folder.mkdir(parents=True, exist_ok=True)
                if depth == "16" and suffix == ".pgm":
                    (folder / f"{index}.pgm").write_bytes(b"P5 8 8 65535\n" + values.astype(">u2").tobytes())
                else:
                    Image.fromarray(values).save(folder / f"{index}{suffix}")
    eight, sixteen = (load_folder(tmp_path / depth, size=(32, 32), channels=channels) for depth in ("8", "16"))
    for part_of_eight, part_of_sixteen in zip(eight, sixteen):
        assert torch.equal(part_of_eight.images, part_of_sixteen.images)
        assert torch.equal(part_of_eight.labels, part_of_sixteen.labels)
        assert part_of_eight.images.float().std() > 50
