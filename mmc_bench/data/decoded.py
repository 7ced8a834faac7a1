"""Image files as tensors: decoded and resized once, and kept in a file that is checked before use."""

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from PIL.Image import Resampling

from mmc_bench.data.cache import cache_root
from mmc_bench.data.listing import FileState, state_of
from mmc_bench.data.pictures import read_image
from mmc_bench.data.stored import IMAGE_MEMORY, Images, StoredImages
from mmc_bench.errors import UserError
from mmc_bench.system.files import write_whole
from mmc_bench.system.streams import notice

#: How an image gets another shape: its sides changed as they must be; the middle of it, as large as fits; or all of it,
#: in the middle of a picture that is black, or transparent, around it.
Fit = Literal["stretch", "cover", "contain"]

#: A part of an image: left, top, right and bottom, in shares of its sides.
Box = tuple[float, float, float, float]

WHOLE: Box = (0, 0, 1, 1)

AT_ONCE = 256  # images
FLUSHED_EVERY = 2**26  # bytes: so much is decoded again at most after a crash
TOLD_EVERY = 10.0  # seconds
LEFT_AFTER = 7 * 86_400.0  # seconds

#: A larger file is checked when it was changed, and not each time that it is opened.
ALWAYS_CHECKED = 2**28  # bytes


@dataclass(frozen=True)
class DecodedShape:
    """What decoded images look like.

    Parameters
    ----------
    size
        Height and width (bilinear, antialiased); None keeps the images' own, which must then all be equal.
    channels
        1 (grey), 3 (RGB) or 4 (RGB and opacity).
    """

    size: tuple[int, int] | None
    channels: int
    fit: Fit = "stretch"


@dataclass(frozen=True)
class PictureFiles:
    """Image files to decode, in order.

    Parameters
    ----------
    root
        Their folder.
    names
        Their places below it.
    identity
        A digest of their content, or of more than that.
    masks
        Grey images that say how opaque each is, for four channels; without them, it is what the files say.
    boxes
        What is seen of each; without them, all.
    """

    root: Path
    names: Sequence[str]
    identity: str
    masks: Sequence[str] | None = None
    boxes: Sequence[Box] | None = None


def decode(
    pictures: PictureFiles, shape: DecodedShape, memory: int = IMAGE_MEMORY, report: Callable[[str], None] = notice
) -> Images:
    """Return the images (N, C, H, W), uint8 in channels_last memory; from the cache, where they are in it.

    What takes more than `memory` bytes stays in its file. Where decoding was cut off, it goes on there.

    Parameters
    ----------
    report
        Called with a sentence about how far it is, every ten seconds.

    Raises
    ------
    UserError
        When there are none, one cannot be read, has another size than the first where none is given, or was changed
        meanwhile; or when they need a file, and the cache cannot be written.
    """
    if not pictures.names:
        raise UserError(f"there are no images to decode in {pictures.root}")
    listed = "\n".join([*pictures.names, "", *(pictures.masks or ())]).encode(errors="surrogateescape")
    what = f"{pictures.identity}-{hashlib.sha256(listed).hexdigest()}-{shape}-as shown"
    if pictures.boxes:
        what += f"-{pictures.boxes}"
    cache = cache_root() / "decoded" / f"{hashlib.sha256(what.encode()).hexdigest()[:24]}.pixels"
    opened = _opened(cache, memory)
    if opened is not None:
        return opened
    with _lock(cache):  # one worker decodes, the others wait
        opened = _opened(cache, memory)
        if opened is not None:
            return opened
        height, width = shape.size or _size_of(pictures, shape.channels)
        whole = (len(pictures.names), shape.channels, height, width)
        try:
            _write(cache, whole, pictures, shape, report)
        except OSError as error:
            _drop(cache)  # it would keep the disk full
            if (size := math.prod(whole)) > memory:
                raise UserError(
                    f"the images of {pictures.root} need a file of {size / 1e9:.2g} GB, and {cache.parent} cannot hold "
                    f"it ({error.strerror}): set MMC_BENCH_CACHE to a folder that can, or run with more --image-memory"
                ) from None
            return _in_memory(whole, pictures, shape, report)
        opened = _opened(cache, memory)
    if opened is None:
        raise UserError(f"{cache} is not what was just written to it")
    return opened


