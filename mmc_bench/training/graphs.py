"""CUDA graphs: what a GPU does in a step is captured once, and replayed after as one launch, without Python.

A step of a small network is hundreds of launches of some microseconds each, which the GPU waits for.
"""

import os
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import nn

from mmc_bench.data.micro_batches import micro_batches
from mmc_bench.system.tally import Tally, running_tally
from mmc_bench.training.compiled import reason_of

#: Turns CUDA graphs off where it is 1.
SWITCH = "MMC_BENCH_NO_CUDA_GRAPHS"

#: Calls of one form that run as they are before one is captured: libraries choose kernels and optimisers make their
#: state in them.
WARM_UP_CALLS = 10

Tensors = tuple[torch.Tensor, ...]
Call = Callable[[], Tensors]


class Recorder(Protocol):
    """What captures calls.

    Attributes
    ----------
    why_not
        Why it captures no more; None where nothing failed.
    holder
        What has captured last: the captures of one are dropped when another captures, since what torch keeps for a
        stream of captures is freed with either.
    """

    why_not: str | None
    holder: "weakref.ref[Graphs] | None"

    def pool(self) -> Any:
        """Return memory that captured calls share."""
        ...

    def warm_up(self, call: Call) -> Tensors:
        """Run a call as it is."""
        ...

    def waits(self, call: Call) -> tuple[Tensors, bool]:
        """Run a call as it is, and tell whether it waits for the device, which no captured call can."""
        ...

    def capture(self, call: Call, pool: Any) -> tuple[Tensors, Callable[[], None]]:
        """Capture a call, computing nothing; return where its outputs will be, and what computes them."""
        ...


def graphs_are_on(device: torch.device | str) -> bool:
    """Tell whether steps on a device are replayed; where memory is short they are not."""
    return torch.device(device).type == "cuda" and os.environ.get(SWITCH) != "1" and micro_batches() == 1


def graphs_on(device: torch.device | str) -> "Graphs | None":
    """Return what replays steps on a device, None where none are."""
    return Graphs(_gpu(torch.device(device))) if graphs_are_on(device) else None


