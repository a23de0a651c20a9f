"""Atari at a thin actor: what ordinary actors play, in single frames.

Seen to fail with: ale-py's reward clipping left on, its stacks of frames, its own frame skip.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from impala_actor.environments.ale import make_ale_environment, parse_game_id
from impala_common.codec.specs import pack_environment_spec
from impala_common.config import EnvironmentConfig, TrainConfig
from impala_rl.v1 import policy_pb2
from impala_server.local.thin_actors import thin_actor_command
from impala_thin import Environment, RefusedError
from impala_thin.atari import FRAME_STACK, find_atari_game
from impala_thin.compression import Compressor
from impala_thin.gymnasium_driver import make_vector

pytest.importorskip("ale_py")

NUM_SLOTS, NUM_STEPS = 2, 60
GAME = "ALE/MsPacman-v5"  # rewards of 10


@pytest.mark.parametrize("env", [GAME, "MsPacmanNoFrameskip-v4"])
def test_thin_actor_plays_atari_as_ordinary_actors_do(env: str) -> None:
    thin = make_vector(env, NUM_SLOTS, {})
    game = parse_game_id(env)
    assert game is not None
    ordinary = make_ale_environment(game, NUM_SLOTS, EnvironmentConfig(env=env))
    random = np.random.default_rng(0)
    frames, _infos = thin.reset(seed=np.array([3, 4], np.int64))
    result = ordinary._vector_env.reset(seed=np.array([3, 4], np.int64))[0]
    rewards = 0.0
    for _ in range(NUM_STEPS):
        assert frames.shape == (NUM_SLOTS, 84, 84)
        np.testing.assert_array_equal(frames, result[:, -1])
        actions = random.integers(thin.single_action_space.n, size=NUM_SLOTS)
        frames, given, *ends, _infos = thin.step(actions)
        result, wanted, *wanted_ends, _infos = ordinary._vector_env.step(actions)
        np.testing.assert_array_equal(given, wanted)
        np.testing.assert_array_equal(ends, wanted_ends)
        rewards = max(rewards, float(given.max()))
    assert rewards > 1.0, "clipped"


def test_frames_of_pong_shrink_to_less_than_a_fiftieth() -> None:
    """As docs/thin_actors.md says."""
    num = 8
    thin = make_vector("ALE/Pong-v5", num, {})
    thin.reset(seed=1)
    random = np.random.default_rng(0)
    for _ in range(NUM_STEPS):
        frames = thin.step(random.integers(6, size=num))[0]
    plain = frames.tobytes()
    request = policy_pb2.PlayRequest()
    request.observations.leaves.append(plain)

    Compressor().compress(request)

    assert 50 * len(request.observations.leaves[0]) < len(plain) == num * 84 * 84


def test_specification_is_that_of_ordinary_actors() -> None:
    thin = make_vector(GAME, NUM_SLOTS, {})
    spaces = thin.single_observation_space, thin.single_action_space
    game = parse_game_id(GAME)
    assert game is not None
    ordinary = make_ale_environment(game, NUM_SLOTS, EnvironmentConfig(env=GAME))

    spec = Environment.from_spaces(*spaces, FRAME_STACK).spec

    assert spec == pack_environment_spec(ordinary.spec)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"stack_num": 2}, "--frame-stack"), ({"life_loss_info": True}, "life_loss_info")],
)
def test_option_that_thin_actors_cannot_change_is_refused(options: Any, text: str) -> None:
    with pytest.raises(RefusedError, match=text):
        make_vector(GAME, NUM_SLOTS, options)


def test_environment_that_is_no_game_is_none() -> None:
    assert find_atari_game("CartPole-v1") is None


def test_thin_actors_of_impala_train_get_its_atari_options() -> None:
    """What the command is given is what the thin actor's vector environment takes."""
    environment = EnvironmentConfig(
        env=GAME, atari_frame_skip=2, atari_frame_stack=3, atari_sticky_action_probability=0.5
    )
    command = thin_actor_command(TrainConfig(environment=environment), "127.0.0.1:1", "thin", 7)
    given = dict(zip(command[1::2], command[2::2], strict=False)) | dict(
        zip(command[::2], command[1::2], strict=False)
    )

    options = json.loads(given["--env-kwargs"])
    make_vector(GAME, NUM_SLOTS, options).close()

    assert given["--frame-stack"] == "3"
    assert (options["frameskip"], options["repeat_action_probability"]) == (2, 0.5)
