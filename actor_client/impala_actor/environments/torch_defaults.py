"""Keeps torch's defaults against environments that change them for the whole process.

A simulator that uses torch may set its default type, device or gradient mode; a policy beside it
would then get weights of another type, or none.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

_LOG = logging.getLogger(__name__)
_SHIPPED = {"default dtype": "float32", "default device": "cpu", "gradient mode": "True"}
"""As torch has them when it is imported."""


@contextlib.contextmanager
def kept_torch_defaults() -> Iterator[None]:
    """Puts back what the body changes of torch's defaults, and names it in a warning."""
    before = _SHIPPED | _read()
    try:
        yield
    finally:
        for name, value in _read().items():
            if value != before[name]:
                _put_back(name, before[name])
                _LOG.warning("the environment's change of torch's %s to %s is undone", name, value)


def _read() -> dict[str, str]:
    """Returns the defaults by name; nothing where torch is not imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    return {
        "default dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "default device": str(torch.get_default_device()),
        "gradient mode": str(torch.is_grad_enabled()),
    }


def _put_back(name: str, value: str) -> None:
    torch = sys.modules["torch"]
    if name == "default dtype":
        torch.set_default_dtype(getattr(torch, value))
    elif name == "default device":
        torch.set_default_device(None if value == "cpu" else value)
    else:
        torch.set_grad_enabled(value == "True")