class Graphs:
    """Captures each form of a call once, and replays it after.

    After a capture has failed, a process captures no more: torch may keep memory for it as if it went on.

    Parameters
    ----------
    recorder
        What captures.

    Attributes
    ----------
    replays
        How many calls were replayed.
    why_not
        Why nothing is replayed any more; None where nothing failed.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder, self.replays, self.why_not = recorder, 0, recorder.why_not
        self._where: tuple[int, ...] = ()
        self._forget()

    def run(
        self,
        function: Callable[..., Tensors],
        *inputs: torch.Tensor,
        form: Hashable = None,
        places: Iterable[torch.Tensor] = (),
    ) -> Tensors:
        """Return what ``function(*inputs)`` does, in memory that no later call overwrites.

        A replay runs no Python: what changes from call to call must be an input, lie on the device and be changed
        there, or be part of the form. Where the function waits for the device or cannot be captured, it is called as it
        is from then on, and `why_not` says why.

        Parameters
        ----------
        form
            What else the function depends on.
        places
            Tensors that it reads or changes besides its inputs, as weights. Where one has moved, a new graph is
            captured.
        """
        self.why_not = self.why_not or self.recorder.why_not
        if self.why_not:
            if self._captured:
                self._forget()
            return function(*inputs)
        where = tuple(place.data_ptr() for place in places)
        if where != self._where:
            self._where = where
            self._forget()
        key = (form, *((one.shape, one.dtype, one.stride()) for one in inputs))
        if captured := self._captured.get(key):
            return self._replay(captured, inputs)
        calls = self._calls[key] = self._calls.get(key, 0) + 1
        if calls < WARM_UP_CALLS:
            return self.recorder.warm_up(lambda: function(*inputs))
        if calls == WARM_UP_CALLS:
            outputs, waits = self.recorder.waits(lambda: function(*inputs))
            if waits:
                self.why_not = "a step waits for the device"
                self._forget()
            return outputs
        return self._captured_now(key, function, inputs)

    def _captured_now(self, key: Hashable, function: Callable[..., Tensors], inputs: Tensors) -> Tensors:
        self._hold_recorder()
        own = tuple(value.clone() for value in inputs)
        tally = running_tally() or Tally()
        before = tally.passes
        self.recorder.why_not = "a capture was interrupted"  # until it has ended
        try:
            outputs, replay = self.recorder.capture(lambda: function(*own), self._pool)
        except Exception as error:  # nothing was computed: if memory is short, say, the call itself raises
            self.why_not = self.recorder.why_not = reason_of(error)
        finally:
            passes = tuple(now - then for now, then in zip(tally.passes, before))
            tally.passes = before
        if self.why_not:  # after the error, whose frames hold what the step has allocated
            self._forget()
            return function(*inputs)
        self.recorder.why_not = None
        self._captured[key] = captured = _Captured(own, outputs, replay, passes)
        return self._replay(captured, inputs)

    def _forget(self) -> None:
        """Drop what was captured; torch takes no capture into memory whose captures are gone."""
        self._calls: dict[Hashable, int] = {}
        self._captured: dict[Hashable, _Captured] = {}
        self._pool = self.recorder.pool()

    def _hold_recorder(self) -> None:
        holder = self.recorder.holder() if self.recorder.holder else None
        if holder is not None and holder is not self:
            holder._forget()
        self.recorder.holder = weakref.ref(self)

    def _replay(self, captured: "_Captured", inputs: Tensors) -> Tensors:
        for place, value in zip(captured.inputs, inputs, strict=True):
            place.copy_(value)
        captured.replay()
        self.replays += 1
        if tally := running_tally():
            tally.passes = tuple(so_far + more for so_far, more in zip(tally.passes, captured.passes))
        return tuple(output.clone() for output in captured.outputs)


@dataclass(frozen=True)
class _Captured:
    inputs: Tensors
    outputs: Tensors
    replay: Callable[[], None]
    passes: tuple[int, ...]  # what a call adds to a tally


def places_of(model: nn.Module) -> Tensors:
    """Return a network's parameters and buffers."""
    return (*model.parameters(), *model.buffers())


class _Gpu:
    """A GPU. Graphs of one pool share memory, which is safe: outputs are copied before another is replayed."""

    def __init__(self, device: torch.device) -> None:
        self.why_not: str | None = None
        self.holder: weakref.ref[Graphs] | None = None
        self._stream = torch.cuda.Stream(device)  # one for running and capturing: libraries have handles for each

    def pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def warm_up(self, call: Call) -> Tensors:
        with self._on_stream():
            return call()

    def waits(self, call: Call) -> tuple[Tensors, bool]:
        mode = torch.cuda.get_sync_debug_mode()
        with self._on_stream(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                outputs = call()
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        waits = [warning for warning in caught if "called a synchronizing CUDA operation" in str(warning.message)]
        for warning in caught:
            if warning not in waits and "Synchronization debug mode" not in str(warning.message):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return outputs, bool(waits)

    def capture(self, call: Call, pool: Any) -> tuple[Tensors, Callable[[], None]]:
        graph, index = torch.cuda.CUDAGraph(), self._stream.device.index
        generator = torch.cuda.default_generators[index]
        state = generator.clone_state()
        try:
            with (
                torch.cuda.stream(self._stream),  # left even where `graph` fails to leave it
                torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"),
            ):
                outputs = call()
        except BaseException:
            generator.graphsafe_set_state(state)  # else it draws as if the capture went on
            with suppress(RuntimeError):  # it may be over, or have never begun
                graph.reset()
            _end_allocation(index, pool)
            raise
        return outputs, graph.replay

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)


def _end_allocation(device: int, pool: Any) -> None:
    """End what a capture began that CUDA itself broke off, without which torch frees no memory any more."""
    for name in ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"):  # the second is that of torch 2.6
        if end := getattr(torch._C, name, None):
            with suppress(RuntimeError):  # it has ended
                end(device, pool)
            return


@cache
def _gpu(device: torch.device) -> Recorder:
    return _Gpu(device)
