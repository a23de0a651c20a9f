"""The bound of every field that comes from outside: one table, and the door that applies it.

Called by the server for each request before anything looks at it. A test walks all fields of all
request messages and demands an entry here, so that no field is added without a bound. Where a
decoder has a narrower rule of the run's own (`UnrollDecoder`, `unpack_environment_spec`), that
comes second. No grpc.
"""

from __future__ import annotations

import math

import numpy as np
from google.protobuf.message import Message

from impala_common.codec.bounds_table import Bound, BoundsTable, Exempt, Items, Number, Text
from impala_common.errors import InvalidRequestError
from impala_common.spec.specs import MAX_OBSERVATION_LEAVES

MAX_ABS_RETURN = 1e18
"""Largest return of an episode: sums and squares of many stay finite."""
MAX_FAILURES_PER_MESSAGE = 1024
"""Largest environment_failure_count; actors say the rest in later messages."""
MAX_UNROLLS_PER_MESSAGE = 1024
MAX_SLOTS_PER_CLIENT = 1024
MAX_ABS_REWARD = float(np.finfo(np.float32).max)
"""Largest reward: every finite float."""

_COUNT = 2**31 - 1
_NUMBER = 2**62
_SECONDS = 1e9
_DURATION_S = 315_576_000_000
_MAX_COMPONENTS = 1 << 16

_FLAG = Exempt("a bool has two values")
_IDENTITY = Exempt("a random 64-bit identity, compared for equality only")
_ENUM = Number(0, 127)
_RETURN = Number(-MAX_ABS_RETURN, MAX_ABS_RETURN)
_ADMIN_TEXT = Text(1 << 20)  # of a whole message; shorter ones are refused with an audit line

