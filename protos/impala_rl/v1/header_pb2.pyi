from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ActorHeader(_message.Message):
    __slots__ = ("actor_id", "actor_run_id", "session_epoch")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_EPOCH_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    actor_run_id: int
    session_epoch: int
    def __init__(self, actor_id: _Optional[str] = ..., actor_run_id: _Optional[int] = ..., session_epoch: _Optional[int] = ...) -> None: ...

class LearnerHeader(_message.Message):
    __slots__ = ("learner_run_id", "policy_version", "trained_steps")
    LEARNER_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    TRAINED_STEPS_FIELD_NUMBER: _ClassVar[int]
    learner_run_id: int
    policy_version: int
    trained_steps: int
    def __init__(self, learner_run_id: _Optional[int] = ..., policy_version: _Optional[int] = ..., trained_steps: _Optional[int] = ...) -> None: ...
