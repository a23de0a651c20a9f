"""ActionRanges: checks that actions and logits of unrolls are within their specification.

Used by `UnrollDecoder` on received unrolls; type, shape and finiteness have been checked before.
numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from impala_common.errors import InvalidUnrollError
from impala_common.spec.action_spec import MAX_ABS_GAUSSIAN, ActionSpec

MAX_ABS_LOG_STD = 20.0
"""Largest |log_std| accepted: its exponential and the square of that are finite in float32."""

Array = np.ndarray[Any, Any]


class ActionRanges:
    """Bounds of every component of an action. Immutable."""

    def __init__(self, action: ActionSpec) -> None:
        """Prepares to check actions of `action`."""
        self._parts: list[tuple[str, slice]] = []
        self._has_gaussian = action.has_gaussian
        self._is_single = action.is_single_categorical
        self._highest = np.full(action.num_components, MAX_ABS_GAUSSIAN)
        self._lowest = -self._highest
        self._is_whole = np.zeros(action.num_components, np.bool_)
        self._log_stds: list[tuple[str, slice]] = []
        start = logit = 0
        for part in action.parts:
            place = slice(start, start + part.num_components)
            self._parts.append((part.name, place))
            if part.kind == "gaussian":
                first = logit + part.num_components
                self._log_stds.append((part.name, slice(first, logit + part.num_logits)))
            else:
                self._lowest[place] = 0.0
                self._highest[place] = np.array(part.sizes) - 1 if part.sizes else 1
                self._is_whole[place] = True
            start, logit = place.stop, logit + part.num_logits

    def validate(self, leaves: Mapping[str, Array]) -> None:
        """Checks actions, previous_action and behaviour_policy_logits.

        Raises:
          InvalidUnrollError: names the leaf, the part and the expected range.
        """
        for name in ("actions", "previous_action"):
            self._validate_actions(name, leaves[name])
        logits = leaves["behaviour_policy_logits"]
        for name, place in self._log_stds:
            if np.abs(logits[..., place]).max() > MAX_ABS_LOG_STD:
                raise InvalidUnrollError(
                    f"behaviour_policy_logits: expected log_stds of {name} of at most "
                    f"{MAX_ABS_LOG_STD:g} in absolute value"
                )

    def _validate_actions(self, name: str, actions: Array) -> None:
        if self._is_single:  # the common case, without temporary arrays
            if actions.min() < 0 or actions.max() > self._highest[0]:
                raise InvalidUnrollError(
                    f"{name}: expected values in [0, {self._highest[0] + 1:.0f})"
                )
            return
        if ((actions < self._lowest) | (actions > self._highest)).any():
            raise InvalidUnrollError(f"{name}: {self._describe_range(actions)}")
        if self._has_gaussian and (self._is_whole & (actions != np.floor(actions))).any():
            raise InvalidUnrollError(f"{name}: expected whole numbers where actions are discrete")

    def _describe_range(self, actions: Array) -> str:
        """Returns the expected range of the first part that is out of range."""
        rows = actions.reshape(-1, actions.shape[-1])
        outside = ((rows < self._lowest) | (rows > self._highest)).any(axis=0)
        component = int(np.flatnonzero(outside)[0])
        part = next(name for name, place in self._parts if component < place.stop)
        low, high = self._lowest[component], self._highest[component]
        return f"expected values of {part} in [{low:g}, {high:g}]"
