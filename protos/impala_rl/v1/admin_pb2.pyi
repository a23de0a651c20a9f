import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from impala_rl.v1 import header_pb2 as _header_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LearnerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEARNER_STATE_UNSPECIFIED: _ClassVar[LearnerState]
    LEARNER_STATE_STARTING: _ClassVar[LearnerState]
    LEARNER_STATE_RUNNING: _ClassVar[LearnerState]
    LEARNER_STATE_PAUSED: _ClassVar[LearnerState]
    LEARNER_STATE_DRAINING: _ClassVar[LearnerState]
    LEARNER_STATE_STOPPED: _ClassVar[LearnerState]

class LogLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOG_LEVEL_UNSPECIFIED: _ClassVar[LogLevel]
    LOG_LEVEL_DEBUG: _ClassVar[LogLevel]
    LOG_LEVEL_INFO: _ClassVar[LogLevel]
    LOG_LEVEL_WARNING: _ClassVar[LogLevel]
    LOG_LEVEL_ERROR: _ClassVar[LogLevel]
LEARNER_STATE_UNSPECIFIED: LearnerState
LEARNER_STATE_STARTING: LearnerState
LEARNER_STATE_RUNNING: LearnerState
LEARNER_STATE_PAUSED: LearnerState
LEARNER_STATE_DRAINING: LearnerState
LEARNER_STATE_STOPPED: LearnerState
LOG_LEVEL_UNSPECIFIED: LogLevel
LOG_LEVEL_DEBUG: LogLevel
LOG_LEVEL_INFO: LogLevel
LOG_LEVEL_WARNING: LogLevel
LOG_LEVEL_ERROR: LogLevel

class MutationHeader(_message.Message):
    __slots__ = ("request_id", "expected_run_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    expected_run_id: int
    def __init__(self, request_id: _Optional[str] = ..., expected_run_id: _Optional[int] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: LearnerStatus
    def __init__(self, status: _Optional[_Union[LearnerStatus, _Mapping]] = ...) -> None: ...

class WatchStatusRequest(_message.Message):
    __slots__ = ("interval",)
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    interval: _duration_pb2.Duration
    def __init__(self, interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WatchStatusResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: LearnerStatus
    def __init__(self, status: _Optional[_Union[LearnerStatus, _Mapping]] = ...) -> None: ...

class LearnerStatus(_message.Message):
    __slots__ = ("learner", "state", "run_path", "environment_id", "total_steps", "metrics", "last_checkpoint", "device", "model", "bottleneck", "storage_bytes", "connected_actor_count", "banned_actor_count", "address", "software_version", "protocol_version", "uptime", "age", "trouble", "findings")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RUN_PATH_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_ID_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    LAST_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BOTTLENECK_FIELD_NUMBER: _ClassVar[int]
    STORAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_ACTOR_COUNT_FIELD_NUMBER: _ClassVar[int]
    BANNED_ACTOR_COUNT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    learner: _header_pb2.LearnerHeader
    state: LearnerState
    run_path: str
    environment_id: str
    total_steps: int
    metrics: _containers.ScalarMap[str, float]
    last_checkpoint: str
    device: str
    model: str
    bottleneck: str
    storage_bytes: int
    connected_actor_count: int
    banned_actor_count: int
    address: str
    software_version: str
    protocol_version: int
    uptime: _duration_pb2.Duration
    age: _duration_pb2.Duration
    trouble: str
    findings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, learner: _Optional[_Union[_header_pb2.LearnerHeader, _Mapping]] = ..., state: _Optional[_Union[LearnerState, str]] = ..., run_path: _Optional[str] = ..., environment_id: _Optional[str] = ..., total_steps: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., last_checkpoint: _Optional[str] = ..., device: _Optional[str] = ..., model: _Optional[str] = ..., bottleneck: _Optional[str] = ..., storage_bytes: _Optional[int] = ..., connected_actor_count: _Optional[int] = ..., banned_actor_count: _Optional[int] = ..., address: _Optional[str] = ..., software_version: _Optional[str] = ..., protocol_version: _Optional[int] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., trouble: _Optional[str] = ..., findings: _Optional[_Iterable[str]] = ...) -> None: ...

class ListActorsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "text", "is_connected", "is_rejected")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IS_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    IS_REJECTED_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    text: str
    is_connected: bool
    is_rejected: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., text: _Optional[str] = ..., is_connected: _Optional[bool] = ..., is_rejected: _Optional[bool] = ...) -> None: ...

