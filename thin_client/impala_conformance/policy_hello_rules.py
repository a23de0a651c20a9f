"""Rules of a policy server about hello: who is welcomed, and who is refused with which reason."""

from __future__ import annotations

import secrets

from impala_conformance.environment import find_mask
from impala_conformance.open_stream import OpenStream, require_unimplemented
from impala_conformance.policy_peer import INVALID, PROTOCOL_VERSION, Player, PolicyPeer
from impala_conformance.rule import Rule, SkippedError, ViolationError, require
from impala_rl.v1 import policy_pb2, policy_pb2_grpc, spec_pb2

_FIRST = "hello is the first message of a stream; anything else is INVALID_ARGUMENT"
_WELCOME = "welcome is the first answer, with version, slot timeout and message size"
_VERSION = "another protocol_version is FAILED_PRECONDITION, PROTOCOL_MISMATCH"
_NAME = "a client_id that no client may have is INVALID_ARGUMENT"
_ENVIRONMENT = "another environment than the first client's is FAILED_PRECONDITION, SPEC_MISMATCH"
_MALFORMED = "an environment without observations or action is INVALID_ARGUMENT"
_COUNT = "slot_count below 1 is INVALID_ARGUMENT; a huge one is refused too"
_GREEDY = "is_greedy without is_evaluation is INVALID_ARGUMENT"
_TWICE = "a second hello on a stream is INVALID_ARGUMENT"
_METHOD = "a method that does not exist is UNIMPLEMENTED"
_AUTHENTICATED = "a call without the token is UNAUTHENTICATED"
_CAPACITY = "slots without room are RESOURCE_EXHAUSTED, CAPACITY, until others leave"
_FILLING_CLIENTS = 16
_FILLING_SLOTS = 1000


def _check_first(peer: PolicyPeer) -> None:
    stranger = Player(peer, 1)
    for payload in (
        {"observations": stranger.message(is_first=True)},
        {"goodbye": policy_pb2.PlayGoodbye()},
        {},
    ):
        stream = peer.stream()
        stream.send(**payload)
        stream.require_refused(INVALID)


def _check_welcome(peer: PolicyPeer) -> None:
    player = peer.player(2)
    welcome = player.welcome
    version = welcome.protocol_version
    require(version == PROTOCOL_VERSION, f"protocol_version {PROTOCOL_VERSION}", version)
    timeout_s = welcome.slot_timeout.ToNanoseconds() / 1e9
    require(timeout_s > 0, "a slot_timeout above 0", timeout_s)
    size = welcome.max_message_bytes
    require(size > 0, "max_message_bytes above 0", size)
    player.leave()


def _check_version(peer: PolicyPeer) -> None:
    for version in (0, PROTOCOL_VERSION + 1, 99):
        expected = "FAILED_PRECONDITION PROTOCOL_MISMATCH"
        peer.require_refused_hello(expected, protocol_version=version)


def _check_name(peer: PolicyPeer) -> None:
    for name in ("", "two words", "-first", "x" * 65, "a/b", "line\n"):
        peer.require_refused_hello(INVALID, client_id=name)


def _check_environment(peer: PolicyPeer) -> None:
    peer.player()  # stays: somebody plays the right one
    others = [spec_pb2.EnvironmentSpec(), spec_pb2.EnvironmentSpec()]
    for other in others:
        other.CopyFrom(peer.environment)
    mask = find_mask(peer.environment)
    index = next(i for i in range(len(others[0].observation_leaves)) if i != mask)
    shape = others[0].observation_leaves[index].shape
    shape[:] = [*shape[:-1], shape[-1] + 1] if shape else [2]
    part = others[1].action.parts[0]
    if part.starts:
        part.starts[0] += 1
    else:
        part.tensor.name += "/other"
    for other in others:
        peer.require_refused_hello("FAILED_PRECONDITION SPEC_MISMATCH", environment=other)


def _check_malformed(peer: PolicyPeer) -> None:
    peer.require_refused_hello(INVALID, environment=spec_pb2.EnvironmentSpec())


def _check_count(peer: PolicyPeer) -> None:
    for count in (0, -1):
        peer.require_refused_hello(INVALID, slot_count=count)
    peer.require_refused_hello(INVALID, "RESOURCE_EXHAUSTED CAPACITY", slot_count=2**31 - 1)


def _check_greedy(peer: PolicyPeer) -> None:
    peer.require_refused_hello(INVALID, is_greedy=True, is_evaluation=False)


def _check_twice(peer: PolicyPeer) -> None:
    player = peer.player()
    player.stream.send(hello=player.hello)
    player.stream.require_refused(INVALID)


def _check_method(peer: PolicyPeer) -> None:
    require_unimplemented(peer.channel, "impala_rl.v1.PolicyService", peer.patience_s)


def _check_token(peer: PolicyPeer) -> None:
    if not peer.connection.token_file:
        raise SkippedError("no token was given")
    with peer.connection.open(with_token=False) as channel:
        stub = policy_pb2_grpc.PolicyServiceStub(channel)  # type: ignore[no-untyped-call]
        stream = OpenStream(stub.Play, policy_pb2.PlayRequest, peer.patience_s)
        try:
            stream.send(hello=Player(peer, 1).hello)
            stream.require_refused("UNAUTHENTICATED UNAUTHENTICATED")
        finally:
            stream.close()


def _check_capacity(peer: PolicyPeer) -> None:
    if not peer.is_disposable:
        raise SkippedError("fills the server up: only with --disposable")
    players: list[Player] = []
    for _ in range(_FILLING_CLIENTS):
        player = Player(peer, _FILLING_SLOTS, client_run_id=secrets.randbits(64))
        stream = peer.stream()
        stream.send(hello=player.hello)
        try:
            welcome = stream.next()
        except ViolationError as error:
            if "RESOURCE_EXHAUSTED CAPACITY" not in str(error):
                raise
            break
        require(welcome.WhichOneof("payload") == "welcome", "welcome or a refusal", welcome)
        player.stream = stream
        players.append(player)
    else:
        raise SkippedError(f"{_FILLING_CLIENTS} clients of {_FILLING_SLOTS} slots found room")
    for player in players:
        player.leave()
    if players:
        peer.player(_FILLING_SLOTS).leave()


RULES: list[Rule[PolicyPeer]] = [
    Rule("welcome", _WELCOME, _check_welcome),
    Rule("hello-first", _FIRST, _check_first),
    Rule("hello-twice", _TWICE, _check_twice),
    Rule("protocol-version", _VERSION, _check_version),
    Rule("client-id", _NAME, _check_name),
    Rule("environment", _ENVIRONMENT, _check_environment),
    Rule("empty-environment", _MALFORMED, _check_malformed),
    Rule("slot-count", _COUNT, _check_count),
    Rule("greedy-needs-evaluation", _GREEDY, _check_greedy),
    Rule("unknown-method", _METHOD, _check_method),
    Rule("token", _AUTHENTICATED, _check_token),
    Rule("capacity", _CAPACITY, _check_capacity),
]
