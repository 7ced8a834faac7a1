"""What a started worker does, in a module of its own, since a worker does not import the program that starts it."""

import gc
import os
from collections.abc import Sequence
from importlib import import_module
from multiprocessing.connection import Connection


def tell_when_imported(connection: Connection, modules: Sequence[str]) -> None:
    """Import modules, with one thread and rare garbage collection, as in a worker, and say so."""
    gc.set_threshold(100_000)
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in modules:
        import_module(name)
    connection.send(True)
    connection.recv()  # until it is killed
