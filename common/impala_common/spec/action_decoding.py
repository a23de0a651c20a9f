"""PartDecoder and decode_actions: convert flat actions to the values an environment takes.

`impala_actor.environments.actions` decodes for a vector environment with known spaces;
`decode_actions` needs the specification alone and serves `predict`. numpy only.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from impala_common.spec.action_spec import ACTION, ActionPart, ActionSpec

Array = NDArray[Any]  # Any: each part has the dtype its spec names

MAX_HALF_RANGE = 1e6
"""Bounds further apart than twice this only clip; they do not scale."""


class PartDecoder:
    """Turns the components of one part, [N, n], into the environment's array [N, ...]."""

    def __init__(self, part: ActionPart) -> None:
        self._shape = part.shape
        self._dtype = np.dtype(part.dtype)
        self._kind = part.kind
        self._starts = np.array(part.starts, np.int64)
        self._lows = np.array(part.lows, np.float64)
        self._highs = np.array(part.highs, np.float64)
        self._centres, self._half_ranges = _find_scales(self._lows, self._highs)

    def __call__(self, components: Array) -> Array:
        """Returns an array of the part's dtype and shape, one for each row."""
        values = components
        if self._kind == "categorical":
            values = components.astype(np.int64) + self._starts
        elif self._kind == "gaussian":
            scaled = self._centres + self._half_ranges * components.astype(np.float64)
            values = np.clip(scaled, self._lows, self._highs)
        return values.astype(self._dtype).reshape(len(components), *self._shape)


def split_parts(spec: ActionSpec) -> list[tuple[slice, ActionPart]]:
    """Returns the parts in order, each with its slice of the flat action."""
    places = []
    start = 0
    for part in spec.parts:
        places.append((slice(start, start + part.num_components), part))
        start += part.num_components
    return places


def escape_key(key: str) -> str:
    """Returns a key of a Dict for a part's name: ASCII, no slash, no number as of a Tuple."""
    text = quote(key, safe=" ", errors="surrogatepass")
    return f"%{ord(text[0]):02X}{text[1:]}" if text.isdigit() else text


def decode_actions(spec: ActionSpec, actions: Array) -> Any:  # Any: as the space is nested
    """Returns a batch of actions in the form of the environment's action space.

    A part named "action/arm/0" is the first member of a tuple under the key "arm" of a dictionary,
    "action/arm/%30" the value of its key "0". Runs that began before keys were escaped have the
    former name for both, and tuples where a dictionary has the keys "0", "1", ...

    Args:
      spec: specification of an action.
      actions: int64 or float32 [N, ...]: flat actions as ActionSpec.tensor says.

    Returns:
      An array [N, ...], or a dictionary or tuple of them.
    """
    rows = actions[:, None] if spec.is_single_categorical else actions
    tree: dict[str, Any] = {}  # Any: arrays and further dictionaries
    for place, part in split_parts(spec):
        *path, last = part.name.split("/")
        branch = tree
        for key in path:
            branch = branch.setdefault(key, {})
        branch[last] = PartDecoder(part)(rows[:, place])
    return _with_tuples(tree[ACTION])


def _with_tuples(value: Any) -> Any:  # Any: arrays and dictionaries
    """Returns dictionaries with the keys "0", "1", ... as tuples, and others with plain keys."""
    if not isinstance(value, dict):
        return value
    values = {key: _with_tuples(item) for key, item in value.items()}
    if list(values) == [str(index) for index in range(len(values))]:
        return tuple(values.values())
    return {unquote(key, errors="surrogatepass"): item for key, item in values.items()}


def _find_scales(lows: Array, highs: Array) -> tuple[Array, Array]:
    """Returns centre and half range of each component.

    If a bound is missing, or the bounds are too far apart to be a range for exploration, the half
    range is 1 and the centre the number closest to 0 within the bounds.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        half_ranges = highs / 2 - lows / 2
        centres = lows / 2 + highs / 2
    is_range = half_ranges <= MAX_HALF_RANGE  # False for nan and infinity
    nearest_to_zero = np.clip(0.0, lows, highs)
    return np.where(is_range, centres, nearest_to_zero), np.where(is_range, half_ranges, 1.0)
