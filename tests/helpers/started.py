"""What tests have a process do that an engine starts."""

import os
import sys
import time


def tell(connection, name):
    """Send the process's parent, whether it has a module, an environment variable, and its working directory."""
    connection.send((os.getppid(), name in sys.modules, os.environ.get("MMC_BENCH_TRIED"), os.getcwd()))


def leave(connection, code):
    """Exit with a code."""
    sys.exit(code)


def sleep(connection):
    """Wait for what never comes."""
    time.sleep(600)
