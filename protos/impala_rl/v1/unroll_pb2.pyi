from impala_rl.v1 import header_pb2 as _header_pb2
from impala_rl.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UnrollBatch(_message.Message):
    __slots__ = ("actor", "sequence_number", "policy_version", "unroll_count", "leaves", "frames", "episodes", "times", "digest", "environment_failure_count")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    UNROLL_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    EPISODES_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FAILURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    actor: _header_pb2.ActorHeader
    sequence_number: int
    policy_version: int
    unroll_count: int
    leaves: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    frames: FrameStack
    episodes: _containers.RepeatedCompositeFieldContainer[EpisodeSummary]
    times: ActorTimes
    digest: int
    environment_failure_count: int
    def __init__(self, actor: _Optional[_Union[_header_pb2.ActorHeader, _Mapping]] = ..., sequence_number: _Optional[int] = ..., policy_version: _Optional[int] = ..., unroll_count: _Optional[int] = ..., leaves: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., frames: _Optional[_Union[FrameStack, _Mapping]] = ..., episodes: _Optional[_Iterable[_Union[EpisodeSummary, _Mapping]]] = ..., times: _Optional[_Union[ActorTimes, _Mapping]] = ..., digest: _Optional[int] = ..., environment_failure_count: _Optional[int] = ...) -> None: ...

class FrameStack(_message.Message):
    __slots__ = ("unique_frames", "frame_counts", "frame_index")
    UNIQUE_FRAMES_FIELD_NUMBER: _ClassVar[int]
    FRAME_COUNTS_FIELD_NUMBER: _ClassVar[int]
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    unique_frames: _tensor_pb2.Tensor
    frame_counts: _containers.RepeatedScalarFieldContainer[int]
    frame_index: _tensor_pb2.Tensor
    def __init__(self, unique_frames: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., frame_counts: _Optional[_Iterable[int]] = ..., frame_index: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class EpisodeSummary(_message.Message):
    __slots__ = ("episode_return", "step_count", "environment_slot")
    EPISODE_RETURN_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_SLOT_FIELD_NUMBER: _ClassVar[int]
    episode_return: float
    step_count: int
    environment_slot: int
    def __init__(self, episode_return: _Optional[float] = ..., step_count: _Optional[int] = ..., environment_slot: _Optional[int] = ...) -> None: ...

class ActorTimes(_message.Message):
    __slots__ = ("environment_s", "inference_s", "blocked_s")
    ENVIRONMENT_S_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_S_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_S_FIELD_NUMBER: _ClassVar[int]
    environment_s: float
    inference_s: float
    blocked_s: float
    def __init__(self, environment_s: _Optional[float] = ..., inference_s: _Optional[float] = ..., blocked_s: _Optional[float] = ...) -> None: ...
