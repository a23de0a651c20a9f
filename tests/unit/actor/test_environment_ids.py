"""Environments that cannot be are found by their id, without making one."""

from __future__ import annotations

from typing import Any

import pytest

from impala_actor.environments.factory import validate_environment_id
from impala_common.config.sections import EnvironmentConfig
from impala_common.errors import ImpalaError


@pytest.mark.parametrize(
    ("env", "settings", "text"),
    [
        ("CartPol-v1", {}, "CartPole-v1"),
        ("ALE/Pnog-v5", {}, "ALE/Pong-v5"),
        ("MinAtar/Brekout-v1", {}, "MinAtar/Breakout-v1"),
        ("no_such_module:Env-v0", {}, "no_such_module cannot be imported"),
        ("CartPole-v1", {"env_wrapper": ("no_such_module:Wrap",)}, "no_such_module"),
    ],
)
def test_mistyped_environment_is_found_without_making_one(
    env: str, settings: dict[str, Any], text: str
) -> None:
    """Before: an actor said so only once it had found its learner."""
    with pytest.raises(ImpalaError, match=text):
        validate_environment_id(env, EnvironmentConfig(env=env, **settings))


@pytest.mark.parametrize("env", ["CartPole-v1", "ALE/Pong-v5", "MinAtar/Breakout-v1", "object:x"])
def test_known_environment_is_let_through(env: str) -> None:
    validate_environment_id(env, EnvironmentConfig(env=env))
