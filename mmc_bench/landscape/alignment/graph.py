"""A network as one flat graph of aten operators, run step by step, and its permutation groups."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from mmc_bench.errors import UserError, message_of
from mmc_bench.landscape.alignment.groups import Group, Groups, Pinned, Place, tensors_of
from mmc_bench.landscape.alignment.labels import Fixed, Label, Labels, Units, root, segment_size
from mmc_bench.landscape.alignment.rules import PRODUCERS, RULES, STEPS, Call, elementwise, unknown
from mmc_bench.landscape.alignment.shapes import Axes, segments_of
from mmc_bench.training.evaluate import eval_mode

#: What a network's own code, or torch's tracing of it, may raise.
UNTRACEABLE = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

INPUT, OUTPUT = "the network's input", "the network's output"


@dataclass(frozen=True)
class Graph:
    """A traced network.

    Attributes
    ----------
    nodes
        Of the graph, in the order in which they run.
    weights
        Which parameter or buffer each placeholder stands for; the names of shared ones are their first.
    constants
        Other tensors that placeholders stand for.
    parts
        The networks that some operators run, such as autocast regions.
    outputs
        The nodes that the network returns.
    """

    nodes: tuple[fx.Node, ...]
    weights: Mapping[str, str]
    constants: Mapping[str, torch.Tensor]
    parts: Mapping[str, nn.Module]
    outputs: tuple[fx.Node, ...]

    def run(
        self, networks: Sequence[Mapping[str, torch.Tensor]], x: torch.Tensor, see: Callable[[fx.Node, list[Any]], None]
    ) -> None:
        """Run networks of this architecture side by side, and show `see` what every node yields in each.

        A value is dropped after the last node that needs it, so that no more is held at any time than in the
        networks' own forward passes. Later nodes may change a value in place: use it when it is shown.
        """
        last_use = {source: node for node in self.nodes for source in node.all_input_nodes}
        values: dict[fx.Node, list[Any]] = {}
        for node in self.nodes:
            values[node] = [self._value(node, tensors, x, side, values) for side, tensors in enumerate(networks)]
            see(node, values[node])
            for source in {*node.all_input_nodes, node}:
                if last_use.get(source, node) is node:
                    del values[source]

    def _value(
        self, node: fx.Node, tensors: Mapping[str, torch.Tensor], x: torch.Tensor, side: int, values: dict[fx.Node, Any]
    ) -> Any:
        if node.op == "placeholder":
            if node.name in self.weights:
                return tensors[self.weights[node.name]]
            return self.constants[node.name] if node.name in self.constants else x.clone()  # may change in place
        if node.op == "get_attr":
            return self.parts[node.name]

        def of_side(source: fx.Node) -> Any:
            return values[source][side]

        args, kwargs = fx.node.map_arg(node.args, of_side), fx.node.map_arg(node.kwargs, of_side)
        return node.target(*args, **kwargs)  # type: ignore[operator]


def trace(model: nn.Module, x: torch.Tensor) -> Graph:
    """Trace a model in eval mode with `torch.export`, which needs no source code and flattens every module.

    The batch size is fixed to the example's: a dynamic one would be refused by models that look at it.

    Raises
    ------
    UserError
        When the model cannot be traced.
    """
    try:
        with eval_mode(model), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(model, (x,), strict=False)
    except UNTRACEABLE as error:
        raise UserError(
            f"torch.export cannot trace the network, so it cannot be aligned: {message_of(error)}"
        ) from error
    signature = program.graph_signature
    named = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    first_name = {id(tensor): name for name, tensor in tensors_of(model).items()}
    inputs = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    nodes = tuple(program.graph.nodes)
    return Graph(
        nodes=tuple(node for node in nodes if node.op != "output"),
        weights={placeholder: first_name[id(named[name])] for placeholder, name in inputs.items()},
        constants={
            placeholder: program.constants[name]
            for placeholder, name in signature.inputs_to_lifted_tensor_constants.items()
        },
        parts={
            node.name: program.graph_module.get_submodule(str(node.target)) for node in nodes if node.op == "get_attr"
        },
        outputs=tuple(nodes[-1].all_input_nodes),
    )


def name_of(node: fx.Node) -> str:
    """Return an operator's name without overload and without the underscore of in-place operators."""
    schema = getattr(node.target, "_schema", None)
    name = schema.name.partition("::")[2] if schema else getattr(node.target, "__name__", str(node.target))
    return name.rstrip("_") or name


@dataclass(frozen=True)
class Labelled:
    """A traced network with its labels: every weight's and every node's, as far as it is a tensor."""

    graph: Graph
    space: Labels
    weights: Mapping[str, Axes]
    nodes: Mapping[fx.Node, Any]


