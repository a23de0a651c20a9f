"""The bound of every field of a learner's responses, and the door of clients that applies it.

Called by clients for each response before anything looks at it, so that a broken or hostile
learner can end a client with a clear error at most: no endless loop, no MemoryError, no traceback.
As `field_bounds`, which has the messages that requests hold as well. No grpc.
"""

from __future__ import annotations

import math
from typing import TypeVar

from google.protobuf.message import Message

from impala_common.codec.bounds_table import Bound, BoundsTable, Exempt, Items, Number, Text
from impala_common.codec.field_bounds import BOUNDS, MAX_SLOTS_PER_CLIENT, MAX_UNROLLS_PER_MESSAGE
from impala_common.errors import InvalidResponseError
from impala_common.rpc.limits import MAX_MESSAGE_BYTES, PROTOCOL_VERSION

_COUNT = 2**31 - 1
_NUMBER = 2**62
_IDENTITY = Exempt("a random 64-bit identity, compared for equality only")
_BOOL = Exempt("a bool has two values")
_ENUM = Number(0, 127)
_NAME = Text(256)
_TEXT = Text(1 << 16)
_WIDTH = Number(0, 1 << 16)
_SHARE = Number(0.0, 1.0)
_TENSORS = Items(4096)
_Response = TypeVar("_Response", bound=Message)

