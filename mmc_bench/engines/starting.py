"""How worker processes are started: each anew, or, for the cores of Linux, from one that has imported torch."""

import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, Protocol

#: What every worker needs: torch, its compiler, which the first step of any optimiser imports, and the stages.
IMPORTED = ("torch._dynamo", "mmc_bench.stages.job")

#: Seconds between two looks at a process that ends.
PAUSE = 0.005

#: What a worker process does, given the connection to its owner and more.
Target = Callable[..., None]

#: Starts ``target(connection, *arguments)`` in a process of its own.
Start = Callable[..., "StartedProcess"]


class StartedProcess(Protocol):
    """What the owner of a worker process uses of `multiprocessing.Process`."""

    @property
    def pid(self) -> int | None:
        """Its number."""

    @property
    def exitcode(self) -> int | None:
        """What it exited with, the negative number of the signal that killed it, or None while it lives."""

    def is_alive(self) -> bool:
        """Return whether it lives."""

    def join(self) -> None:
        """Wait until it has ended."""

    def kill(self) -> None:
        """End it at once."""


@contextlib.contextmanager
def starter(devices: Sequence[str], threads: int) -> Iterator[Start]:
    """Return what starts the workers of a run: a fork server for the cores of a Linux machine, elsewhere `spawn`."""
    if sys.platform != "linux" or any(device != "cpu" for device in devices):
        yield spawn
        return
    server = ForkServer(threads)
    try:
        yield server.start
    finally:
        server.close()


def spawn(target: Target, connection: Connection, *arguments: Any) -> BaseProcess:
    """Start ``target(connection, *arguments)`` in a process that imports everything itself."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=target, args=(connection, *arguments), daemon=True)
    with _interrupts_held_back(), _main_left_out():
        process.start()
    return process


class ForkServer:
    """Forks processes from one that has imported torch: a further one takes a hundredth of the time, and less memory.

    `multiprocessing` has a fork server, too; that one outlives a run, with the environment and the streams of the
    moment at which it was started. A process that has used a GPU cannot be forked; this one uses none.

    Parameters
    ----------
    threads
        How many threads a worker has.
    imported
        The modules that it imports.
    """

    def __init__(self, threads: int, imported: Sequence[str] = IMPORTED) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        self._process = spawn(_serve, theirs, threads, imported)
        theirs.close()
        self._is_ready = False

    def start(self, target: Target, connection: Connection, *arguments: Any) -> "StartedProcess":
        """Start ``target(connection, *arguments)``; where the server is gone, in a process that is started anew."""
        try:
            if not self._is_ready:
                self._is_ready = self._connection.recv()  # seconds, in which Ctrl-C gets through
            with _interrupts_held_back():
                self._connection.send((target, arguments))
                with socket.socket(fileno=os.dup(self._connection.fileno())) as channel:
                    socket.send_fds(channel, [b"1"], [connection.fileno()])
                return ForkedProcess(self, self._connection.recv())
        except (EOFError, OSError):
            return spawn(target, connection, *arguments)

    def exitcode(self, pid: int) -> int | None:
        """Return the exit code of a process, or None while it lives; without a server, nothing it started lives."""
        try:
            with _interrupts_held_back():
                self._connection.send(pid)
                code: int | None = self._connection.recv()
                return code
        except (EOFError, OSError):
            return -signal.SIGKILL

    def close(self) -> None:
        """End the server; what it started ends with it."""
        self._connection.close()
        self._process.kill()
        self._process.join()


class ForkedProcess:
    """A process that a fork server started."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
        self._server = server
        self._exitcode: int | None = None

    @property
    def exitcode(self) -> int | None:
        """What it exited with, the negative number of the signal that killed it, or None while it lives."""
        if self._exitcode is None:
            self._exitcode = self._server.exitcode(self.pid)
        return self._exitcode

    def is_alive(self) -> bool:
        """Return whether it lives."""
        return self.exitcode is None

    def join(self) -> None:
        """Wait until it has ended."""
        while self.exitcode is None:
            time.sleep(PAUSE)

    def kill(self) -> None:
        """End it at once."""
        if self.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def _serve(connection: Connection, threads: int, imported: Sequence[str]) -> None:
    """Run in the server: import, then fork a process or tell of one, as asked, until the owner is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    multiprocessing.current_process().daemon = False  # so that it may start processes
    gc.disable()
    with contextlib.suppress(Exception):  # what starts here meets the same error, and it is reported there
        for name in imported:
            import_module(name)
    gc.freeze()  # so that looking for garbage leaves memory shared
    gc.enable()
    processes: dict[int, BaseProcess] = {}
    with contextlib.suppress(EOFError, OSError):  # the owner is gone, or the system has no more processes
        connection.send(True)
        while True:
            asked = connection.recv()
            if isinstance(asked, int):
                connection.send(processes[asked].exitcode)
            else:
                process = _fork(connection, *asked)
                processes[process.pid or 0] = process
                connection.send(process.pid)
    os._exit(1)  # at once: what it started notices


def _fork(connection: Connection, target: Target, arguments: tuple[Any, ...]) -> BaseProcess:
    with socket.socket(fileno=os.dup(connection.fileno())) as channel:
        _, (handle,), _, _ = socket.recv_fds(channel, 1, 1)
    with Connection(handle) as theirs:
        process = multiprocessing.get_context("fork").Process(
            target=_in_fork, args=(connection, target, theirs, *arguments)
        )
        process.start()
    return process


def _in_fork(servers: Connection, target: Target, *arguments: Any) -> None:
    """Run in a process that was forked."""
    servers.close()
    target(*arguments)


@contextlib.contextmanager
def _main_left_out() -> Iterator[None]:
    """Keep a process that is started meanwhile from importing the caller's program, which would run once more there.

    A script thus needs no ``if __name__ == "__main__"``; what a worker needs of the program is sent to it.
    """
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Put off Ctrl-C meanwhile; it never reaches a process started here, whose Python would print a traceback."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # starting it lets interrupts through again
    held: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda signum, frame: held.append(signum))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what is started inherits this
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)
