"""predict gives the actions of the policy, in the environment's form, with memory as a value.

Written to find: state not reset at episode_start, an action without `starts`, logits of the
slots in another order, the reward not required of a network that has it as an input.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from run_folders import make_run_folder

from impala_actor.environments.actions import ActionDecoder, make_action_spec
from impala_actor.environments.observations import ObservationEncoder
from impala_actor.eval_cli import main
from impala_common.config.sections import ModelConfig
from impala_common.errors import CheckpointError, ConfigError, SpecMismatchError
from impala_common.policy.exported_policy import load_policy
from impala_common.policy.frozen_policy import FrozenPolicy
from impala_common.policy.prediction import _read_observation
from impala_common.process import exit_codes
from impala_common.spec.action_decoding import decode_actions
from impala_common.spec.action_spec import ActionSpec, find_difference

ENV = "CartPole-v1"
OWN = spaces.MultiBinary(2)
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from impala_rl import evaluate, load_policy, make_environment
policy = load_policy(sys.argv[1])
action, state = policy.predict([0.0, 0.1, 0.0, -0.1])
action, state = policy.predict([0.0, 0.1, 0.0, -0.1], state)
environment = make_environment(policy.env, 2, policy.environment_config)
result = evaluate(policy.make_policy(2), environment, 2, seed=0)
environment.close()
print(type(policy).__name__, int(action), result.num_episodes)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on CartPole with fresh weights and a memory."""
    return make_run_folder(tmp_path_factory.mktemp("runs") / "run", ENV)


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its policy."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("exported") / "policy"
    assert main([str(run), "--episodes", "0", "--export", str(folder)]) == exit_codes.OK
    return folder


@pytest.fixture(params=["run", "torch", "onnx"])
def policy(request: pytest.FixtureRequest, run: Path, exported: Path) -> FrozenPolicy:
    """The same policy, loaded in three ways."""
    if request.param == "run":
        return load_policy(run)
    return load_policy(exported, runtime=request.param)


def test_predict_with_its_state_acts_as_the_policy_does(policy: FrozenPolicy, run: Path) -> None:
    acting = load_policy(run).make_policy(3)
    random = np.random.default_rng(0)
    state = None

    for step in range(6):
        observation = random.standard_normal((3, 4)).astype(np.float32)
        is_first = np.array([step == 0, step in (0, 2), step in (0, 4)])
        expected = acting.act({"observation": observation}, is_first, is_greedy=True)
        acting.observe(np.zeros(3, np.float32), is_first)
        actions, state = policy.predict(observation, state, episode_start=is_first)

        np.testing.assert_array_equal(actions, expected.actions)
        assert state is not None
        for one, other in zip(state.agent_state, acting.agent_state, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_predict_of_one_observation_is_a_row_of_the_batch(policy: FrozenPolicy) -> None:
    batch = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)

    actions, _state = policy.predict(batch)

    assert actions.shape == (5,)
    for row, action in zip(batch, actions, strict=True):
        alone, state = policy.predict(row.tolist())
        assert np.isscalar(alone)
        assert alone == action
        assert state.previous_actions.shape == (1,)


def test_predict_draws_where_it_is_asked_to(policy: FrozenPolicy) -> None:
    batch = np.zeros((200, 4), np.float32)

    assert len(set(policy.predict(batch)[0].tolist())) == 1
    assert set(policy.predict(batch, deterministic=False)[0].tolist()) == {0, 1}


def test_predict_refuses_what_does_not_fit_and_says_what_does(policy: FrozenPolicy) -> None:
    _action, state = policy.predict(np.zeros((2, 4), np.float32))

    with pytest.raises(SpecMismatchError, match=r"shape \[4\], or \[N, ...\] of it.*\[5\]"):
        policy.predict(np.zeros(5, np.float32))
    with pytest.raises(SpecMismatchError, match="dtype"):
        policy.predict(["a", "b", "c", "d"])
    with pytest.raises(ConfigError, match="state is 'of 2 environments' but must be of 3"):
        policy.predict(np.zeros((3, 4), np.float32), state)


def test_network_with_the_last_reward_needs_it(tmp_path: Path) -> None:
    model = ModelConfig(use_previous_action_and_reward=True)
    policy = load_policy(make_run_folder(tmp_path / "run", ENV, model))
    _action, state = policy.predict(np.zeros(4, np.float32))

    with pytest.raises(ConfigError, match="the reward of the step before"):
        policy.predict(np.zeros(4, np.float32), state)
    policy.predict(np.zeros(4, np.float32), state, reward=1.0)


def test_whole_number_of_a_discrete_space_is_one_hot(tmp_path: Path) -> None:
    policy = load_policy(make_run_folder(tmp_path / "run", "CliffWalking-v1", ModelConfig()))

    action, _state = policy.predict(36)
    batch, _state = policy.predict(np.array([36, 3]))
    one_hot, _state = policy.predict(np.eye(48, dtype=np.float32)[[36, 3]])

    assert action == batch[0]
    np.testing.assert_array_equal(batch, one_hot)
    with pytest.raises(SpecMismatchError, match="numbers from 0 to 47"):
        policy.predict(48)


class Integers(gymnasium.Env[Any, Any]):
    """Observations of two spaces of integers; nothing happens."""

    action_space = spaces.Discrete(5)
    observation_space = spaces.Dict(
        place=spaces.Discrete(3, start=1), pair=spaces.MultiDiscrete([3, 4], start=[0, -1])
    )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        return {"place": 1, "pair": np.array([0, -1])}, {}


@pytest.fixture(scope="module")
def of_integers(tmp_path_factory: pytest.TempPathFactory) -> FrozenPolicy:
    gymnasium.register("Integers-v0", entry_point=Integers)
    folder = tmp_path_factory.mktemp("runs") / "integers"
    return load_policy(make_run_folder(folder, "Integers-v0", ModelConfig()))


