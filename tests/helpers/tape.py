"""A stand-in for CUDA graphs: what a call computes is written down, operation by operation, and computed again.

As with the real ones, capturing leaves every value as it was, a replay runs no Python and works on the same memory, and
numbers that Python has put into an operation are there for good.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_iter

#: Operations that change arguments without saying so, by their places.
CHANGED = {torch.ops.aten.native_batch_norm.default: (3, 4)}


class Waits(Exception):
    """An operation hands a value of the device to Python."""


class _Writing(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.lines, self.before = [], {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise Waits("operation not permitted when stream is capturing")
        for tensor in changed(func, args, kwargs):
            self.keep(tensor)
        for generator in tree_iter((args, kwargs)):
            if isinstance(generator, torch.Generator):
                self.before.setdefault(id(generator), (generator.set_state, generator.get_state()))
        outputs = func(*args, **kwargs)
        self.lines.append((func, args, kwargs, outputs))
        return outputs

    def keep(self, tensor):
        """Remember what was there before the call."""
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in self.before:
            self.before[memory.data_ptr()] = (memory.copy_, memory.clone())


def changed(func, args, kwargs):
    """Return the tensors that an operation writes to."""
    for position, argument in enumerate(func._schema.arguments):
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        if (argument.alias_info and argument.alias_info.is_write) or position in CHANGED.get(func, ()):
            yield from (one for one in tree_iter(value) if isinstance(one, torch.Tensor))


class Tape:
    """Captures calls on a CPU."""

    why_not = holder = None

    def pool(self):
        return None

    def warm_up(self, call):
        return call()

    def waits(self, call):
        writing = _Noticing()
        with writing:
            outputs = call()
        return outputs, writing.waits

    def capture(self, call, pool):
        state, writing = torch.get_rng_state(), _Writing()
        try:
            with writing:
                outputs = call()
        finally:
            torch.set_rng_state(state)
            for put_back, value in writing.before.values():
                put_back(value)

        def replay():
            with torch.no_grad():
                for func, args, kwargs, results in writing.lines:
                    again = func(*args, **kwargs)
                    for place, value in zip(tree_flatten(results)[0], tree_flatten(again)[0], strict=True):
                        if isinstance(place, torch.Tensor) and place.data_ptr() != value.data_ptr():
                            place.copy_(value)

        return outputs, replay


class _Noticing(TorchDispatchMode):
    waits = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.waits |= func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))
