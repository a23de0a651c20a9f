from impala_rl.v1 import tensor_pb2 as _tensor_pb2
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
ACTION_KIND_UNSPECIFIED: ActionKind
ACTION_KIND_CATEGORICAL: ActionKind
ACTION_KIND_BERNOULLI: ActionKind
ACTION_KIND_GAUSSIAN: ActionKind

class EnvironmentSpec(_message.Message):
    __slots__ = ("observation_leaves", "frame_stack", "action", "one_hot_leaves")
    OBSERVATION_LEAVES_FIELD_NUMBER: _ClassVar[int]
    FRAME_STACK_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ONE_HOT_LEAVES_FIELD_NUMBER: _ClassVar[int]
    observation_leaves: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    frame_stack: int
    action: ActionSpec
    one_hot_leaves: _containers.RepeatedCompositeFieldContainer[OneHotLeaf]
    def __init__(self, observation_leaves: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., frame_stack: _Optional[int] = ..., action: _Optional[_Union[ActionSpec, _Mapping]] = ..., one_hot_leaves: _Optional[_Iterable[_Union[OneHotLeaf, _Mapping]]] = ...) -> None: ...

class OneHotLeaf(_message.Message):
    __slots__ = ("name", "shape", "starts", "sizes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    starts: _containers.RepeatedScalarFieldContainer[int]
    sizes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., starts: _Optional[_Iterable[int]] = ..., sizes: _Optional[_Iterable[int]] = ...) -> None: ...

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
    __slots__ = ("name", "hidden_sizes", "feature_dim", "hidden_dim", "init_method", "activation", "use_previous_action_and_reward", "observation_scale", "normalise_observations", "observation_clip", "normalise_rewards", "recurrence", "log_std_init", "normalise_integers")
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
    NORMALISE_INTEGERS_FIELD_NUMBER: _ClassVar[int]
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
    normalise_integers: bool
    def __init__(self, name: _Optional[str] = ..., hidden_sizes: _Optional[_Iterable[int]] = ..., feature_dim: _Optional[int] = ..., hidden_dim: _Optional[int] = ..., init_method: _Optional[str] = ..., activation: _Optional[str] = ..., use_previous_action_and_reward: _Optional[bool] = ..., observation_scale: _Optional[float] = ..., normalise_observations: _Optional[bool] = ..., observation_clip: _Optional[float] = ..., normalise_rewards: _Optional[bool] = ..., recurrence: _Optional[str] = ..., log_std_init: _Optional[float] = ..., normalise_integers: _Optional[bool] = ...) -> None: ...
