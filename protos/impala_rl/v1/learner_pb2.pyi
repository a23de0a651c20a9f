import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from impala_rl.v1 import header_pb2 as _header_pb2
from impala_rl.v1 import tensor_pb2 as _tensor_pb2
from impala_rl.v1 import unroll_pb2 as _unroll_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ActionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_KIND_UNSPECIFIED: _ClassVar[ActionKind]
    ACTION_KIND_CATEGORICAL: _ClassVar[ActionKind]
    ACTION_KIND_BERNOULLI: _ClassVar[ActionKind]
    ACTION_KIND_GAUSSIAN: _ClassVar[ActionKind]

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
ACTION_KIND_UNSPECIFIED: ActionKind
ACTION_KIND_CATEGORICAL: ActionKind
ACTION_KIND_BERNOULLI: ActionKind
ACTION_KIND_GAUSSIAN: ActionKind
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
    __slots__ = ("actor", "protocol_version", "environment", "environment_slot_count", "host", "model")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_SLOT_COUNT_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    actor: _header_pb2.ActorHeader
    protocol_version: int
    environment: EnvironmentSpec
    environment_slot_count: int
    host: str
    model: str
    def __init__(self, actor: _Optional[_Union[_header_pb2.ActorHeader, _Mapping]] = ..., protocol_version: _Optional[int] = ..., environment: _Optional[_Union[EnvironmentSpec, _Mapping]] = ..., environment_slot_count: _Optional[int] = ..., host: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class RegisterResponse(_message.Message):
    __slots__ = ("learner", "session_epoch", "actor_index", "seed", "unroll", "model", "limits", "is_lockstep", "weights", "refreshes_weights_each_step")
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
    learner: _header_pb2.LearnerHeader
    session_epoch: int
    actor_index: int
    seed: int
    unroll: UnrollSpec
    model: ModelSpec
    limits: LearnerLimits
    is_lockstep: bool
    weights: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    refreshes_weights_each_step: bool
    def __init__(self, learner: _Optional[_Union[_header_pb2.LearnerHeader, _Mapping]] = ..., session_epoch: _Optional[int] = ..., actor_index: _Optional[int] = ..., seed: _Optional[int] = ..., unroll: _Optional[_Union[UnrollSpec, _Mapping]] = ..., model: _Optional[_Union[ModelSpec, _Mapping]] = ..., limits: _Optional[_Union[LearnerLimits, _Mapping]] = ..., is_lockstep: _Optional[bool] = ..., weights: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., refreshes_weights_each_step: _Optional[bool] = ...) -> None: ...

class EnvironmentSpec(_message.Message):
    __slots__ = ("observation_leaves", "frame_stack", "action")
    OBSERVATION_LEAVES_FIELD_NUMBER: _ClassVar[int]
    FRAME_STACK_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    observation_leaves: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    frame_stack: int
    action: ActionSpec
    def __init__(self, observation_leaves: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., frame_stack: _Optional[int] = ..., action: _Optional[_Union[ActionSpec, _Mapping]] = ...) -> None: ...

class ActionSpec(_message.Message):
    __slots__ = ("parts",)
    PARTS_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[ActionPart]
    def __init__(self, parts: _Optional[_Iterable[_Union[ActionPart, _Mapping]]] = ...) -> None: ...

class ActionPart(_message.Message):
    __slots__ = ("tensor", "kind", "sizes", "starts", "lows", "highs")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    LOWS_FIELD_NUMBER: _ClassVar[int]
    HIGHS_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.TensorSpec
    kind: ActionKind
    sizes: _containers.RepeatedScalarFieldContainer[int]
    starts: _containers.RepeatedScalarFieldContainer[int]
    lows: _containers.RepeatedScalarFieldContainer[float]
    highs: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.TensorSpec, _Mapping]] = ..., kind: _Optional[_Union[ActionKind, str]] = ..., sizes: _Optional[_Iterable[int]] = ..., starts: _Optional[_Iterable[int]] = ..., lows: _Optional[_Iterable[float]] = ..., highs: _Optional[_Iterable[float]] = ...) -> None: ...

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

class UnrollSpec(_message.Message):
    __slots__ = ("unroll_length", "leaves", "uses_unique_frames")
    UNROLL_LENGTH_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    USES_UNIQUE_FRAMES_FIELD_NUMBER: _ClassVar[int]
    unroll_length: int
    leaves: _containers.RepeatedCompositeFieldContainer[UnrollLeaf]
    uses_unique_frames: bool
    def __init__(self, unroll_length: _Optional[int] = ..., leaves: _Optional[_Iterable[_Union[UnrollLeaf, _Mapping]]] = ..., uses_unique_frames: _Optional[bool] = ...) -> None: ...

class UnrollLeaf(_message.Message):
    __slots__ = ("tensor", "rows")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.TensorSpec
    rows: int
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.TensorSpec, _Mapping]] = ..., rows: _Optional[int] = ...) -> None: ...

class ModelSpec(_message.Message):
    __slots__ = ("name", "hidden_sizes", "feature_dim", "hidden_dim", "init_method", "activation", "use_previous_action_and_reward", "observation_scale", "normalise_observations", "observation_clip", "normalise_rewards", "recurrence", "log_std_init")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SIZES_FIELD_NUMBER: _ClassVar[int]
    FEATURE_DIM_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_DIM_FIELD_NUMBER: _ClassVar[int]
    INIT_METHOD_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    USE_PREVIOUS_ACTION_AND_REWARD_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_SCALE_FIELD_NUMBER: _ClassVar[int]
    NORMALISE_OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_CLIP_FIELD_NUMBER: _ClassVar[int]
    NORMALISE_REWARDS_FIELD_NUMBER: _ClassVar[int]
    RECURRENCE_FIELD_NUMBER: _ClassVar[int]
    LOG_STD_INIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    hidden_sizes: _containers.RepeatedScalarFieldContainer[int]
    feature_dim: int
    hidden_dim: int
    init_method: str
    activation: str
    use_previous_action_and_reward: bool
    observation_scale: float
    normalise_observations: bool
    observation_clip: float
    normalise_rewards: bool
    recurrence: str
    log_std_init: float
    def __init__(self, name: _Optional[str] = ..., hidden_sizes: _Optional[_Iterable[int]] = ..., feature_dim: _Optional[int] = ..., hidden_dim: _Optional[int] = ..., init_method: _Optional[str] = ..., activation: _Optional[str] = ..., use_previous_action_and_reward: _Optional[bool] = ..., observation_scale: _Optional[float] = ..., normalise_observations: _Optional[bool] = ..., observation_clip: _Optional[float] = ..., normalise_rewards: _Optional[bool] = ..., recurrence: _Optional[str] = ..., log_std_init: _Optional[float] = ...) -> None: ...

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
