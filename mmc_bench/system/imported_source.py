"""Whether source is still what it was: a process takes its digest once, and imports some of it later."""

import os
import sys
from collections.abc import Callable, Iterable
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
        self._places = tuple(place for root in roots for place in {str(root), os.path.realpath(root)})
        self._modules: frozenset[str] = frozenset()  # at the last call

    def has_changed(self) -> bool:
        """Tell whether the files changed before the last of what was imported of them.

        They are read only where more of them was imported since the last call: what a later edit changes is not used.
        """
        modules = frozenset(sys.modules)
        if any(map(self._is_of_it, modules - self._modules)) and self._take() != self.digest:
            return True
        self._modules = modules
        return False

    def _is_of_it(self, name: str) -> bool:
        file = getattr(sys.modules.get(name), "__file__", None)
        # A link may lie on the way to a root, or in it.
        return isinstance(file, str) and (file.startswith(self._places) or resolved(file).startswith(self._places))


@cache
def resolved(file: str) -> str:
    """Return the place of a module's file, whose name may have links, ``./`` or ``//`` from the import path."""
    return os.path.realpath(file)
