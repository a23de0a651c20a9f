"""Imports modules of a user's own, by the names that a command line or run folder gives.

Searched where Python searches, then in the working directory (unless Python was told not
to, by -P or PYTHONSAFEPATH), so that the installed commands find what `python -m` finds. The
processes that commands start (`python_command`) do not have the working directory in their path
at all: a random.py there must not stand in for Python's.
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

_SEARCHES_HERE = "impala_own_modules"
"""An option of python -X: own modules may lie in the working directory in spite of -P."""


def import_own_module(name: str) -> ModuleType:
    """Returns the module; what importing raises, SystemExit included, passes through."""
    with _working_directory_on_path():
        return importlib.import_module(name)


def python_command(module: str) -> list[str]:
    """Returns the command that runs a module of this project in a process of its own.

    Own modules are found there where they are found here.
    """
    option = ["-X", _SEARCHES_HERE] if _searches_working_directory() else []
    return [sys.executable, "-P", *option, "-m", module]


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


def _searches_working_directory() -> bool:
    return not sys.flags.safe_path or _SEARCHES_HERE in sys._xoptions


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    here = os.getcwd()
    if not _searches_working_directory() or here in sys.path or "" in sys.path:
        yield
        return
    sys.path.append(here)  # last: nothing in it may stand in for an installed package
    try:
        yield
    finally:
        sys.path.remove(here)
