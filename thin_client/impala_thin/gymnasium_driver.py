"""play_vector: plays a Gymnasium vector environment against a policy server.

Needs gymnasium. The vector environment has NEXT_STEP autoreset, as Gymnasium's own have: the step
after an end returns the first observation of the next episode.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from impala_thin.atari import find_atari_game, make_atari_vector
from impala_thin.batches import Observations
from impala_thin.environment import Array, require_flags
from impala_thin.errors import (
    EnvironmentFailedError,
    EpisodeLostError,
    RefusedError,
    RunFinishedError,
    StoppedError,
    ThinError,
)
from impala_thin.own_modules import import_own_module, load_wrapper
from impala_thin.slots_client import SlotsClient

_MASK = "action_mask"
_FINAL_KEYS = ("final_obs", "final_observation", "terminal_observation")
_MINIGRID = ("minigrid", "register_minigrid_envs")
_REGISTRATIONS = {
    "MinAtar/": ("minatar.gym", "register_envs"),
    "MiniGrid-": _MINIGRID,
    "BabyAI-": _MINIGRID,
}
"""Functions that make ids known which Gymnasium does not find by itself, by prefix."""


class Played(NamedTuple):
    """What was played: steps of all slots, and the returns of finished episodes."""

    num_steps: int
    returns: list[float]


def make_vector(
    env: str, num_slots: int, env_kwargs: dict[str, Any], wrappers: Sequence[str] = ()
) -> Any:  # Any: a VectorEnv
    """Returns Gymnasium's own vector form of an environment, or as many copies of it.

    Atari is played as ordinary actors play it, but with single frames. MinAtar is its package's own
    environment.

    Args:
      env: its id, with or without `module:`.
      num_slots: N.
      env_kwargs: of the environment.
      wrappers: `module:Wrapper` around each copy, the first innermost.

    Raises:
      RefusedError: a wrapper cannot be found, or is asked for around Atari.
    """
    import gymnasium

    module, colon, name = env.rpartition(":")
    if colon:
        import_own_module(module)
    if name not in gymnasium.registry:
        for prefix, (package, function) in _REGISTRATIONS.items():
            if name.startswith(prefix):
                getattr(importlib.import_module(package), function)()
    game = find_atari_game(name)
    if game is not None:
        if wrappers:
            raise RefusedError("--env-wrapper is for single environments, which Atari has not here")
        return make_atari_vector(game, num_slots, env_kwargs)
    spec = gymnasium.spec(name)
    is_sync = bool(wrappers) or spec.vector_entry_point is None
    return gymnasium.make_vec(
        name,
        num_envs=num_slots,
        vectorization_mode="sync" if is_sync else "vector_entry_point",
        wrappers=[*map(load_wrapper, wrappers), _make_quiet] if is_sync else None,
        **env_kwargs,
    )


def _make_quiet(env: Any) -> Any:
    """Returns an environment whose infos hold a mask at most.

    Gymnasium joins the infos of all slots into arrays, and fails where their shapes differ.
    """
    import gymnasium

    class Quiet(gymnasium.Wrapper):
        def reset(self, **options: Any) -> Any:
            observation, info = self.env.reset(**options)
            return observation, _keep_mask(info)

        def step(self, action: Any) -> Any:
            *result, info = self.env.step(action)
            return (*result, _keep_mask(info))

    return Quiet(env)


def _keep_mask(info: Any) -> dict[str, Any]:
    return {_MASK: info[_MASK]} if info and _MASK in info else {}


def gives_mask(vector_env: Any) -> bool:
    """Returns whether infos hold masks of legal actions; resets the environment to see."""
    with _calling("reset()"):
        return _MASK in vector_env.reset()[1]


def play_vector(
    vector_env: Any,
    client: SlotsClient,
    *,
    stop: threading.Event | None = None,
    num_episodes: int = 0,
    seed: int | None = None,
) -> Played:
    """Plays until the run has finished, `stop` is set, or so many episodes have ended.

    Args:
      vector_env: N slots.
      client: for N slots of the same spaces.
      stop: ends it at the next step when set.
      num_episodes: 0: any number.
      seed: of the environment.

    Raises:
      RefusedError: the vector environment resets in another way than in the step after an end.
      EnvironmentFailedError: its code raised, or gave an observation outside its space.
    """
    is_declared = _require_next_step(vector_env)
    slots = list(range(vector_env.num_envs))
    returns: list[float] = []
    sums = np.zeros(len(slots))
    num_steps = 0
    with _calling("reset()"):
        first = vector_env.reset(seed=seed)
    given = _first(client, first)
    while stop is None or not stop.is_set():
        try:
            actions = client.act(given)
        except EpisodeLostError:
            given = _restart(client, vector_env)
            sums[:] = 0.0  # no episode goes on
            continue
        except (RunFinishedError, StoppedError):
            break
        except (ValueError, TypeError, LookupError) as error:
            raise _make_failure("gave an observation that is not in its space", error) from error
        with _calling("step()"):
            observation, rewards, terminated, truncated, infos = vector_env.step(actions.values)
        is_first = given_ends(given)
        _require_reset_apart(
            is_first, np.logical_or(terminated, truncated), {} if is_declared else infos
        )
        rewards = np.where(is_first, 0.0, rewards)
        given = Observations(
            slots,
            observation,
            rewards.tolist(),
            terminated.tolist(),
            truncated.tolist(),
            is_first.tolist(),
            read_masks(client, infos),
        )
        num_steps += len(slots) - int(is_first.sum())
        sums += rewards
        for slot in np.flatnonzero(given_ends(given)).tolist():
            returns.append(float(sums[slot]))
            sums[slot] = 0.0
        if num_episodes and len(returns) >= num_episodes:
            break
    return Played(num_steps, returns)


def _require_next_step(vector_env: Any) -> bool:
    """Returns whether the class declares NEXT_STEP, and not nothing.

    Raises:
      RefusedError: it declares another mode, whose final observations would be lost.
    """
    mode = (getattr(vector_env, "metadata", None) or {}).get("autoreset_mode")
    name = str(getattr(mode, "value", mode))  # "NextStep", or as the member is called
    if mode is not None and name.replace("_", "").lower() != "nextstep":
        raise RefusedError(
            f"the vector environment has autoreset_mode {name}: expected NEXT_STEP (a reset in the "
            "step after an end); play its slots with SlotsClient, which takes any"
        )
    return mode is not None


def _require_reset_apart(is_first: Any, ended: Any, infos: Any) -> None:
    """Raises RefusedError where slots are not reset in a step of their own.

    Args:
      is_first: bool [N]: the slots whose episodes ended in the step before.
      ended: bool [N]: those whose episodes ended in this step.
      infos: of this step; empty where the class declares its mode.
    """
    found = ""
    if any(infos.get(key) is not None for key in _FINAL_KEYS if isinstance(infos, dict)):
        found = "its infos hold final observations, as with SAME_STEP"
    elif np.logical_and(is_first, ended).any():
        found = "an episode ended in the step after an end"
    if found:
        raise RefusedError(
            f"the vector environment does not reset in the step after an end (NEXT_STEP): {found}; "
            "play its slots with SlotsClient, which takes any"
        )


def given_ends(given: Observations) -> Any:  # Any: bool [n]
    """Returns which observations are the last of their episodes."""
    return np.logical_or(given.terminated or False, given.truncated or False) & np.ones(
        len(given.slots), np.bool_
    )


def read_masks(client: SlotsClient, infos: dict[str, Any]) -> Array | None:
    """Returns bool [n, P]: the legal actions that infos name; all where a slot names none."""
    if not client.environment.has_mask:
        return None
    num, width = client.num_slots, client.environment.num_logits
    masks = np.ones((num, width), np.bool_)
    given = infos.get(f"_{_MASK}", np.ones(num, np.bool_))
    for slot, mask in enumerate(infos.get(_MASK, ())):
        if given[slot] and mask is not None:
            parts = mask if isinstance(mask, tuple | list) else (mask,)
            flags = np.concatenate([np.ravel(part) for part in parts])
            if flags.shape != (width,):
                raise RefusedError(
                    f"info[{_MASK!r}] of slot {slot}: expected {width} flags, one for each choice, "
                    f"got {flags.size}"
                )
            try:
                require_flags(f"info[{_MASK!r}] of slot {slot}", flags)
            except ValueError as error:
                raise RefusedError(str(error)) from None
            masks[slot] = flags != 0
    return masks


def _restart(client: SlotsClient, vector_env: Any) -> Observations:
    """Resets all slots, as vector environments do; those that were not lost abandon episodes."""
    client.settle()
    with _calling("reset()"):
        first = vector_env.reset()
    return _first(client, first)


@contextlib.contextmanager
def _calling(method: str) -> Iterator[None]:
    """Turns whatever an environment's own code raises into an EnvironmentFailedError."""
    try:
        yield
    except (ThinError, ImportError):
        raise
    except (Exception, SystemExit) as error:
        raise _make_failure(f"raised in {method}", error) from error


def _make_failure(what: str, error: BaseException) -> EnvironmentFailedError:
    text = f"the environment {what}: {type(error).__name__}: {error}"
    return EnvironmentFailedError(" ".join(text.split()))


def _first(client: SlotsClient, reset: tuple[Any, dict[str, Any]]) -> Observations:
    observation, infos = reset
    num = client.num_slots
    return Observations(
        list(range(num)),
        observation,
        [0.0] * num,
        is_first=[True] * num,
        masks=read_masks(client, infos),
    )
