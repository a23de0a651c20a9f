"""Packs and unpacks specifications. No grpc, no torch."""

from __future__ import annotations

import math

from impala_common.codec.action_specs import pack_action_spec, unpack_action_spec
from impala_common.codec.tensor_specs import pack_tensor_spec, unpack_tensor_spec
from impala_common.config import EnvironmentConfig
from impala_common.errors import InvalidRequestError
from impala_common.spec.one_hot import OneHotLeaf
from impala_common.spec.specs import (
    MAX_OBSERVATION_LEAVES,
    EnvironmentSpec,
    ModelSpec,
    TensorSpec,
    UnrollSpec,
)
from impala_rl.v1 import learner_pb2
from impala_rl.v1 import spec_pb2 as pb


def pack_environment_spec(spec: EnvironmentSpec) -> pb.EnvironmentSpec:
    """Returns `spec` as a message."""
    return pb.EnvironmentSpec(
        observation_leaves=[pack_tensor_spec(leaf) for leaf in spec.observation_leaves],
        frame_stack=spec.frame_stack,
        action=pack_action_spec(spec.action),
        one_hot_leaves=[
            pb.OneHotLeaf(name=one.name, shape=one.shape, starts=one.starts, sizes=one.sizes)
            for one in spec.one_hot_leaves
        ],
    )


def unpack_environment_spec(message: pb.EnvironmentSpec) -> EnvironmentSpec:
    """Returns the specification in `message`.

    Raises:
      InvalidRequestError: it cannot be trained on.
    """
    if not 1 <= len(message.observation_leaves) <= MAX_OBSERVATION_LEAVES:
        raise InvalidRequestError(f"observation_leaves: expected 1 to {MAX_OBSERVATION_LEAVES}")
    leaves = tuple(unpack_tensor_spec(leaf) for leaf in message.observation_leaves)
    names = [leaf.name for leaf in leaves]
    if names != sorted(set(names)) or not all(
        name == "observation" or name.startswith("observation/") for name in names
    ):
        raise InvalidRequestError(
            "observation_leaves: expected distinct sorted names, observation or observation/..."
        )
    stack = message.frame_stack
    if stack < 0 or (stack > 1 and (len(leaves) != 1 or leaves[0].shape[:1] != (stack,))):
        raise InvalidRequestError(
            f"frame_stack: {stack} must be dimension 0 of the only observation leaf"
        )
    action = unpack_action_spec(message.action)
    masks = [leaf for leaf in leaves if leaf.role == "action_mask"]
    if masks and (
        len(masks) > 1
        or len(leaves) == 1
        or math.prod(masks[0].shape) != action.num_logits
        or any(part.kind != "categorical" for part in action.parts)
    ):
        raise InvalidRequestError(
            f"{masks[0].name[:64]!r}: role action_mask expects one leaf beside others, of "
            f"{action.num_logits} elements, and actions that are all categorical"
        )
    one_hot_leaves = _unpack_one_hot_leaves(message, leaves)
    return EnvironmentSpec(leaves, action, stack, one_hot_leaves)


def _unpack_one_hot_leaves(
    message: pb.EnvironmentSpec, leaves: tuple[TensorSpec, ...]
) -> tuple[OneHotLeaf, ...]:
    """Returns those in `message`; raises InvalidRequestError where one does not fit its leaf."""
    by_name = {leaf.name: leaf for leaf in leaves}
    found: dict[str, OneHotLeaf] = {}
    for one in message.one_hot_leaves:
        leaf = by_name.get(one.name)
        count = math.prod(one.shape)
        if (
            leaf is None
            or one.name in found
            or (leaf.dtype, leaf.shape) != ("float32", (sum(one.sizes),))
            or (len(one.starts), len(one.sizes)) != (count, count)
            or min(one.sizes, default=0) < 1
        ):
            raise InvalidRequestError(
                f"one_hot_leaves: {one.name[:64]!r}: expected once, for a leaf float32 [sum of "
                "sizes], with a start and a size of at least 1 for each of shape"
            )
        found[one.name] = OneHotLeaf(
            one.name, tuple(one.shape), tuple(one.starts), tuple(one.sizes)
        )
    return tuple(found.values())


def pack_unroll_spec(spec: UnrollSpec) -> pb.UnrollSpec:
    """Returns `spec` as a message."""
    return pb.UnrollSpec(
        unroll_length=spec.unroll_length,
        leaves=[
            pb.UnrollLeaf(
                tensor=pack_tensor_spec(leaf.tensor), rows=leaf.num_rows(spec.unroll_length)
            )
            for leaf in spec.leaves
        ],
        uses_unique_frames=spec.uses_unique_frames,
    )


def unpack_unroll_spec(message: pb.UnrollSpec, environment: EnvironmentSpec) -> UnrollSpec:
    """Returns the specification in `message`, of unrolls from `environment`.

    The roles of the observation leaves are those of the message: the learner's.

    Raises:
      InvalidRequestError: the leaves are not those of this version.
    """
    leaves = [unpack_tensor_spec(leaf.tensor) for leaf in message.leaves]
    state = tuple(leaf for leaf in leaves if leaf.name.startswith("initial_agent_state/"))
    spec = UnrollSpec(message.unroll_length, environment.with_roles_of(leaves), state)
    if pack_unroll_spec(spec) != message:
        raise InvalidRequestError("unroll: the learner's leaves are not those this version knows")
    return spec


def pack_model_spec(spec: ModelSpec) -> pb.ModelSpec:
    """Returns `spec` as a message."""
    return pb.ModelSpec(
        name=spec.name,
        hidden_sizes=spec.hidden_sizes,
        feature_dim=spec.feature_dim,
        hidden_dim=spec.hidden_dim,
        recurrence=spec.recurrence,
        init_method=spec.init_method,
        activation=spec.activation,
        use_previous_action_and_reward=spec.use_previous_action_and_reward,
        observation_scale=spec.observation_scale,
        normalise_observations=spec.normalise_observations,
        observation_clip=spec.observation_clip,
        normalise_rewards=spec.normalise_rewards,
        log_std_init=spec.log_std_init,
        normalise_integers=spec.normalise_integers,
    )


def unpack_model_spec(message: pb.ModelSpec) -> ModelSpec:
    """Returns the model specification in `message`."""
    return ModelSpec(
        name=message.name,
        hidden_sizes=tuple(message.hidden_sizes),
        feature_dim=message.feature_dim,
        hidden_dim=message.hidden_dim,
        recurrence=message.recurrence,
        init_method=message.init_method,
        activation=message.activation,
        use_previous_action_and_reward=message.use_previous_action_and_reward,
        observation_scale=message.observation_scale,
        normalise_observations=message.normalise_observations,
        observation_clip=message.observation_clip,
        normalise_rewards=message.normalise_rewards,
        log_std_init=message.log_std_init,
        normalise_integers=message.normalise_integers,
    )


def pack_environment_options(config: EnvironmentConfig) -> learner_pb2.EnvironmentOptions:
    """Returns the environment settings in `config` as a message, without the id."""
    return learner_pb2.EnvironmentOptions(
        atari_frame_skip=config.atari_frame_skip,
        atari_frame_stack=config.atari_frame_stack,
        atari_episodic_life=config.atari_episodic_life,
        atari_fire_reset=config.atari_fire_reset,
        atari_noop_max=config.atari_noop_max,
        atari_sticky_action_probability=config.atari_sticky_action_probability,
    )