class ListActorsResponse(_message.Message):
    __slots__ = ("actors", "banned_actor_ids", "next_page_token", "totals")
    ACTORS_FIELD_NUMBER: _ClassVar[int]
    BANNED_ACTOR_IDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    actors: _containers.RepeatedCompositeFieldContainer[ActorStatus]
    banned_actor_ids: _containers.RepeatedScalarFieldContainer[str]
    next_page_token: str
    totals: ActorTotals
    def __init__(self, actors: _Optional[_Iterable[_Union[ActorStatus, _Mapping]]] = ..., banned_actor_ids: _Optional[_Iterable[str]] = ..., next_page_token: _Optional[str] = ..., totals: _Optional[_Union[ActorTotals, _Mapping]] = ...) -> None: ...

class ActorTotals(_message.Message):
    __slots__ = ("actor_count", "connected_actor_count", "environment_slot_count", "steps_per_second", "accepted_unroll_count", "duplicate_unroll_count", "rejected_unroll_count", "max_policy_lag")
    ACTOR_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_ACTOR_COUNT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_SLOT_COUNT_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_UNROLL_COUNT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_UNROLL_COUNT_FIELD_NUMBER: _ClassVar[int]
    REJECTED_UNROLL_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_POLICY_LAG_FIELD_NUMBER: _ClassVar[int]
    actor_count: int
    connected_actor_count: int
    environment_slot_count: int
    steps_per_second: float
    accepted_unroll_count: int
    duplicate_unroll_count: int
    rejected_unroll_count: int
    max_policy_lag: int
    def __init__(self, actor_count: _Optional[int] = ..., connected_actor_count: _Optional[int] = ..., environment_slot_count: _Optional[int] = ..., steps_per_second: _Optional[float] = ..., accepted_unroll_count: _Optional[int] = ..., duplicate_unroll_count: _Optional[int] = ..., rejected_unroll_count: _Optional[int] = ..., max_policy_lag: _Optional[int] = ...) -> None: ...

