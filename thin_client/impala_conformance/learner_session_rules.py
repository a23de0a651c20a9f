"""Rules of a learner about sessions: GetConfig, Register, fencing and lives."""

from __future__ import annotations

import grpc

from impala_conformance.environment import find_mask
from impala_conformance.learner_peer import INVALID, PROTOCOL_VERSION, Actor, LearnerPeer, names
from impala_conformance.open_stream import require_refusal, require_unimplemented
from impala_conformance.rule import Rule, SkippedError, ViolationError, require
from impala_rl.v1 import header_pb2, learner_pb2, learner_pb2_grpc, spec_pb2

_CONFIG = "GetConfig answers without a session: version and number of slots"
_REGISTER = "Register says session, unroll, limits and weights, all of them possible"
_VERSION = "another protocol_version is FAILED_PRECONDITION, PROTOCOL_MISMATCH"
_NAME = "an actor_id that no actor may have is INVALID_ARGUMENT"
_ENVIRONMENT = "another environment is SPEC_MISMATCH, which says field, expected and actual"
_MALFORMED = "a request without an environment is INVALID_ARGUMENT"
_COUNT = "environment_slot_count below 1 or above max_unrolls_per_message is INVALID_ARGUMENT"
_SESSIONS = "each actor has an index and a seed of its own; another session has another seed"
_FENCED = "messages of an older session end with ABORTED, STALE_SESSION"
_LIFE = "another learner_run_id is ABORTED, STALE_SESSION, in hello and in GetWeights"
_UNKNOWN = "hello of an actor that has not registered is ABORTED, STALE_SESSION"
_METHOD = "a method that does not exist is UNIMPLEMENTED"
_AUTHENTICATED = "a call without the token is UNAUTHENTICATED"
_STALE = "ABORTED STALE_SESSION"


def _check_config(peer: LearnerPeer) -> None:
    request = learner_pb2.GetConfigRequest(protocol_version=PROTOCOL_VERSION)
    response = peer.stub.GetConfig(request, timeout=peer.patience_s)
    version = response.protocol_version
    require(version == PROTOCOL_VERSION, f"protocol_version {PROTOCOL_VERSION}", version)
    count = response.environment_slot_count
    require(count >= 1, "environment_slot_count of at least 1", count)


def _check_register(peer: LearnerPeer) -> None:
    response = peer.actor().registered
    limits, unroll = response.limits, response.unroll
    for name, value in (
        ("learner_run_id", response.learner.learner_run_id),
        ("session_epoch", response.session_epoch),
        ("unroll_length", unroll.unroll_length),
        ("window", limits.window),
        ("max_unrolls_per_message", limits.max_unrolls_per_message),
        ("max_message_bytes", limits.max_message_bytes),
    ):
        require(value >= 1, f"{name} of at least 1", value)
    leaves = names(leaf.tensor for leaf in unroll.leaves)
    demanded = names(peer.environment.observation_leaves)
    demanded += ["is_first", "actions", "behaviour_policy_logits", "rewards", "is_padding"]
    missing = [name for name in demanded if name not in leaves]
    require(not missing, f"leaves {demanded} in an unroll", f"none of {missing}")
    allowed = (0, unroll.unroll_length, unroll.unroll_length + 1)
    rows = {leaf.rows for leaf in unroll.leaves}
    require(rows <= set(allowed), f"rows of {allowed}", rows)
    weights = names(response.weights)
    require(len(weights) == len(set(weights)) > 0, "weights, each name once", weights)


def _check_version(peer: LearnerPeer) -> None:
    for version in (0, PROTOCOL_VERSION + 1, 99):
        expected = "FAILED_PRECONDITION PROTOCOL_MISMATCH"
        peer.require_refused_register(expected, protocol_version=version)


def _check_name(peer: LearnerPeer) -> None:
    for name in ("", "two words", "-first", "x" * 65, "a/b", "line\n"):
        actor = header_pb2.ActorHeader(actor_id=name, actor_run_id=1)
        peer.require_refused_register(INVALID, actor=actor)