def label(graph: Graph) -> Labelled:
    """Propagate labels through a graph; nothing is computed, as tracing has noted every node's shape.

    Axes of weights start as units of their own, the input and plain constants as fixed; the output is pinned.
    """
    space = Labels()
    weights: dict[str, Axes] = {}
    found: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        value: Any = node.meta.get("val")
        space.operator = INPUT if node.op == "placeholder" else f"{node.target}"
        if node.op == "call_function":
            found[node] = _labels_of_result(node, value, space, found)
        elif node.name in graph.weights:
            if not node.users:
                continue
            name = graph.weights[node.name]
            if name not in weights:
                weights[name] = Axes(tuple(map(space.fresh, value.shape)))
            found[node] = weights[name]
        elif isinstance(value, torch.Tensor):
            if node.name in graph.constants:
                space.operator = "a constant"
            found[node] = Axes(tuple(map(space.fixed, value.shape)))
    space.operator = OUTPUT
    for node in graph.outputs:
        for axis in found[node].labels:
            space.pin(axis)
    return Labelled(graph, space, weights, found)


def _labels_of_result(node: fx.Node, value: Any, space: Labels, found: Mapping[fx.Node, Any]) -> Any:
    results = value if isinstance(value, (tuple, list)) else [value]
    shapes = [tuple(entry.shape) for entry in results if isinstance(entry, torch.Tensor)]
    if not shapes:
        return None
    if node.target is operator.getitem:
        return found[node.args[0]][node.args[1]]  # type: ignore[index]
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # an operator that runs a network of its own, such as an autocast region
        operands = {str(place): found.get(source) for place, source in enumerate(node.all_input_nodes)}
        found_labels = unknown(Call(space, operands, shapes))
        return found_labels[0] if isinstance(value, torch.Tensor) else found_labels
    names = [argument.name for argument in schema.arguments]
    given = fx.node.map_arg({**dict(zip(names, node.args)), **node.kwargs}, found.get)
    tags = node.target.tags  # type: ignore[union-attr]
    rule = RULES.get(name_of(node)) or (elementwise if torch.Tag.pointwise in tags else unknown)
    call = Call(space, given, shapes)
    labelled = rule(call)
    labelled = labelled if isinstance(labelled, tuple) else (labelled,)
    if tuple(axes.shape for axes in labelled) != tuple(shapes):
        labelled = unknown(call)
    return labelled[0] if isinstance(value, torch.Tensor) else labelled


def observed(labelled: Labelled) -> dict[fx.Node, list[tuple[Place, Units]]]:
    """Return the nodes at which units are seen, with where each set of units lies.

    A unit is seen where it has just been produced, after the normalisation, the shift and the additions that
    follow but before the nonlinearity: a rectifier makes units silent, which would then look all the same, and
    no normalisation leaves a unit's sign open. A residual stream is seen after every addition; a unit whose
    gate, mean or copy goes elsewhere is not seen a second time.
    """
    linear: set[fx.Node] = set()
    for node in labelled.graph.nodes:
        if node.op == "call_function" and isinstance(labelled.nodes.get(node), Axes):
            name = name_of(node)
            if name in PRODUCERS or (name in STEPS and linear.intersection(node.all_input_nodes)):
                linear.add(node)
    seen = {}
    for node in labelled.graph.nodes:
        if node in linear and any(name_of(user) not in STEPS for user in node.users):
            seen[node] = [entry for entry in _places(labelled.space, node.name, labelled.nodes[node]) if entry[1]]
    return seen


def activated(
    seen: Mapping[fx.Node, list[tuple[Place, Units]]],
) -> dict[fx.Node, list[tuple[Place, Units]]]:
    """Return what `observed` does, each unit after the nonlinearity that follows; where none does, unchanged."""
    found = {}
    for node, entries in seen.items():
        for later in [user for user in node.users if _is_nonlinearity(user)] or [node]:
            found[later] = [(replace(place, weight=later.name), units) for place, units in entries]
    return found


def _is_nonlinearity(node: fx.Node) -> bool:
    """Tell whether a node computes each position of one tensor by itself."""
    pointwise = torch.Tag.pointwise in getattr(node.target, "tags", ())
    return pointwise and len(node.all_input_nodes) == 1 and name_of(node) not in STEPS