class ActorStatus(_message.Message):
    __slots__ = ("actor_id", "host", "actor_index", "session_epoch", "is_connected", "environment_slot_count", "steps_per_second", "accepted_unroll_count", "duplicate_unroll_count", "rejected_unroll_count", "policy_lag", "last_seen")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    ACTOR_INDEX_FIELD_NUMBER: _ClassVar[int]
    SESSION_EPOCH_FIELD_NUMBER: _ClassVar[int]
    IS_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_SLOT_COUNT_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_UNROLL_COUNT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_UNROLL_COUNT_FIELD_NUMBER: _ClassVar[int]
    REJECTED_UNROLL_COUNT_FIELD_NUMBER: _ClassVar[int]
    POLICY_LAG_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    host: str
    actor_index: int
    session_epoch: int
    is_connected: bool
    environment_slot_count: int
    steps_per_second: float
    accepted_unroll_count: int
    duplicate_unroll_count: int
    rejected_unroll_count: int
    policy_lag: int
    last_seen: _duration_pb2.Duration
    def __init__(self, actor_id: _Optional[str] = ..., host: _Optional[str] = ..., actor_index: _Optional[int] = ..., session_epoch: _Optional[int] = ..., is_connected: _Optional[bool] = ..., environment_slot_count: _Optional[int] = ..., steps_per_second: _Optional[float] = ..., accepted_unroll_count: _Optional[int] = ..., duplicate_unroll_count: _Optional[int] = ..., rejected_unroll_count: _Optional[int] = ..., policy_lag: _Optional[int] = ..., last_seen: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: MutationHeader
    def __init__(self, header: _Optional[_Union[MutationHeader, _Mapping]] = ...) -> None: ...

class PauseResponse(_message.Message):
    __slots__ = ("learner", "state")
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    learner: _header_pb2.LearnerHeader
    state: LearnerState
    def __init__(self, learner: _Optional[_Union[_header_pb2.LearnerHeader, _Mapping]] = ..., state: _Optional[_Union[LearnerState, str]] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: MutationHeader
    def __init__(self, header: _Optional[_Union[MutationHeader, _Mapping]] = ...) -> None: ...

class ResumeResponse(_message.Message):
    __slots__ = ("learner", "state")
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    learner: _header_pb2.LearnerHeader
    state: LearnerState
    def __init__(self, learner: _Optional[_Union[_header_pb2.LearnerHeader, _Mapping]] = ..., state: _Optional[_Union[LearnerState, str]] = ...) -> None: ...

class SaveCheckpointRequest(_message.Message):
    __slots__ = ("header", "name")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    header: MutationHeader
    name: str
    def __init__(self, header: _Optional[_Union[MutationHeader, _Mapping]] = ..., name: _Optional[str] = ...) -> None: ...

class SaveCheckpointResponse(_message.Message):
    __slots__ = ("checkpoint", "is_new")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    IS_NEW_FIELD_NUMBER: _ClassVar[int]
    checkpoint: CheckpointInfo
    is_new: bool
    def __init__(self, checkpoint: _Optional[_Union[CheckpointInfo, _Mapping]] = ..., is_new: _Optional[bool] = ...) -> None: ...

class ListCheckpointsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints",)
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[CheckpointInfo]
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[CheckpointInfo, _Mapping]]] = ...) -> None: ...