RESPONSE_BOUNDS: dict[str, dict[str, Bound]] = {
    "LearnerHeader": {
        "learner_run_id": _IDENTITY,
        "policy_version": Number(-1, _NUMBER),
        "trained_steps": Number(0, _NUMBER),
    },
    "GetConfigResponse": {
        "protocol_version": Number(0, 1024 * PROTOCOL_VERSION),
        "environment_slot_count": Number(0, 1 << 16),
    },
    "EnvironmentOptions": {
        "atari_frame_skip": Number(0, 1024),
        "atari_episodic_life": _BOOL,
        "atari_fire_reset": _BOOL,
        "atari_noop_max": Number(0, 1 << 16),
        "atari_sticky_action_probability": _SHARE,
        "atari_frame_stack": Number(0, 1024),
    },
    "RegisterResponse": {
        "session_epoch": Number(0, _NUMBER),
        "actor_index": Number(0, _COUNT),
        "seed": Number(0, 2**63 - 1),
        "is_lockstep": _BOOL,
        "refreshes_weights_each_step": _BOOL,
        "weights": _TENSORS,
        "redirect_address": _NAME,
    },
    "UnrollSpec": {
        "unroll_length": Number(1, 1 << 20),
        "leaves": Items(512),
        "uses_unique_frames": _BOOL,
    },
    "UnrollLeaf": {"rows": Number(0, 1 << 21)},
    "ModelSpec": {
        "name": _NAME,
        "hidden_sizes": Items(64, _WIDTH),
        "feature_dim": _WIDTH,
        "hidden_dim": _WIDTH,
        "init_method": _NAME,
        "activation": _NAME,
        "use_previous_action_and_reward": _BOOL,
        "observation_scale": Number(-1e30, 1e30),
        "normalise_observations": _BOOL,
        "observation_clip": Number(0.0, math.inf),
        "normalise_rewards": _BOOL,
        "recurrence": _NAME,
        "log_std_init": Number(-1e3, 1e3),
        "normalise_integers": _BOOL,
    },
    "LearnerLimits": {
        "window": Number(1, 1024),
        "max_unrolls_per_message": Number(1, MAX_UNROLLS_PER_MESSAGE),
        "max_message_bytes": Number(1, 1 << 31),
    },
    "GetWeightsResponse": {"chunk": Exempt("bounded by what the header of the call announces")},
    "WeightsHeader": {
        "is_not_modified": _BOOL,
        "total_bytes": Exempt(
            "judged by `assemble_weights`: at most the bytes of the run's weights"
        ),
        "digest": Exempt("compared with the data's digest"),
    },
    "Verdict": {
        "sequence_number": Number(0, 2**63 - 1),
        "outcome": Number(0, 5),
        "text": _TEXT,
    },
    "Drain": {"reason": _ENUM},
    # Of a policy server. Thin actors do without this table: they check sizes where they decode.
    "PlayWelcome": {
        "protocol_version": Number(0, 1024 * PROTOCOL_VERSION),
        "max_message_bytes": Number(0, 1 << 31),
    },
    "SlotActions": {
        "slots": Items(MAX_SLOTS_PER_CLIENT, Number(0, MAX_SLOTS_PER_CLIENT - 1)),
        "step_numbers": Items(MAX_SLOTS_PER_CLIENT, Number(0, _NUMBER)),
        "parts": Exempt("each has as many bytes as its part and the slots say"),
        "policy_version": Number(-1, _NUMBER),
        "logits": Exempt("as many bytes as the slots and the action say"),
    },
    "LostSlots": {"slots": Items(MAX_SLOTS_PER_CLIENT, Number(0, MAX_SLOTS_PER_CLIENT - 1))},
    "PlayDrain": {"reason": _ENUM},
    "WatchCandidatesResponse": {"end": _ENUM, "ticket": _IDENTITY},
    "Candidate": {
        "name": _NAME,
        "trained_steps": Number(0, _NUMBER),
        "policy_version": Number(0, _NUMBER),
        "episode_count": Number(1, 1 << 20),
        "seed": Number(0, _COUNT),
        "observation_leaves": Items(512),
    },
    "GetCandidateWeightsResponse": {
        "chunk": Exempt("bounded by what the header of the call announces")
    },
    "ReportEvaluationResponse": {
        "is_best": _BOOL,
        "is_duplicate": _BOOL,
        "is_doubtful": _BOOL,
    },
    "LearnerStatus": {
        "state": Number(0, 5),
        "run_path": _TEXT,
        "environment_id": _TEXT,
        "total_steps": Number(0, _NUMBER),
        "metrics": Items(4096, _NAME),
        "last_checkpoint": _NAME,
        "device": _TEXT,
        "model": _TEXT,
        "bottleneck": _TEXT,
        "storage_bytes": Number(0, _NUMBER),
        "connected_actor_count": Number(0, _COUNT),
        "banned_actor_count": Number(0, _COUNT),
        "address": _TEXT,
        "software_version": _NAME,
        "protocol_version": Number(0, _COUNT),
        "trouble": _TEXT,
        "findings": Items(1024, _TEXT),
    },
    "ListActorsResponse": {
        "actors": Items(1 << 16),
        "banned_actor_ids": Items(1 << 16, _NAME),
        "next_page_token": Text(64),
    },
    "ActorTotals": {
        "actor_count": Number(0, _COUNT),
        "connected_actor_count": Number(0, _COUNT),
        "environment_slot_count": Number(0, _NUMBER),
        "steps_per_second": Number(0.0, 1e18),
        "accepted_unroll_count": Number(0, _NUMBER),
        "duplicate_unroll_count": Number(0, _NUMBER),
        "rejected_unroll_count": Number(0, _NUMBER),
        "max_policy_lag": Number(0, _NUMBER),
    },
    "ActorStatus": {
        "actor_id": _NAME,
        "host": _NAME,
        "actor_index": Number(0, _COUNT),
        "session_epoch": Number(0, _NUMBER),
        "is_connected": _BOOL,
        "environment_slot_count": Number(0, _COUNT),
        "steps_per_second": Number(0.0, 1e18),
        "accepted_unroll_count": Number(0, _NUMBER),
        "duplicate_unroll_count": Number(0, _NUMBER),
        "rejected_unroll_count": Number(0, _NUMBER),
        "policy_lag": Number(0, _NUMBER),
    },
    "PauseResponse": {"state": Number(0, 5)},
    "ResumeResponse": {"state": Number(0, 5)},
    "SaveCheckpointResponse": {"is_new": _BOOL},
    "ListCheckpointsResponse": {"checkpoints": Items(1 << 16)},
    "CheckpointInfo": {
        "name": _NAME,
        "trained_steps": Number(0, _NUMBER),
        "policy_version": Number(-1, _NUMBER),
        "total_bytes": Number(0, _NUMBER),
        "is_kept": _BOOL,
    },
    "RollbackResponse": {
        "state": Number(0, 5),
        "trained_steps_before": Number(0, _NUMBER),
        "saved_as": _NAME,
    },
    "SetParameterResponse": {"value_before": _TEXT, "trained_steps": Number(0, _NUMBER)},
    "ListParametersResponse": {"parameters": _TENSORS},
    "Parameter": {
        "name": _NAME,
        "value": _TEXT,
        "configured_value": _TEXT,
        "bounds": _TEXT,
        "meaning": _TEXT,
    },
    "EvictActorResponse": {"was_connected": _BOOL},
    "DrainResponse": {"state": Number(0, 5), "checkpoint": _NAME},
    "SetLogLevelResponse": {"level_before": Number(0, 4)},
    "ClearBestResponse": {"name": _NAME, "return_mean": Number(-math.inf, math.inf)},
    "ProfileResponse": {"path": _TEXT, "total_bytes": Number(0, _NUMBER)},
    "ListClientsResponse": {
        "clients": Items(1000),
        "next_page_token": Text(64),
        "client_count": Number(0, _COUNT),
        "is_draining": _BOOL,
    },
    "ClientStatus": {
        "client_id": _NAME,
        "client_run_id": _IDENTITY,
        "peer": _NAME,
        "is_connected": _BOOL,
        "slot_count": Number(0, _COUNT),
        "live_slot_count": Number(0, _COUNT),
        "is_evaluation": _BOOL,
        "steps_per_second": Number(0.0, 1e18),
        "observation_count": Number(0, _NUMBER),
        "repetition_count": Number(0, _NUMBER),
        "policy_version": Number(-1, _NUMBER),
    },
    "DrainClientsResponse": {"connected_client_count": Number(0, _COUNT)},
    "Timestamp": {  # as its own documentation says: the years 1 to 9999
        "seconds": Number(-62_135_596_800, 253_402_300_799),
        "nanos": Number(0, 999_999_999),
    },
}
"""Bound of every field by message, for messages that no request holds."""

_TABLE = BoundsTable(BOUNDS | RESPONSE_BOUNDS)


def checked_response(response: _Response) -> _Response:
    """Returns a response.

    Raises:
      InvalidResponseError: names the first field that is out of its bound.
    """
    if text := _TABLE.find_violation(response):
        raise InvalidResponseError(f"the learner sent {response.DESCRIPTOR.name}.{text}")
    return response


def require_unroll_size(num_bytes: int, num_slots: int) -> None:
    """Raises InvalidResponseError unless the unrolls of all slots fit into one message."""
    if num_bytes * num_slots > MAX_MESSAGE_BYTES:
        raise InvalidResponseError(
            f"the learner asks for unrolls of {num_bytes} bytes from {num_slots} environment "
            f"slots: expected at most {MAX_MESSAGE_BYTES} bytes together"
        )
