"""SlotGuard: the outermost wrapper of each environment slot; checks what the slot returns.

Vector environments notice an observation that breaks its space by chance, and with an
error that names nothing. The guard checks observations and names the part;
`explain_failure` does the same afterwards, for slots whose observations are not checked in
every step. Rewards and flags are cast in every step. Of infos only masks of legal actions are
passed on: vector environments join infos in arrays, which fails for many. Runs where the slot
runs: in the actor, or in the slot's own process (async).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import gymnasium

from impala_actor.environments.action_masks import KEY, can_be_masked, flatten_mask
from impala_actor.environments.actions import make_action_spec
from impala_actor.environments.observations import list_observation_parts
from impala_actor.environments.old_gym import is_of_old_gym, refuse_old_gym
from impala_actor.environments.outcomes import as_flag, as_reward
from impala_common.errors import FOREIGN_ERRORS, SpecMismatchError, UnknownEnvironmentError

_LOG = logging.getLogger(__name__)

AnyEnv = gymnasium.Env[Any, Any]  # Any: environments of any spaces


class BrokenSpaceError(Exception):
    """SpecMismatchError that can leave a slot's process: arguments are field, expected, actual.

    Gymnasium raises errors of a slot's process as `type(error)(error)`, which fails for some
    classes.
    """


class SlotGuard(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Checks resets, and steps: all, or the first alone (unless integers come in wider types)."""

    def __init__(
        self,
        env: AnyEnv,
        env_name: str,
        *,
        checks_every_step: bool,
        looks_for_masks: bool = True,
    ) -> None:
        """Guards a slot of the environment `env_name`.

        Args:
          env: the environment.
          env_name: its name in messages.
          checks_every_step: whether every step is checked, or the first after each reset.
          looks_for_masks: whether `gives_action_mask` resets the slot to see.

        Raises:
          UnknownEnvironmentError: it is not a Gymnasium environment.
          UnsupportedSpaceError: observations that cannot be used.
        """
        require_gymnasium(env, env_name)
        super().__init__(env)
        self._env_name = env_name
        self._checks_every_step = checks_every_step
        self._parts = list_observation_parts(env.observation_space)
        self._looks = True
        self._looks_for_masks = looks_for_masks
        action = make_action_spec(env.action_space)
        self._mask_width = action.num_logits if can_be_masked(action) else 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets and checks."""
        try:
            result: Any = self.env.reset(seed=seed, options=options)
        except (TypeError, ValueError) as error:
            raise self._translate(error, "reset") from error
        if not (isinstance(result, tuple) and len(result) == 2 and _is_info(result[1])):
            raise refuse_old_gym(
                self._env_name, f"reset returned {_describe(result)}, not (observation, info)"
            )
        self._check(result[0])
        return result[0], self._take_mask(result[1]) if result[1] and KEY in result[1] else {}

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
        observation, reward, terminated, truncated, info = result
        if self._looks:
            self._check(observation)
            # Costs a tenth of a step of CartPole; a cast to a smaller integer may hide a fault.
            self._looks = self._checks_every_step or self._is_narrowed(observation)
        if type(reward) is not float or type(terminated) is not bool or type(truncated) is not bool:
            reward, terminated, truncated = _cast(reward, terminated, truncated)
        mask = self._take_mask(info) if info and KEY in info else {}
        return observation, reward, terminated, truncated, mask

    def gives_action_mask(self) -> bool:
        """Resets the slot; returns whether its info holds a mask of legal actions.

        A slot that does not look returns False without a reset. What a reset raises is left to the
        first reset proper.
        """
        if not self._mask_width or not self._looks_for_masks:
            return False
        try:
            return self.env.reset()[1].get(KEY) is not None
        except FOREIGN_ERRORS as error:
            _LOG.debug("no look at infos: %s", error)
            return False

    def _take_mask(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the info that is passed on: the mask of legal actions, bool [P]."""
        if not self._mask_width:
            return {}
        try:
            return {KEY: flatten_mask(info[KEY], self._mask_width)}
        except SpecMismatchError as error:
            raise _broken(error) from error

    def _check(self, observation: Any) -> None:
        try:
            for part in self._parts:
                part.encode_one(observation)
        except SpecMismatchError as error:
            raise _broken(error) from error

    def _is_narrowed(self, observation: Any) -> bool:
        return any(part.is_narrowed(observation) for part in self._parts)

    def _translate(self, error: BaseException, method: str) -> BaseException:
        """Returns the error for a wrapper that could not unpack an old environment's result."""
        if "values to unpack" in str(error) and _is_of_wrapper(error):
            return refuse_old_gym(self._env_name, f"{method} failed with {error!r}")
        if method == "reset" and "unexpected keyword argument '" in str(error):
            if "'options'" in str(error):
                return UnknownEnvironmentError(
                    f"{self._env_name} cannot be used: its reset takes no options ({error}). "
                    "Gymnasium calls reset(seed=..., options=...): write def reset(self, *, "
                    "seed=None, options=None), in the environment or in the wrapper named here; "
                    "options may be ignored"
                )
            if "'seed'" in str(error):
                return refuse_old_gym(self._env_name, f"reset takes no seed ({error})")
        return error


def _is_info(value: object) -> bool:
    return value is None or isinstance(value, Mapping)


def _is_of_wrapper(error: BaseException) -> bool:
    """Returns whether a wrapper's own line raised it, and no code of the environment."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    owner = None if trace is None else trace.tb_frame.f_locals.get("self")
    return isinstance(owner, gymnasium.Wrapper)


def _broken(error: SpecMismatchError) -> BrokenSpaceError:
    return BrokenSpaceError(error.field, str(error.expected), str(error.actual))


def _cast(reward: Any, terminated: Any, truncated: Any) -> tuple[float, bool, bool]:
    try:
        flags = as_flag("terminated", terminated), as_flag("truncated", truncated)
        return as_reward(reward), *flags
    except SpecMismatchError as error:
        raise _broken(error) from error


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


def explain_failure(vector_env: Any, error: BaseException) -> BaseException:
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
