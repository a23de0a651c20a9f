import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from impala_rl.v1 import learner_pb2 as _learner_pb2
from impala_rl.v1 import spec_pb2 as _spec_pb2
from impala_rl.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PlayRequest(_message.Message):
    __slots__ = ("hello", "observations", "goodbye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    hello: PlayHello
    observations: SlotObservations
    goodbye: PlayGoodbye
    def __init__(self, hello: _Optional[_Union[PlayHello, _Mapping]] = ..., observations: _Optional[_Union[SlotObservations, _Mapping]] = ..., goodbye: _Optional[_Union[PlayGoodbye, _Mapping]] = ...) -> None: ...

class PlayHello(_message.Message):
    __slots__ = ("client_id", "client_run_id", "protocol_version", "environment", "slot_count", "is_evaluation", "is_greedy", "wants_logits")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SLOT_COUNT_FIELD_NUMBER: _ClassVar[int]
    IS_EVALUATION_FIELD_NUMBER: _ClassVar[int]
    IS_GREEDY_FIELD_NUMBER: _ClassVar[int]
    WANTS_LOGITS_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    client_run_id: int
    protocol_version: int
    environment: _spec_pb2.EnvironmentSpec
    slot_count: int
    is_evaluation: bool
    is_greedy: bool
    wants_logits: bool
    def __init__(self, client_id: _Optional[str] = ..., client_run_id: _Optional[int] = ..., protocol_version: _Optional[int] = ..., environment: _Optional[_Union[_spec_pb2.EnvironmentSpec, _Mapping]] = ..., slot_count: _Optional[int] = ..., is_evaluation: _Optional[bool] = ..., is_greedy: _Optional[bool] = ..., wants_logits: _Optional[bool] = ...) -> None: ...

class SlotObservations(_message.Message):
    __slots__ = ("slots", "step_numbers", "leaves", "rewards", "terminated", "truncated", "is_first", "codec")
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    STEP_NUMBERS_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    TERMINATED_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    IS_FIRST_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedScalarFieldContainer[int]
    step_numbers: _containers.RepeatedScalarFieldContainer[int]
    leaves: _containers.RepeatedScalarFieldContainer[bytes]
    rewards: _containers.RepeatedScalarFieldContainer[float]
    terminated: _containers.RepeatedScalarFieldContainer[bool]
    truncated: _containers.RepeatedScalarFieldContainer[bool]
    is_first: _containers.RepeatedScalarFieldContainer[bool]
    codec: _tensor_pb2.Codec
    def __init__(self, slots: _Optional[_Iterable[int]] = ..., step_numbers: _Optional[_Iterable[int]] = ..., leaves: _Optional[_Iterable[bytes]] = ..., rewards: _Optional[_Iterable[float]] = ..., terminated: _Optional[_Iterable[bool]] = ..., truncated: _Optional[_Iterable[bool]] = ..., is_first: _Optional[_Iterable[bool]] = ..., codec: _Optional[_Union[_tensor_pb2.Codec, str]] = ...) -> None: ...

class PlayGoodbye(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class PlayResponse(_message.Message):
    __slots__ = ("welcome", "actions", "lost_slots", "drain")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    LOST_SLOTS_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    welcome: PlayWelcome
    actions: SlotActions
    lost_slots: LostSlots
    drain: PlayDrain
    def __init__(self, welcome: _Optional[_Union[PlayWelcome, _Mapping]] = ..., actions: _Optional[_Union[SlotActions, _Mapping]] = ..., lost_slots: _Optional[_Union[LostSlots, _Mapping]] = ..., drain: _Optional[_Union[PlayDrain, _Mapping]] = ...) -> None: ...

class PlayWelcome(_message.Message):
    __slots__ = ("protocol_version", "slot_timeout", "max_message_bytes")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SLOT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    slot_timeout: _duration_pb2.Duration
    max_message_bytes: int
    def __init__(self, protocol_version: _Optional[int] = ..., slot_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_message_bytes: _Optional[int] = ...) -> None: ...

class SlotActions(_message.Message):
    __slots__ = ("slots", "step_numbers", "parts", "policy_version", "logits")
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    STEP_NUMBERS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedScalarFieldContainer[int]
    step_numbers: _containers.RepeatedScalarFieldContainer[int]
    parts: _containers.RepeatedScalarFieldContainer[bytes]
    policy_version: int
    logits: bytes
    def __init__(self, slots: _Optional[_Iterable[int]] = ..., step_numbers: _Optional[_Iterable[int]] = ..., parts: _Optional[_Iterable[bytes]] = ..., policy_version: _Optional[int] = ..., logits: _Optional[bytes] = ...) -> None: ...

class LostSlots(_message.Message):
    __slots__ = ("slots",)
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, slots: _Optional[_Iterable[int]] = ...) -> None: ...

class PlayDrain(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: _learner_pb2.DrainReason
    def __init__(self, reason: _Optional[_Union[_learner_pb2.DrainReason, str]] = ...) -> None: ...
