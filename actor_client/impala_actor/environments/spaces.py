"""Converts Gymnasium spaces to an EnvironmentSpec, or refuses them by name.

Called once per environment by the backends. Actions: `impala_actor.environments.actions`.
Observations: `impala_actor.environments.observations`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from gymnasium import spaces

from impala_actor.environments.actions import make_action_spec
from impala_actor.environments.observations import list_observation_parts
from impala_common.errors import UnsupportedSpaceError
from impala_common.spec.specs import IMAGE_AXES, EnvironmentSpec

_CHANNEL_COUNTS = (1, 3, 4)  # grey, RGB, RGBA


def make_environment_spec(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    frame_stack: int = 0,
    image_axes: str = "",
) -> EnvironmentSpec:
    """Returns the spec of an environment with these (single-slot) spaces.

    Args:
      observation_space: of one slot.
      action_space: of one slot.
      frame_stack: frames along dimension 0 of the only observation leaf; 0: no stack.
      image_axes: "HWC" or "CHW", as the environment declares its images (key `image_axes` of its
        metadata); "": not declared.

    Raises:
      UnsupportedSpaceError: names the space and the supported ones, or the axes.
    """
    stack = frame_stack if frame_stack > 1 else 0
    if image_axes not in ("", *IMAGE_AXES):
        raise UnsupportedSpaceError(
            f"metadata['image_axes'] of the environment: expected one of {', '.join(IMAGE_AXES)}, "
            f"got {image_axes!r:.40}"
        )
    leaves = (part.leaf for part in list_observation_parts(observation_space))
    return EnvironmentSpec(
        observation_leaves=tuple(
            dataclasses.replace(leaf, axes=_find_axes(leaf.shape, stack, image_axes))
            for leaf in leaves
        ),
        action=make_action_spec(action_space),
        frame_stack=stack,
    )


def _find_axes(shape: tuple[int, ...], frame_stack: int, declared: str) -> str:
    """Returns the axes of a leaf; "" for a leaf that is not an image.

    Without a declaration, images are [H, W, C], as in Gymnasium, unless their sizes allow only [C,
    H, W]: a square after another number ([7, 10, 10]), or a usual number of channels before the
    sides and not after them ([3, 64, 96]).
    """
    if len(shape) != 3:
        return ""
    if frame_stack:
        return "SHW"
    if declared:
        return declared
    first, middle, last = shape
    if first == middle:
        return "HWC"
    is_usual = first in _CHANNEL_COUNTS and last not in _CHANNEL_COUNTS
    return "CHW" if middle == last or is_usual else "HWC"
