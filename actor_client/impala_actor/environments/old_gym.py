"""Detects environments of the old Gym package and says how to wrap them.

Gym (`import gym`) is no longer maintained; Gymnasium replaced it and changed the return values of
reset and step. Imports neither package: it compares names of modules.
"""

from __future__ import annotations

from impala_common.errors import UnknownEnvironmentError

HOW_TO_WRAP = (
    "Old Gym environments must be wrapped for Gymnasium: pip install 'shimmy[gym-v26]' and "
    "register shimmy.GymV26CompatibilityV0(env=...) as an environment of your own "
    "('shimmy[gym-v21]' and GymV21CompatibilityV0 where step returns 4 values), or derive the "
    "class from gymnasium.Env, with reset(self, *, seed=None, options=None) that returns "
    "(observation, info) and a step that returns 5 values; see docs/environments.md#old-gym"
)


def is_of_old_gym(thing: object) -> bool:
    """Returns whether the class of an object, or a class it derives from, is the old Gym's."""
    return any(kind.__module__.partition(".")[0] == "gym" for kind in type(thing).__mro__)


def refuse_old_gym(env_name: str, seen: str) -> UnknownEnvironmentError:
    """Returns the error for an old environment.

    Args:
      env_name: id or name of the environment.
      seen: the observed evidence.
    """
    return UnknownEnvironmentError(f"{env_name} cannot be used: {seen}. {HOW_TO_WRAP}")
