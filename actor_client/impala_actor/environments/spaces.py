"""Converts Gymnasium spaces to an EnvironmentSpec, or refuses them by name.

Called once per environment by the backends. Actions: `impala_actor.environments.actions`.
Observations: `impala_actor.environments.observations`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from gymnasium import spaces

from impala_actor.environments.action_masks import MASK_LEAF, can_be_masked, make_mask_leaf
from impala_actor.environments.actions import make_action_spec
from impala_actor.environments.observations import list_observation_parts
from impala_common.errors import UnsupportedSpaceError
from impala_common.spec.specs import EnvironmentSpec, OneHotLeaf, TensorRole, TensorSpec


def make_environment_spec(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    frame_stack: int = 0,
    image_layout: object = None,
    *,
    has_info_mask: bool = False,
) -> EnvironmentSpec:
    """Returns the spec of an environment with these (single-slot) spaces.

    Args:
      observation_space: of one slot.
      action_space: of one slot.
      frame_stack: frames along dimension 0 of the only observation; up to 1: it is no stack.
      image_layout: metadata["image_layout"] of the environment, "HWC" or "CHW"; None: it
        declares none, and `find_image_role` applies Gymnasium's convention.
      has_info_mask: whether infos hold masks of legal actions, which become a leaf.

    Raises:
      UnsupportedSpaceError: naming the space, or the layout, and what is supported.
    """
    if frame_stack > 1:
        image_layout = "CHW"
    parts = list_observation_parts(observation_space)
    leaves = [part.leaf for part in parts]
    action = make_action_spec(action_space)
    roles: dict[str, TensorRole] = {
        leaf.name: find_image_role(leaf, image_layout) for leaf in leaves
    }
    if has_info_mask and MASK_LEAF not in roles:
        leaves.append(make_mask_leaf(action))
        roles[MASK_LEAF] = "action_mask"
    for leaf in leaves:
        is_mask = leaf.name == MASK_LEAF and can_be_masked(action) and len(leaves) > 1
        if is_mask and math.prod(leaf.shape) == action.num_logits:
            roles[leaf.name] = "action_mask"
    return EnvironmentSpec(
        observation_leaves=tuple(
            dataclasses.replace(leaf, role=roles[leaf.name])
            for leaf in sorted(leaves, key=lambda leaf: leaf.name)
        ),
        action=action,
        frame_stack=frame_stack if frame_stack > 1 else 0,
        one_hot_leaves=tuple(
            OneHotLeaf(
                part.leaf.name,
                part.shape,
                tuple(part.one_hot.starts.tolist()),
                tuple(part.one_hot.sizes.tolist()),
            )
            for part in parts
            if part.one_hot is not None
        ),
    )


def find_image_role(leaf: TensorSpec, image_layout: object = None) -> TensorRole:
    """Returns the role of an observation leaf: where the channels of an image of rank 3 are.

    Args:
      leaf: its shape is looked at.
      image_layout: what the environment declares, "HWC" or "CHW". None: channels are last, as in
        Gymnasium's images, unless the first dimension is at most half of each of the others
        (stacked frames [4, 84, 84], images [3, 64, 64] for PyTorch) and the last is not.

    Raises:
      UnsupportedSpaceError: `image_layout` is something else.
    """
    if image_layout not in (None, "HWC", "CHW"):
        raise UnsupportedSpaceError(
            f'metadata["image_layout"] of the environment: expected "HWC" (height, width, '
            f'channels) or "CHW", got {image_layout!r}'
        )
    if len(leaf.shape) != 3:
        return ""
    if image_layout is None:
        first, middle, last = leaf.shape
        image_layout = "CHW" if 2 * first <= min(middle, last) else "HWC"
    return "image_chw" if image_layout == "CHW" else "image_hwc"
