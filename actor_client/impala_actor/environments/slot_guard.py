"""SlotGuard: the outermost wrapper of a slot; checks observations against the declared space.

Vector environments notice an observation that breaks its space by chance, and with an
error that names nothing. The guard looks at what each slot returns and names the part;
`explain_failure` does the same afterwards, for slots that are not looked at in every
step. Runs where the slot runs: in the actor, or in the slot's own process (async).
"""

from __future__ import annotations

from typing import Any

import gymnasium

from impala_actor.environments.observations import list_observation_parts
from impala_actor.environments.old_gym import is_of_old_gym, refuse_old_gym
from impala_common.errors import SpecMismatchError, UnknownEnvironmentError

AnyEnv = gymnasium.Env[Any, Any]  # Any: environments of any spaces


class BrokenSpaceError(Exception):
    """SpecMismatchError on its way out of a slot's process: arguments are field, expected, actual.

    Gymnasium raises what came out of a process as `type(error)(error)`, which not every class
    survives.
    """


class SlotGuard(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Checks resets, and steps: the first after each reset made from outside, or all."""

    def __init__(self, env: AnyEnv, env_name: str, *, checks_every_step: bool) -> None:
        """Guards a slot of the environment `env_name`.

        Raises:
          UnknownEnvironmentError: it is no Gymnasium environment.
          UnsupportedSpaceError: observations that cannot be used.
        """
        require_gymnasium(env, env_name)
        super().__init__(env)
        self._env_name = env_name
        self._checks_every_step = checks_every_step
        self._parts = list_observation_parts(env.observation_space)

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
        return result[0], result[1]

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
        self._check(result[0])
        if not self._checks_every_step:
            # From now on callers reach the environment directly: looking costs a tenth of a
            # step of CartPole.
            self.step = self.env.step  # type: ignore[method-assign]
        return result

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
        if method == "reset" and "unexpected keyword argument" in str(error):
            return refuse_old_gym(self._env_name, f"reset takes no seed ({error})")
        return error


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
    """Returns what an exception out of a vector environment really is, or the exception itself.

    Args:
      vector_env: the vector environment; where it loops over slots, the observations they
        returned last are looked at.
      error: what its reset or step raised.
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
