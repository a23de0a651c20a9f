"""make_slots: N environment slots from a function that makes one environment.

Called by the backend for Gymnasium ids and by the factory for environments given as
objects, on the actor's main thread.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from impala_actor.environments.action_masks import KEY, MASK_LEAF, InfoMasks, can_be_masked
from impala_actor.environments.actions import make_action_spec, make_decode_actions
from impala_actor.environments.adapter import EnvironmentAdapter, VectorEnvironment
from impala_actor.environments.immediate_reset import ImmediateResetAdapter, Mode
from impala_actor.environments.observations import ObservationEncoder, list_observation_parts
from impala_actor.environments.slot_guard import SlotGuard, explain_failure, require_gymnasium
from impala_actor.environments.spaces import make_environment_spec
from impala_actor.environments.step_infos import join_infos
from impala_actor.environments.text_parts import leave_out_text
from impala_actor.environments.wrappers import Wrapper
from impala_common.errors import FOREIGN_ERRORS, UnsupportedSpaceError

_LOG = logging.getLogger(__name__)

EnvMaker = Callable[[], gymnasium.Env[Any, Any]]  # Any: environments of any spaces


def make_slots(
    env_name: str,
    maker: EnvMaker,
    num_slots: int,
    vectorization: Literal["sync", "async"],
    wrappers: Sequence[Wrapper] = (),
) -> EnvironmentAdapter:
    """Makes `num_slots` slots with `maker`.

    Args:
      env_name: its name in messages.
      maker: returns a new environment at each call.
      num_slots: N.
      vectorization: "sync" is a loop in this process, "async" one process per slot.
      wrappers: applied to each environment, the first innermost.

    Raises:
      UnknownEnvironmentError: `maker` does not return Gymnasium environments.
      UnsupportedSpaceError: spaces this version cannot train on.
      ConfigError: a wrapper cannot be applied.
    """

    def make_one(index: int) -> SlotGuard:
        env = maker()
        require_gymnasium(env, env_name)
        _require_spaces(env, env_name)
        for wrapper in wrappers:
            env = wrapper(env)
        return SlotGuard(
            leave_out_text(env),
            env_name,
            checks_every_step=vectorization == "async",
            looks_for_masks=index == 0,
        )

    # copy=False: observations stay valid until the next step, as StepResult promises.
    kind = SyncVectorEnv if vectorization == "sync" else AsyncVectorEnv
    vector_env = kind(
        [functools.partial(make_one, k) for k in range(num_slots)],
        copy=False,
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )
    try:
        return adapt(vector_env, has_info_mask=has_info_mask(vector_env))
    except BaseException:
        with contextlib.suppress(*FOREIGN_ERRORS):  # what is wrong is said by the first error
            vector_env.close()
        raise


def _require_spaces(env: gymnasium.Env[Any, Any], env_name: str) -> None:
    for name in ("observation_space", "action_space"):
        if getattr(env, name, None) is None:
            raise UnsupportedSpaceError(f"{env_name}: {name} is None, expected a gymnasium.Space")


def adapt(
    vector_env: gymnasium.vector.VectorEnv[Any, Any, Any],  # Any: any spaces
    *,
    has_slot_seeds: bool = True,
    frame_stack: int = 0,
    has_info_mask: bool = False,
) -> EnvironmentAdapter:
    """Wraps a vector environment of any autoreset mode, declared in its metadata or not.

    Raises:
      UnsupportedSpaceError: spaces, image layout or autoreset mode that are unknown here.
    """
    metadata = vector_env.metadata or {}
    observation_space = vector_env.single_observation_space
    spec = make_environment_spec(
        observation_space,
        vector_env.single_action_space,
        frame_stack,
        metadata.get("image_layout"),
        has_info_mask=has_info_mask,
    )
    reads_infos = has_info_mask and not any(
        part.leaf.name == MASK_LEAF for part in list_observation_parts(observation_space)
    )
    encode = ObservationEncoder(observation_space, vector_env.num_envs)
    options: dict[str, Any] = {  # Any: options of different types
        "has_slot_seeds": has_slot_seeds,
        "encode": encode if encode.is_needed else None,
        "decode_actions": make_decode_actions(vector_env.single_action_space, spec.action),
        "explain": lambda error: explain_failure(vector_env, error),
        "masks": InfoMasks(spec.action, vector_env.num_envs) if reads_infos else None,
    }
    environment = cast(VectorEnvironment, vector_env)
    mode = _find_mode(metadata.get("autoreset_mode"))
    if mode == "next_step":
        return EnvironmentAdapter(environment, spec, **options)
    return ImmediateResetAdapter(environment, spec, mode=mode, **options)


def has_info_mask(
    vector_env: gymnasium.vector.VectorEnv[Any, Any, Any],  # Any: any spaces
) -> bool:
    """Returns whether the infos of a reset hold masks of legal actions.

    Resets the first slot to see; a vector class of the environment's own resets all. Only where
    actions are choices and observations hold no mask. What a reset raises is left to the first
    reset proper, which can say it better.
    """
    try:
        parts = list_observation_parts(vector_env.single_observation_space)
        if any(part.leaf.name == MASK_LEAF for part in parts):
            return False
        if not can_be_masked(make_action_spec(vector_env.single_action_space)):
            return False
        if isinstance(vector_env, SyncVectorEnv | AsyncVectorEnv):
            return any(vector_env.call("gives_action_mask"))
        infos = join_infos(vector_env.reset()[1], vector_env.num_envs)
    except FOREIGN_ERRORS as error:
        _LOG.debug("no look at infos: %s", error)
        return False
    return infos.get(KEY) is not None


def _find_mode(declared: object) -> Mode | Literal["next_step"]:
    if declared is None:
        return "undeclared"
    for mode in AutoresetMode:
        if declared in (mode, mode.value, mode.name):
            names: dict[AutoresetMode, Mode | Literal["next_step"]] = {
                AutoresetMode.NEXT_STEP: "next_step",
                AutoresetMode.SAME_STEP: "same_step",
                AutoresetMode.DISABLED: "disabled",
            }
            return names[mode]
    raise UnsupportedSpaceError(
        f'metadata["autoreset_mode"] of the environment: expected a member of '
        f"gymnasium.vector.AutoresetMode, got {declared!r}"
    )
