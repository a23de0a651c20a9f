"""Rewards and flags of every type that environments return: cast, or refused by name."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from impala_actor.environments.action_masks import flatten_mask
from impala_actor.environments.factory import make_environment, register_environment
from impala_actor.environments.outcomes import as_flags, as_rewards
from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import SpecMismatchError, UnknownEnvironmentError

BACKENDS = pytest.mark.parametrize("backend", ["sync", "async"])


class Answering(gymnasium.Env[Any, Any]):
    """Answers each step with what it was given."""

    def __init__(self, reward: Any = 1.0, flag: Any = False, infos: Any = ({},)) -> None:
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Discrete(3)
        self.answer, self.infos, self.t = (reward, flag), infos, 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros(2, np.float32), self.infos[0]

    def step(self, action: Any) -> Any:
        self.t += 1
        reward, flag = self.answer
        return np.zeros(2, np.float32), reward, flag, False, self.infos[self.t % len(self.infos)]


def play(backend: str, make: Any, num_steps: int = 2) -> Any:
    register_environment("object:answering", make)
    environment = make_environment("object:answering", 2, EnvironmentConfig(env_backend=backend))  # type: ignore[arg-type]
    try:
        environment.reset(0)
        for _ in range(num_steps):
            step = environment.step(np.zeros(2, np.int64))
        return step
    finally:
        environment.close()


@BACKENDS
@pytest.mark.parametrize(
    "reward",
    [
        2,
        np.float64(2),
        np.array(2.0),
        np.array([2.0]),
        np.array([[2]]),
        [2.0],
        torch.tensor(2.0),
        torch.tensor([2.0], requires_grad=True),
        torch.tensor(2.0, dtype=torch.bfloat16),
        torch.tensor([2.0]).to_sparse(),
        Decimal(2),
    ],
    ids=repr,
)
def test_reward_of_any_type_is_a_number(backend: str, reward: Any) -> None:
    """Planted: no cast. numpy then raises, warns, or takes the array for a sequence."""
    step = play(backend, lambda: Answering(reward=reward))

    assert step.rewards.tolist() == [2.0, 2.0]
    assert step.rewards.dtype == np.float32


@BACKENDS
@pytest.mark.parametrize("flag", [1, np.True_, np.int8(1), np.array(True), [True], torch.tensor(1)])
def test_flag_of_any_type_is_a_bool(backend: str, flag: Any) -> None:
    step = play(backend, lambda: Answering(flag=flag), num_steps=1)

    assert step.terminated.tolist() == [True, True]
    assert step.terminated.dtype == np.bool_


@BACKENDS
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"reward": None}, "reward of the environment: expected a number, got NoneType None"),
        ({"reward": "1.0"}, "reward of the environment: expected a number, got str"),
        ({"reward": np.zeros(2)}, r"reward of the environment.*float64 \[2\]"),
        ({"reward": 1j}, "reward of the environment: expected a number, got complex"),
        ({"reward": np.ma.masked}, "reward of the environment: expected a number, got Masked"),
        ({"reward": torch.tensor(1.0, device="meta")}, "reward of the environment.*got Tensor"),
        ({"flag": None}, "terminated of the environment: expected a bool, got NoneType None"),
        ({"flag": 2}, "terminated of the environment: expected a bool, got int 2"),
        ({"flag": [True, False]}, "terminated of the environment: expected a bool, got list"),
    ],
)
def test_what_is_no_reward_or_flag_is_refused_by_name(
    backend: str, arguments: Any, named: str
) -> None:
    with pytest.raises(SpecMismatchError, match=named):
        play(backend, lambda: Answering(**arguments))


@BACKENDS
@pytest.mark.parametrize(
    "infos",
    [
        ({"winner": 1}, {"winner": None}),
        ({"path": np.zeros(2)}, {"path": np.zeros(5)}),
        ({"a": 1}, {"a": {"b": 2}}),
        ({"names": ["x"]}, {"names": "x"}),
        ({"n": 1}, {"n": "text"}),
    ],
    ids=repr,
)
def test_infos_that_nobody_reads_stop_nothing(backend: str, infos: Any) -> None:
    """Slots whose infos differ in type or length. Planted: infos handed on as they are."""
    makers = iter([lambda: Answering(infos=infos), lambda: Answering(infos=infos[::-1])] * 2)

    step = play(backend, lambda: next(makers)(), num_steps=4)

    assert step.rewards.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int8, np.float32, object])
def test_flags_of_a_vector_class_are_bools_whatever_their_type(dtype: Any) -> None:
    """x[flags] = 0 sets elements 0 and 1 where flags are integers. Planted: flags as they are."""
    assert as_flags("truncated", np.array([0, 1, 0], dtype), 3).tolist() == [False, True, False]
    assert as_flags("truncated", np.array([[0], [1]], dtype), 2).dtype == np.bool_
    assert as_flags("truncated", [0, True], 2).tolist() == [False, True]


@pytest.mark.parametrize(
    "flags", [np.array([0, 2]), np.array([0.5, 0]), None, [None, True], np.zeros(3, bool), "no"]
)
def test_flags_of_a_vector_class_that_are_none_are_refused(flags: Any) -> None:
    with pytest.raises(SpecMismatchError, match=r"terminated of the environment.*\[2\]"):
        as_flags("terminated", flags, 2)


@pytest.mark.parametrize(
    "rewards",
    [
        [1, 2],
        (1.0, 2.0),
        np.array([[1], [2]]),
        torch.tensor([1, 2]),
        torch.tensor([1, 2], dtype=torch.bfloat16),
        [np.array([1]), 2.0],
    ],
)
def test_rewards_of_a_vector_class_are_float32(rewards: Any) -> None:
    cast = as_rewards(rewards, 2)

    assert (cast.tolist(), cast.dtype.name) == ([1.0, 2.0], "float32")


@pytest.mark.parametrize("rewards", [None, [None, 1], np.ones(3), 1.0, np.ones((2, 2)), ["a", "b"]])
def test_rewards_of_a_vector_class_that_are_none_are_refused(rewards: Any) -> None:
    with pytest.raises(SpecMismatchError, match=r"reward of the environment.*\[2\]"):
        as_rewards(rewards, 2)
    with pytest.raises(SpecMismatchError, match="reward of the environment"):
        as_rewards(np.ones((2, 2)), 4)


@BACKENDS
def test_reset_without_options_says_what_is_missing(backend: str) -> None:
    class NoOptions(Answering):
        def reset(self, seed: Any = None) -> Any:  # type: ignore[override]
            return super().reset(seed=seed)

    with pytest.raises(UnknownEnvironmentError, match=r"takes no options.*options=None") as caught:
        play(backend, NoOptions)
    assert "shimmy" not in str(caught.value)


def test_close_that_raises_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    class ClosesBadly(Answering):
        def close(self) -> None:
            raise RuntimeError("cannot close")

    play("sync", ClosesBadly)

    assert "close() of the environment raised RuntimeError: cannot close" in caplog.text


def test_mask_in_parts_or_missing_is_flat() -> None:
    assert flatten_mask((np.array([1, 0]), np.array([0, 1, 1])), 5).tolist() == [1, 0, 0, 1, 1]
    assert flatten_mask(None, 3).tolist() == [True] * 3
    with pytest.raises(SpecMismatchError, match=r"action_mask.*\[4\]"):
        flatten_mask(np.ones(3), 4)


def test_mask_of_numbers_that_are_added_to_logits_is_refused() -> None:
    """0 and -inf would be taken for their opposite. Planted: everything but 0 is legal."""
    with pytest.raises(SpecMismatchError, match=r"action_mask.*1 \(legal\).*-inf"):
        flatten_mask(np.array([0.0, -np.inf]), 2)

    assert flatten_mask(np.array([0.0, 1.0]), 2).tolist() == [False, True]
