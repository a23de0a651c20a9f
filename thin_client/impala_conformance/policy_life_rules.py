"""Rules of a policy server about lives: lost slots, new lives, goodbye, silence and the end."""

from __future__ import annotations

import threading

from impala_conformance.policy_peer import Player, PolicyPeer
from impala_conformance.rule import Rule, SkippedError, require
from impala_rl.v1 import learner_pb2

_LOST = "an observation of an unknown slot without is_first is answered by lost_slots"
_PARTLY = "lost_slots names the unknown slots of a message; the others get their actions"
_LIFE = "another life of a client ends the older one with ABORTED, STALE_SESSION"
_STREAM = "a second stream of the same life replaces the first (STALE_SESSION) and goes on"
_GOODBYE = "after goodbye the stream ends and the client's slots are closed at once"
_SILENT = "slots that are silent for slot_timeout are lost"
_DRAIN = "a server that stops sends drain, and then ends the stream"
_REASONS = (learner_pb2.DRAIN_REASON_FINISHED, learner_pb2.DRAIN_REASON_STOPPING)
_STALE = "ABORTED STALE_SESSION"


def _check_lost(peer: PolicyPeer) -> None:
    player = peer.player()
    player.stream.send(observations=player.message())
    player.require_lost([0])
    player.act(player.message(is_first=True))
    player.act(player.message())
    player.leave()


def _check_partly(peer: PolicyPeer) -> None:
    player = peer.player(3)
    player.act(player.message([1], is_first=True))
    player.stream.send(observations=player.message())
    lost: list[int] = []
    answered: list[int] = []
    while len(lost) + len(answered) < 3:
        response = player.stream.next()
        kind = response.WhichOneof("payload")
        require(kind in ("actions", "lost_slots"), "actions and lost_slots", kind)
        if kind == "actions":
            answered += response.actions.slots
        else:
            lost += response.lost_slots.slots
    require(sorted(lost) == [0, 2], "lost_slots [0, 2]", lost)
    require(answered == [1], "actions of slot [1]", answered)
    player.leave()


def _check_life(peer: PolicyPeer) -> None:
    old = peer.player()
    old.act(old.message(is_first=True))
    new = peer.player(client_id=old.hello.client_id)
    new.stream.send(observations=new.message())
    new.require_lost([0])  # slots of the older life are not its own
    new.act(new.message(is_first=True))
    old.stream.require_refused(_STALE)
    new.leave()


def _check_stream(peer: PolicyPeer) -> None:
    player = peer.player()
    player.act(player.message(is_first=True))
    old = player.stream
    player.open()
    old.require_refused(_STALE)
    player.act(player.message())
    player.leave()


def _check_goodbye(peer: PolicyPeer) -> None:
    player = peer.player()
    player.act(player.message(is_first=True))
    player.leave()
    player.open()
    player.stream.send(observations=player.message())
    player.require_lost([0])
    player.act(player.message(is_first=True))
    player.leave()


def _check_silent(peer: PolicyPeer) -> None:
    player = Player(peer, 2)
    player.open()
    timeout_s = player.welcome.slot_timeout.ToNanoseconds() / 1e9
    if timeout_s > peer.patience_s:
        raise SkippedError(
            f"slot_timeout is {timeout_s:g} s, more than --patience-s {peer.patience_s:g}"
        )
    player.open(peer.patience_s + 3 * timeout_s)
    player.act(player.message(is_first=True))
    threading.Event().wait(1.5 * timeout_s + 0.1)  # the silence that the rule is about
    player.stream.send(observations=player.message())
    player.require_lost([0, 1])
    player.act(player.message(is_first=True))
    player.leave()


def _check_drain(peer: PolicyPeer) -> None:
    if peer.stop is None:
        raise SkippedError("no --stop-command was given")
    player = peer.player()
    player.act(player.message(is_first=True))
    peer.stop()
    response = player.stream.next()
    kind = response.WhichOneof("payload")
    require(kind == "drain", "drain", kind)
    require(response.drain.reason in _REASONS, "FINISHED or STOPPING", response.drain.reason)
    player.leave()


RULES: list[Rule[PolicyPeer]] = [
    Rule("lost-slots", _LOST, _check_lost),
    Rule("lost-in-part", _PARTLY, _check_partly),
    Rule("new-life", _LIFE, _check_life),
    Rule("second-stream", _STREAM, _check_stream),
    Rule("goodbye", _GOODBYE, _check_goodbye),
    Rule("silent-slots", _SILENT, _check_silent),
    Rule("drain", _DRAIN, _check_drain, ends_server=True),
]
