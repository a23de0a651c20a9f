"""SlotGuard: the outermost wrapper of a slot; checks what the environment returns.

Vector environments detect an observation that breaks its space only by chance, and without its
name; a reward of None becomes NaN in them. The guard checks each slot's results, names the part,
casts rewards and flags, and drops infos. `explain_failure` does the same after a failure, for slots
that are not checked in every step. Runs in the slot's process: the actor, or a process of its own
(async).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium

from impala_actor.environments.observations import list_observation_parts
from impala_actor.environments.old_gym import is_of_old_gym, refuse_old_gym
from impala_actor.environments.step_values import clean_flag, clean_reward
from impala_common.errors import SpecMismatchError, UnknownEnvironmentError

AnyEnv = gymnasium.Env[Any, Any]  # Any: environments of any spaces


class BrokenSpaceError(Exception):
    """SpecMismatchError that can leave a slot's process: arguments are field, expected, actual.

    Gymnasium raises errors of a slot's process as `type(error)(error)`, which fails for some
    classes.
    """


class SlotGuard(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Checks resets, and steps: all of them, or the first after each explicit reset."""

    def __init__(self, env: AnyEnv, env_name: str, *, checks_every_step: bool) -> None:
        """Guards a slot of the environment `env_name`.

        Raises:
          UnknownEnvironmentError: it is not a Gymnasium environment.
          UnsupportedSpaceError: observations that cannot be used.
        """
        require_gymnasium(env, env_name)
        super().__init__(env)
        self._env_name = env_name
        self._checks_every_step = checks_every_step
        self._parts = list_observation_parts(env.observation_space)
        self._is_unchecked = True  # no step since the last explicit reset

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets and checks."""
        try:
            result: Any = self.env.reset(seed=seed, options=options)
        except (TypeError, ValueError) as error:
            raise self._translate(error, "reset") from error
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
            raise refuse_old_gym(
                self._env_name, f"reset returned {_describe(result)}, not (observation, info)"
            )
        self._check(result[0])
        self._is_unchecked = True
        return result[0], {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps and checks."""
        try:
            result: Any = self.env.step(action)
        except (TypeError, ValueError) as error:
            raise self._translate(error, "step") from error
        if not (isinstance(result, tuple) and len(result) == 5):
            raise refuse_old_gym(
                self._env_name,
                f"step returned {_describe(result)}, not the 5 of (observation, reward, "
                "terminated, truncated, info)",
            )
        observation, reward, terminated, truncated, _info = result
        if self._is_unchecked or self._checks_every_step:
            # Costs a tenth of a step of CartPole: by default not in every step.
            self._check(observation)
            self._is_unchecked = False
        if type(reward) is not float:
            reward = _checked(clean_reward, reward)
        if type(terminated) is not bool:
            terminated = _checked(clean_flag, "terminated", terminated)
        if type(truncated) is not bool:
            truncated = _checked(clean_flag, "truncated", truncated)
        # Without infos: they are not used, and some cannot be batched for N slots.
        return observation, reward, terminated, truncated, {}

    def _check(self, observation: Any) -> None:
        try:
            for part in self._parts:
                part.encode_one(observation)
        except SpecMismatchError as error:
            raise BrokenSpaceError(error.field, str(error.expected), str(error.actual)) from error

    def _translate(self, error: Exception, method: str) -> Exception:
        """Returns the error for a wrapper that could not unpack an old environment's result."""
        if "values to unpack" in str(error):
            return refuse_old_gym(self._env_name, f"{method} failed with {error!r}")
        if method == "reset" and "unexpected keyword argument 'options'" in str(error):
            return UnknownEnvironmentError(
                f"{self._env_name} cannot be used: its reset takes no `options`, which Gymnasium "
                "passes to every environment. Write it as "
                "def reset(self, *, seed=None, options=None)"
            )
        if method == "reset" and "unexpected keyword argument" in str(error):
            return refuse_old_gym(self._env_name, f"reset takes no seed ({error})")
        return error


def _checked(clean: Callable[..., Any], *arguments: Any) -> Any:  # Any: rewards and flags
    """Calls `clean`; converts its error to one that can leave a slot's process."""
    try:
        return clean(*arguments)
    except SpecMismatchError as error:
        raise BrokenSpaceError(error.field, str(error.expected), str(error.actual)) from error


def require_gymnasium(env: object, env_name: str) -> None:
    """Raises UnknownEnvironmentError unless `env` is an environment of Gymnasium."""
    if isinstance(env, gymnasium.Env):
        return
    kind = f"{type(env).__module__}.{type(env).__qualname__}"
    if is_of_old_gym(env):
        raise refuse_old_gym(env_name, f"{kind} derives from gym.Env, not from gymnasium.Env")
    raise UnknownEnvironmentError(
        f"{env_name} is no environment but {kind}: it must be an instance of gymnasium.Env"
    )


def explain_failure(vector_env: Any, error: Exception) -> Exception:
    """Returns a more specific error for an exception of a vector environment, or the exception.

    Args:
      vector_env: the vector environment; if it is a loop over slots, their last observations are
        checked.
      error: the exception of its reset or step.
    """
    cause: BaseException = error
    while isinstance(cause, BrokenSpaceError) and len(cause.args) == 1:
        cause = cause.args[0]
    if isinstance(cause, BrokenSpaceError):
        return SpecMismatchError(*cause.args)
    if not isinstance(error, LookupError | TypeError | ValueError):
        return error
    parts = list_observation_parts(vector_env.single_observation_space)
    for observation in getattr(vector_env, "_env_obs", ()):
        if observation is None:  # not reset yet
            continue
        try:
            for part in parts:
                part.encode_one(observation)
        except SpecMismatchError as mismatch:
            return mismatch
    return error


def _describe(result: object) -> str:
    if isinstance(result, tuple):
        second = f", the second a {type(result[1]).__name__}" if len(result) == 2 else ""
        return f"{len(result)} values{second}"
    return f"a single {type(result).__name__}"
