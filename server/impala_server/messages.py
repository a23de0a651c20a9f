"""The messages between supervisor, front end and learner, one dataclass each.

They travel as JSON objects over control pipes; "kind" says which class it is.
`KINDS` is the one table of them. A message of an unknown kind, or whose fields
are missing, unknown or of another type, is a MessageError that names it: the
processes are of one release, so that it can only be a programming mistake.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from impala_common.errors import ImpalaError, MessageError, SpecMismatchError
from impala_common.spec.specs import EnvironmentSpec, ModelSpec, TensorSpec

Json = dict[str, Any]
"""A JSON object whose keys are the receiver's business."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LearnerStatus:
    """What the learner says of itself, several times a second.

    Attributes:
      state: name of a `State` (impala_server.learner.control).
      reason: why the learner ended: "finished" or "stopping"; empty before.
      metrics: numbers by the names of `impala_common.run.metrics`; None for a missing one.
      total_steps: agent steps at which the run ends; None before there is a learner.
      device: the learner's device, for people.
      bottleneck: which part of the machine bounds the run, for people.
      trouble: why updates are held, for people; empty where all is well.
      last_checkpoint: its name; empty before the first.
      last_checkpoint_age_s: seconds since it was durable; None before there is a learner.
      checkpoint_failures: checkpoints that could not be written.
      checkpoints_unreadable: checkpoints that could not be read back after they were written.
      evaluation_steps: agent steps of the weights evaluated last; None before the first.
      is_judging: whether training has ended and the last weights are being evaluated.
      findings: what is wrong with learning, for people.
    """

    state: str
    reason: str = ""
    metrics: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    total_steps: int | None = None
    device: str = ""
    bottleneck: str = ""
    trouble: str = ""
    last_checkpoint: str = ""
    last_checkpoint_age_s: float | None = None
    checkpoint_failures: int = 0
    checkpoints_unreadable: int = 0
    evaluation_steps: int | None = None
    is_judging: bool = False
    findings: tuple[str, ...] = ()

    def number(self, name: str) -> float | None:
        """Returns a metric, or a number among the attributes; None where there is none."""
        value = self.metrics.get(name, getattr(self, name, None))
        return float(value) if isinstance(value, int | float) else None


@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    """Supervisor to a child: end in order."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """A child to the supervisor: it ends because of an error."""

    reason: str
    text: str

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """Returns the message about `error`."""
        if isinstance(error, ImpalaError):
            return cls(error.reason, str(error))
        return cls(ImpalaError.reason, f"{type(error).__name__}: {error}")


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """Front end to supervisor: it listens."""

    address: str
    prometheus: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class StatusNews:
    """Learner to supervisor and front end: its status; later ones replace earlier ones."""

    status: LearnerStatus


@dataclasses.dataclass(frozen=True, slots=True)
class ShutdownAsked:
    """Learner to supervisor: an administrator asks for an ordered end."""


@dataclasses.dataclass(frozen=True, slots=True)
class LogLevelSet:
    """Learner to supervisor: an administrator has set the log level."""

    level: str


@dataclasses.dataclass(frozen=True, slots=True)
class Define:
    """Front end to learner: the first actor's environment; answered by Ready or Refused."""

    environment: EnvironmentSpec


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Learner to front end: the network is built, storage and weights may be mapped."""

    learner_run_id: int
    learner_life: int
    environment: EnvironmentSpec
    model: ModelSpec
    agent_state: tuple[TensorSpec, ...]
    weights: tuple[TensorSpec, ...]
    max_policy_lag: int


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """Learner to front end: it cannot train on the environment."""

    reason: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class PolicyLagSet:
    """Learner to front end: how many updates an unroll may lag behind from now on."""

    max_policy_lag: int


@dataclasses.dataclass(frozen=True, slots=True)
class RanksNews:
    """Learner to front end: where the learner ranks are, and how many actors each has.

    Attributes:
      own: this front end's rank.
      addresses: HOST:PORT by which actors reach each rank.
      loads: actors of each rank.
    """

    own: int
    addresses: tuple[str, ...]
    loads: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class CandidateReady:
    """Learner to front end: weights that wait to be evaluated."""

    name: str
    trained_steps: int
    policy_version: int


@dataclasses.dataclass(frozen=True, slots=True)
class DropCandidate:
    """Front end to learner: no evaluator will play the candidate."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Drain:
    """Learner to front end: take no more unrolls.

    Attributes:
      reason: "finished" or "stopping".
      is_judged: whether the last weights are still evaluated; ends with Judged.
      is_notice: whether there is no learner: actors that come are told that the run has finished.
    """

    reason: str
    is_judged: bool = False
    is_notice: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """Learner to front end: nothing is left to evaluate."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrontEndCounts:
    """Front end to learner: what its metrics say of the front end.

    Unrolls by outcome are counted since the front end started. `storage_fill` is the share of
    rollout storage in use, `busy` the share of the time in which the event loop worked.
    """

    actors_connected: int = 0
    evaluators: int = 0
    storage_fill: float = 0.0
    queued: int = 0
    busy: float = 0.0
    accepted: int = 0
    duplicate: int = 0
    stale: int = 0
    capacity: int = 0
    invalid: int = 0
    trained: int = 0
    dropped: int = 0
    environment_failures: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """Front end to learner: carry out a command; answered by one Answer or CallFailed."""

    call_id: int
    command: str
    arguments: Json


@dataclasses.dataclass(frozen=True, slots=True)
class WithdrawCall:
    """Front end to learner: no one waits for the answer of a call any more."""

    call_id: int


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """Learner to front end: what a command answers, and the learner's state after it."""

    call_id: int
    state: str
    result: Json


