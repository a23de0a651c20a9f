import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from impala_rl.v1 import admin_pb2 as _admin_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListClientsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListClientsResponse(_message.Message):
    __slots__ = ("clients", "next_page_token", "client_count", "is_draining")
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CLIENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    IS_DRAINING_FIELD_NUMBER: _ClassVar[int]
    clients: _containers.RepeatedCompositeFieldContainer[ClientStatus]
    next_page_token: str
    client_count: int
    is_draining: bool
    def __init__(self, clients: _Optional[_Iterable[_Union[ClientStatus, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., client_count: _Optional[int] = ..., is_draining: _Optional[bool] = ...) -> None: ...

class ClientStatus(_message.Message):
    __slots__ = ("client_id", "client_run_id", "peer", "is_connected", "slot_count", "live_slot_count", "is_evaluation", "steps_per_second", "observation_count", "repetition_count", "policy_version", "last_heard")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    IS_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    SLOT_COUNT_FIELD_NUMBER: _ClassVar[int]
    LIVE_SLOT_COUNT_FIELD_NUMBER: _ClassVar[int]
    IS_EVALUATION_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_COUNT_FIELD_NUMBER: _ClassVar[int]
    REPETITION_COUNT_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    LAST_HEARD_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    client_run_id: int
    peer: str
    is_connected: bool
    slot_count: int
    live_slot_count: int
    is_evaluation: bool
    steps_per_second: float
    observation_count: int
    repetition_count: int
    policy_version: int
    last_heard: _duration_pb2.Duration
    def __init__(self, client_id: _Optional[str] = ..., client_run_id: _Optional[int] = ..., peer: _Optional[str] = ..., is_connected: _Optional[bool] = ..., slot_count: _Optional[int] = ..., live_slot_count: _Optional[int] = ..., is_evaluation: _Optional[bool] = ..., steps_per_second: _Optional[float] = ..., observation_count: _Optional[int] = ..., repetition_count: _Optional[int] = ..., policy_version: _Optional[int] = ..., last_heard: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class DrainClientsRequest(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: _admin_pb2.MutationHeader
    def __init__(self, header: _Optional[_Union[_admin_pb2.MutationHeader, _Mapping]] = ...) -> None: ...

class DrainClientsResponse(_message.Message):
    __slots__ = ("connected_client_count",)
    CONNECTED_CLIENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    connected_client_count: int
    def __init__(self, connected_client_count: _Optional[int] = ...) -> None: ...
