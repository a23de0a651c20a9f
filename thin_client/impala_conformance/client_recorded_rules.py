"""Rules of a client that are judged from one ordinary play: hello and messages of observations."""

from __future__ import annotations

import time
from collections.abc import Callable

from impala_conformance.client_peer import ClientPeer, Record
from impala_conformance.client_session import ClientSession
from impala_conformance.environment import dtype_of
from impala_conformance.rule import Rule, SkippedError, ViolationError, require

HOLD_S = 0.3
"""How long a client is watched that must not speak."""
_MIN_ROUNDS, _MAX_ROUNDS = 30, 400

_HELLO = "hello is the first message of a stream, and comes once"
_WELCOME = "no observation comes before the welcome"
_CLIENT_ID = "client_id matches ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_VERSION = "protocol_version is 1"
_COUNT = "slot_count is at least 1"
_GREEDY = "is_greedy comes with is_evaluation only"
_ENVIRONMENT = "the environment is described as spec.proto says: names, types, shapes, actions"
_SLOTS = "a message has one slot or more, each once and of those in hello"
_LENGTHS = "lists have one element for each slot; flags may be empty"
_LEAVES = "leaves are those of hello, each with the bytes of all slots"
_NUMBERS = "rewards and observations are finite, step numbers not negative"
_BOOLS = "a bool is 0 or 1"
_FIRST = "an observation with is_first has no reward and no end"
_OPENS = "the first observation of a slot has is_first"
_END = "after an observation with terminated or truncated comes one with is_first"
_STEPS = "the observations of a slot are numbered without a gap, over all its episodes"
_ONE = "a slot sends its next observation after the answer to the last one"
_AUTHORIZATION = "the token is sent as `authorization: Bearer TOKEN`"
_LIFE = "client_run_id is another number in each life of the client"


def play_on(session: ClientSession) -> None:
    """Plays until episodes have ended, with an answer that is held back once."""
    session.accept()
    session.listen(HOLD_S)
    if session.message_sizes:
        session.note("welcome-first", "expected silence until the welcome, got observations")
    session.welcome()
    session.gather()
    session.listen(HOLD_S)
    session.answer()
    end_s, num_rounds = time.monotonic() + session.patience_s, 0
    while num_rounds < _MIN_ROUNDS or (
        not session.judge.num_ends and num_rounds < _MAX_ROUNDS and time.monotonic() < end_s
    ):
        session.play(1)
        num_rounds += 1
    session.play(3)  # what comes after an end


def make_recorded_rule(
    name: str,
    contract: str,
    script: Callable[[ClientSession], None],
    why_skipped: Callable[[Record], str] = lambda record: "",
) -> Rule[ClientPeer]:
    """Returns a rule that is judged from the record of a play.

    Args:
      name: of the rule, and of its violations.
      contract: what must hold.
      script: of the play.
      why_skipped: tells why a record says nothing about the rule; empty: it does.
    """

    def check(peer: ClientPeer) -> None:
        record = peer.record(script.__name__, script)
        if text := record.violations.get(name) or record.error:
            raise ViolationError(text)
        if text := why_skipped(record):
            raise SkippedError(text)
        if record.stop:
            raise SkippedError(f"the play was over before it could be judged: {record.stop}")

    return Rule(name, contract, check)


def _has_no_bool(record: Record) -> str:
    kinds = [dtype_of(leaf).kind for leaf in record.hello.environment.observation_leaves]
    return "" if "b" in kinds else "no leaf is a bool"


def _has_no_end(record: Record) -> str:
    return "" if record.num_ends else f"no episode ended in {record.num_taken} observations"


def _check_token(peer: ClientPeer) -> None:
    if not peer.token:
        raise SkippedError("no --token-file was given")
    metadata = peer.record(play_on.__name__, play_on).metadata
    given = metadata.get("authorization", "nothing")
    require(given == f"Bearer {peer.token}", "authorization: Bearer TOKEN", _hide(given))


def _check_life(peer: ClientPeer) -> None:
    first = peer.record(play_on.__name__, play_on).hello.client_run_id
    with peer.start() as session:
        session.accept()
        second = session.hello.client_run_id
    require(first != second, "another client_run_id in another life", second)


def _hide(given: str) -> str:
    return given if given == "nothing" else f"{given[:7]}... ({len(given)} characters)"


RULES: list[Rule[ClientPeer]] = [
    make_recorded_rule("hello-first", _HELLO, play_on),
    make_recorded_rule("welcome-first", _WELCOME, play_on),
    make_recorded_rule("client-id", _CLIENT_ID, play_on),
    make_recorded_rule("protocol-version", _VERSION, play_on),
    make_recorded_rule("slot-count", _COUNT, play_on),
    make_recorded_rule("greedy-needs-evaluation", _GREEDY, play_on),
    make_recorded_rule("environment", _ENVIRONMENT, play_on),
    make_recorded_rule("message-slots", _SLOTS, play_on),
    make_recorded_rule("message-lengths", _LENGTHS, play_on),
    make_recorded_rule("message-leaves", _LEAVES, play_on),
    make_recorded_rule("message-numbers", _NUMBERS, play_on),
    make_recorded_rule("message-bools", _BOOLS, play_on, _has_no_bool),
    make_recorded_rule("first-observation", _FIRST, play_on),
    make_recorded_rule("opens-episode", _OPENS, play_on),
    make_recorded_rule("after-end", _END, play_on, _has_no_end),
    make_recorded_rule("step-numbers", _STEPS, play_on),
    make_recorded_rule("one-at-a-time", _ONE, play_on),
    Rule("token", _AUTHORIZATION, _check_token),
    Rule("life", _LIFE, _check_life),
]
