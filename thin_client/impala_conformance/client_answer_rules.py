"""Rules of a client about answers: in which groups they come, twice, foreign, lost; and sizes."""

from __future__ import annotations

from impala_conformance.client_peer import ClientPeer
from impala_conformance.client_recorded_rules import HOLD_S, play_on
from impala_conformance.client_session import ClientSession
from impala_conformance.client_streams import EarlyEndError
from impala_conformance.rule import Rule, SkippedError, ViolationError, require
from impala_rl.v1 import policy_pb2

_SLOW = "slots that have their answers go on or wait; the others send nothing"
_GROUPS = "answers come in other groups and another order than observations"
_REPEATED = "an answer that comes twice counts once"
_FOREIGN = "an answer with another number, or of a slot not the client's, moves no slot"
_LOST = "slots in lost_slots go on with is_first"
_ACTIONS = "every action that hello declares is taken, bounds included"
_SIZE = "messages above max_message_bytes go in pieces, or the client ends with an error"
_MARGIN_BYTES = 64
_MAX_ROUNDS = 40


def _require_slots(session: ClientSession, num: int) -> None:
    if session.num_slots < num:
        raise SkippedError(f"the client has {session.num_slots} slot; {num} are needed")


def _check_slow(peer: ClientPeer) -> None:
    with peer.start() as session:
        session.open()
        _require_slots(session, 2)
        session.play(2)
        session.gather()
        for _ in range(3):
            session.answer([0])
            session.listen(HOLD_S)
            if 0 not in session.judge.waiting:
                break  # this client waits for all of a message
        session.answer()
        session.play(3)


def _check_groups(peer: ClientPeer) -> None:
    with peer.start() as session:
        session.open()
        _require_slots(session, 2)
        session.play(1)
        for _ in range(3):
            session.gather()
            for slot in reversed(range(session.num_slots)):
                session.answer([slot])
        session.gather()
        session.listen(HOLD_S)
        session.play(2)


def _check_repeated(peer: ClientPeer) -> None:
    with peer.start() as session:
        session.open()
        session.play(2)
        for _ in range(3):
            session.gather()
            slots = sorted(session.judge.waiting)
            answer = session.make_actions(slots)
            session.stream.send(actions=answer)
            session.stream.send(actions=answer)
            session.judge.say_answered(slots)
            session.gather()
            session.listen(HOLD_S)
        session.play(2)


def _check_foreign(peer: ClientPeer) -> None:
    with peer.start() as session:
        session.open()
        session.play(2)
        session.gather()
        slots = sorted(session.judge.waiting)
        for distance in (-1, 7):
            answer = session.make_actions(slots)
            answer.step_numbers[:] = [number + distance for number in answer.step_numbers]
            session.stream.send(actions=answer)
        unknown = session.make_actions(slots[:1])
        unknown.slots[:] = [session.num_slots]
        session.stream.send(actions=unknown)
        session.stream.send(lost_slots=policy_pb2.LostSlots(slots=[session.num_slots]))
        try:
            session.listen(HOLD_S)
            session.play(3)
        except EarlyEndError:
            session.wait_end()
            _require_refusal(session)


def _check_lost(peer: ClientPeer) -> None:
    with peer.start() as session:
        session.open()
        session.gather()
        for _ in range(_MAX_ROUNDS):  # in the middle of an episode
            known = session.judge.slots[0]
            if not known.told[3] and not known.is_over:
                break
            session.answer()
            session.gather()
        session.stream.send(lost_slots=policy_pb2.LostSlots(slots=[0]))
        session.judge.say_lost([0])
        session.answer()
        session.gather()
        session.play(3)


def _check_actions(peer: ClientPeer) -> None:
    with peer.start() as session:
        session.open()
        for edge in range(2 * session.num_edges):
            session.gather()
            session.answer(edge=edge)
        session.gather()


def _check_size(peer: ClientPeer) -> None:
    record = peer.record(play_on.__name__, play_on)
    if not record.message_sizes:
        raise ViolationError(record.error or record.stop or "no message of observations came")
    largest, num = max(record.message_sizes)
    limit = max(largest * 6 // 10, largest // num + _MARGIN_BYTES)
    limit = min(limit, largest - 1)  # one slot in a message: it can only be refused
    with peer.start() as session:
        session.accept()
        session.welcome(limit)
        try:
            session.play(2)
        except EarlyEndError:
            session.wait_end()
            _require_refusal(session)
        found = max((size for size, _ in session.message_sizes), default=0)
        require(found <= limit, f"messages of at most {limit} bytes", f"{found} bytes")


def _require_refusal(session: ClientSession) -> None:
    """Raises ViolationError unless the client has ended with an error of its own."""
    code = session.process.exit_code
    if not code or not session.process.stderr.strip():
        raise ViolationError(f"expected an error, but {session.process.describe_end()}")


RULES: list[Rule[ClientPeer]] = [
    Rule("slow-slots", _SLOW, _check_slow),
    Rule("answer-groups", _GROUPS, _check_groups),
    Rule("repeated-answer", _REPEATED, _check_repeated),
    Rule("foreign-answer", _FOREIGN, _check_foreign),
    Rule("lost-slots", _LOST, _check_lost),
    Rule("every-action", _ACTIONS, _check_actions),
    Rule("message-size", _SIZE, _check_size),
]
