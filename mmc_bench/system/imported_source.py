"""Whether source is still what it was: a process takes its digest once, and imports some of it later."""

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path


class ImportedSource:
    """Source that this process imports bit by bit, and the digest that it had at first.

    Parameters
    ----------
    digest
        Its first digest.
    roots
        Its files and folders.
    take
        Returns the digest that they have when it is called.
    """

    def __init__(self, digest: str, roots: Iterable[Path], take: Callable[[], str]) -> None:
        self.digest, self._take = digest, take
        self._places = frozenset(place for root in roots for place in (str(root), os.path.realpath(root)))
        self._below = tuple(f"{place}{os.sep}" for place in self._places)
        self._modules: frozenset[str] = frozenset()  # at the last call

    def has_changed(self) -> bool:
        """Tell whether something was imported of the files after an edit, or after they were removed.

        They are read only where more of them was imported since the last call: what a later edit changes is not used.
        """
        modules = frozenset(sys.modules)
        if any(map(self._is_of_it, modules - self._modules)) and self._digest_now() != self.digest:
            return True
        self._modules = modules
        return False

    def _digest_now(self) -> str | None:
        with suppress(FileNotFoundError):
            return self._take()
        return None

    def _is_of_it(self, name: str) -> bool:
        file = getattr(sys.modules.get(name), "__file__", None)
        # A link may lie on the way to a root, or in it.
        return isinstance(file, str) and (self._holds(file) or self._holds(resolved(file)))

    def _holds(self, file: str) -> bool:
        return file in self._places or file.startswith(self._below)


@cache
def resolved(file: str) -> str:
    """Return the place of a module's file, whose name may have links, ``./`` or ``//`` from the import path."""
    return os.path.realpath(file)