def _check_environment(peer: LearnerPeer) -> None:
    peer.actor()
    other = spec_pb2.EnvironmentSpec()
    other.CopyFrom(peer.environment)
    mask = find_mask(peer.environment)
    index = next(i for i in range(len(other.observation_leaves)) if i != mask)
    shape = other.observation_leaves[index].shape
    shape[:] = [*shape[:-1], shape[-1] + 1] if shape else [2]
    expected = "FAILED_PRECONDITION SPEC_MISMATCH"
    metadata = peer.require_refused_register(expected, environment=other)
    facts = sorted(metadata)
    require(facts == ["actual", "expected", "field"], "field, expected and actual", facts)


def _check_malformed(peer: LearnerPeer) -> None:
    peer.require_refused_register(INVALID, environment=spec_pb2.EnvironmentSpec())


def _check_count(peer: LearnerPeer) -> None:
    most = peer.actor().registered.limits.max_unrolls_per_message
    for count in (0, -1, most + 1):
        peer.require_refused_register(INVALID, environment_slot_count=count)


def _check_sessions(peer: LearnerPeer) -> None:
    one, two = peer.actor(), peer.actor()
    first, other = one.registered, two.registered
    indexes = [first.actor_index, other.actor_index]
    require(indexes[0] != indexes[1], "two actors with an index each", indexes)
    require(first.seed != other.seed, "two actors with a seed each", first.seed)
    again = one.register()
    require(
        again.session_epoch == first.session_epoch + 1,
        f"session_epoch {first.session_epoch + 1} for the actor's second session",
        again.session_epoch,
    )
    require(
        again.actor_index == first.actor_index,
        f"the actor's index {first.actor_index} again",
        again.actor_index,
    )
    require(again.seed != first.seed, "another seed for another session", again.seed)


def _check_fenced(peer: LearnerPeer) -> None:
    old = peer.actor()
    stream = old.push()
    old.push_accepted(stream)
    new = Actor(peer, old.header.actor_id)
    new.register()
    stream.send(unrolls=old.message())
    stream.require_refused(_STALE)
    old.push().require_refused(_STALE)
    new.push_accepted(new.push())
    new.leave()


def _check_life(peer: LearnerPeer) -> None:
    actor = peer.actor()
    other = actor.registered.learner.learner_run_id ^ 1
    actor.push(learner_run_id=other).require_refused(_STALE)
    try:
        peer.get_weights(learner_run_id=other)
    except grpc.RpcError as error:
        require_refusal(error, _STALE)
        return
    raise ViolationError("expected GetWeights of another life to be STALE_SESSION, got weights")


def _check_unknown(peer: LearnerPeer) -> None:
    known = peer.actor()
    stranger = Actor(peer)
    stranger.header.session_epoch = 1
    stranger.registered.CopyFrom(known.registered)
    stranger.push().require_refused(_STALE)


def _check_method(peer: LearnerPeer) -> None:
    require_unimplemented(peer.channel, "impala_rl.v1.LearnerService", peer.patience_s)


def _check_token(peer: LearnerPeer) -> None:
    if not peer.connection.token_file:
        raise SkippedError("no token was given")
    with peer.connection.open(with_token=False) as channel:
        stub = learner_pb2_grpc.LearnerServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            stub.GetConfig(learner_pb2.GetConfigRequest(), timeout=peer.patience_s)
        except grpc.RpcError as error:
            require_refusal(error, "UNAUTHENTICATED UNAUTHENTICATED")
            return
    raise ViolationError("expected UNAUTHENTICATED, got an answer")


RULES: list[Rule[LearnerPeer]] = [
    Rule("get-config", _CONFIG, _check_config),
    Rule("register", _REGISTER, _check_register),
    Rule("protocol-version", _VERSION, _check_version),
    Rule("actor-id", _NAME, _check_name),
    Rule("environment", _ENVIRONMENT, _check_environment),
    Rule("empty-environment", _MALFORMED, _check_malformed),
    Rule("slot-count", _COUNT, _check_count),
    Rule("sessions", _SESSIONS, _check_sessions),
    Rule("fenced-session", _FENCED, _check_fenced),
    Rule("learner-life", _LIFE, _check_life),
    Rule("unknown-session", _UNKNOWN, _check_unknown),
    Rule("unknown-method", _METHOD, _check_method),
    Rule("token", _AUTHENTICATED, _check_token),
]