class CheckpointInfo(_message.Message):
    __slots__ = ("name", "trained_steps", "policy_version", "total_bytes", "save_time", "is_kept")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TRAINED_STEPS_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    SAVE_TIME_FIELD_NUMBER: _ClassVar[int]
    IS_KEPT_FIELD_NUMBER: _ClassVar[int]
    name: str
    trained_steps: int
    policy_version: int
    total_bytes: int
    save_time: _timestamp_pb2.Timestamp
    is_kept: bool
    def __init__(self, name: _Optional[str] = ..., trained_steps: _Optional[int] = ..., policy_version: _Optional[int] = ..., total_bytes: _Optional[int] = ..., save_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., is_kept: _Optional[bool] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("header", "name")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    header: MutationHeader
    name: str
    def __init__(self, header: _Optional[_Union[MutationHeader, _Mapping]] = ..., name: _Optional[str] = ...) -> None: ...

class RollbackResponse(_message.Message):
    __slots__ = ("learner", "state", "trained_steps_before", "saved_as")
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TRAINED_STEPS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    SAVED_AS_FIELD_NUMBER: _ClassVar[int]
    learner: _header_pb2.LearnerHeader
    state: LearnerState
    trained_steps_before: int
    saved_as: str
    def __init__(self, learner: _Optional[_Union[_header_pb2.LearnerHeader, _Mapping]] = ..., state: _Optional[_Union[LearnerState, str]] = ..., trained_steps_before: _Optional[int] = ..., saved_as: _Optional[str] = ...) -> None: ...

class SetParameterRequest(_message.Message):
    __slots__ = ("header", "name", "value")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    header: MutationHeader
    name: str
    value: str
    def __init__(self, header: _Optional[_Union[MutationHeader, _Mapping]] = ..., name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class SetParameterResponse(_message.Message):
    __slots__ = ("parameter", "value_before", "trained_steps")
    PARAMETER_FIELD_NUMBER: _ClassVar[int]
    VALUE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    TRAINED_STEPS_FIELD_NUMBER: _ClassVar[int]
    parameter: Parameter
    value_before: str
    trained_steps: int
    def __init__(self, parameter: _Optional[_Union[Parameter, _Mapping]] = ..., value_before: _Optional[str] = ..., trained_steps: _Optional[int] = ...) -> None: ...

class ListParametersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListParametersResponse(_message.Message):
    __slots__ = ("parameters",)
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    parameters: _containers.RepeatedCompositeFieldContainer[Parameter]
    def __init__(self, parameters: _Optional[_Iterable[_Union[Parameter, _Mapping]]] = ...) -> None: ...

class Parameter(_message.Message):
    __slots__ = ("name", "value", "configured_value", "bounds", "meaning")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CONFIGURED_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    MEANING_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    configured_value: str
    bounds: str
    meaning: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ..., configured_value: _Optional[str] = ..., bounds: _Optional[str] = ..., meaning: _Optional[str] = ...) -> None: ...

class EvictActorRequest(_message.Message):
    __slots__ = ("header", "actor_id", "is_ban", "text")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    IS_BAN_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    header: MutationHeader
    actor_id: str
    is_ban: bool
    text: str
    def __init__(self, header: _Optional[_Union[MutationHeader, _Mapping]] = ..., actor_id: _Optional[str] = ..., is_ban: _Optional[bool] = ..., text: _Optional[str] = ...) -> None: ...

class EvictActorResponse(_message.Message):
    __slots__ = ("was_connected",)
    WAS_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    was_connected: bool
    def __init__(self, was_connected: _Optional[bool] = ...) -> None: ...

class UnbanActorRequest(_message.Message):
    __slots__ = ("header", "actor_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    header: MutationHeader
    actor_id: str
    def __init__(self, header: _Optional[_Union[MutationHeader, _Mapping]] = ..., actor_id: _Optional[str] = ...) -> None: ...

class UnbanActorResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: MutationHeader
    def __init__(self, header: _Optional[_Union[MutationHeader, _Mapping]] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("learner", "state", "checkpoint")
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    learner: _header_pb2.LearnerHeader
    state: LearnerState
    checkpoint: str
    def __init__(self, learner: _Optional[_Union[_header_pb2.LearnerHeader, _Mapping]] = ..., state: _Optional[_Union[LearnerState, str]] = ..., checkpoint: _Optional[str] = ...) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: MutationHeader
    def __init__(self, header: _Optional[_Union[MutationHeader, _Mapping]] = ...) -> None: ...

class ShutdownResponse(_message.Message):
    __slots__ = ("learner",)
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    learner: _header_pb2.LearnerHeader
    def __init__(self, learner: _Optional[_Union[_header_pb2.LearnerHeader, _Mapping]] = ...) -> None: ...

class SetLogLevelRequest(_message.Message):
    __slots__ = ("header", "level")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    header: MutationHeader
    level: LogLevel
    def __init__(self, header: _Optional[_Union[MutationHeader, _Mapping]] = ..., level: _Optional[_Union[LogLevel, str]] = ...) -> None: ...

class SetLogLevelResponse(_message.Message):
    __slots__ = ("level_before",)
    LEVEL_BEFORE_FIELD_NUMBER: _ClassVar[int]
    level_before: LogLevel
    def __init__(self, level_before: _Optional[_Union[LogLevel, str]] = ...) -> None: ...

class ProfileRequest(_message.Message):
    __slots__ = ("header", "update_count")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    UPDATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    header: MutationHeader
    update_count: int
    def __init__(self, header: _Optional[_Union[MutationHeader, _Mapping]] = ..., update_count: _Optional[int] = ...) -> None: ...

class ProfileResponse(_message.Message):
    __slots__ = ("path", "total_bytes")
    PATH_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    path: str
    total_bytes: int
    def __init__(self, path: _Optional[str] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class ClearBestRequest(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: MutationHeader
    def __init__(self, header: _Optional[_Union[MutationHeader, _Mapping]] = ...) -> None: ...

class ClearBestResponse(_message.Message):
    __slots__ = ("name", "return_mean")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RETURN_MEAN_FIELD_NUMBER: _ClassVar[int]
    name: str
    return_mean: float
    def __init__(self, name: _Optional[str] = ..., return_mean: _Optional[float] = ...) -> None: ...
