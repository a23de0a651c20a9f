"""From Gymnasium spaces to an EnvironmentSpec, or a clear refusal.

Called once per environment by the backends. Actions: `impala_actor.environments.actions`.
Observations: Box of any shape and element type, and Discrete,
which becomes a one-hot vector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from impala_actor.environments.actions import make_action_spec
from impala_actor.environments.adapter import Encode
from impala_common.errors import UnsupportedSpaceError
from impala_common.specs import DTYPES, OBSERVATION, EnvironmentSpec, TensorSpec


class OneHotEncoder:
    """Turns a batch of Discrete observations into float32 one-hot vectors."""

    def __init__(self, space: spaces.Discrete) -> None:
        self._start = int(space.start)
        self._rows = np.eye(int(space.n), dtype=np.float32)

    def __call__(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """Returns float32 [N, n] for int64 [N]."""
        rows: NDArray[np.float32] = self._rows[observation - self._start]
        return rows


def make_environment_spec(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any], frame_stack: int = 0
) -> EnvironmentSpec:
    """Returns the spec of an environment with these (single-slot) spaces.

    Raises:
      UnsupportedSpaceError: naming the space and what is supported.
    """
    return EnvironmentSpec(
        observation_leaves=(_make_leaf(observation_space),),
        action=make_action_spec(action_space),
        frame_stack=frame_stack if frame_stack > 1 else 0,
    )


def make_encode(observation_space: spaces.Space[Any]) -> Encode | None:
    """Returns what turns raw observations into the leaf, or None where they are it."""
    if isinstance(observation_space, spaces.Discrete):
        return OneHotEncoder(observation_space)
    return None


def _make_leaf(space: spaces.Space[Any]) -> TensorSpec:
    if isinstance(space, spaces.Box) and space.dtype is not None and space.dtype.name in DTYPES:
        return TensorSpec(OBSERVATION, tuple(int(size) for size in space.shape), space.dtype.name)
    if isinstance(space, spaces.Discrete):
        return TensorSpec(OBSERVATION, (int(space.n),), "float32")
    hint = ""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        hint = "; gymnasium.wrappers.FlattenObservation turns it into a Box"
    raise UnsupportedSpaceError(
        f"observation space {space} is not supported: this version trains on Box "
        f"(of {', '.join(DTYPES)}) and Discrete observations{hint}"
    )
