import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from impala_rl.v1 import header_pb2 as _header_pb2
from impala_rl.v1 import spec_pb2 as _spec_pb2
from impala_rl.v1 import tensor_pb2 as _tensor_pb2
from impala_rl.v1 import unroll_pb2 as _unroll_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VerdictOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_OUTCOME_UNSPECIFIED: _ClassVar[VerdictOutcome]
    VERDICT_OUTCOME_ACCEPTED: _ClassVar[VerdictOutcome]
    VERDICT_OUTCOME_DUPLICATE: _ClassVar[VerdictOutcome]
    VERDICT_OUTCOME_STALE: _ClassVar[VerdictOutcome]
    VERDICT_OUTCOME_CAPACITY: _ClassVar[VerdictOutcome]
    VERDICT_OUTCOME_INVALID: _ClassVar[VerdictOutcome]

class DrainReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DRAIN_REASON_UNSPECIFIED: _ClassVar[DrainReason]
    DRAIN_REASON_FINISHED: _ClassVar[DrainReason]
    DRAIN_REASON_STOPPING: _ClassVar[DrainReason]
VERDICT_OUTCOME_UNSPECIFIED: VerdictOutcome
VERDICT_OUTCOME_ACCEPTED: VerdictOutcome
VERDICT_OUTCOME_DUPLICATE: VerdictOutcome
VERDICT_OUTCOME_STALE: VerdictOutcome
VERDICT_OUTCOME_CAPACITY: VerdictOutcome
VERDICT_OUTCOME_INVALID: VerdictOutcome
DRAIN_REASON_UNSPECIFIED: DrainReason
DRAIN_REASON_FINISHED: DrainReason
DRAIN_REASON_STOPPING: DrainReason

class GetConfigRequest(_message.Message):
    __slots__ = ("actor", "protocol_version")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    actor: _header_pb2.ActorHeader
    protocol_version: int
    def __init__(self, actor: _Optional[_Union[_header_pb2.ActorHeader, _Mapping]] = ..., protocol_version: _Optional[int] = ...) -> None: ...

