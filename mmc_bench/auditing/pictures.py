"""One test image without a cue and with each cue, as pictures that a page can hold."""

import base64
import io
from collections import defaultdict
from collections.abc import Container, Mapping
from dataclasses import dataclass

import torch
from PIL import Image

from mmc_bench.auditing.chance import ScoredImages
from mmc_bench.data.cued_images import CuedImages
from mmc_bench.data.sources import Sources
from mmc_bench.running.session import Session
from mmc_bench.stages.resources import Resources

#: Pixels of the longer side, at most: larger images are scaled down.
LONGEST = 160


@dataclass(frozen=True)
class Shown:
    """What is seen of an audit's data.

    Parameters
    ----------
    pictures
        A test image with each cue, by dataset and strength, as a ``data:`` address.
    without
        The same image without a cue.
    tested
        The test images; None where no dataset was loaded.
    size
        Height and width of the images.
    counts
        How many images are in the sets ``pretraining``, ``clean`` and ``test``.
    """

    pictures: Mapping[str, Mapping[float, str]]
    without: str | None
    tested: ScoredImages | None
    size: tuple[int, ...]
    counts: Mapping[str, int]

    @classmethod
    def of(cls, session: Session, trained: Container[str]) -> "Shown":
        """Return a test image with the cue of each network that is trained, by the keys of their pretrainings.

        All show the same image. Inputs that are no images of one or three channels have no picture.
        """
        sources = Sources(dict(session.data), download=False)
        resources = Resources(session.registry, session.store, sources, device=torch.device("cpu"), threads=1)
        pictures: dict[str, dict[float, str]] = defaultdict(dict)
        without, tested = None, None
        size: tuple[int, ...] = ()
        counts: dict[str, int] = {}
        for point in session.plan.points:
            for job in point.plan.pretrainings:
                strength = float(next(iter(point.values.values())))
                if job.key not in trained or strength in pictures[job.dataset.name]:  # of another seed
                    continue
                data = resources.data(job)
                row = sample(data.splits["NC"])
                plain, cued = (address_of(data.splits[name].batch(row)[0][0]) for name in ("NC", "C"))
                without, size = without or plain, data.input_shape[1:]
                sets = {"pretraining": data.pretraining, "clean": data.clean, "test": data.splits["NC"]}
                counts = {name: len(images) for name, images in sets.items()}
                largest = int(data.splits["NC"].labels.bincount().max())
                tested = ScoredImages(data.num_classes, counts["test"], largest / counts["test"])
                if cued:
                    pictures[job.dataset.name][strength] = cued
        return cls(pictures, without, tested, size, counts)


def sample(images: CuedImages) -> torch.Tensor:
    """Return the row (1,) of the first image of the class in the middle: others may have cues at the very edge."""
    labels = images.labels.cpu()
    present = labels.unique()
    row: torch.Tensor = (labels == present[len(present) // 2]).nonzero()[0]
    return row.to(images.index.device)


def address_of(image: torch.Tensor) -> str | None:
    """Return an image (C, H, W) in [-1, 1] as PNG in a ``data:`` address; None where C is neither 1 nor 3."""
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        return None
    levels = ((image.float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    picture = Image.fromarray(levels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((LONGEST, LONGEST))
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