@dataclasses.dataclass(frozen=True, slots=True)
class CallFailed:
    """Learner to front end: why a command was refused."""

    call_id: int
    reason: str
    text: str


Message = (
    Stop
    | Failed
    | Bound
    | StatusNews
    | ShutdownAsked
    | LogLevelSet
    | Define
    | Ready
    | Refused
    | PolicyLagSet
    | RanksNews
    | CandidateReady
    | DropCandidate
    | Drain
    | Judged
    | FrontEndCounts
    | Call
    | WithdrawCall
    | Answer
    | CallFailed
)
"""Any message."""

KINDS: Mapping[str, type[Message]] = {kind.__name__: kind for kind in typing.get_args(Message)}
"""All messages by their kind."""

_SPECS: Mapping[Any, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    EnvironmentSpec: (EnvironmentSpec.to_json, EnvironmentSpec.from_json),
    ModelSpec: (dataclasses.asdict, ModelSpec.from_json),
    TensorSpec: (dataclasses.asdict, TensorSpec.from_json),
}
"""By type of a field: its JSON form, and what rebuilds it."""


def encode(message: Message) -> bytes:
    """Returns a message as JSON."""
    return json.dumps({"kind": type(message).__name__, **_fields_of(message)}).encode()


def decode(data: bytes) -> Message:
    """Returns the message that `encode` made `data` of.

    Raises:
      MessageError: no such kind, or fields that are missing, unknown or of another type.
    """
    try:
        content = json.loads(data)
    except ValueError as error:
        raise MessageError(f"expected a message as JSON, got {data[:80]!r}") from error
    if not isinstance(content, dict) or not isinstance(content.get("kind"), str):
        raise MessageError(f"expected an object with a kind, got {data[:80]!r}")
    name = content.pop("kind")
    kind = KINDS.get(name)
    if kind is None:
        raise MessageError(f"unknown message {name!r}; expected one of {', '.join(KINDS)}")
    return typing.cast(Message, _rebuild(kind, content))


def unexpected_message(message: Message, receiver: str) -> MessageError:
    """Returns the error of a process that got a message which is meant for others."""
    return MessageError(f"{type(message).__name__} is no message to {receiver}")


def _fields_of(value: Any) -> Json:  # Any: a message, or what it holds
    return {field.name: _to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_json(one) for one in value]
    if type(value) in _SPECS:
        return _SPECS[type(value)][0](value)
    return _fields_of(value) if isinstance(value, LearnerStatus) else value


def _rebuild(kind: Any, content: Json) -> Any:
    """Returns an instance of a dataclass; raises MessageError where `content` does not fit."""
    declared = _types_of(kind)
    if unknown := content.keys() - declared.keys():
        raise MessageError(f"{kind.__name__}: unknown field {min(unknown)}")
    for field in dataclasses.fields(kind):
        has_default = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if field.name not in content and not has_default:
            raise MessageError(f"{kind.__name__}: {field.name} is missing")
    return kind(
        **{
            name: _from_json(f"{kind.__name__}.{name}", declared[name], value)
            for name, value in content.items()
        }
    )


@functools.cache
def _types_of(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _from_json(name: str, expected: Any, value: Any) -> Any:
    """Returns the value of a field of type `expected`; raises MessageError for another type."""
    arguments = typing.get_args(expected)
    if expected in _SPECS:
        try:
            return _SPECS[expected][1](value)
        except (KeyError, TypeError, ValueError, AttributeError, SpecMismatchError) as error:
            raise MessageError(f"{name}: not a {expected.__name__}: {error!r}") from error
    if expected is LearnerStatus and isinstance(value, dict):
        return _rebuild(LearnerStatus, value)
    if isinstance(expected, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        (expected,) = (one for one in arguments if one is not types.NoneType)
        return _from_json(name, expected, value)
    origin = typing.get_origin(expected)
    if origin is tuple and isinstance(value, list):
        return tuple(_from_json(f"{name}[{i}]", arguments[0], one) for i, one in enumerate(value))
    if expected == Json and isinstance(value, dict):
        return value
    if origin is Mapping and isinstance(value, dict):
        return {key: _from_json(f"{name}[{key}]", arguments[1], one) for key, one in value.items()}
    # By type, not isinstance: True is no int here. A float may be written without its point.
    if type(value) is expected or (expected is float and type(value) is int):
        return value
    kind = getattr(expected, "__name__", str(expected))
    raise MessageError(f"{name}: expected {kind}, got {json.dumps(value)[:80]}")
