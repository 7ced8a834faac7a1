"""What tests have a process do that an engine starts."""

import multiprocessing
import os
import sys
import time


def tell(connection, name):
    """Send what the process sees of itself and its surroundings, and whether it has a module."""
    connection.send(
        {
            "parent": os.getppid(),
            "owner": multiprocessing.parent_process().pid,
            "starts": multiprocessing.get_start_method(),
            "has": name in sys.modules,
            "tried": os.environ.get("MMC_BENCH_TRIED"),
            "folder": os.getcwd(),
        }
    )


def leave(connection, code):
    """Exit with a code."""
    sys.exit(code)


def fail(connection):
    """Raise an error."""
    raise ValueError("planted")


def sleep(connection, *first):
    """Send what is to be sent first, and wait for what never comes."""
    for word in first:
        connection.send(word)
    time.sleep(600)
