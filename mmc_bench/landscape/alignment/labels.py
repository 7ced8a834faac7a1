"""What is known about the positions on one axis of a tensor: which of them can change places, and with whom.

Every axis of every tensor in a network has a *label*: a tuple of segments, one behind the other
(concatenation), each a tuple of factors, the outermost first (channels x positions, after a flatten). A factor
is a set of interchangeable `Units`, or a `Fixed` run of positions that must stay where they are::

    ((c,),)                       the channels c
    ((c, Fixed(49)),)             flattened feature maps of 7x7 positions: c changes places in blocks of 49
    ((a,), (b,))                  a concatenation: a among themselves, then b among themselves

An operator says which labels are the same (`Labels.unify`), for it adds or multiplies their positions one by
one, or contracts one with the other. Unions are kept as in any union-find. What makes it more than that is
that labels have structure: units that turn out to be a concatenation or a product are given that label and
stand for it from then on; and units may be tied to *blocks*. A grouped convolution reads its input in blocks of
m channels: blocks can change places as wholes, and channels within a block, but no channel can leave its
block. The blocks are `Units` themselves; whoever moves in step with them (the convolution's output, the
rows of its weight) shares them. Units and their blocks, the blocks' own blocks and so on make a tree.

Whatever cannot be represented is pinned: declared fixed, with the reason. That forgoes permutations and is
never wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod


@dataclass(frozen=True)
class Fixed:
    """A run of positions that must stay where they are, and why."""

    size: int
    reason: str = field(default="", compare=False)


class Units:
    """A set of interchangeable positions: a node of the union-find.

    Attributes
    ----------
    size
        How many they are.
    same
        The units that these were found to be the same as.
    label
        What these were found to be made of, where it is not a plain set.
    blocks
        The units of which each stands for a run of `size / blocks.size` of these.
    has_members
        Whether these are the blocks of others.
    inner_of
        For the inner axis of a grouped convolution's weight: the input channels, whose places within their
        block it follows.
    pinned
        Why these cannot change places.
    """

    __slots__ = ("blocks", "has_members", "inner_of", "label", "pinned", "same", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.same: Units | None = None
        self.label: Label | None = None
        self.blocks: Units | None = None
        self.has_members = False
        self.inner_of: Label | None = None
        self.pinned: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether nothing but their number is known of them."""
        return self.blocks is None and not self.has_members and self.inner_of is None


Factor = Units | Fixed
Segment = tuple[Factor, ...]
Label = tuple[Segment, ...]


def size_of(label: Label) -> int:
    """Return the number of positions under a label."""
    return sum(segment_size(segment) for segment in label)


def segment_size(segment: Segment) -> int:
    """Return the number of positions in one segment."""
    return prod(factor.size for factor in segment)


