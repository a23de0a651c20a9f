"""PolicyClient: one environment and one policy server, in a dozen lines.

with PolicyClient("127.0.0.1:50052", Environment.simple((4,), num_actions=2)) as client:
    action = client.reset(observation)
    while True:
        observation, reward, terminated, truncated = play(action)
        action = client.step(observation, reward, terminated, truncated)
        if terminated or truncated:
            action = client.reset(first_observation())
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np

from impala_thin.environment import Environment
from impala_thin.hello import ClientSettings
from impala_thin.slots_client import Observations, SlotsClient


class PolicyClient:
    """Plays one slot; blocking, for one thread."""

    def __init__(self, server: str, environment: Environment, **settings: Any) -> None:
        """Connects when first used.

        Args:
          server: HOST:PORT or unix:PATH.
          environment: what is played.
          **settings: further fields of ClientSettings.
        """
        self.slots = SlotsClient(environment, 1, settings=ClientSettings(server=server, **settings))

    def __enter__(self) -> PolicyClient:
        """Returns itself."""
        return self

    def __exit__(
        self,
        unused_kind: type[BaseException] | None,
        unused_error: BaseException | None,
        unused_traceback: TracebackType | None,
    ) -> None:
        """Closes."""
        self.close()

    def reset(self, observation: Any) -> Any:
        """Opens an episode and returns its first action."""
        return self._act(observation, 0.0, False, False, True)

    def step(
        self, observation: Any, reward: float, terminated: bool = False, truncated: bool = False
    ) -> Any:
        """Tells what the last action led to, and returns the next one.

        After an end the action is None: `reset` comes next.

        Raises:
          EpisodeLostError: the server has forgotten the episode: reset the environment and go on
            with `reset`.
          ThinError: the server refuses this client, cannot be reached in time, or has finished.
        """
        action = self._act(observation, reward, terminated, truncated, False)
        return None if terminated or truncated else action

    def close(self) -> None:
        """Says goodbye and disconnects."""
        self.slots.close()

    def _act(
        self, observation: Any, reward: float, terminated: bool, truncated: bool, is_first: bool
    ) -> Any:
        given = Observations(
            [0], _batch(observation), [reward], [terminated], [truncated], [is_first]
        )
        return _unbatch(self.slots.act(given).values)


def _batch(value: Any) -> Any:  # Any: numbers and arrays, nested
    if isinstance(value, dict):
        return {key: _batch(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return tuple(_batch(one) for one in value)
    return np.asarray(value)[np.newaxis]


def _unbatch(value: Any) -> Any:  # Any: arrays, nested
    if isinstance(value, dict):
        return {key: _unbatch(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return tuple(_unbatch(one) for one in value)
    return value[0]
