"""grow: makes arrays of slots longer along their slot dimension.

Used by SlotTable and SlotUnrolls, which double their room when slots are opened.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]  # Any: shapes and element types as the docstrings say


def grow(array: Array, num_slots: int, axis: int = 0) -> Array:
    """Returns a copy with `num_slots` entries along `axis`; new ones are 0."""
    shape = list(array.shape)
    old, shape[axis] = shape[axis], num_slots
    grown = np.zeros(shape, array.dtype)
    grown[(slice(None),) * axis + (slice(0, old),)] = array
    return grown