class Labels:
    """The union-find over all labels of one network."""

    def __init__(self) -> None:
        self.operator = "?"  # the one at work: the reason for what is pinned meanwhile

    def fresh(self, size: int) -> Label:
        """Return a label of new units; a single position is fixed, since there is no other to swap it with."""
        return ((Units(size),),) if size > 1 else self.fixed(size)

    def fixed(self, size: int) -> Label:
        """Return a label of positions that stay where they are, because of the operator at work."""
        return ((Fixed(size, self.operator),),)

    # --- reading

    def resolve(self, label: Label) -> Label:
        """Return what a label stands for by now, in its shortest form."""
        segments: list[Segment] = []
        for segment in label:
            segments += self._resolve_segment(segment)
        merged: list[Segment] = []
        for segment in segments:
            last = merged[-1][0] if merged and len(merged[-1]) == 1 else None
            if len(segment) == 1 and isinstance(segment[0], Fixed) and isinstance(last, Fixed):
                merged[-1] = (Fixed(last.size + segment[0].size, last.reason or segment[0].reason),)
            else:
                merged.append(segment)
        return tuple(merged)

    def _resolve_segment(self, segment: Segment) -> list[Segment]:
        products: list[Segment] = [()]
        for factor in segment:
            parts = self._resolve_factor(factor)
            if len(parts) > 1 and any(isinstance(outer, Units) for product in products for outer in product):
                self.pin((segment,))
                return [(Fixed(segment_size(segment), self.operator),)]
            if len(parts) > 1:  # within fixed positions, the concatenation comes once for each of them
                products = [() for product in products for _ in range(segment_size(product))]
            products = [(*product, *part) for product in products for part in parts]
        return [_shortest(product) for product in products]

    def _resolve_factor(self, factor: Factor) -> Label:
        if isinstance(factor, Fixed):
            return ((factor,),)
        units = root(factor)
        if units.pinned is not None:
            return ((Fixed(units.size, units.pinned),),)
        if units.label is None and units.blocks is not None:
            blocks = self.resolve(((units.blocks,),))
            match blocks:
                case ((Units() as parent,),):
                    units.blocks = parent
                case _:
                    units.label = self.members(blocks, units.size // size_of(blocks))
        return ((units,),) if units.label is None else self.resolve(units.label)

    # --- telling

    def pin(self, label: Label, reason: str | None = None) -> None:
        """Declare all positions under a label fixed, because of the operator at work."""
        for segment in label:
            for factor in segment:
                if isinstance(factor, Units):
                    self._pin_units(root(factor), reason or self.operator)

    def _pin_units(self, units: Units, reason: str) -> None:
        if units.pinned is not None:
            return
        units.pinned = reason
        for implied in (units.label, units.inner_of, ((units.blocks,),) if units.blocks else None):
            if implied is not None:
                self.pin(implied, reason)

    def unify(self, one: Label, other: Label) -> None:
        """Declare the positions under two labels of equal size the same, one by one."""
        one, other = self.resolve(one), self.resolve(other)
        while one and other:
            if one == other:
                return
            if self._takes(one, other) or self._takes(other, one):
                return
            size = min(segment_size(one[0]), segment_size(other[0]))
            (first, one), (second, other) = self.split(one, size), self.split(other, size)
            first, second = self.resolve(first), self.resolve(second)
            if len(first) == len(second) == 1:
                self._unify_segments(first, second)
            else:  # to cut one was to cut the other
                one, other = (*first, *one), (*second, *other)
            one, other = self.resolve(one), self.resolve(other)

    def _takes(self, one: Label, other: Label) -> bool:
        """Give plain units the other label whole, so that a long concatenation need not be cut piece by piece."""
        match one:
            case ((Units() as units,),) if units.is_plain and len(other) > 1:
                units.label = other
                return True
        return False

    def _unify_segments(self, one: Label, other: Label) -> None:
        """Unify two labels of one segment each."""
        match one, other:
            case ((Fixed(),),), ((Fixed(),),):
                return
            case ((Fixed() as fixed,),), _:
                self.pin(other, fixed.reason)
            case _, ((Fixed() as fixed,),):
                self.pin(one, fixed.reason)
            case ((Units() as first,),), ((Units() as second,),):
                self._merge(first, second)
            case ((Units() as units,),), (product,):
                self._become(units, product)
            case (product,), ((Units() as units,),):
                self._become(units, product)
            case (first_product,), (second_product,) if _sizes(first_product) == _sizes(second_product):
                for a, b in zip(first_product, second_product):
                    self.unify(((a,),), ((b,),))
            case _:
                self.pin((*one, *other))

    def _become(self, units: Units, product: Segment) -> None:
        if units.is_plain:
            units.label = (product,)
        else:
            self.pin(((units,), product))

    def _merge(self, kept: Units, gone: Units) -> None:
        if kept is gone:
            return
        if (kept.inner_of is None) != (gone.inner_of is None):
            self.pin(((kept, gone),))
            return
        gone.same = kept
        kept.has_members |= gone.has_members
        if gone.blocks is not None:
            self._tie(kept, gone.blocks)
        if kept.inner_of is not None and gone.inner_of is not None:
            self.unify(kept.inner_of, gone.inner_of)

    # --- blocks

    def blocks(self, label: Label, size: int) -> Label:
        """Return the label of the runs of `size` positions under a label, which may change places as wholes only."""
        if size == 1:
            return label
        resolved = self.resolve(label)
        found: list[Segment] = []
        if any(segment_size(segment) % size for segment in resolved):
            self.pin(label)
            return self.fixed(size_of(label) // size)
        for segment in resolved:
            count = segment_size(segment) // size
            match segment:
                case (Units() as units,) if count > 1:
                    blocks = Units(count)
                    self._tie(units, blocks)
                    found.append((blocks,))
                case (Units(),) | (Fixed(),):
                    found.append((Fixed(count, self.operator),))
                case _:
                    self.pin((segment,))
                    found.append((Fixed(count, self.operator),))
        return self.resolve(tuple(found))

    def members(self, blocks: Label, size: int) -> Label:
        """Return a label of new units, `size` to a block, that are free within their blocks and follow them."""
        if size == 1:
            return blocks
        found: list[Segment] = []
        for segment in self.resolve(blocks):
            match segment:
                case (Units() as parent,):
                    units = Units(parent.size * size)
                    units.blocks, parent.has_members = parent, True
                    found.append((units,))
                case _:  # blocks that stay where they are
                    self.pin((segment,))
                    found += [(Units(size),) for _ in range(segment_size(segment))]
        return tuple(found)

    def _tie(self, units: Units, blocks: Units) -> None:
        """Tie units to blocks, next to any blocks that they have already, of another size perhaps."""
        units, blocks = root(units), root(blocks)
        own = root(units.blocks) if units.blocks is not None else None
        if units.pinned is not None:
            self.pin(((blocks,),), units.pinned)
        elif own is None:
            units.blocks, blocks.has_members = blocks, True
        elif own.size == blocks.size:
            self.unify(((own,),), ((blocks,),))
        elif own.size % blocks.size == 0:  # the new blocks are larger: blocks of blocks
            self._tie(own, blocks)
        elif blocks.size % own.size == 0:
            units.blocks, blocks.has_members = blocks, True
            self._tie(blocks, own)
        else:
            self.pin(((units,), (blocks,)))

    # --- cutting

    def split(self, label: Label, at: int) -> tuple[Label, Label]:
        """Return the labels of the first `at` positions and of the rest."""
        rest, first = list(self.resolve(label)), []
        while at > 0:
            segment = rest.pop(0)
            size = segment_size(segment)
            if size <= at:
                first.append(segment)
                at -= size
            else:
                rest[:0] = self._cut(segment, at)
        return tuple(first), tuple(rest)

    def _cut(self, segment: Segment, at: int) -> Label:
        """Return a segment as two, the first of `at` positions."""
        outer, inner = segment[0], segment_size(segment[1:])
        if at % inner == 0 and isinstance(outer, Units) and self._cut_units(outer, at // inner):
            return self.resolve((segment,))
        if at % inner == 0 and isinstance(outer, Fixed):
            parts = (Fixed(at // inner, outer.reason), Fixed(outer.size - at // inner, outer.reason))
            return tuple(_shortest((part, *segment[1:])) for part in parts)
        self.pin((segment,))
        return ((Fixed(at, self.operator),), (Fixed(segment_size(segment) - at, self.operator),))

    def _cut_units(self, units: Units, at: int) -> bool:
        """Give units a label of two segments, the first of `at` units; tell whether that can be."""
        if units.inner_of is not None:
            return False
        if units.blocks is None:
            units.label = self.fresh(at) + self.fresh(units.size - at)
            return True
        parent = root(units.blocks)
        size = units.size // parent.size
        if at % size or not self._cut_units(parent, at // size):
            return False
        self.resolve(((units,),))  # follows its blocks
        return units.label is not None


def root(units: Units) -> Units:
    """Return the units that stand for all that were found to be the same, and shorten the way there."""
    while units.same is not None:
        if units.same.same is not None:
            units.same = units.same.same
        units = units.same
    return units


def _sizes(segment: Segment) -> list[int]:
    return [factor.size for factor in segment]


def _shortest(segment: Segment) -> Segment:
    """Return a product without single positions, neighbouring fixed factors made one."""
    factors: list[Factor] = []
    for factor in segment:
        last = factors[-1] if factors else None
        if isinstance(factor, Fixed) and isinstance(last, Fixed):
            factors[-1] = Fixed(last.size * factor.size, last.reason or factor.reason)
        elif factor.size > 1 or not factors:
            factors.append(factor)
    if len(factors) > 1 and factors[0].size == 1:
        del factors[0]
    return tuple(factors) or (Fixed(1),)
