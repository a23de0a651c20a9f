"""Paths of a command line that still mean the same after an environment has changed the folder."""

from __future__ import annotations

import os

_UNIX = "unix:"


def absolute_path(path: str) -> str:
    """Returns a path from the root; "" stays "", which stands for none."""
    return os.path.abspath(path) if path else ""


def absolute_address(address: str) -> str:
    """Returns an address whose path, of unix:PATH, begins at the root; others as they are."""
    if not address.startswith(_UNIX):
        return address
    return _UNIX + os.path.abspath(address.removeprefix(_UNIX))
