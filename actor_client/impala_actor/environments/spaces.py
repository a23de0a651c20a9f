"""Converts Gymnasium spaces to an EnvironmentSpec, or refuses them by name.

Called once per environment by the backends. Actions: `impala_actor.environments.actions`.
Observations: `impala_actor.environments.observations`.
"""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

from impala_actor.environments.actions import make_action_spec
from impala_actor.environments.observations import list_observation_parts
from impala_common.spec.specs import EnvironmentSpec


def make_environment_spec(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any], frame_stack: int = 0
) -> EnvironmentSpec:
    """Returns the spec of an environment with these (single-slot) spaces.

    Raises:
      UnsupportedSpaceError: naming the space and what is supported.
    """
    return EnvironmentSpec(
        observation_leaves=tuple(part.leaf for part in list_observation_parts(observation_space)),
        action=make_action_spec(action_space),
        frame_stack=frame_stack if frame_stack > 1 else 0,
    )
