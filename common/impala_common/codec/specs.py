"""Specifications to messages and back. No grpc, no torch."""

from __future__ import annotations

import math

from impala_common.codec.tensors import DTYPE_TO_PROTO, PROTO_TO_DTYPE
from impala_common.config import EnvironmentConfig
from impala_common.errors import InvalidRequestError
from impala_common.specs import EnvironmentSpec, ModelSpec, TensorSpec, UnrollSpec
from impala_rl.v1 import learner_pb2 as pb
from impala_rl.v1 import tensor_pb2

_MAX_LEAVES = 256
_MAX_RANK = 6  # time and batch make it 8 on the wire
_MAX_ELEMENTS = 1 << 28


def pack_tensor_spec(spec: TensorSpec) -> tensor_pb2.TensorSpec:
    """Returns `spec` as a message."""
    return tensor_pb2.TensorSpec(name=spec.name, dtype=DTYPE_TO_PROTO[spec.dtype], shape=spec.shape)


def unpack_tensor_spec(message: tensor_pb2.TensorSpec) -> TensorSpec:
    """Returns the specification in `message`, refusing what no array could be."""
    if message.dtype not in PROTO_TO_DTYPE:
        raise InvalidRequestError(f"{message.name[:64]!r}: unknown dtype {message.dtype}")
    # The rank first: the product of a hostile number of lengths takes for ever.
    if (
        len(message.shape) > _MAX_RANK
        or min(message.shape, default=1) < 1
        or math.prod(message.shape) > _MAX_ELEMENTS
    ):
        raise InvalidRequestError(
            f"{message.name[:64]!r}: shape {tuple(message.shape[:_MAX_RANK])} must have at most "
            f"{_MAX_RANK} positive dimensions and {_MAX_ELEMENTS} elements"
        )
    return TensorSpec(message.name, tuple(message.shape), PROTO_TO_DTYPE[message.dtype])


def pack_environment_spec(spec: EnvironmentSpec) -> pb.EnvironmentSpec:
    """Returns `spec` as a message."""
    return pb.EnvironmentSpec(
        observation_leaves=[pack_tensor_spec(leaf) for leaf in spec.observation_leaves],
        frame_stack=spec.frame_stack,
        action_count=spec.num_actions,
        action_start=spec.action_start,
    )


def unpack_environment_spec(message: pb.EnvironmentSpec) -> EnvironmentSpec:
    """Returns the specification in `message`.

    Raises:
      InvalidRequestError: if it describes nothing that could be trained on.
    """
    if not 1 <= len(message.observation_leaves) <= _MAX_LEAVES:
        raise InvalidRequestError(f"observation_leaves: expected 1 to {_MAX_LEAVES}")
    leaves = tuple(unpack_tensor_spec(leaf) for leaf in message.observation_leaves)
    names = [leaf.name for leaf in leaves]
    if names != sorted(set(names)) or not all(
        name == "observation" or name.startswith("observation/") for name in names
    ):
        raise InvalidRequestError(
            "observation_leaves: expected distinct sorted names, observation or observation/..."
        )
    if not 1 <= message.action_count <= 1 << 16:
        raise InvalidRequestError(f"action_count: expected 1 to 65536, got {message.action_count}")
    stack = message.frame_stack
    if stack < 0 or (stack > 1 and (len(leaves) != 1 or leaves[0].shape[:1] != (stack,))):
        raise InvalidRequestError(
            f"frame_stack: {stack} must be dimension 0 of the only observation leaf"
        )
    return EnvironmentSpec(
        observation_leaves=leaves,
        num_actions=message.action_count,
        action_start=message.action_start,
        frame_stack=stack,
    )


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

    Raises:
      InvalidRequestError: if the leaves are not those this version knows.
    """
    state = tuple(
        unpack_tensor_spec(leaf.tensor)
        for leaf in message.leaves
        if leaf.tensor.name.startswith("initial_agent_state/")
    )
    spec = UnrollSpec(message.unroll_length, environment, state)
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
    )


def pack_environment_options(config: EnvironmentConfig) -> pb.EnvironmentOptions:
    """Returns the preparation of environments in `config` as a message (never the id)."""
    return pb.EnvironmentOptions(
        atari_frame_skip=config.atari_frame_skip,
        atari_frame_stack=config.atari_frame_stack,
        atari_episodic_life=config.atari_episodic_life,
        atari_fire_reset=config.atari_fire_reset,
        atari_noop_max=config.atari_noop_max,
        atari_sticky_action_probability=config.atari_sticky_action_probability,
    )
