"""Observations and Actions: what goes to a policy server and what comes back, for n slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from impala_thin.environment import Array


class Observations(NamedTuple):
    """Observations of n slots and what led to them.

    Attributes:
      slots: n distinct slots.
      values: batch of n observations, as the observation space is nested.
      rewards: n rewards of the last actions; 0 where is_first.
      terminated: n flags: the episode has ended for good.
      truncated: n flags: the episode was cut.
      is_first: n flags: the observation opens an episode.
      masks: bool [n, P]: legal actions, of an environment with `has_mask`; None: all are legal.
    """

    slots: Sequence[int]
    values: Any
    rewards: Sequence[float]
    terminated: Sequence[bool] = ()
    truncated: Sequence[bool] = ()
    is_first: Sequence[bool] = ()
    masks: Any = None


class Actions(NamedTuple):
    """Actions of n slots.

    Attributes:
      slots: n slots.
      values: batch of n actions in the environment's form; meaningless where an episode ended.
      policy_version: of the weights; -1 where an episode ended.
      logits: float32 [n, P]; None unless asked for.
    """

    slots: list[int]
    values: Any
    policy_version: int
    logits: Array | None

    def select(self, chosen: Sequence[int]) -> Actions:
        """Returns those at the places `chosen`."""
        return Actions(
            [self.slots[index] for index in chosen],
            map_nested(self.values, lambda array: array[list(chosen)]),
            self.policy_version,
            None if self.logits is None else self.logits[list(chosen)],
        )


def join(answers: Sequence[Actions], slots: Sequence[int]) -> Actions:
    """Returns the answers as one, in the order of `slots`."""
    if len(answers) == 1 and answers[0].slots == list(slots):
        return answers[0]
    found = [slot for answer in answers for slot in answer.slots]
    values = [answer.values for answer in answers]
    logits = [answer.logits for answer in answers if answer.logits is not None]
    joined = Actions(
        found,
        map_nested(values[0], lambda *arrays: np.concatenate(arrays), *values[1:]),
        max(answer.policy_version for answer in answers),
        np.concatenate(logits) if logits else None,
    )
    place = {slot: index for index, slot in enumerate(found)}
    return joined.select([place[slot] for slot in slots])


def map_nested(value: Any, work: Any, *others: Any) -> Any:  # Any: numbers and arrays, nested
    """Returns `work` of each leaf of dicts and tuples that are nested alike."""
    if isinstance(value, dict):
        return {key: map_nested(value[key], work, *(one[key] for one in others)) for key in value}
    if isinstance(value, tuple):
        groups = zip(value, *others, strict=True)
        return tuple(map_nested(each[0], work, *each[1:]) for each in groups)
    return work(value, *others)


def make_single(
    observation: Any,
    reward: float,
    terminated: bool,
    truncated: bool,
    is_first: bool,
    mask: Any,
) -> Observations:
    """Returns the observation of slot 0 as a batch of one."""
    return Observations(
        [0],
        map_nested(observation, lambda leaf: np.asarray(leaf)[np.newaxis]),
        [reward],
        [terminated],
        [truncated],
        [is_first],
        None if mask is None else np.asarray(mask)[np.newaxis],
    )


def take_single(actions: Actions) -> Any:
    """Returns the action of a batch of one."""
    return map_nested(actions.values, lambda array: array[0])