def _places(space: Labels, name: str, axes: Axes) -> list[tuple[Place, Units]]:
    found = []
    for axis, unresolved in enumerate(axes.labels):
        for start, segment in segments_of(space.resolve(unresolved)):
            for index, factor in enumerate(segment):
                if isinstance(factor, Units) and factor.inner_of is None:
                    outer, inner = segment_size(segment[:index]), segment_size(segment[index + 1 :])
                    found.append((Place(name, axis, start, outer, inner), factor))
    return found


def _inner_places(space: Labels, name: str, axes: Axes) -> list[tuple[Place, Units]]:
    """Return the places on axis 1 of a grouped convolution's weight: one for every segment of its input."""
    match space.resolve(axes.labels[1]) if len(axes.labels) > 1 else ():
        case ((Units(inner_of=inner_of),),) if inner_of is not None:
            inputs: Label = space.resolve(inner_of)
        case _:
            return []
    found, row = [], 0
    rows_for_input = axes.shape[0] / sum(map(segment_size, inputs))
    for segment in inputs:
        rows = round(segment_size(segment) * rows_for_input)
        if len(segment) == 1 and isinstance(segment[0], Units):
            found.append((Place(name, 1, 0, 1, 1, (row, rows)), segment[0]))
        row += rows
    return found


def _settle(labelled: Labelled) -> None:
    """Pin what grouped convolutions read in blocks, where the blocks were cut since, or are met elsewhere too.

    Units inside the blocks can be followed on axis 1 of the convolution's own weight alone, whose rows say which
    block is meant: the weight itself, and what is computed from it position by position.
    """
    space = labelled.space
    rows: dict[Units, Label] = {}
    for axes in _all_axes(labelled):
        for axis, unresolved in enumerate(axes.labels):
            label = space.resolve(unresolved)
            for units in [factor for segment in label for factor in segment if isinstance(factor, Units)]:
                if units.inner_of is None:
                    continue
                own_rows = space.resolve(rows.setdefault(units, axes.labels[0]))
                if axis != 1 or label != ((units,),) or own_rows != space.resolve(axes.labels[0]):
                    space.pin(label, "blocks that are met elsewhere too")
                elif any(segment_size(segment) % units.size for segment in space.resolve(units.inner_of)):
                    space.pin(label, "blocks that were cut")


def _all_axes(labelled: Labelled) -> Iterator[Axes]:
    """Yield the axes of every weight, then those of everything computed."""
    yield from labelled.weights.values()
    for found in labelled.nodes.values():
        yield from (axes for axes in (found if isinstance(found, tuple) else (found,)) if isinstance(axes, Axes))


def groups_of(labelled: Labelled) -> tuple[Groups, dict[Units, str]]:
    """Return the permutation groups, and the group's name for every set of units that has one."""
    space = labelled.space
    places: dict[Units, list[tuple[Place, Axes]]] = {}
    _settle(labelled)
    for name, axes in labelled.weights.items():
        for place, units in _places(space, name, axes) + _inner_places(space, name, axes):
            places.setdefault(units, []).append((place, axes))
    names: dict[Units, str] = {}
    for units, of_units in places.items():
        names[units] = _name(of_units, units, set(names.values()))
    for units in list(places):
        while units.blocks is not None:
            blocks = root(units.blocks)
            names.setdefault(blocks, f"blocks of {names[units]}")
            units = blocks
    in_order = sorted(names, key=_depth)
    groups = [
        Group(
            name=names[units],
            size=units.size,
            places=tuple(place for place, _ in places.get(units, ())),
            blocks=names[root(units.blocks)] if units.blocks is not None else None,
        )
        for units in in_order
    ]
    return Groups(groups, _pinned(labelled)), names


def _depth(units: Units) -> int:
    return 0 if units.blocks is None else 1 + _depth(root(units.blocks))


def _name(places: Sequence[tuple[Place, Axes]], units: Units, taken: set[str]) -> str:
    """Return the name of the first weight that produces the units, with their range where it has others too."""
    producers = [(place, axes) for place, axes in places if place.axis == 0 and axes.ndim > 1] or places
    place, axes = producers[0]
    name = place.weight
    if axes.shape[place.axis] != place.outer * units.size * place.inner:
        name += f"[{place.start}:{place.start + units.size * place.inner}]"
    return name if name not in taken else f"{name}, axis {place.axis}"


def _pinned(labelled: Labelled) -> list[Pinned]:
    """Return the axes of weights on which no unit can change places, kernels and single positions aside."""
    found = []
    for name, axes in labelled.weights.items():
        for axis, unresolved in enumerate(axes.labels[:2]):
            for segment in labelled.space.resolve(unresolved):
                match segment:
                    case (Fixed(size, reason),) if size > 1:
                        found.append(Pinned(name, axis, size, reason))
    return found