@pytest.mark.parametrize(
    ("place", "pair"),
    [
        (2, [1, 2]),  # one environment
        ([3, 1, 2], [[2, -1], [0, 0], [1, 2]]),  # as many as the Discrete has values
        ([2], [[1, 2]]),
    ],
)
def test_integers_are_encoded_as_actors_encode_them(
    of_integers: FrozenPolicy, place: Any, pair: Any
) -> None:
    """Seen to fail without one_hot_leaves: 2 was encoded as the third value of its space."""
    raw = {"place": np.array(place), "pair": np.array(pair)}
    places, pairs = np.array(place).reshape(-1), np.array(pair).reshape(-1, 2)
    batch = {"place": places, "pair": pairs}
    leaves = ObservationEncoder(Integers.observation_space, len(places))(batch)
    encoded = {name.rpartition("/")[2]: leaf for name, leaf in leaves.items()}

    assert np.shape(of_integers.predict(raw)[0]) == np.shape(place)
    assert np.shape(of_integers.predict(encoded)[0]) == places.shape
    for observation in (raw, encoded):
        seen, _ = _read_observation(of_integers.environment, observation, None)
        for name, leaf in leaves.items():
            np.testing.assert_array_equal(seen[name], leaf)


def test_integer_outside_its_space_is_named_with_its_bounds(of_integers: FrozenPolicy) -> None:
    """Seen to fail without one_hot_leaves: 0 was taken for the first value."""
    with pytest.raises(SpecMismatchError, match=r"observation/place: expected numbers from 1 to 3"):
        of_integers.predict({"place": 0, "pair": np.array([0, 0])})
    with pytest.raises(SpecMismatchError, match=r"from \[0, -1\] to \[2, 2\]"):
        of_integers.predict({"place": 1, "pair": np.array([0, 3])})


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=7),
        spaces.MultiDiscrete([3, 4]),
        spaces.MultiBinary(3),
        spaces.Box(-2.0, 5.0, (2, 2), np.float32),
        spaces.Box(0, 3, (2,), np.int64),
        spaces.Dict(
            b=spaces.Discrete(3), a=spaces.Tuple([spaces.Box(0, 1, (1,)), spaces.Discrete(2)])
        ),
        spaces.Dict({"a/b": spaces.Discrete(2), "c": spaces.Discrete(3)}),
        spaces.Dict({"a": spaces.Discrete(2), "a/b": spaces.Discrete(3)}),
        spaces.Dict({"0": spaces.Discrete(2), "1": spaces.Discrete(3)}),
        spaces.Dict({"0": spaces.Tuple([spaces.Discrete(2)]), "10": spaces.Discrete(3)}),
        spaces.Dict({"%30": spaces.Discrete(2), "left arm": spaces.Discrete(3), "ü": OWN}),
    ],
)
def test_actions_have_the_form_of_the_space(space: spaces.Space[Any]) -> None:
    """Seen to fail: slashes in keys made dictionaries, and keys that are numbers tuples."""
    spec = make_action_spec(space)
    tensor = spec.tensor
    flat = np.zeros((3, *tensor.shape), tensor.dtype)
    flat[1] = 1

    decoded, expected = decode_actions(spec, flat), ActionDecoder(space, spec)(flat)

    def compare(one: Any, other: Any) -> None:
        assert type(one) is type(other)
        if isinstance(one, dict):
            assert one.keys() == other.keys()
            one, other = tuple(one[key] for key in one), tuple(other[key] for key in one)
        if isinstance(one, tuple):
            for left, right in zip(one, other, strict=True):
                compare(left, right)
        else:
            np.testing.assert_array_equal(one, other)

    compare(decoded, expected)


def test_specification_from_before_keys_were_escaped_is_decoded_and_is_no_other() -> None:
    """Runs of that time go on, and their policies predict as they did."""
    space = spaces.Dict({"0": spaces.Discrete(2), "a/b": spaces.Discrete(3)})
    spec = make_action_spec(space)
    assert [part.name for part in spec.parts] == ["action/%30", "action/a%2Fb"]
    former = ActionSpec(
        tuple(dataclasses.replace(part, name=unquote(part.name)) for part in spec.parts)
    )

    decoded = decode_actions(former, np.ones((1, 2), np.int64))

    assert {key: type(value) for key, value in decoded.items()} == {"0": np.ndarray, "a": dict}
    assert decoded["a"]["b"].tolist() == [1]
    assert find_difference(former, spec) is None
    other = ActionSpec((spec.parts[0], dataclasses.replace(spec.parts[1], name="action/a%2Fc")))
    assert find_difference(former, other) is not None


def test_exported_policy_plays_where_torch_is_missing(exported: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(exported)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    name, action, episodes = done.stdout.split()
    assert (name, episodes) == ("GraphPolicy", "2")
    assert action in "01"


def test_graph_that_is_missing_or_damaged_is_refused(
    run: Path, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="impala-eval RUN --export DIR writes one"):
        load_policy(run, runtime="onnx")
    assert main([str(run), "--episodes", "0", "--export", str(tmp_path / "a"), "--no-onnx"]) == 0
    with pytest.raises(CheckpointError, match=r"no policy.onnx: export it anew"):
        load_policy(tmp_path / "a", runtime="onnx")
    damaged = tmp_path / "b"
    damaged.mkdir()
    for file in exported.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    (damaged / "policy.onnx").write_bytes(b"\0" + (exported / "policy.onnx").read_bytes()[1:])
    with pytest.raises(CheckpointError, match="sha256"):
        load_policy(damaged, runtime="onnx")
