"""Labels of tensors whose axes are merged, split, cut, joined or broadcast: nothing is computed, only moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from mmc_bench.landscape.alignment.labels import Fixed, Label, Labels, Segment, Units, segment_size, size_of


@dataclass(frozen=True)
class Axes:
    """A tensor as label propagation sees it: one label for each axis."""

    labels: tuple[Label, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(map(size_of, self.labels))

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.labels)

    def replaced(self, axis: int, label: Label) -> Axes:
        """Return the same with another label on one axis."""
        axis %= self.ndim
        return Axes((*self.labels[:axis], label, *self.labels[axis + 1 :]))


def broadcast(space: Labels, tensors: Sequence[Axes]) -> Axes:
    """Unify the axes of tensors as broadcasting lays them over one another, and return the result's."""
    ndim = max(tensor.ndim for tensor in tensors)
    labels = []
    for axis in range(-ndim, 0):
        present = [tensor.labels[axis] for tensor in tensors if tensor.ndim >= -axis]
        wide = [label for label in present if size_of(label) > 1] or present[:1]
        for label in wide[1:]:
            space.unify(wide[0], label)
        labels.append(space.resolve(wide[0]))
    return Axes(tuple(labels))


def expanded(space: Labels, tensor: Axes, shape: Sequence[int]) -> Axes:
    """Return a tensor repeated to a shape: whole copies of an axis one behind the other."""
    labels = (((),),) * (len(shape) - tensor.ndim) + tensor.labels
    return Axes(tuple(_repeated(space, label, size) for label, size in zip(labels, shape)))


def _repeated(space: Labels, label: Label, size: int) -> Label:
    copies = size // size_of(label)
    if copies == size > 1:  # copies of one position, however they are permuted
        return space.fresh(size)
    return label if copies == 1 else merged(space, (space.fixed(copies), label))


def merged(space: Labels, labels: Sequence[Label]) -> Label:
    """Return the label of axes that are flattened into one, the first the outermost."""
    result: Label = ((),)
    for label in labels:
        inner = space.resolve(label)
        if len(inner) > 1 and any(isinstance(factor, Units) for segment in result for factor in segment):
            space.pin(inner)
            inner = space.resolve(inner)
        if len(inner) > 1:
            result = ((),) * size_of(result)
        result = tuple((*outer, *segment) for outer in result for segment in inner)
    return space.resolve(result)


def reshaped(space: Labels, tensor: Axes, shape: Sequence[int]) -> Axes:
    """Return a tensor's labels after `reshape`: axes are merged, then divided, in the smallest runs that fit."""
    labels: list[Label] = []
    sources, targets = list(tensor.labels), list(shape)
    while sources or targets:
        run, sizes = sources[:1], targets[:1]
        del sources[:1], targets[:1]
        while (have := prod(map(size_of, run))) != (want := prod(sizes)) or not run or not sizes:
            if have <= want and sources:
                run.append(sources.pop(0))
            elif targets:
                sizes.append(targets.pop(0))
            else:
                break  # nothing but single positions are left
        labels += _divided(space, merged(space, run), sizes)
    return Axes(tuple(labels))


def _divided(space: Labels, label: Label, sizes: Sequence[int]) -> list[Label]:
    """Return the labels of one axis divided into several; units that would be torn apart are pinned."""
    wide = [size for size in sizes if size > 1]
    parts = _divided_product(space, label, wide) if len(wide) > 1 else [label]
    return [parts.pop(0) if size > 1 else space.fixed(1) for size in sizes]


def _divided_product(space: Labels, label: Label, sizes: Sequence[int]) -> list[Label]:
    segments = space.resolve(label)
    if len(segments) > 1:
        space.pin(label)
        return [space.fixed(size) for size in sizes]
    factors, parts = list(segments[0]), []
    for size in sizes:
        part: list[Units | Fixed] = []
        while (missing := size // segment_size(tuple(part))) > 1:
            factor = factors.pop(0)
            if missing % factor.size == 0:
                part.append(factor)
                continue
            space.pin(((factor,),))
            if factor.size % missing == 0:  # the rest of it goes to the next axes
                factors.insert(0, Fixed(factor.size // missing, space.operator))
                part.append(Fixed(missing, space.operator))
            else:  # an axis boundary amid a factor: pin all that is left
                space.pin(label)
                return [space.fixed(size) for size in sizes]
        parts.append(space.resolve((tuple(part),)))
    return parts


def joined(space: Labels, tensors: Sequence[Axes], axis: int) -> Axes:
    """Return the labels of a concatenation along an axis."""
    tensors = [tensor for tensor in tensors if tensor.shape != (0,)]  # torch.cat lets these pass
    axis %= tensors[0].ndim
    whole = tuple(segment for tensor in tensors for segment in tensor.labels[axis])
    others = broadcast(space, [tensor.replaced(axis, space.fixed(1)) for tensor in tensors])
    return others.replaced(axis, space.resolve(whole))


def cut(space: Labels, tensor: Axes, axis: int, sizes: Sequence[int]) -> tuple[Axes, ...]:
    """Return the labels of a tensor cut along an axis into pieces of the given sizes."""
    pieces, rest = [], tensor.labels[axis]
    for size in sizes:
        first, rest = space.split(rest, size)
        pieces.append(first)
    return tuple(tensor.replaced(axis, space.resolve(piece)) for piece in pieces)


def padded(space: Labels, tensor: Axes, pad: Sequence[int], constant: bool) -> Axes:
    """Return the labels of a padded tensor; `pad` is as in torch, from the last axis backwards."""
    labels = list(tensor.labels)
    for index in range(len(pad) // 2):
        before, after = pad[2 * index : 2 * index + 2]
        if before or after:
            axis = tensor.ndim - 1 - index
            labels[axis] = _extended(space, labels[axis], before, after, constant)
    return Axes(tuple(labels))


def _extended(space: Labels, label: Label, before: int, after: int, constant: bool) -> Label:
    if not constant or before < 0 or after < 0:
        space.pin(label)
        return space.fixed(before + size_of(label) + after)
    ends: list[Label] = [((Fixed(size, space.operator),),) if size else () for size in (before, after)]
    return space.resolve((*ends[0], *label, *ends[1]))


def with_pinned(space: Labels, tensor: Axes, axes: Sequence[int]) -> Axes:
    """Pin some axes of a tensor, whose positions the operator tells apart."""
    for axis in axes:
        space.pin(tensor.labels[axis])
    return Axes(tuple(map(space.resolve, tensor.labels)))


def segments_of(label: Label) -> list[tuple[int, Segment]]:
    """Return the segments of a label, each with the position at which it starts."""
    found, start = [], 0
    for segment in label:
        found.append((start, segment))
        start += segment_size(segment)
    return found