class GetConfigResponse(_message.Message):
    __slots__ = ("learner", "protocol_version", "environment_slot_count", "environment_options")
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_SLOT_COUNT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    learner: _header_pb2.LearnerHeader
    protocol_version: int
    environment_slot_count: int
    environment_options: EnvironmentOptions
    def __init__(self, learner: _Optional[_Union[_header_pb2.LearnerHeader, _Mapping]] = ..., protocol_version: _Optional[int] = ..., environment_slot_count: _Optional[int] = ..., environment_options: _Optional[_Union[EnvironmentOptions, _Mapping]] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("actor", "protocol_version", "environment", "environment_slot_count", "host", "model", "follows_redirects")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_SLOT_COUNT_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FOLLOWS_REDIRECTS_FIELD_NUMBER: _ClassVar[int]
    actor: _header_pb2.ActorHeader
    protocol_version: int
    environment: _spec_pb2.EnvironmentSpec
    environment_slot_count: int
    host: str
    model: str
    follows_redirects: bool
    def __init__(self, actor: _Optional[_Union[_header_pb2.ActorHeader, _Mapping]] = ..., protocol_version: _Optional[int] = ..., environment: _Optional[_Union[_spec_pb2.EnvironmentSpec, _Mapping]] = ..., environment_slot_count: _Optional[int] = ..., host: _Optional[str] = ..., model: _Optional[str] = ..., follows_redirects: _Optional[bool] = ...) -> None: ...

class RegisterResponse(_message.Message):
    __slots__ = ("learner", "session_epoch", "actor_index", "seed", "unroll", "model", "limits", "is_lockstep", "weights", "refreshes_weights_each_step", "redirect_address")
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    SESSION_EPOCH_FIELD_NUMBER: _ClassVar[int]
    ACTOR_INDEX_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    UNROLL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    IS_LOCKSTEP_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    REFRESHES_WEIGHTS_EACH_STEP_FIELD_NUMBER: _ClassVar[int]
    REDIRECT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    learner: _header_pb2.LearnerHeader
    session_epoch: int
    actor_index: int
    seed: int
    unroll: _spec_pb2.UnrollSpec
    model: _spec_pb2.ModelSpec
    limits: LearnerLimits
    is_lockstep: bool
    weights: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    refreshes_weights_each_step: bool
    redirect_address: str
    def __init__(self, learner: _Optional[_Union[_header_pb2.LearnerHeader, _Mapping]] = ..., session_epoch: _Optional[int] = ..., actor_index: _Optional[int] = ..., seed: _Optional[int] = ..., unroll: _Optional[_Union[_spec_pb2.UnrollSpec, _Mapping]] = ..., model: _Optional[_Union[_spec_pb2.ModelSpec, _Mapping]] = ..., limits: _Optional[_Union[LearnerLimits, _Mapping]] = ..., is_lockstep: _Optional[bool] = ..., weights: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., refreshes_weights_each_step: _Optional[bool] = ..., redirect_address: _Optional[str] = ...) -> None: ...

class EnvironmentOptions(_message.Message):
    __slots__ = ("atari_frame_skip", "atari_episodic_life", "atari_fire_reset", "atari_noop_max", "atari_sticky_action_probability", "atari_frame_stack")
    ATARI_FRAME_SKIP_FIELD_NUMBER: _ClassVar[int]
    ATARI_EPISODIC_LIFE_FIELD_NUMBER: _ClassVar[int]
    ATARI_FIRE_RESET_FIELD_NUMBER: _ClassVar[int]
    ATARI_NOOP_MAX_FIELD_NUMBER: _ClassVar[int]
    ATARI_STICKY_ACTION_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    ATARI_FRAME_STACK_FIELD_NUMBER: _ClassVar[int]
    atari_frame_skip: int
    atari_episodic_life: bool
    atari_fire_reset: bool
    atari_noop_max: int
    atari_sticky_action_probability: float
    atari_frame_stack: int
    def __init__(self, atari_frame_skip: _Optional[int] = ..., atari_episodic_life: _Optional[bool] = ..., atari_fire_reset: _Optional[bool] = ..., atari_noop_max: _Optional[int] = ..., atari_sticky_action_probability: _Optional[float] = ..., atari_frame_stack: _Optional[int] = ...) -> None: ...

class LearnerLimits(_message.Message):
    __slots__ = ("window", "max_unrolls_per_message", "max_message_bytes")
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    MAX_UNROLLS_PER_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    window: int
    max_unrolls_per_message: int
    max_message_bytes: int
    def __init__(self, window: _Optional[int] = ..., max_unrolls_per_message: _Optional[int] = ..., max_message_bytes: _Optional[int] = ...) -> None: ...

class GetWeightsRequest(_message.Message):
    __slots__ = ("learner_run_id", "have_version", "min_version", "max_wait")
    LEARNER_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    HAVE_VERSION_FIELD_NUMBER: _ClassVar[int]
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_FIELD_NUMBER: _ClassVar[int]
    learner_run_id: int
    have_version: int
    min_version: int
    max_wait: _duration_pb2.Duration
    def __init__(self, learner_run_id: _Optional[int] = ..., have_version: _Optional[int] = ..., min_version: _Optional[int] = ..., max_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetWeightsResponse(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: WeightsHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[WeightsHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class WeightsHeader(_message.Message):
    __slots__ = ("learner", "is_not_modified", "total_bytes", "digest")
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    IS_NOT_MODIFIED_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    learner: _header_pb2.LearnerHeader
    is_not_modified: bool
    total_bytes: int
    digest: int
    def __init__(self, learner: _Optional[_Union[_header_pb2.LearnerHeader, _Mapping]] = ..., is_not_modified: _Optional[bool] = ..., total_bytes: _Optional[int] = ..., digest: _Optional[int] = ...) -> None: ...

class PushUnrollsRequest(_message.Message):
    __slots__ = ("hello", "unrolls", "goodbye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    UNROLLS_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    hello: PushHello
    unrolls: _unroll_pb2.UnrollBatch
    goodbye: PushGoodbye
    def __init__(self, hello: _Optional[_Union[PushHello, _Mapping]] = ..., unrolls: _Optional[_Union[_unroll_pb2.UnrollBatch, _Mapping]] = ..., goodbye: _Optional[_Union[PushGoodbye, _Mapping]] = ...) -> None: ...

class PushHello(_message.Message):
    __slots__ = ("actor", "learner_run_id")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    LEARNER_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    actor: _header_pb2.ActorHeader
    learner_run_id: int
    def __init__(self, actor: _Optional[_Union[_header_pb2.ActorHeader, _Mapping]] = ..., learner_run_id: _Optional[int] = ...) -> None: ...

class PushGoodbye(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class PushUnrollsResponse(_message.Message):
    __slots__ = ("verdict", "drain")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    drain: Drain
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("learner", "sequence_number", "outcome", "text")
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    learner: _header_pb2.LearnerHeader
    sequence_number: int
    outcome: VerdictOutcome
    text: str
    def __init__(self, learner: _Optional[_Union[_header_pb2.LearnerHeader, _Mapping]] = ..., sequence_number: _Optional[int] = ..., outcome: _Optional[_Union[VerdictOutcome, str]] = ..., text: _Optional[str] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("learner", "reason")
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    learner: _header_pb2.LearnerHeader
    reason: DrainReason
    def __init__(self, learner: _Optional[_Union[_header_pb2.LearnerHeader, _Mapping]] = ..., reason: _Optional[_Union[DrainReason, str]] = ...) -> None: ...
