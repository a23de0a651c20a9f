"""Random unrolls that fit a specification, for tests of codec and transport.

No environment and no network is needed. numpy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from impala_common.codec.frames import split_frames
from impala_common.codec.unrolls import Unrolls, pack_unrolls
from impala_common.spec.specs import ActionSpec, EnvironmentSpec, TensorSpec, UnrollLeaf, UnrollSpec
from impala_rl.v1 import unroll_pb2

Array = np.ndarray[Any, Any]


def make_vector_spec(
    unroll_length: int = 4,
    width: int = 3,
    num_actions: int = 5,
    action: ActionSpec | None = None,
) -> UnrollSpec:
    """Returns a specification with one vector observation and a recurrent state.

    `action` takes the place of a choice of `num_actions`.
    """
    action = action or ActionSpec.discrete(num_actions)
    environment = EnvironmentSpec((TensorSpec("observation", (width,), "float32"),), action)
    state = TensorSpec("initial_agent_state/0", (1, 2), "float32")
    return UnrollSpec(unroll_length, environment, (state,))


def make_frames_spec(unroll_length: int = 4, stack: int = 3, side: int = 4) -> UnrollSpec:
    """Returns a specification whose observation is a stack of frames [stack, side, side]."""
    leaf = TensorSpec("observation", (stack, side, side), "uint8")
    environment = EnvironmentSpec((leaf,), ActionSpec.discrete(5), frame_stack=stack)
    return UnrollSpec(unroll_length, environment)


def make_unrolls(spec: UnrollSpec, num_unrolls: int, seed: int) -> dict[str, Array]:
    """Returns every leaf of `num_unrolls` unrolls by name; stacks move on, with a few resets."""
    random = np.random.default_rng(seed)
    unrolls = {
        leaf.tensor.name: _make_leaf(spec, leaf, num_unrolls, random) for leaf in spec.leaves
    }
    if spec.uses_unique_frames:
        _move_frames_on(unrolls[spec.frame_leaf.name], random)
    return unrolls


def split_unrolls(unrolls: dict[str, Array], spec: UnrollSpec) -> Unrolls:
    """Returns the unrolls of `make_unrolls` with stacks split, in an actor's form."""
    frames = None
    if spec.uses_unique_frames:
        unrolls = dict(unrolls)
        frames = split_frames(unrolls.pop(spec.frame_leaf.name))
    return Unrolls(unrolls["actions"].shape[1], unrolls, frames)


def pack_stacked(
    unrolls: dict[str, Array], spec: UnrollSpec, compress: bool
) -> unroll_pb2.UnrollBatch:
    """Returns the unrolls of `make_unrolls` as a message."""
    return pack_unrolls(split_unrolls(unrolls, spec), spec, compress)


def make_actions(action: ActionSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Returns random flat actions of `shape`, whose last dimensions are those of the action."""
    if action.is_single_categorical:
        return random.integers(0, action.num_logits, shape)
    actions = np.empty(shape, action.tensor.dtype)
    for group in action.groups:
        part = actions[..., group.actions]
        if group.kind == "gaussian":
            part[...] = random.standard_normal(part.shape)
        else:
            part[...] = random.integers(0, max(group.size, 2), part.shape)
    return actions


def _make_leaf(
    spec: UnrollSpec, leaf: UnrollLeaf, num_unrolls: int, random: np.random.Generator
) -> Array:
    shape, dtype = leaf.shape(spec.unroll_length, num_unrolls), np.dtype(leaf.tensor.dtype)
    if leaf.tensor.name in ("actions", "previous_action"):
        return make_actions(spec.environment.action, shape, random)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return random.random(shape) < 0.3
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def _move_frames_on(observations: Array, random: np.random.Generator) -> None:
    """Makes row t+1 row t moved on by one frame, but for about one row in five."""
    num_rows, num_unrolls = observations.shape[:2]
    is_reset = random.random((num_rows, num_unrolls)) < 0.2
    for t in range(1, num_rows):
        for n in np.flatnonzero(~is_reset[t]):
            observations[t, n, :-1] = observations[t - 1, n, 1:]
