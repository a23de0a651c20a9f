"""ActionEncoder: turns flat actions into the bytes of SlotActions.parts.

Uses the same PartDecoder as an actor's environments, so both play the same actions.
"""

from __future__ import annotations

from impala_common.spec.action_decoding import PartDecoder
from impala_common.spec.action_spec import ActionSpec
from impala_policy_server.slot_arrays import Array


class ActionEncoder:
    """Encodes actions of one specification."""

    def __init__(self, action: ActionSpec) -> None:
        """Prepares for actions of `action`."""
        self._is_single = action.is_single_categorical
        self._parts: list[tuple[slice, PartDecoder]] = []
        start = 0
        for part in action.parts:
            stop = start + part.num_components
            self._parts.append((slice(start, stop), PartDecoder(part)))
            start = stop

    def encode(self, actions: Array) -> list[bytes]:
        """Returns the bytes of each part.

        Args:
          actions: int64 or float32 [n, ...]: flat, as ActionSpec.tensor says.
        """
        rows = actions[:, None] if self._is_single else actions
        return [decode(rows[:, place]).tobytes() for place, decode in self._parts]
