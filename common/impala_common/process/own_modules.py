"""Imports user-supplied modules named on the command line or in a run's folder.

Searched where Python searches, then in the working directory (unless Python was told not
to, by -P or PYTHONSAFEPATH), so that the installed commands find what `python -m` finds.
Never called with a name that came over the wire.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


def import_own_module(name: str) -> ModuleType:
    """Returns the module; what importing raises, SystemExit included, passes through."""
    with _working_directory_on_path():
        return importlib.import_module(name)


def hint_at_import_error(name: str, error: BaseException) -> str:
    """Returns what to do where the module `name` itself was not found, else nothing."""
    if isinstance(error, ModuleNotFoundError) and name.startswith(error.name or "?"):
        return f": {way_to_find()}"
    return ""


def is_own_module_missing(name: str) -> bool:
    """Returns whether there is no such module or package; imports nothing.

    Of "package.module" only the package is looked for: to find more, Python would run its code.
    """
    with _working_directory_on_path():
        try:
            return importlib.util.find_spec(name.partition(".")[0]) is None
        except (ImportError, ValueError):  # the import itself will say more
            return False


def way_to_find() -> str:
    """Returns what to do about a module that was not found."""
    return f"install it, or name its folder in PYTHONPATH (working in {os.getcwd()})"


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    here = os.getcwd()
    if sys.flags.safe_path or here in sys.path or "" in sys.path:
        yield
        return
    sys.path.append(here)  # last: nothing in it may stand in for an installed package
    try:
        yield
    finally:
        sys.path.remove(here)
