"""WithoutText: text beside numbers is left out, with a warning, wherever it stands."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from impala_actor.environments import text_parts
from impala_actor.environments.slots import make_slots
from impala_common.errors import UnsupportedSpaceError


class OwnText(spaces.Space[str]):
    """A space of strings that is no Text, as MiniGrid's MissionSpace."""

    def __init__(self) -> None:
        super().__init__(dtype=str)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        return "go to the door"

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)


class Told(gymnasium.Env[Any, np.int64]):
    """Samples its observations; episodes of three steps."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.observation_space = space
        self._t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._t = 0
        return self.observation_space.sample(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._t += 1
        return self.observation_space.sample(), 1.0, self._t == 3, False, {}


BOX = spaces.Box(0, 1, (2,), np.float32)
SPACES: list[tuple[spaces.Space[Any], dict[str, tuple[int, ...]], str]] = [
    (spaces.Dict(m=OwnText(), x=BOX), {"observation/x": (2,)}, "observation/m "),
    (spaces.Dict(m=spaces.Text(9), x=BOX), {"observation/x": (2,)}, "observation/m "),
    (spaces.Tuple((spaces.Text(9), BOX)), {"observation/0": (2,)}, "observation/0 "),
    (
        spaces.Dict(a=spaces.Dict(m=OwnText(), n=spaces.Discrete(3)), b=spaces.Dict(m=OwnText())),
        {"observation/a/n": (3,)},
        "observation/a/m, observation/b/m ",
    ),
    (
        spaces.Tuple((spaces.Tuple((spaces.Text(2),)), spaces.Tuple((BOX, OwnText())))),
        {"observation/0/0": (2,)},
        "observation/0/0, observation/1/1 ",
    ),
]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(("space", "leaves", "named"), SPACES)
def test_text_beside_numbers_is_left_out_and_named(
    space: spaces.Space[Any],
    leaves: dict[str, tuple[int, ...]],
    named: str,
    vectorization: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Seen to fail without the wrapper: UnsupportedSpaceError."""
    text_parts._warn.cache_clear()
    with caplog.at_level(logging.WARNING):
        slots = make_slots("told", lambda: Told(space), 2, vectorization)

    observations = slots.reset(1)
    for _ in range(5):
        observations = slots.step(np.zeros((2, 1), np.int64)).observations
    slots.close()

    assert {name: leaf.shape[1:] for name, leaf in observations.items()} == leaves
    assert [record.getMessage().startswith(named) for record in caplog.records] == [True]


def test_observation_that_is_text_alone_is_refused() -> None:
    for space in (spaces.Text(4), spaces.Dict(m=OwnText()), spaces.Tuple((spaces.Text(4),))):
        with pytest.raises(UnsupportedSpaceError, match="is not supported"):
            make_slots("told", lambda space=space: Told(space), 1, "sync")  # type: ignore[misc]


def test_environment_without_text_is_not_wrapped() -> None:
    env = Told(spaces.Dict(x=BOX))

    assert text_parts.leave_out_text(env) is env
