"""How worker processes are started: each anew, or, for the cores of Linux, from one that has imported torch."""

import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, NoReturn, Protocol

#: What every worker needs: torch, its compiler, which the first step of any optimiser imports, and the stages.
IMPORTED = ("torch._dynamo", "mmc_bench.stages.job")

#: Seconds that a process may take for its imports.
START_UP = 300.0

#: Seconds that the server may take for an answer.
ANSWER = 60.0

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
        """The exit code, or the negative number of the signal that killed it; None while it lives, or if unknown."""

    def is_alive(self) -> bool:
        """Return whether it lives."""

    def join(self) -> None:
        """Wait until it has ended."""

    def kill(self) -> None:
        """End it at once."""


@contextlib.contextmanager
def starter(devices: Sequence[str], threads: int) -> Iterator[Start]:
    """Return what starts the workers of a run: a fork server for the cores of a Linux machine, elsewhere `spawn`."""
    if any(device != "cpu" for device in devices) or not _has_pidfds():
        yield spawn
        return
    server = ForkServer(threads)
    try:
        yield server.start
    finally:
        server.close()


def _has_pidfds() -> bool:
    """Tell whether a process can be watched and killed without being a child: Linux has this since 5.3."""
    try:
        pidfd = os.pidfd_open(os.getpid())
    except (AttributeError, OSError):
        return False
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except OSError:
        return False
    finally:
        os.close(pidfd)
    return True


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

    What is forked lives on when the server ends, and sees its owner as `multiprocessing.parent_process`.

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

    def start(self, target: Target, connection: Connection, *arguments: Any) -> StartedProcess:
        """Start ``target(connection, *arguments)``; where it cannot be forked, in a process that is started anew."""
        with self._asking():
            if not self._is_ready:
                self._is_ready = self._answer(START_UP)
            self._connection.send((target, arguments))
            with socket.socket(fileno=os.dup(self._connection.fileno())) as channel:
                socket.send_fds(channel, [b"1"], [connection.fileno()])
            if pid := self._answer():
                process = ForkedProcess(self, pid)
                self._connection.send(True)
                return process
        return spawn(target, connection, *arguments)

    def exitcode(self, pid: int) -> int | None:
        """Return the exit code of a process that has ended; None where the server is gone."""
        with self._asking():
            self._connection.send(pid)
            code: int = self._answer()
            return code
        return None

    def _answer(self, seconds: float = ANSWER) -> Any:
        if not self._connection.poll(seconds):
            raise TimeoutError
        return self._connection.recv()

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Skip the rest of the block when the server is gone; kill it when an interrupt may leave an answer unread."""
        try:
            yield
        except (EOFError, OSError):
            self.close()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the server."""
        self._connection.close()
        self._process.kill()
        self._process.join()


class ForkedProcess:
    """A process that a fork server started."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
        self._server = server
        self._pidfd = os.pidfd_open(pid)  # the pid is not reused before the server has reaped the process
        weakref.finalize(
            self, os.close, self._pidfd
        ).atexit = False  # a run still open at exit needs it to kill its workers
        self._exitcode: int | None = None

    def is_alive(self) -> bool:
        """Return whether it lives."""
        return not wait([self._pidfd], 0)

    @property
    def exitcode(self) -> int | None:
        """As `StartedProcess` says."""
        if self._exitcode is None and not self.is_alive():
            self._exitcode = self._server.exitcode(self.pid)
        return self._exitcode

    def join(self) -> None:
        """Wait until it has ended."""
        wait([self._pidfd])
        _ = self.exitcode  # asking for the exit code makes the server reap the process

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


def _serve(connection: Connection, threads: int, imported: Sequence[str]) -> None:
    """Run in the server: import, then fork a process or tell what one exited with, until the owner is gone."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, exit codes are lost
        os.environ["OMP_NUM_THREADS"] = str(threads)
        os.dup2(2, 1)  # standard output is for results alone, whatever is printed by what is imported
        gc.disable()
        for name in imported:
            import_module(name)
        sys.stdout.flush()  # buffered text would be written once by every forked process
        sys.stderr.flush()
        gc.freeze()  # garbage collection in a worker then copies no shared page
        gc.enable()
        connection.send(True)
        while True:
            asked = connection.recv()
            if isinstance(asked, int):
                connection.send(os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1]))
            else:
                _fork(connection, *asked)
    except (EOFError, OSError):
        pass  # the owner is gone
    finally:
        os._exit(1)  # workers are spawned from now on; one that meets the same error reports it


def _fork(connection: Connection, target: Target, arguments: tuple[Any, ...]) -> None:
    """Fork a process, and send its number; None where the system has no room for one.

    The process begins only after the owner's acknowledgement, so that two never use one connection.
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as channel:
        _, (handle,), _, _ = socket.recv_fds(channel, 1, 1)
    with Connection(handle) as theirs:
        begins, sent = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(begins)
            os.close(sent)
            connection.send(None)
            return
        if pid == 0:
            connection.close()
            os.close(sent)
            if not os.read(begins, 1):
                os._exit(1)
            os.close(begins)
            _end_with(target, theirs, *arguments)
    os.close(begins)
    connection.send(pid)
    connection.recv()
    os.write(sent, b"1")
    os.close(sent)


def _end_with(target: Target, *arguments: Any) -> NoReturn:
    """Call a function, and end this process with the exit code that `multiprocessing` would give it."""
    code: Any = 1
    try:
        target(*arguments)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if code is not error.code and code:
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):  # whoever reads them may be gone
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


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
