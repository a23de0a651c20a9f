"""The parts of nested Gymnasium spaces, named and ordered as ordinary actors do.

Spaces are told by the names of their classes, since gymnasium may be absent.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np

Path = tuple[Any, ...]
"""Keys that lead to a part: of a Dict any, of a Tuple numbers."""

_LOG = logging.getLogger(__name__)


def walk_observation(space: Any) -> list[tuple[str, Path, Any]]:
    """Returns the parts of an observation that are numbers; a warning names text left out."""
    left_out: list[str] = []
    leaves = list(_walk(space, (), "observation", left_out))
    if leaves and left_out:
        _LOG.warning("%s is text and is left out: networks take numbers", ", ".join(left_out))
    return leaves or [("observation", (), space)]


def walk_action(space: Any) -> Iterator[tuple[str, Path, Any]]:
    """Yields name, path and space of each part of an action."""
    return _walk(space, (), "action")


def with_tuples(nested: Any) -> Any:
    """Returns dicts with keys 0, 1 ... as tuples."""
    if not isinstance(nested, dict):
        return nested
    values = {key: with_tuples(value) for key, value in nested.items()}
    return tuple(values.values()) if all(isinstance(key, int) for key in values) else values


def _walk(
    space: Any, path: Path, name: str, left_out: list[str] | None = None
) -> Iterator[tuple[str, Path, Any]]:
    """Yields name, path and space of each leaf.

    With `left_out`, an observation's parts: the names of text are put into it, and what stays of a
    Tuple is counted anew. Keys are quoted, in an action also those that are numbers, which name the
    members of a Tuple. All of it as ordinary actors do.
    """
    kind = type(space).__name__
    if kind not in ("Dict", "Tuple"):
        if left_out is not None and _is_text(space):
            left_out.append(name)
        else:
            yield name, path, space
        return
    children = (
        sorted(space.spaces.items(), key=lambda item: str(item[0]))
        if kind == "Dict"
        else enumerate(space.spaces)
    )
    num_left_out = 0
    for key, child in children:
        label = key if kind == "Dict" else key - num_left_out
        text = quote(str(label), safe=" ", errors="surrogatepass")
        if left_out is None and kind == "Dict" and text.isdigit():
            text = f"%{ord(text[0]):02X}{text[1:]}"
        leaves = list(_walk(child, (*path, key), f"{name}/{text}", left_out))
        num_left_out += not leaves
        yield from leaves


def _is_text(space: Any) -> bool:
    """Returns whether a space's values are strings: Text, and spaces of one's own of dtype str."""
    if type(space).__name__ == "Text":
        return True
    try:
        return space.dtype is not None and np.dtype(space.dtype).kind == "U"
    except TypeError:  # a dtype that numpy does not know
        return False
