"""Rules of a policy server about the order of a slot: numbers, answers, episodes, repetitions."""

from __future__ import annotations

import numpy as np

from impala_conformance.policy_peer import INVALID, Answer, Player, PolicyPeer
from impala_conformance.rule import Rule, ViolationError, require

_ONE = "each observation gets one answer, with its number, actions in range and a version"
_ALONE = "a slot gets its actions while others are silent, and in any grouping"
_NUMBER = "the first number of a slot may be any; the next ones follow it"
_GAP = "a number that skips one is INVALID_ARGUMENT"
_OLDER = "a number before the last one is INVALID_ARGUMENT"
_FINAL = "a final observation gets an answer without an action: policy_version -1"
_UNOPENED = "after an end, an observation without is_first is INVALID_ARGUMENT"
_ABANDONED = "is_first in the middle of an episode abandons it and opens another"
_REPEATED = "an observation that comes again gets the same answer"
_BROKEN = "after a broken stream, the same hello and the same observations get the same answers"
_UNREAD = "observations whose stream broke before the answer are answered on the next stream"
_VERSION = "policy_version of a slot's actions never goes down"


def _check_one(peer: PolicyPeer) -> None:
    player = peer.player(4)
    for step in range(8):
        answers = player.act(player.message(is_first=step == 0))
        versions = [answer.policy_version for answer in answers.values()]
        require(min(versions) >= 0, "policy_version of at least 0 for an action", versions)
    player.leave()


def _check_alone(peer: PolicyPeer) -> None:
    player = peer.player(3)
    player.act(player.message(is_first=True))
    for _ in range(5):
        player.act(player.message([1]))
    expected = {}
    for slot in (2, 0):
        message = player.message([slot])
        expected[slot] = message.step_numbers[0]
        player.stream.send(observations=message)
    player.answers(expected)
    player.act(player.message([2, 0, 1]))
    player.leave()


def _check_number(peer: PolicyPeer) -> None:
    player = peer.player(2)
    player.next_steps = [41, 2**40]
    player.act(player.message(is_first=True))
    player.act(player.message())
    player.leave()


def _check_gap(peer: PolicyPeer) -> None:
    player = _begin(peer)
    player.next_steps[0] += 1
    player.stream.send(observations=player.message())
    player.stream.require_refused(INVALID)


def _check_older(peer: PolicyPeer) -> None:
    player = _begin(peer)
    player.act(player.message())
    player.next_steps[0] -= 2
    player.stream.send(observations=player.message())
    player.stream.require_refused(INVALID)


def _check_final(peer: PolicyPeer) -> None:
    player = _begin(peer, 2)
    for end in ("terminated", "truncated"):
        answers = player.act(player.message(**{end: [True, False]}))
        final, other = answers[0].policy_version, answers[1].policy_version
        require(final == -1, f"policy_version -1 for a {end} episode", final)
        require(other >= 0, "policy_version of at least 0 for the other slot", other)
        answers = player.act(player.message(is_first=[True, False]))
        version = answers[0].policy_version
        require(version >= 0, "an action for the first observation after the end", version)
    player.leave()


def _check_unopened(peer: PolicyPeer) -> None:
    player = _begin(peer)
    player.act(player.message(terminated=True))
    player.stream.send(observations=player.message())
    player.stream.require_refused(INVALID)


def _check_abandoned(peer: PolicyPeer) -> None:
    player = _begin(peer, 2)
    player.act(player.message())
    player.act(player.message(is_first=[True, False]))
    player.act(player.message())
    player.leave()


def _check_repeated(peer: PolicyPeer) -> None:
    """Draws of 8 slots over 6 steps: a server that draws anew is found."""
    player = Player(peer, 8, wants_logits=True)
    player.open()
    for step in range(6):
        message = player.message(is_first=step == 0, terminated=[step == 5] + 7 * [False])
        before = player.act(message)
        _require_same(before, player.act(message))
    player.leave()


def _check_broken(peer: PolicyPeer) -> None:
    player = Player(peer, 8, wants_logits=True)
    player.open()
    for step in range(4):
        message = player.message(is_first=step == 0)
        before = player.act(message)
        player.stream.break_off()
        player.open()
        _require_same(before, player.act(message))
    player.leave()


def _check_unread(peer: PolicyPeer) -> None:
    """Half-closing lets the observation arrive, and breaking off perhaps not."""
    player = Player(peer, 4)
    for step in range(4):
        player.open()
        message = player.message(is_first=step == 0)
        player.stream.send(observations=message)
        if step % 2 == 0:
            player.stream.half_close()
            player.stream.read_to_end()
        else:
            player.stream.break_off()
        player.open()
        player.act(message)
        player.stream.break_off()
    player.open()
    player.act(player.message())
    player.leave()


def _check_version(peer: PolicyPeer) -> None:
    player = _begin(peer)
    last = 0
    for _ in range(16):
        version = player.act(player.message())[0].policy_version
        require(version >= last, f"policy_version of at least {last}", version)
        last = version
    player.leave()


def _begin(peer: PolicyPeer, num_slots: int = 1) -> Player:
    """Returns a client whose slots are in an episode."""
    player = peer.player(num_slots)
    player.act(player.message(is_first=True))
    return player


def _require_same(before: dict[int, Answer], after: dict[int, Answer]) -> None:
    for slot, answer in before.items():
        if not answer.equals(after[slot]):
            raise ViolationError(
                f"expected the same answer again for slot {slot}, got {_show(after[slot])} after "
                f"{_show(answer)}"
            )


def _show(answer: Answer) -> str:
    actions = [np.asarray(part).tolist() for part in answer.actions]
    return f"{actions} with logits {answer.logits.tolist()} of version {answer.policy_version}"


RULES: list[Rule[PolicyPeer]] = [
    Rule("one-answer", _ONE, _check_one),
    Rule("slots-alone", _ALONE, _check_alone),
    Rule("first-number", _NUMBER, _check_number),
    Rule("gap", _GAP, _check_gap),
    Rule("older-number", _OLDER, _check_older),
    Rule("final-observation", _FINAL, _check_final),
    Rule("unopened-episode", _UNOPENED, _check_unopened),
    Rule("abandoned-episode", _ABANDONED, _check_abandoned),
    Rule("repetition", _REPEATED, _check_repeated),
    Rule("broken-stream", _BROKEN, _check_broken),
    Rule("unread-answer", _UNREAD, _check_unread),
    Rule("version-order", _VERSION, _check_version),
]
