"""What each operator says about the labels of its operands and its result.

One table, `RULES`, from an operator's name to a rule; besides, whatever torch itself tags as pointwise is
elementwise. A rule takes a `Call`, adds what it knows to the `Labels`, and returns the labels of the result (`Axes`,
or a tuple of them). A rule for a new operator is one function and one row of the table; an operator that has none
pins every axis that reaches it (see `unknown`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmc_bench.landscape.alignment.labels import Label, Labels, Units, size_of
from mmc_bench.landscape.alignment.shapes import (
    Axes,
    broadcast,
    cut,
    expanded,
    joined,
    padded,
    reshaped,
    with_pinned,
)


@dataclass(frozen=True)
class Call:
    """One operator in the graph.

    Attributes
    ----------
    space
        All labels of the network.
    arguments
        By their names in the operator's schema; tensors are `Axes`.
    shapes
        The shapes of the resulting tensors.
    """

    space: Labels
    arguments: Mapping[str, Any]
    shapes: Sequence[tuple[int, ...]]

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    @property
    def tensors(self) -> list[Axes]:
        """All operands that are tensors, those in lists included."""
        found: list[Axes] = []
        for value in self.arguments.values():
            found += [entry for entry in (value if isinstance(value, (list, tuple)) else [value]) if _is_axes(entry)]
        return found

    @property
    def main(self) -> Axes:
        """The first operand."""
        return self.tensors[0]

    @property
    def dims(self) -> list[int]:
        """The axes that the operator names, counted from the front; all of them where it names none."""
        dims = next((self[name] for name in ("dim", "dims", "axis") if self[name] is not None), None)
        dims = [dims] if isinstance(dims, int) else dims
        return [dim % self.main.ndim for dim in dims] if dims else list(range(self.main.ndim))


Rule = Callable[[Call], "Axes | tuple[Axes, ...]"]


def _is_axes(value: Any) -> bool:
    return isinstance(value, Axes)


def unknown(call: Call) -> tuple[Axes, ...]:
    """Pin all that reaches the operator, and let nothing that leaves it change places."""
    for tensor in call.tensors:
        with_pinned(call.space, tensor, range(tensor.ndim))
    return tuple(Axes(tuple(map(call.space.fixed, shape))) for shape in call.shapes)


# --- position by position


def elementwise(call: Call) -> Axes:
    """Unify all operands, broadcast over one another."""
    if not call.tensors:  # zeros, ones, …: the same however they are permuted
        return Axes(tuple(map(call.space.fresh, call.shapes[0])))
    return broadcast(call.space, call.tensors)


def unchanged(call: Call) -> Axes:
    """Return the first operand's labels: nothing moves, and a softmax does not care for the order on its axis."""
    return call.main


def per_channel(call: Call) -> Axes:
    """Unify every vector among the operands with the channels: BatchNorm, PReLU."""
    x = call.main
    channels = x.labels[min(1, x.ndim - 1)]
    for vector in call.tensors[1:]:
        if size_of(vector.labels[0]) > 1:
            call.space.unify(channels, vector.labels[0])
    return x