def several_sizes(path: Path, size: tuple[int, int], first: tuple[int, int]) -> UserError:
    """Return the error of an image whose (width, height) is not that of the first, where these stay as they are."""
    return UserError(
        f"{path} is {size[0]}x{size[1]}, and the first one {first[0]}x{first[1]}: images of several sizes need one to "
        "be resized to, such as --set DATASET.pixels=32"
    )


def _size_of(pictures: PictureFiles, channels: int) -> tuple[int, int]:
    first = read_image(pictures.root / pictures.names[0], channels)
    return first.height, first.width


def _write(
    cache: Path,
    whole: tuple[int, int, int, int],
    pictures: PictureFiles,
    shape: DecodedShape,
    report: Callable[[str], None],
) -> None:
    """Decode into a file beside the cache's, from where an earlier attempt ended, and rename it."""
    part, notes = _unfinished(cache)
    _sweep(cache.parent, but=part)
    before = _states(pictures)
    image_bytes = math.prod(whole[1:])
    stretches = _intact_stretches(part, notes, image_bytes)
    done = stretches[-1][0] if stretches else 0
    with part.open("r+b" if done else "wb") as file:
        file.truncate(done * image_bytes)
        file.seek(done * image_bytes)
        digest, unflushed = hashlib.sha256(), 0
        for pixels in _decoded(pictures, shape, whole, done, report):
            file.write(pixels.data)
            digest.update(pixels.data)
            done, unflushed = done + len(pixels), unflushed + pixels.nbytes
            if unflushed >= FLUSHED_EVERY or done == whole[0]:
                file.flush()
                os.fsync(file.fileno())
                stretches.append((done, digest.hexdigest()))
                write_whole(notes, json.dumps(stretches).encode())
                digest, unflushed = hashlib.sha256(), 0
    if _states(pictures) != before:
        _drop(cache)
        raise UserError(f"images of {pictures.root} were changed while they were decoded: run the same command again")
    about = {"shape": whole, "sha256": _digest(part), "state": _state(part)}
    part.replace(cache)
    write_whole(cache.with_suffix(".json"), json.dumps(about).encode())
    notes.unlink(missing_ok=True)


def _unfinished(cache: Path) -> tuple[Path, Path]:
    """Return where images are written before all are there, and where it is noted how far they are."""
    return cache.with_suffix(".part"), cache.with_suffix(".done")


def _intact_stretches(part: Path, notes: Path, image_bytes: int) -> list[tuple[int, str]]:
    """Return what an earlier attempt has written, as far as it is as noted: each stretch's last image, and digest."""
    stretches: list[tuple[int, str]] = []
    with contextlib.suppress(OSError, ValueError, TypeError), part.open("rb") as file:
        start = 0
        for end, noted in json.loads(notes.read_bytes()):
            if end <= start or hashlib.sha256(file.read((end - start) * image_bytes)).hexdigest() != noted:
                break
            stretches.append((end, noted))
            start = end
    return stretches


def _states(pictures: PictureFiles) -> list[FileState]:
    return list(map(state_of(pictures.root), dict.fromkeys((*pictures.names, *(pictures.masks or ())))))


def _drop(cache: Path) -> None:
    """Remove what is unfinished."""
    for path in _unfinished(cache):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _sweep(folder: Path, but: Path) -> None:
    """Remove what was left unfinished long ago: its images may be gone or changed, and it would never be used."""
    for part in folder.glob("*.part"):
        with contextlib.suppress(OSError):
            if part != but and time.time() - part.stat().st_mtime > LEFT_AFTER:
                _drop(part)


