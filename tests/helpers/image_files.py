"""Small image files, written byte by byte in their formats: what they show does not depend on any reader."""

import struct
import zlib

SHORT, LONG = 3, 4  # types of TIFF values


def exif(orientation):
    """Return EXIF data that holds an orientation alone."""
    return b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x112, SHORT, 1, orientation, 0, 0)


def png(rows, depth, colour, width, **chunks):
    """Return a PNG file of rows of bytes; colour 0 is grey, 2 RGB, 3 a palette, 4 grey and alpha, 6 RGBA."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + b"".join(chunk(kind.encode(), content) for kind, content in chunks.items())
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def tiff(rows, bits, photometric, width, order="<", **tags):
    """Return an uncompressed TIFF file of rows of bytes.

    `bits` are those of each sample; `photometric` is 0 for grey with white at 0, 1 grey, 2 RGB, 3 a palette, 5 CMYK,
    6 YCbCr, 8 Lab.
    """
    pixels = b"".join(rows)
    entries = {
        256: (SHORT, [width]),
        257: (SHORT, [len(rows)]),
        258: (SHORT, bits),
        259: (SHORT, [1]),
        262: (SHORT, [photometric]),
        273: (LONG, [8]),
        277: (SHORT, [len(bits)]),
        278: (SHORT, [len(rows)]),
        279: (LONG, [len(pixels)]),
    }
    numbers = {"orientation": 274, "colour_map": 320, "extra": 338, "sample_format": 339}
    entries |= {numbers[name]: (SHORT, values) for name, values in tags.items()}
    values_at = 8 + len(pixels) + len(pixels) % 2
    directory_entries, values = b"", b""
    for tag, (kind, numbers_of_tag) in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(numbers_of_tag)}{'HI'[kind - SHORT]}", *numbers_of_tag)
        if len(packed) > 4:
            place = struct.pack(f"{order}I", values_at + len(values))
            values += packed
        else:
            place = packed.ljust(4, b"\0")
        directory_entries += struct.pack(f"{order}HHI", tag, kind, len(numbers_of_tag)) + place
    directory = struct.pack(f"{order}H", len(entries)) + directory_entries + bytes(4)
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, values_at + len(values))
    return start + pixels.ljust(values_at - 8, b"\0") + values + directory
