"""Steps side by side become unrolls: nothing is shifted, and one observation is carried over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from impala_actor.acting.unroll_builder import UnrollBuilder
from impala_actor.environments.adapter import StepResult
from impala_common.policy.policy import PolicyStep
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec, UnrollSpec

T, N, A, H = 3, 2, 4, 5
STATE = TensorSpec("initial_agent_state/0", (1, H), "float32")
SPEC = UnrollSpec(
    T,
    EnvironmentSpec((TensorSpec("observation", (2,), "float32"),), ActionSpec.discrete(A)),
    (STATE, STATE),
)


def observation(t: int) -> dict[str, Any]:
    """Returns observation t of both slots: (t, slot)."""
    return {"observation": np.array([[t, 0], [t, 1]], np.float32)}


def decision(t: int) -> PolicyStep:
    """Returns actions and logits that name the step they belong to."""
    return PolicyStep(np.array([t % A, (t + 1) % A]), np.full((N, A), t, np.float32))


def result(t: int) -> StepResult:
    """Returns what the decision at observation t led to: reward 10 t, observation t + 1."""
    return StepResult(
        observation(t + 1),
        np.array([10 * t, 10 * t + 1], np.float32),
        terminated=np.array([t == 1, False]),
        truncated=np.array([False, t == 2]),
        is_padding=np.array([t == 2, False]),
        is_first=np.array([t == 2, t == 0]),
    )


def begin(builder: UnrollBuilder, t: int) -> None:
    state = np.arange(N * H, dtype=np.float32).reshape(1, N, H) + 100 * t
    builder.begin(
        observation(t),
        np.array([t == 0, t == 0]),
        (state, -state),
        np.array([t + 1, t + 2]),
        np.array([t + 0.5, t + 0.25], np.float32),
    )


def build(builder: UnrollBuilder, start: int) -> dict[str, Any]:
    begin(builder, start)
    for t in range(start, start + T):
        assert not builder.is_complete
        builder.add(decision(t), result(t))
    assert builder.is_complete
    return {name: array.copy() for name, array in builder.unrolls.leaves.items()}


def make_builder() -> UnrollBuilder:
    spec = UnrollSpec(
        T, SPEC.environment, (STATE, TensorSpec("initial_agent_state/1", (1, H), "float32"))
    )
    return UnrollBuilder(spec, N)


def test_unrolls_hold_each_row_where_its_decision_was_taken() -> None:
    """Seen to fail with rewards, is_first or observations one row off."""
    unrolls = build(make_builder(), 0)

    np.testing.assert_array_equal(unrolls["observation"][:, :, 0], [[t, t] for t in range(T + 1)])
    np.testing.assert_array_equal(unrolls["observation"][:, :, 1], [[0, 1]] * (T + 1))
    np.testing.assert_array_equal(unrolls["actions"], [[0, 1], [1, 2], [2, 3]])
    np.testing.assert_array_equal(unrolls["behaviour_policy_logits"][:, 0, 0], [0, 1, 2])
    np.testing.assert_array_equal(unrolls["rewards"], [[0, 1], [10, 11], [20, 21]])
    np.testing.assert_array_equal(unrolls["terminated"][:, 0], [False, True, False])
    np.testing.assert_array_equal(unrolls["truncated"][:, 1], [False, False, True])
    np.testing.assert_array_equal(unrolls["is_padding"][:, 0], [False, False, True])
    np.testing.assert_array_equal(unrolls["is_first"][:, 0], [True, False, False, True])
    np.testing.assert_array_equal(unrolls["is_first"][:, 1], [True, True, False, False])


def test_unrolls_of_the_next_round_begin_with_the_last_observation() -> None:
    builder = make_builder()
    first = build(builder, 0)

    second = build(builder, T)

    np.testing.assert_array_equal(second["observation"][0], first["observation"][T])
    np.testing.assert_array_equal(second["rewards"], [[30, 31], [40, 41], [50, 51]])
    assert not second["is_first"][0].any()
    assert not second["terminated"].any(), "a flag of the last round stayed"


def test_begin_notes_what_led_to_the_first_observation_and_the_state_before_it() -> None:
    unrolls = build(make_builder(), 0)

    np.testing.assert_array_equal(unrolls["previous_action"], [1, 2])
    np.testing.assert_array_equal(unrolls["previous_reward"], np.array([0.5, 0.25], np.float32))
    state = unrolls["initial_agent_state/0"]
    assert state.shape == (N, 1, H)  # [N, L, H]
    np.testing.assert_array_equal(state[0, 0], np.arange(H))
    np.testing.assert_array_equal(state[1, 0], np.arange(H, 2 * H))
    np.testing.assert_array_equal(unrolls["initial_agent_state/1"], -state)


def test_begin_copies_what_it_is_given() -> None:
    """Environments and policies use their arrays again."""
    builder = make_builder()
    observations, state = observation(0), np.zeros((1, N, H), np.float32)
    builder.begin(
        observations, np.ones(N, np.bool_), (state, state), np.zeros(N, np.int64), np.zeros(N)
    )
    step = result(0)
    builder.add(decision(0), step)

    observations["observation"][:] = state[:] = step.rewards[:] = step.observations["observation"][
        :
    ] = -7

    for t in (1, 2):
        builder.add(decision(t), result(t))
    assert not any((array == -7).any() for array in builder.unrolls.leaves.values())


def test_unrolls_before_they_are_complete_cannot_be_had() -> None:
    builder = make_builder()
    begin(builder, 0)

    with pytest.raises(AssertionError):
        _ = builder.unrolls
