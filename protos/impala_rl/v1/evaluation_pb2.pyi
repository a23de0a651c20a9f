import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from impala_rl.v1 import header_pb2 as _header_pb2
from impala_rl.v1 import learner_pb2 as _learner_pb2
from impala_rl.v1 import spec_pb2 as _spec_pb2
from impala_rl.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WatchCandidatesRequest(_message.Message):
    __slots__ = ("evaluator_id", "protocol_version", "environment", "model")
    EVALUATOR_ID_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    evaluator_id: str
    protocol_version: int
    environment: _spec_pb2.EnvironmentSpec
    model: str
    def __init__(self, evaluator_id: _Optional[str] = ..., protocol_version: _Optional[int] = ..., environment: _Optional[_Union[_spec_pb2.EnvironmentSpec, _Mapping]] = ..., model: _Optional[str] = ...) -> None: ...

class WatchCandidatesResponse(_message.Message):
    __slots__ = ("learner", "candidate", "end", "ticket")
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    learner: _header_pb2.LearnerHeader
    candidate: Candidate
    end: _learner_pb2.DrainReason
    ticket: int
    def __init__(self, learner: _Optional[_Union[_header_pb2.LearnerHeader, _Mapping]] = ..., candidate: _Optional[_Union[Candidate, _Mapping]] = ..., end: _Optional[_Union[_learner_pb2.DrainReason, str]] = ..., ticket: _Optional[int] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("name", "trained_steps", "policy_version", "episode_count", "seed", "model", "observation_leaves")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TRAINED_STEPS_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    EPISODE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_LEAVES_FIELD_NUMBER: _ClassVar[int]
    name: str
    trained_steps: int
    policy_version: int
    episode_count: int
    seed: int
    model: _spec_pb2.ModelSpec
    observation_leaves: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    def __init__(self, name: _Optional[str] = ..., trained_steps: _Optional[int] = ..., policy_version: _Optional[int] = ..., episode_count: _Optional[int] = ..., seed: _Optional[int] = ..., model: _Optional[_Union[_spec_pb2.ModelSpec, _Mapping]] = ..., observation_leaves: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ...) -> None: ...

class GetCandidateWeightsRequest(_message.Message):
    __slots__ = ("learner_run_id", "candidate", "ticket")
    LEARNER_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    learner_run_id: int
    candidate: str
    ticket: int
    def __init__(self, learner_run_id: _Optional[int] = ..., candidate: _Optional[str] = ..., ticket: _Optional[int] = ...) -> None: ...

class GetCandidateWeightsResponse(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: _learner_pb2.WeightsHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[_learner_pb2.WeightsHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ReportEvaluationRequest(_message.Message):
    __slots__ = ("evaluator_id", "learner_run_id", "candidate", "sampled", "greedy", "duration", "ticket", "failure")
    EVALUATOR_ID_FIELD_NUMBER: _ClassVar[int]
    LEARNER_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_FIELD_NUMBER: _ClassVar[int]
    GREEDY_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    evaluator_id: str
    learner_run_id: int
    candidate: str
    sampled: EvaluationResult
    greedy: EvaluationResult
    duration: _duration_pb2.Duration
    ticket: int
    failure: str
    def __init__(self, evaluator_id: _Optional[str] = ..., learner_run_id: _Optional[int] = ..., candidate: _Optional[str] = ..., sampled: _Optional[_Union[EvaluationResult, _Mapping]] = ..., greedy: _Optional[_Union[EvaluationResult, _Mapping]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ticket: _Optional[int] = ..., failure: _Optional[str] = ...) -> None: ...

class EvaluationResult(_message.Message):
    __slots__ = ("episode_count", "return_mean", "standard_error", "confidence_low", "confidence_high", "return_min", "return_max", "length_mean", "length_min", "length_max", "cut_count")
    EPISODE_COUNT_FIELD_NUMBER: _ClassVar[int]
    RETURN_MEAN_FIELD_NUMBER: _ClassVar[int]
    STANDARD_ERROR_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_LOW_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_HIGH_FIELD_NUMBER: _ClassVar[int]
    RETURN_MIN_FIELD_NUMBER: _ClassVar[int]
    RETURN_MAX_FIELD_NUMBER: _ClassVar[int]
    LENGTH_MEAN_FIELD_NUMBER: _ClassVar[int]
    LENGTH_MIN_FIELD_NUMBER: _ClassVar[int]
    LENGTH_MAX_FIELD_NUMBER: _ClassVar[int]
    CUT_COUNT_FIELD_NUMBER: _ClassVar[int]
    episode_count: int
    return_mean: float
    standard_error: float
    confidence_low: float
    confidence_high: float
    return_min: float
    return_max: float
    length_mean: float
    length_min: int
    length_max: int
    cut_count: int
    def __init__(self, episode_count: _Optional[int] = ..., return_mean: _Optional[float] = ..., standard_error: _Optional[float] = ..., confidence_low: _Optional[float] = ..., confidence_high: _Optional[float] = ..., return_min: _Optional[float] = ..., return_max: _Optional[float] = ..., length_mean: _Optional[float] = ..., length_min: _Optional[int] = ..., length_max: _Optional[int] = ..., cut_count: _Optional[int] = ...) -> None: ...

class ReportEvaluationResponse(_message.Message):
    __slots__ = ("learner", "is_best", "is_duplicate", "is_doubtful")
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    IS_BEST_FIELD_NUMBER: _ClassVar[int]
    IS_DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    IS_DOUBTFUL_FIELD_NUMBER: _ClassVar[int]
    learner: _header_pb2.LearnerHeader
    is_best: bool
    is_duplicate: bool
    is_doubtful: bool
    def __init__(self, learner: _Optional[_Union[_header_pb2.LearnerHeader, _Mapping]] = ..., is_best: _Optional[bool] = ..., is_duplicate: _Optional[bool] = ..., is_doubtful: _Optional[bool] = ...) -> None: ...
