"""A network whose memory is the sum of what it saw, and an environment for it."""

from __future__ import annotations

import numpy as np

from impala_common.policy.inference.backend import Array, InferenceBackend, StepInputs
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec, UnrollSpec

STATE = TensorSpec("initial_agent_state/0", (1, 1), "float32")
NUM_ACTIONS = 5


class SummingBackend(InferenceBackend):
    """Its memory is the sum of the observation numbers of the episode; logits depend on it."""

    name = "summing"
    tolerance = 0.0

    def __init__(self) -> None:
        self._state: tuple[Array, ...] = (np.zeros((1, 1, 1), np.float32),)

    def load(self, weights: object) -> None:
        pass

    def infer(self, inputs: StepInputs) -> Array:
        numbers = inputs.observations["observation"].reshape(len(inputs.is_first), -1)[:, -1]
        kept = np.where(inputs.is_first, 0.0, self._state[0][0, :, 0])
        total = (kept + numbers).astype(np.float32)
        self._state = (total[None, :, None],)
        return np.stack([total * (a + 1) % 7 for a in range(NUM_ACTIONS)], axis=1)

    @property
    def agent_state(self) -> tuple[Array, ...]:
        return self._state

    @agent_state.setter
    def agent_state(self, state: tuple[Array, ...]) -> None:
        self._state = state


def make_spec(frame_stack: int = 0, unroll_length: int = 4) -> UnrollSpec:
    shape = (frame_stack, 2) if frame_stack else (2,)
    environment = EnvironmentSpec(
        (TensorSpec("observation", shape, "float32"),),
        ActionSpec.discrete(NUM_ACTIONS),
        frame_stack,
    )
    return UnrollSpec(unroll_length, environment, (STATE,))
