"""Imports modules that a person names on the command line.

As ordinary actors do: searched where Python searches, then in the working directory, unless Python
was told not to (-P, PYTHONSAFEPATH). Never called with a name that came over the wire.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from types import ModuleType
from typing import Any

from impala_thin.errors import RefusedError

# What `impala-train --thin` passes by -X: the working directory counts in spite of -P.
_SEARCHES_HERE = "impala_own_modules"


def import_own_module(name: str) -> ModuleType:
    """Returns the module; errors of the import pass through.

    The working directory stays last on the path: modules may import their neighbours later.
    """
    is_searched = not sys.flags.safe_path or _SEARCHES_HERE in sys._xoptions
    with contextlib.suppress(OSError):  # an environment may have removed the folder it went to
        if is_searched and "" not in sys.path and (here := os.getcwd()) not in sys.path:
            sys.path.append(here)  # last: its modules must not replace installed packages
    return importlib.import_module(name)


def load_wrapper(name: str) -> Any:  # Any: takes an environment and returns one
    """Returns the class or function `module:Wrapper`.

    Raises:
      RefusedError: there is none of that name.
    """
    module, _colon, attribute = name.partition(":")
    try:
        wrapper = getattr(import_own_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        text = f"--env-wrapper is {name!r} but must be module:Wrapper: {error}"
        raise RefusedError(text) from None
    if not callable(wrapper):
        raise RefusedError(f"--env-wrapper is {name!r}, which is no class or function")
    return wrapper