BOUNDS: dict[str, dict[str, Bound]] = {
    "ActorHeader": {
        "actor_id": Text(64),
        "actor_run_id": _IDENTITY,
        "session_epoch": Number(0, _NUMBER),
    },
    "GetConfigRequest": {"protocol_version": Number(0, _COUNT)},
    "RegisterRequest": {
        "protocol_version": Number(0, _COUNT),
        "environment_slot_count": Number(0, _COUNT),
        "host": Text(256),
        "model": Text(256),
        "follows_redirects": _FLAG,
    },
    "EnvironmentSpec": {
        "observation_leaves": Items(MAX_OBSERVATION_LEAVES),
        "frame_stack": Number(0, 1024),
        "one_hot_leaves": Items(MAX_OBSERVATION_LEAVES),
    },
    "OneHotLeaf": {
        "name": Text(256),
        "shape": Items(32, Number(1, _COUNT)),
        "starts": Items(_MAX_COMPONENTS, Number(-(2**63), 2**63 - 1)),
        "sizes": Items(_MAX_COMPONENTS, Number(1, _COUNT)),
    },
    "ActionSpec": {"parts": Items(256)},
    "ActionPart": {
        "kind": _ENUM,
        "sizes": Items(_MAX_COMPONENTS, Number(1, _MAX_COMPONENTS)),
        "starts": Items(_MAX_COMPONENTS, Number(-(2**63), 2**63 - 1)),
        "lows": Items(_MAX_COMPONENTS, Number(-math.inf, math.inf)),
        "highs": Items(_MAX_COMPONENTS, Number(-math.inf, math.inf)),
    },
    "TensorSpec": {
        "name": Text(256),
        "dtype": _ENUM,
        "shape": Items(8, Number(1, _COUNT)),
        "role": _ENUM,
    },
    "GetWeightsRequest": {
        "learner_run_id": _IDENTITY,
        "have_version": Number(-1, _NUMBER),
        "min_version": Number(0, _NUMBER),
    },
    "PushHello": {"learner_run_id": _IDENTITY},
    "PushGoodbye": {"text": Text(1024)},
    "UnrollBatch": {
        "sequence_number": Exempt("judged by the intake: above the last of its session"),
        "policy_version": Exempt("judged by the intake: 0 to the newest version there is"),
        "unroll_count": Number(1, MAX_UNROLLS_PER_MESSAGE),
        "leaves": Items(512),
        "episodes": Items(1 << 16),
        "digest": Exempt("compared with the data's digest"),
        "environment_failure_count": Number(0, MAX_FAILURES_PER_MESSAGE),
    },
    "Tensor": {
        "dtype": _ENUM,
        "shape": Items(8, Number(0, _COUNT)),
        "data": Exempt("bounded by MAX_MESSAGE_BYTES and, decoded, by the run's specification"),
        "codec": _ENUM,
    },
    "FrameStack": {"frame_counts": Items(MAX_UNROLLS_PER_MESSAGE, Number(1, _COUNT))},
    "EpisodeSummary": {
        "episode_return": _RETURN,
        "step_count": Number(0, 2**48),
        "environment_slot": Number(0, _COUNT),
    },
    "ActorTimes": {
        "environment_s": Number(0.0, _SECONDS),
        "inference_s": Number(0.0, _SECONDS),
        "blocked_s": Number(0.0, _SECONDS),
    },
    "PlayHello": {
        "client_id": Text(64),
        "client_run_id": _IDENTITY,
        "protocol_version": Number(0, _COUNT),
        "slot_count": Number(1, MAX_SLOTS_PER_CLIENT),
        "is_evaluation": _FLAG,
        "is_greedy": _FLAG,
        "wants_logits": _FLAG,
    },
    "SlotObservations": {
        "slots": Items(MAX_SLOTS_PER_CLIENT, Number(0, MAX_SLOTS_PER_CLIENT - 1)),
        "step_numbers": Items(MAX_SLOTS_PER_CLIENT, Number(0, _NUMBER)),
        "leaves": Exempt("each has as many bytes as its leaf and the slots say"),
        "rewards": Items(MAX_SLOTS_PER_CLIENT, Number(-MAX_ABS_REWARD, MAX_ABS_REWARD)),
        "terminated": Exempt("as many as slots, or none"),
        "truncated": Exempt("as many as slots, or none"),
        "is_first": Exempt("as many as slots, or none"),
        "codec": _ENUM,
    },
    "PlayGoodbye": {"text": Text(1024)},
    "WatchCandidatesRequest": {
        "evaluator_id": Text(64),
        "protocol_version": Number(0, _COUNT),
        "model": Text(256),
    },
    "GetCandidateWeightsRequest": {
        "learner_run_id": _IDENTITY,
        "candidate": Text(64),
        "ticket": _IDENTITY,
    },
    "ReportEvaluationRequest": {
        "evaluator_id": Text(64),
        "learner_run_id": _IDENTITY,
        "candidate": Text(64),
        "ticket": _IDENTITY,
        "failure": Text(1024),
    },
    "EvaluationResult": {
        "episode_count": Number(0, 1 << 20),
        "return_mean": _RETURN,
        "standard_error": Number(0.0, MAX_ABS_RETURN),
        "confidence_low": Number(-1e20, 1e20),
        "confidence_high": Number(-1e20, 1e20),
        "return_min": _RETURN,
        "return_max": _RETURN,
        "length_mean": Number(0.0, 2.0**48),
        "length_min": Number(0, 2**48),
        "length_max": Number(0, 2**48),
        "cut_count": Number(0, 1 << 20),
    },
    "ListActorsRequest": {
        "page_size": Number(0, 1000),
        "page_token": Text(64),
        "text": Text(64),
        "is_connected": _FLAG,
        "is_rejected": _FLAG,
    },
    "MutationHeader": {"request_id": Text(256), "expected_run_id": _IDENTITY},
    "SaveCheckpointRequest": {"name": _ADMIN_TEXT},
    "RollbackRequest": {"name": _ADMIN_TEXT},
    "SetParameterRequest": {"name": _ADMIN_TEXT, "value": _ADMIN_TEXT},
    "EvictActorRequest": {
        "actor_id": _ADMIN_TEXT,
        "is_ban": _FLAG,
        "text": _ADMIN_TEXT,
    },
    "UnbanActorRequest": {"actor_id": _ADMIN_TEXT},
    "SetLogLevelRequest": {"level": _ENUM},
    "ProfileRequest": {
        "update_count": Exempt("judged by the learner, with an audit line: 1 to 100")
    },
    "ListClientsRequest": {"page_size": Number(0, 1000), "page_token": Text(64)},
    "Duration": {  # as its own documentation says; what is too short or long is cut by its user
        "seconds": Number(-_DURATION_S, _DURATION_S),
        "nanos": Number(-999_999_999, 999_999_999),
    },
}
"""Bound of every field by message; fields that hold one message are bounded by that one's."""


_TABLE = BoundsTable(BOUNDS)


def validate_bounds(message: Message) -> None:
    """Raises InvalidRequestError, naming the first field that is out of its bound."""
    if text := find_violation(message):
        raise InvalidRequestError(text)


def find_violation(message: Message) -> str:
    """Returns which field of a request is out of its bound, expected and got; "" for none.

    A message of another package that is not in the table (gRPC's own services) is let through.
    """
    return _TABLE.find_violation(message)