def group_norm(call: Call) -> Axes:
    """Let groups of channels change places as wholes only, since each has statistics of its own."""
    groups = call["num_groups"]
    channels = call.main.labels[1]
    if groups > 1:
        call.space.blocks(channels, size_of(channels) // groups)
    return per_channel(call)


def layer_norm(call: Call) -> Axes:
    """Unify the scale and shift with the last axes; their order does not matter to the statistics."""
    return broadcast(call.space, call.tensors)


# --- contractions


def linear(call: Call) -> Axes:
    """y = x Wᵀ + b: the last axis of x is contracted with W's columns, y has W's rows."""
    x, weight = call["input"], call["weight"]
    call.space.unify(x.labels[-1], weight.labels[-1])
    if weight.ndim == 1:
        return Axes(x.labels[:-1])
    return _with_bias(call, x.replaced(-1, weight.labels[0]), -1)


def _with_bias(call: Call, y: Axes, axis: int) -> Axes:
    if call["bias"] is not None:
        call.space.unify(y.labels[axis], call["bias"].labels[0])
    return y


def matmul(call: Call) -> Axes | tuple[Axes, ...]:
    """a b: a's columns are contracted with b's rows, and the axes before them broadcast."""
    a, b = call.tensors[-2:]
    if a.ndim < 2 or b.ndim < 2:
        return unknown(call)
    call.space.unify(a.labels[-1], b.labels[-2])
    before = (Axes(a.labels[:-2]), Axes(b.labels[:-2]))
    batch = broadcast(call.space, before).labels if a.ndim + b.ndim > 4 else ()
    product = Axes((*batch, a.labels[-2], b.labels[-1]))
    return product if len(call.tensors) == 2 else broadcast(call.space, [product, call.tensors[0]])


def attention(call: Call) -> Axes:
    """Scaled dot products: features of queries and keys are contracted, positions of keys and values too."""
    space, (q, k, v), mask = call.space, call.tensors[:3], call["attn_mask"]
    if call["is_causal"]:
        with_pinned(space, q, [-2])
        with_pinned(space, k, [-2])
    space.unify(q.labels[-1], k.labels[-1])
    space.unify(k.labels[-2], v.labels[-2])
    batch = broadcast(space, [Axes(tensor.labels[:-2]) for tensor in (q, k, v)]).labels
    if mask is not None:
        broadcast(space, [Axes((*batch, q.labels[-2], k.labels[-2])), mask])
    return Axes((*batch, q.labels[-2], v.labels[-1]))


def convolution(call: Call) -> Axes | tuple[Axes, ...]:
    """Contract input channels with the weight's axis 1; the output has the weight's axis 0.

    With groups, the input is read in blocks, one for each block of outputs: blocks change places together, and
    whoever is in a block is free within it. The weight's axis 1 counts places within a block, and so
    follows another permutation in each block of rows. A depthwise convolution has blocks of one.
    """
    space, x, weight, groups = call.space, call.main, call["weight"], call["groups"] or 1
    if x.ndim != weight.ndim:  # an image without a batch axis
        return unknown(call)
    inputs, rows, columns = x.labels[1], weight.labels[0], weight.labels[1]
    _pin_kernel(call)
    if groups == 1:
        space.unify(inputs, columns)
    else:
        width = size_of(columns)
        blocks = space.blocks(inputs, width)
        space.unify(rows, space.members(blocks, size_of(rows) // groups))
        if width > 1:
            _bind_inner(space, columns, inputs)
    return _convolved(call, rows)


def transposed_convolution(call: Call) -> Axes | tuple[Axes, ...]:
    """Contract input channels with the weight's axis 0; the output has its axis 1."""
    x, weight = call.main, call["weight"]
    if x.ndim != weight.ndim or (call["groups"] or 1) > 1:
        return unknown(call)
    _pin_kernel(call)
    call.space.unify(x.labels[1], weight.labels[0])
    return _convolved(call, weight.labels[1])


def _pin_kernel(call: Call) -> None:
    for tensor in (call.main, call["weight"]):
        with_pinned(call.space, tensor, range(2, tensor.ndim))


def _convolved(call: Call, channels: Label) -> Axes:
    spatial = map(call.space.fixed, call.shapes[0][2:])
    return _with_bias(call, Axes((call.main.labels[0], call.space.resolve(channels), *spatial)), 1)


def _bind_inner(space: Labels, columns: Label, inputs: Label) -> None:
    """Let a grouped convolution's inner axis follow its input's places within their blocks."""
    match space.resolve(columns):
        case ((Units(inner_of=None) as inner,),) if inner.is_plain:
            inner.inner_of = inputs
        case ((Units(inner_of=known),),) if known is not None and size_of(known) == size_of(inputs):
            space.unify(known, inputs)  # the same weight, used again
        case _:
            space.pin(columns)
            space.pin(inputs)


# --- reductions and neighbourhoods


def reduction(call: Call) -> Axes | tuple[Axes, ...]:
    """Drop the reduced axes: a mean does not depend on the order."""
    x, gone = call.main, set(call.dims)
    if call["keepdim"] or call["keep_dim"]:
        kept = [call.space.fixed(1) if axis in gone else label for axis, label in enumerate(x.labels)]
    else:
        kept = [label for axis, label in enumerate(x.labels) if axis not in gone]
    return Axes(tuple(kept))


def neighbourhood(axes: int) -> Rule:
    """Return the rule of operators that look at neighbours along the last `axes` axes, which they pin."""

    def rule(call: Call) -> tuple[Axes, ...]:
        with_pinned(call.space, call.main, range(-axes, 0))
        kept = call.main.labels[:-axes]
        return tuple(Axes((*kept, *map(call.space.fixed, shape[-axes:]))) for shape in call.shapes)

    return rule


def ordered(call: Call) -> Axes:
    """Pin the axes that the operator names, along which the order matters, and no other."""
    return with_pinned(call.space, call.main, call.dims)


# --- shapes


def reshape(call: Call) -> Axes:
    """Merge and divide axes."""
    return reshaped(call.space, call.main, call.shapes[0])


def permute(call: Call) -> Axes:
    """Reorder axes."""
    x = call.main
    return Axes(tuple(x.labels[dim] for dim in call.dims))


def transpose(call: Call) -> Axes:
    """Swap two axes; the last two where none is named."""
    labels = list(call.main.labels)
    first, second = (call["dim0"], call["dim1"]) if call["dim0"] is not None else (0, -1)
    labels[first], labels[second] = labels[second], labels[first]
    return Axes(tuple(labels))


def reversed_axes(call: Call) -> Axes:
    """Return the axes from the last to the first."""
    return Axes(call.main.labels[::-1])


def expand(call: Call) -> Axes:
    """Repeat whole axes."""
    return expanded(call.space, call.main, call.shapes[0])


def cat(call: Call) -> Axes:
    """Join tensors along an axis."""
    return joined(call.space, call.tensors, call["dim"] or 0)


def stack(call: Call) -> Axes:
    """Lay tensors along a new axis, on which each has its place."""
    labels = list(broadcast(call.space, call.tensors).labels)
    axis = (call["dim"] or 0) % (len(labels) + 1)
    labels.insert(axis, call.space.fixed(len(call.tensors)))
    return Axes(tuple(labels))


def split(call: Call) -> tuple[Axes, ...]:
    """Cut an axis into pieces, whose sizes the results tell."""
    axis = (call["dim"] or 0) % call.main.ndim
    return cut(call.space, call.main, axis, [shape[axis] for shape in call.shapes])


def take(call: Call) -> Axes:
    """Return a run of positions on one axis; pin the axis if positions are left out in between."""
    x, axis = call.main, (call["dim"] or 0) % call.main.ndim
    total, size = x.shape[axis], call.shapes[0][axis]
    start = call["start"] or 0
    start = min(start if start >= 0 else start + total, total)
    if (call["step"] or 1) != 1:
        with_pinned(call.space, x, [axis])
        return x.replaced(axis, call.space.fixed(size))
    return cut(call.space, x, axis, (start, size, total - start - size))[1]


def select(call: Call) -> Axes | tuple[Axes, ...]:
    """Take single positions of one axis, which is pinned: one result, or one for each position."""
    x, axis = call.main, (call["dim"] or 0) % call.main.ndim
    with_pinned(call.space, x, [axis])
    rest = Axes((*x.labels[:axis], *x.labels[axis + 1 :]))
    return rest if len(call.shapes) == 1 and call["index"] is not None else (rest,) * len(call.shapes)


def pad(call: Call) -> Axes:
    """Add positions at the ends of axes."""
    return padded(call.space, call.main, call["pad"], (call["mode"] or "constant") == "constant")


def _rows(rule: Rule, names: str) -> Iterable[tuple[str, Rule]]:
    return ((name, rule) for name in names.split())


#: Operators by name, without overload and without the underscore of in-place ones.
RULES: Mapping[str, Rule] = dict(
    [
        *_rows(unchanged, "dropout feature_dropout alpha_dropout alias contiguous clone to _to_copy type_as detach"),
        *_rows(unchanged, "lift_fresh_copy hardswish hardtanh relu6 log_sigmoid softmax log_softmax"),
        *_rows(elementwise, "copy zeros ones full zeros_like ones_like full_like"),
        *_rows(per_channel, "batch_norm instance_norm prelu"),
        *_rows(group_norm, "group_norm"),
        *_rows(layer_norm, "layer_norm rms_norm"),
        *_rows(linear, "linear"),
        *_rows(matmul, "matmul mm bmm addmm baddbmm"),
        *_rows(attention, "scaled_dot_product_attention"),
        *_rows(convolution, "conv1d conv2d conv3d"),
        *_rows(transposed_convolution, "conv_transpose1d conv_transpose2d conv_transpose3d"),
        *_rows(reduction, "mean sum amax amin linalg_vector_norm norm var std logsumexp prod all any"),
        *_rows(neighbourhood(1), "max_pool1d avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d upsample_nearest1d"),
        *_rows(neighbourhood(2), "max_pool2d max_pool2d_with_indices avg_pool2d adaptive_avg_pool2d"),
        *_rows(neighbourhood(2), "adaptive_max_pool2d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d"),
        *_rows(neighbourhood(3), "max_pool3d avg_pool3d adaptive_avg_pool3d adaptive_max_pool3d"),
        *_rows(ordered, "roll flip cumsum"),
        *_rows(reshape, "view reshape _unsafe_view view_as reshape_as flatten unflatten squeeze unsqueeze"),
        *_rows(permute, "permute"),
        *_rows(transpose, "transpose t"),
        *_rows(reversed_axes, "numpy_T"),
        *_rows(expand, "expand expand_as repeat"),
        *_rows(cat, "cat concat"),
        *_rows(stack, "stack"),
        *_rows(split, "split split_with_sizes chunk tensor_split"),
        *_rows(take, "slice narrow"),
        *_rows(select, "select unbind"),
        *_rows(pad, "pad constant_pad_nd"),
    ]
)

#: Where new units come from: the values of a group are read at these, or after the steps that may follow.
PRODUCERS = frozenset({"linear", "matmul", "mm", "bmm", "addmm", "conv1d", "conv2d", "conv3d", "conv_transpose2d"})

#: Steps between a producer and the place where its units are read: they scale, shift, add, or move values.
STEPS = frozenset(
    {"batch_norm", "group_norm", "layer_norm", "rms_norm", "add", "sub", "mul", "div", "dropout", "alias", "clone"}
    | {"contiguous", "to", "permute", "transpose", "view", "reshape", "flatten", "getitem"}
)
