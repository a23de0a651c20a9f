"""What is read of the infos of a vector environment: final observations, and in which form.

Gymnasium's vector environments return one dict of arrays; older vector classes a list with one
dict for each slot. `join_infos` makes the first of the second. Used by the adapters, on the
actor's thread; knows nothing of spaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from impala_actor.environments.action_masks import KEY

FINAL_KEYS = ("final_obs", "final_observation", "terminal_observation")
"""Keys that hold final observations: Gymnasium's, that of its versions 0, Stable Baselines'."""


def join_infos(infos: Any, num_slots: int) -> dict[str, Any]:  # Any: whatever a class returns
    """Returns the infos of N slots as one dict; of a list of dicts only what is read."""
    if isinstance(infos, dict):
        return infos
    if not isinstance(infos, list | tuple) or len(infos) != num_slots:
        return {}
    joined: dict[str, Any] = {}  # Any: arrays of objects
    for key in (KEY, *FINAL_KEYS):
        values = [one.get(key) if isinstance(one, dict) else None for one in infos]
        if any(value is not None for value in values):
            joined[key] = np.empty(num_slots, object)
            for slot, value in enumerate(values):
                joined[key][slot] = value
    return joined


def find_final(infos: Mapping[str, Any]) -> Any:  # Any: arrays, or dicts and tuples of them
    """Returns the final observations in the infos of a vector environment, or None."""
    for key in FINAL_KEYS:
        if infos.get(key) is not None:
            return infos[key]
    return None


def select_final(batch: Any, slot: int) -> Any:  # Any: as the observation is nested
    """Returns the observation of one slot out of final observations; None where there is none."""
    try:
        return _select(batch, slot)
    except (LookupError, TypeError):
        return None


def _select(batch: Any, slot: int) -> Any:
    if isinstance(batch, dict):
        return {key: _select(value, slot) for key, value in batch.items() if key[:1] != "_"}
    if isinstance(batch, tuple):
        return tuple(_select(value, slot) for value in batch)
    return batch[slot]
