"""The kit: all rules of one side, played against a server that answers or a client that comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from impala_conformance import (
    client_answer_rules,
    client_end_rules,
    client_recorded_rules,
    client_stream_rules,
    learner_push_rules,
    learner_session_rules,
    learner_weights_rules,
    policy_hello_rules,
    policy_life_rules,
    policy_message_rules,
    policy_order_rules,
)
from impala_conformance.client_peer import ClientPeer
from impala_conformance.client_process import PLACE
from impala_conformance.client_streams import EarlyEndError, StillnessError
from impala_conformance.connection import Connection
from impala_conformance.learner_peer import Actor, LearnerPeer
from impala_conformance.policy_peer import Player, PolicyPeer
from impala_conformance.refusal import Refusal, read_refusal
from impala_conformance.rule import Result, Rule, ViolationError, play
from impala_rl.v1 import policy_pb2, spec_pb2

POLICY_RULES: list[Rule[PolicyPeer]] = [
    *policy_hello_rules.RULES,
    *policy_order_rules.RULES,
    *policy_message_rules.RULES,
    *policy_life_rules.RULES,
]
LEARNER_RULES: list[Rule[LearnerPeer]] = [
    *learner_session_rules.RULES,
    *learner_weights_rules.RULES,
    *learner_push_rules.RULES,
]
CLIENT_RULES: list[Rule[ClientPeer]] = [
    *client_recorded_rules.RULES,
    *client_answer_rules.RULES,
    *client_stream_rules.RULES,
    *client_end_rules.RULES,
]
_RULES: dict[str, Sequence[Rule[Any]]] = {
    "policy server": POLICY_RULES,
    "learner": LEARNER_RULES,
    "client": CLIENT_RULES,
}
_POLL_S = 0.2
_WAITED_FOR = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")


class NotReadyError(Exception):
    """The server could not be reached in time, or the client did not come."""


class RefusedKitError(Exception):
    """The server refuses the kit, or a setting cannot work: nothing was tried."""


def find_rules(side: str, names: str = "") -> list[Rule[Any]]:
    """Returns the rules of "policy server", "learner" or "client".

    Args:
      side: which.
      names: only these, separated by commas; empty: all.

    Raises:
      RefusedKitError: there is no such rule.
    """
    rules = {rule.name: rule for rule in _RULES[side]}
    if not names:
        return list(rules.values())
    chosen = [name.strip() for name in names.split(",")]
    unknown = [name for name in chosen if name not in rules]
    if unknown:
        raise RefusedKitError(f"--rules: no rule {unknown[0]!r}; there are {', '.join(rules)}")
    return [rules[name] for name in chosen]


def play_policy_server(
    connection: Connection,
    environment: spec_pb2.EnvironmentSpec,
    rules: Sequence[Rule[PolicyPeer]],
    *,
    patience_s: float = 10.0,
    connect_timeout_s: float = 30.0,
    is_disposable: bool = False,
    stop: Callable[[], None] | None = None,
) -> list[Result]:
    """Plays rules against a policy server.

    Raises:
      NotReadyError: it does not answer in time.
      RefusedKitError: it refuses a client that keeps the contract.
    """
    peer = PolicyPeer(
        connection, environment, patience_s=patience_s, is_disposable=is_disposable, stop=stop
    )
    try:
        _wait_until_served(lambda: _try_hello(peer), connection.address, connect_timeout_s)
        return list(play(rules, peer))
    finally:
        peer.close()


def play_learner(
    connection: Connection,
    environment: spec_pb2.EnvironmentSpec,
    rules: Sequence[Rule[LearnerPeer]],
    *,
    patience_s: float = 10.0,
    connect_timeout_s: float = 30.0,
    stop: Callable[[], None] | None = None,
) -> list[Result]:
    """Plays rules against a learner, whose run is of no use afterwards.

    Raises:
      NotReadyError: it does not answer in time.
      RefusedKitError: it refuses an actor that keeps the contract.
    """
    peer = LearnerPeer(connection, environment, patience_s=patience_s, stop=stop)
    try:
        _wait_until_served(lambda: _try_register(peer), connection.address, connect_timeout_s)
        return list(play(rules, peer))
    finally:
        peer.close()


def play_client(
    command: Sequence[str],
    rules: Sequence[Rule[ClientPeer]],
    *,
    patience_s: float = 10.0,
    connect_timeout_s: float = 30.0,
    token_file: str = "",
) -> list[Result]:
    """Plays rules against a client, which is started anew for most of them.

    Args:
      command: of the client; `{address}` in it stands for the server's address.
      rules: of a client.
      patience_s: longest wait for what the client must do next.
      connect_timeout_s: longest wait for its first stream.
      token_file: file of the token that the command gives the client; empty: none.

    Raises:
      NotReadyError: it does not come in time.
      RefusedKitError: the command has no place for the address.
      OSError: there is no such program, or no such file.
    """
    if not any(PLACE in part for part in command):
        raise RefusedKitError(f"--client: expected {PLACE} in the command, got {list(command)}")
    peer = ClientPeer(
        command, patience_s=patience_s, start_s=connect_timeout_s, token_file=token_file
    )
    with peer.start() as first:
        try:
            first.accept()
        except (EarlyEndError, StillnessError) as error:
            raise NotReadyError(f"the client does not come: {error}") from error
        except ViolationError:
            pass  # it has come; the rules tell what is wrong
    return list(play(rules, peer))


def _try_register(peer: LearnerPeer) -> Refusal | None:
    """Registers once; returns how that was refused."""
    try:
        Actor(peer).register()
    except grpc.RpcError as error:
        return read_refusal(error)
    return None


def _try_hello(peer: PolicyPeer) -> Refusal | None:
    """Says hello once; returns how that was refused."""
    player = Player(peer, 1)
    call = peer.stub.Play(
        iter([policy_pb2.PlayRequest(hello=player.hello)]), timeout=peer.patience_s
    )
    try:
        next(call)
    except grpc.RpcError as error:
        return read_refusal(error)
    finally:
        call.cancel()
    return None


def _wait_until_served(
    attempt: Callable[[], Refusal | None], address: str, timeout_s: float
) -> None:
    end_s = time.monotonic() + timeout_s
    while (refusal := attempt()) is not None:
        if refusal.code not in _WAITED_FOR:
            raise RefusedKitError(f"{address} refuses the kit: {refusal}{_advice(refusal)}")
        if time.monotonic() > end_s:
            raise NotReadyError(f"{address} does not serve within {timeout_s:g} s: {refusal}")
        threading.Event().wait(_POLL_S)


def _advice(refusal: Refusal) -> str:
    if refusal.reason == "SPEC_MISMATCH":
        return ". Say what the run plays with --environment"
    return ". Give --token-file" if refusal.code == "UNAUTHENTICATED" else ""
