"""Atari for thin actors: ale-py's vector environment with single frames, which the server stacks.

All of its options are set here, as ordinary actors set them, and no default is used: its reward
clipping is on by default, but actors report raw rewards. Needs gymnasium and ale-py.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from impala_thin.errors import RefusedError

FRAME_STACK = 4
"""Frames that the server stacks unless told otherwise."""
_ENTRY_POINT = "ale_py.env:AtariEnv"
_NAMESPACE = "ALE/"
_IMAGE_SIZE = 84
_SETTINGS: dict[str, Any] = {
    "batch_size": 0,
    "num_threads": 1,
    "thread_affinity_offset": -1,
    "full_action_space": False,
    "continuous": False,
    "img_height": _IMAGE_SIZE,
    "img_width": _IMAGE_SIZE,
    "grayscale": True,
    "frameskip": 4,
    "maxpool": True,
    "noop_max": 30,
    "episodic_life": False,
    "life_loss_info": False,
    "reward_clipping": False,
    "use_fire_reset": True,
}
_FIXED = ("autoreset_mode", "batch_size", "episodic_life", "grayscale", "life_loss_info")


def find_atari_game(env: str) -> Any | None:  # Any: gymnasium.envs.registration.EnvSpec
    """Returns what Gymnasium has registered under an Atari id; None for another environment.

    Raises:
      ImportError: an Atari id, and ale-py is not installed.
    """
    import gymnasium

    if importlib.util.find_spec("ale_py") is not None:
        import ale_py  # noqa: F401  registers its ids with Gymnasium
    elif env.startswith(_NAMESPACE):
        raise ImportError("ale-py is not installed")
    spec = gymnasium.registry.get(env)
    return spec if spec is not None and spec.entry_point == _ENTRY_POINT else None


def make_atari_vector(game: Any, num_slots: int, env_kwargs: dict[str, Any]) -> Any:
    """Returns a vector environment of an Atari game: uint8 [N, 84, 84], one grey frame a step.

    Args:
      game: from `find_atari_game`.
      num_slots: N.
      env_kwargs: options of `ale_py.vector_env.AtariVectorEnv` that replace those of ordinary
        actors, such as `frameskip`, `noop_max` or `num_threads`.

    Raises:
      RefusedError: an option that thin actors cannot change.
    """
    from ale_py.vector_env import AtariVectorEnv
    from gymnasium.spaces import Box
    from gymnasium.vector import AutoresetMode
    from gymnasium.wrappers.vector import TransformObservation

    if "stack_num" in env_kwargs:
        raise RefusedError("--env-kwargs: expected no stack_num: the server stacks (--frame-stack)")
    for name in _FIXED:
        if name in env_kwargs:
            raise RefusedError(f"--env-kwargs: {name} cannot be changed for a thin actor")
    given = {
        "repeat_action_probability": game.kwargs["repeat_action_probability"],
        "max_num_frames_per_episode": game.kwargs["max_num_frames_per_episode"],
        **_SETTINGS,
        **env_kwargs,
    }
    frames = AtariVectorEnv(
        game.kwargs["game"],
        num_slots,
        autoreset_mode=AutoresetMode.NEXT_STEP,
        stack_num=1,
        **given,
    )
    shape = (given["img_height"], given["img_width"])
    return TransformObservation(
        frames,
        lambda observation: observation[:, 0],
        single_observation_space=Box(0, 255, shape, np.uint8),
    )