def _in_memory(
    whole: tuple[int, int, int, int], pictures: PictureFiles, shape: DecodedShape, report: Callable[[str], None]
) -> torch.Tensor:
    """Decode without a cache."""
    return torch.from_numpy(np.concatenate(list(_decoded(pictures, shape, whole, 0, report)))).permute(0, 3, 1, 2)


def _decoded(
    pictures: PictureFiles,
    shape: DecodedShape,
    whole: tuple[int, int, int, int],
    start: int,
    report: Callable[[str], None],
) -> Iterator[np.ndarray]:
    """Yield the images' pixels (n, H, W, C) from `start` on, decoded in as many threads as torch has."""
    n, channels, height, width = whole
    told = time.monotonic()

    def one(row: int) -> np.ndarray:
        mask = None if pictures.masks is None else pictures.root / pictures.masks[row]
        image = read_image(pictures.root / pictures.names[row], channels, mask)
        if shape.size is None and image.size != (width, height):
            raise several_sizes(pictures.root / pictures.names[row], image.size, (width, height))
        box = pictures.boxes[row] if pictures.boxes else WHOLE
        return np.asarray(_fitted(image, (width, height), shape.fit, box)).reshape(height, width, channels)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for first in range(start, n, AT_ONCE):
            yield np.stack(list(pool.map(one, range(first, min(first + AT_ONCE, n)))))
            if time.monotonic() - told > TOLD_EVERY:
                told = time.monotonic()
                report(f"{pictures.root}: {min(first + AT_ONCE, n):,} of {n:,} images are decoded")


def _fitted(image: Image.Image, size: tuple[int, int], fit: Fit, box: Box) -> Image.Image:
    """Return what is seen of an image at (width, height)."""
    width, height = size
    if image.size == size and box == WHOLE:
        return image
    left, top, right, bottom = (share * side for share, side in zip(box, image.size * 2, strict=True))
    if fit == "stretch":
        return image.resize(size, Resampling.BILINEAR, box=(left, top, right, bottom))
    scales = width / (right - left), height / (bottom - top)
    if fit == "cover":
        beside = max((right - left - width / max(scales)) / 2, 0)  # rounding may lead out of the image
        above = max((bottom - top - height / max(scales)) / 2, 0)
        return image.resize(size, Resampling.BILINEAR, box=(left + beside, top + above, right - beside, bottom - above))
    inner = max(round((right - left) * min(scales)), 1), max(round((bottom - top) * min(scales)), 1)
    seen = image.resize(inner, Resampling.BILINEAR, box=(left, top, right, bottom))
    picture = Image.new(image.mode, size)
    picture.paste(seen, ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return picture


def _lock(cache: Path) -> contextlib.AbstractContextManager[object]:
    """Return a lock on a cached file; nothing where the cache cannot be written, and each decodes for itself."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(cache.with_suffix(".lock")).acquire()
    except OSError:
        return contextlib.nullcontext()


def _opened(cache: Path, memory: int) -> Images | None:
    """Return the cached images, or None when there are none or the file is damaged."""
    about = cache.with_suffix(".json")
    try:
        known = json.loads(about.read_bytes())
        n, channels, height, width = (int(side) for side in known["shape"])
        size = n * channels * height * width
        if cache.stat().st_size != size:
            return None
        if size <= ALWAYS_CHECKED or known["state"] != _state(cache):
            if _digest(cache) != known["sha256"]:
                return None
            if size > ALWAYS_CHECKED:
                with contextlib.suppress(OSError):
                    write_whole(about, json.dumps({**known, "state": _state(cache)}).encode())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if size > memory:
        return StoredImages(cache, (n, channels, height, width))
    pixels = torch.from_file(str(cache), shared=False, size=size, dtype=torch.uint8)  # mapped: workers share its memory
    return pixels.view(n, height, width, channels).permute(0, 3, 1, 2)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(path: Path) -> str:
    """Return what changes when a file does; renaming it changes nothing of this."""
    status = path.stat()
    return f"{status.st_mtime_ns} {status.st_ino}"
