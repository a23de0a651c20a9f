"""The mask canary through a policy server: task, steps and threshold of test_mask_canary.py."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from masked_bandit import MaskedBandit
from running_policy_server import RunningPolicyServer
from running_server import RunningServer, make_config

from impala_actor.environments.factory import register_environment
from impala_common.run import metrics
from impala_thin import Environment, RefusedError
from impala_thin.gymnasium_driver import gives_mask, play_vector

pytestmark = pytest.mark.timeout(120)


@pytest.mark.extended
def test_masked_bandit_is_solved_by_thin_actors_without_an_illegal_action(tmp_path: Path) -> None:
    """The mask comes in infos beside the observation. An illegal action raises: the test fails."""
    register_environment("object:thin-masked-bandit", MaskedBandit)
    config = make_config(
        job={"total_steps": 20_000, "seed": 1},
        environment={"envs_per_actor": 16},
        rollout={"unroll_length": 16, "batch_size": 16, "num_storages": 32},
        optimizer={"learning_rate": 2e-2},
    )
    vector_env = gymnasium.vector.SyncVectorEnv([MaskedBandit] * 16)
    assert gives_mask(vector_env)
    environment = Environment.from_spaces(
        vector_env.single_observation_space, vector_env.single_action_space, has_mask=True
    )
    with RunningServer(tmp_path, config) as server:
        with RunningPolicyServer(server.address) as policy:
            with policy.client(environment, 16) as client:
                played = play_vector(vector_env, client, seed=1)
            policy.join()
        status = server.wait_finished(60.0)
        drawn = server.evaluate("object:thin-masked-bandit", num_episodes=500, num_slots=50)

    assert played.num_steps >= 20_000
    assert status[metrics.STEPS] >= 20_000
    assert drawn.return_mean >= 0.95


def test_mask_is_that_of_an_ordinary_actor() -> None:
    """Both kinds of actors can play in one run."""
    from gymnasium import spaces

    from impala_actor.environments.spaces import make_environment_spec
    from impala_common.codec.specs import pack_environment_spec

    plain, action = spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.MultiDiscrete([3, 2])
    named = spaces.Dict({"x": plain, "action_mask": spaces.MultiBinary(5)})
    for space, has_mask in ((plain, True), (plain, False), (named, False)):
        theirs = make_environment_spec(space, action, has_info_mask=has_mask)
        ours = Environment.from_spaces(space, action, has_mask=has_mask)
        assert ours.spec == pack_environment_spec(theirs)
        assert (theirs.action_mask is not None) == (has_mask or space is named)


def test_mask_of_another_shape_and_masked_numbers_are_refused() -> None:
    environment = Environment.simple((2,), num_actions=3, has_mask=True)
    values = np.zeros((2, 2), np.float32)
    assert environment.encode(values, 2)[1] == b"\1" * 6
    assert environment.encode(values, 2, [[1, 0, 1], [0, 0, 1]])[1] == b"\1\0\1\0\0\1"
    with pytest.raises(ValueError, match=r"masks: expected shape \(2, 3\), got \(2, 4\)"):
        environment.encode(values, 2, np.ones((2, 4)))
    box = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    with pytest.raises(RefusedError, match="only actions that are choices"):
        Environment.from_spaces(box, box, has_mask=True)
    with pytest.raises(RefusedError, match="frame_stack"):
        Environment.simple((2,), num_actions=3, has_mask=True, frame_stack=4)
