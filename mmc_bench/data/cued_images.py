"""Labelled images with a cue each, rendered as batches are asked for."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch

from mmc_bench.data.contract import Dataset, has_cue
from mmc_bench.data.micro_batches import micro_batches
from mmc_bench.data.stored import Images, StoredImages, rows_of
from mmc_bench.errors import UserError
from mmc_bench.system.devices import image_layout
from mmc_bench.system.tally import ROLES, running_tally

# On a CPU, larger batches fall out of the cache: 2.7 times slower at 1,000 than at 64 (ResNet-8, one core).
EVALUATION_BATCH = {"cpu": 100, "cuda": 2000}


def _as_they_are(images: torch.Tensor) -> torch.Tensor:
    return images


@dataclass(frozen=True)
class CuedImages:
    """Labelled images with a cue each, on one device; batches are rendered as they are asked for.

    Several sets share one `storage`, so that a dataset lies on the device once.

    Parameters
    ----------
    storage
        Images of shape (M, C, H, W), uint8 (scaled to [-1, 1] in batches) or float (used as they are), in memory or in
        a file; batches are gathered fastest from channels_last memory.
    index
        int64 of shape (N,): the set's images in the storage.
    labels, cues
        Shapes (N,) and (N, …).
    render, without_cue
        The dataset's pictures of images with a cue, and without one: the images, unless said otherwise.
    held
        The set's images (N, C', H', W') as the network sees them, where they were rendered beforehand.
    role
        Which of `mmc_bench.system.tally.ROLES` the images have for a method, or (N, R) where that differs; a training
        that runs counts the batches of sets with a role.
    augment
        What stored images are replaced with in batches of random order, before they are scaled and drawn: see
        `mmc_bench.data.augmentation`.
    """

    storage: Images
    index: torch.Tensor
    labels: torch.Tensor
    cues: torch.Tensor
    render: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    without_cue: Callable[[torch.Tensor], torch.Tensor] = _as_they_are
    held: torch.Tensor | None = None
    role: str | torch.Tensor | None = None
    augment: Callable[[torch.Tensor], torch.Tensor] = _as_they_are
    _with_cue: int = field(init=False, repr=False)
    _a_cue: torch.Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Note how many images have a cue, and one of these cues: here the host waits for the device, once a set."""
        present = has_cue(self.cues)
        object.__setattr__(self, "_with_cue", int(present.sum()))
        if self._with_cue:
            object.__setattr__(self, "_a_cue", self.cues.index_select(0, present.int().argmax()[None]))

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, rows: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images (n, C', H', W) as the network sees them, and their labels (n,).

        The images are the caller's own: a network may change its input in place.
        """
        return self._batch(rows, _as_they_are)

    def _batch(
        self,
        rows: torch.Tensor | slice,
        change: Callable[[torch.Tensor], torch.Tensor],
        read: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch; `read` are its images as they are stored, where they were read beforehand."""
        labels = self.labels[rows]
        if (tally := running_tally()) and (role := self._role(rows)) is not None:
            tally.visit(role, len(labels))
        if self.held is not None:
            # A slice alone would be a view, which a network that changes its input in place would change.
            return (self.held[rows].clone() if isinstance(rows, slice) else self.held[rows]), labels
        images = change(rows_of(self.storage, self.index[rows]) if read is None else read)
        if images.dtype == torch.uint8:
            images = images.float().mul_(2 / 255).sub_(1)  # a CPU multiplies bytes by a number half as fast
        return self._pictures(images, self.cues[rows]), labels

    def _pictures(self, images: torch.Tensor, cues: torch.Tensor) -> torch.Tensor:
        """Return the images with their cues; `render` gets no code that means none."""
        if self._with_cue == len(self):
            return laid_out(self.render(images, cues))
        plain = laid_out(self.without_cue(images))
        if not self._with_cue:
            return plain
        present = has_cue(cues)
        drawn = laid_out(self.render(images, torch.where(_along(present, cues), cues, self._a_cue)))
        # With weights of 0 and 1 exact, and on a CPU four times as fast as torch.where.
        return plain.lerp(drawn, _along(present, plain).to(plain.dtype))

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield one epoch of batches in random order.

        A last batch of one image is left out, since BatchNorm has no variance to take from it.
        """
        yield from self._batches(self.shuffled_rows(batch_size, generator), self.augment)

    def shuffled_rows(self, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """Yield the rows (n,) of each batch of `shuffled`, for methods that know more of a row than its label."""
        order = torch.randperm(len(self), generator=generator, device=generator.device)
        for rows in order.to(self.index.device).split(batch_size):
            if len(rows) > 1:
                yield rows

    def stream(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield batches for ever, epoch after epoch, each in a new random order."""
        if not self.steps(batch_size):
            raise UserError(f"a set of {len(self)} images makes no batch")
        while True:
            yield from self.shuffled(batch_size, generator)

    def in_order(self, batch_size: int | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the whole set once, in its own order; by default in batches that suit the device and its memory."""
        batch_size = batch_size or max(EVALUATION_BATCH.get(self.index.device.type, 1000) // micro_batches(), 1)
        yield from self._batches(
            (slice(start, start + batch_size) for start in range(0, len(self), batch_size)), _as_they_are
        )

    def _batches(
        self, batches: Iterable[torch.Tensor | slice], change: Callable[[torch.Tensor], torch.Tensor]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the batches of these rows; where images lie in a file, those of the next are read meanwhile."""
        if self.held is not None or not isinstance(self.storage, StoredImages):
            for rows in batches:
                yield self._batch(rows, change)
            return
        rows_of_each = list(batches)
        wanted = [self.index[rows] for rows in rows_of_each]
        on_host = torch.cat(wanted).cpu().split([len(index) for index in wanted])  # the host waits for the device once
        for rows, read in zip(rows_of_each, self.storage.read_ahead(on_host, self.index.device), strict=True):
            yield self._batch(rows, change, read)

    def steps(self, batch_size: int) -> int:
        """Return the number of batches that `shuffled` yields."""
        full, rest = divmod(len(self), batch_size)
        return full + (rest > 1)

    def rendered(self) -> "CuedImages":
        """Return the same set with its images held as the network sees them, so that each is rendered once."""
        return replace(self, held=torch.cat([x for x, _ in self.in_order()]))

    def first(self, n: int | None) -> "CuedImages":
        """Return the set's first `n` images, or all of them."""
        return self.subset(slice(n))

    def subset(self, rows: torch.Tensor | slice) -> "CuedImages":
        """Return the set of these rows, in their order; a row may come more than once."""
        held = None if self.held is None else self.held[rows]
        index, labels, cues = self.index[rows], self.labels[rows], self.cues[rows]
        return replace(self, index=index, labels=labels, cues=cues, held=held, role=self._role(rows))

    def joined(self, other: "CuedImages") -> "CuedImages":
        """Return this set's images followed by another's, as one set.

        Raises
        ------
        ValueError
            When the two do not lie in one storage, as the sets of one experiment's training images do.
        """
        if other.storage is not self.storage:
            raise ValueError("only sets of one dataset's training images can be joined")
        index, labels = torch.cat([self.index, other.index]), torch.cat([self.labels, other.labels])
        cues, role = torch.cat([self.cues, other.cues]), self._role_with(other)
        return replace(self, index=index, labels=labels, cues=cues, held=None, role=role)

    def _role(self, rows: torch.Tensor | slice) -> str | torch.Tensor | None:
        return self.role[rows] if isinstance(self.role, torch.Tensor) else self.role

    def _role_with(self, other: "CuedImages") -> str | torch.Tensor | None:
        """Return the role of this set's images followed by another's."""
        if not isinstance(self.role, torch.Tensor) and self.role == other.role:
            return self.role
        return torch.cat([self._role_of_each(), other._role_of_each()])

    def _role_of_each(self) -> torch.Tensor:
        """Return the role of each image, a row (R,) that is true there."""
        if isinstance(self.role, torch.Tensor):
            return self.role
        row = torch.tensor([name == self.role for name in ROLES], device=self.index.device)
        return row.expand(len(self), -1)


def cued_images(
    dataset: Dataset, storage: Images, index: torch.Tensor, labels: torch.Tensor, cues: torch.Tensor
) -> CuedImages:
    """Return a set of images as a dataset draws them; shapes are those of `CuedImages`."""
    without_cue = getattr(dataset, "without_cue", _as_they_are)
    return CuedImages(storage, index, labels, cues, dataset.render, without_cue)


def laid_out(images: torch.Tensor) -> torch.Tensor:
    """Return images (n, C, H, W) in the memory format in which networks run, and vectors as they are."""
    return images.contiguous(memory_format=image_layout(images.device)) if images.ndim == 4 else images


def _along(present: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return a mask (n,) with as many axes as `values` (n, …)."""
    return present.view(-1, *[1] * (values.ndim - 1))
